"""A trained emulator: forcings in, a calibrated ensemble of named fields out."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import relabel, time_coords
from climatesuite.harmonise.grids import grid_attrs
from climatesuite.in_memory import in_memory
from spf import checkpoint
from spf.carried import Carried
from spf.codec import FieldCodec
from spf.config import SamplingConfig
from spf.interfaces import Condition
from spf.network.backbone import Backbone
from spf.plain import from_dict
from spf.precision import precision_of
from spf.pyramid.marginals import Marginal
from spf.pyramid.noise import SeededNoise
from spf.pyramid.spec import Stage
from spf.pyramid.windows import ForcingSeries
from spf.sampling import about, request
from spf.sampling.conditions import Conditions, calls_of
from spf.sampling.plan import Plan, levels_of, plan_windows
from spf.sampling.restore import make_backbone
from spf.sampling.sampler import cascade, groups_of, windows_in
from spf.sampling.waves import factors_of, widened
from spf.sources import UNKNOWN, Source, averaged_codec, averaged_marginals, provenance_of, sharing

log = logging.getLogger("spf")


@dataclass(frozen=True, repr=False)
class Emulator:
    """Draws members of any scenario at any timescale, directly.

    Attributes:
        backbone: The network.
        codec: The door to physical fields.
        marginals: Scale and shape of departures by stage key.
        decade_start: First year of the decades that are scored.
        provenance: What it was made from.
        digest: sha256 of the checkpoint file ("" if never saved).
        precision: ``32-true`` or ``bf16-mixed``; of the network alone, all other arithmetic is float32.
        sources: The Earth system models it tells apart, in the order of their numbers; empty where it was trained on one.
        source: Number of the one that is drawn, 0 for one that is not known.
        sampling: How its experiment draws, unless told otherwise.
        scenarios: Forcings that it carries, by scenario; their maps are area means of the blocks that it sees.
        card: Its scores and limits, where it was shipped with them (``spf ship``).
        widths: Factors of drawn fields' zonal waves (var, lat, wave) by timescale; none where they are as they should be.
    """

    backbone: Backbone
    codec: FieldCodec
    marginals: dict[str, Marginal]
    decade_start: int
    provenance: dict[str, Any]
    digest: str = ""
    precision: str = "32-true"
    sources: tuple[Source, ...] = ()
    source: int = UNKNOWN
    sampling: SamplingConfig = SamplingConfig()
    scenarios: Mapping[str, xr.Dataset] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    widths: Mapping[str, Tensor] = field(default_factory=dict)
    backbone_type: ClassVar[type[Backbone]] = Backbone

    @classmethod
    def load(cls, path: str | Path) -> "Emulator":
        """Read a checkpoint; the network runs in the precision of its training, as far as this machine has it.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is not a checkpoint, or of another kind of emulator.
        """
        content = checkpoint.load(path)
        backbone = make_backbone(content, cls.backbone_type)
        backbone.load_state_dict(content["weights"])
        backbone.eval()
        codec = FieldCodec.from_dict(content["codec"])
        start = int(content["config"]["data"]["decade_start"])
        precision = precision_of(content["config"]["training"]["precision"])
        sources = tuple(Source.from_dict(s) for s in content.get("sources", []))
        known, digest = content["provenance"], checkpoint.sha256(path)
        marginals = {k: Marginal.from_dict(m) for k, m in content["marginals"].items()}
        how = from_dict(SamplingConfig, content["config"]["sampling"])
        source, carried = 1 if sources else UNKNOWN, Carried(content.get("scenarios", {}), codec)
        return cls(
            backbone, codec, marginals, start, known, digest, precision, sources, source, how, carried, content.get("card", {}),
            content.get("widths", {}),
        )  # fmt: skip

    def of(self, source_id: str) -> Self:
        """The emulator of another Earth system model that it was trained on.

        Raises:
            DataContractError: If it was not.
        """
        if not self.sources and source_id == self.provenance["source_id"]:
            return self
        for number, found in enumerate(self.sources, 1):
            if found.source_id == source_id:
                known = provenance_of(self.provenance, self.sources, source_id)
                return replace(self, codec=found.codec, marginals=found.marginals, source=number, provenance=known)
        names = [s.source_id for s in self.sources] or [self.provenance["source_id"]]
        raise DataContractError(
            f"emulator of {source_id}", "not trained on it", f"one of {', '.join(names)}", "name one of them, or use `unseen`"
        )  # fmt: skip

    def unseen(
        self, source_id: str = "unseen", codec: FieldCodec | None = None, marginals: dict[str, Marginal] | None = None
    ) -> Self:
        """The emulator of an Earth system model that it was not trained on, from what its sources have in common.

        Args:
            source_id: Name of the model.
            codec: Fitted on the model's own data, of which the forced response is used; by default the mean of the sources'
                responses, in the first one's calendar.
            marginals: Of the model's departures in this emulator's scales, by stage key; by default the sources' average.

        Raises:
            DataContractError: If it was trained on one model only, the codec has another grid or other variables, or responses have
                no mean (an energy balance is among them) and no codec is given.
        """
        if len(self.sources) < 2:
            raise DataContractError(
                f"emulator of {source_id}", "an emulator of one source", "one of several", "train with data.also"
            )
        own = averaged_codec(self.sources) if codec is None else sharing(codec, self.sources[0].codec, source_id)
        known = provenance_of(self.provenance, self.sources, source_id)
        return replace(
            self, codec=own, marginals=marginals or averaged_marginals(self.sources), source=UNKNOWN, provenance=known
        )  # fmt: skip

    def __repr__(self) -> str:
        known, members = self.provenance, {e: len(m) for e, m in self.provenance["training_members"].items()}
        return f"Emulator of {known['source_id']} {', '.join(self.codec.variables)}, trained on {members}, {self.precision}"

    def _repr_html_(self) -> str:
        """What it was trained on, its skill, its limits."""
        return about.page(self)

    def open_forcings(self, path: str | Path) -> xr.Dataset:
        """Forcings of a scenario from a file in ClimateBench's input layout, on this emulator's grid and calendar.

        Raises:
            DataContractError: If the file or a forcing that the emulator was trained with is missing, or it is a scenario of one's
                own that departs in another forcing.
        """
        return request.open_on_grid(path, self.codec)

    def forcings(self, scenario: request.Scenario) -> xr.Dataset:
        """Canonical monthly forcings of a scenario, on this emulator's grid and calendar: a name, a file, a Dataset, an object.

        Raises:
            DataContractError: If it is not known, or a forcing that the emulator was trained with is missing.
        """
        return request.forcings_of(scenario, self.codec, self.scenarios)

    def sample(
        self,
        scenario: request.Scenario,
        timescale: str = "year",
        members: int | Sequence[int] = 20,
        years: request.Years = None,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        *,
        variables: Sequence[str] | None = None,
        calendar: str = "",
    ) -> xr.Dataset:
        """An ensemble of a scenario: ``emulator.sample("ssp370", members=100, timescale="year", years=slice(2015, 2099))``.

        A large one is lazy (dask): its members are drawn when they are read, and again whenever they are. `spf sample` writes
        any number of members with flat memory.

        Args:
            scenario: Name of an SSP, forcing file, Dataset of canonical forcings, or an object with ``.forcings``.
            timescale: ``decade``, ``year`` or ``month``.
            members: How many, or which; a member is the same whatever is drawn beside it.
            years: First and last year, as a slice or a pair; default all that the forcings cover. Decades are those inside.
            seed: Of the noise.
            sampling: Solver, calls and batch size; default those of the experiment.
            variables: Which fields; default all.
            calendar: Of the result; default that of the Earth system model. Periods are relabelled, values stay.

        Returns:
            Dataset (member, time, lat, lon): tas in K, pr in kg m-2 s-1, with time bounds; beside them each forcing (time), area
            means where it is a map. Attributes name seed, checkpoint, training data and licence.

        Raises:
            DataContractError: If the scenario is not known, forcings are missing or do not cover the years, or it does not emulate
                the variable or timescale.
        """
        wanted, numbers = request.check_variables(variables, self.codec), request.numbers_of(members)
        forcings, how = self.forcings(scenario), sampling or self.sampling
        for warning in self.codec.beyond_training(forcings):
            log.warning("%s", warning)
        span = request.years_of(years, forcings)
        out = request.ensemble(self, forcings, timescale, numbers, span, seed, how, wanted)
        out.attrs |= about.ensemble_attrs(self, out, forcings, how, seed)
        return in_memory(relabel(out, calendar) if calendar else out)

    def draw(
        self,
        forcings: xr.Dataset,
        timescale: str,
        members: Sequence[int],
        years: tuple[int, int] | None = None,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        on_step: Callable[[float], None] | None = None,
    ) -> Iterator[tuple[int, xr.Dataset]]:
        """Members one after another, as (number, Dataset (time, lat, lon)); memory does not grow with the ensemble.

        So many members go through the network together as fill a batch, always the same ones (`groups`). ``on_step`` is told how
        many windows a finished network call held; a member has `windows_per_member` of them.
        """
        plan = self._plan(forcings, timescale, years, sampling or self.sampling)
        predictor, frame = self.codec.predictor(forcings), self.template(forcings, timescale, years)
        marginal = self.marginals[self.backbone.spec.path(timescale)[-1].key]
        level = levels_of(self.codec.level(predictor), int(forcings.year.values[0]), timescale, plan.labels)
        how, n_stages = sampling or self.sampling, len(self.backbone.spec.pooling)
        waves = factors_of(self.widths, timescale, how, self.sampling, n_stages)
        for member, z in self.normalised(forcings, timescale, members, years, seed, sampling, on_step):
            forced = self.codec.forced(predictor, timescale, plan.labels, member)
            yield member, self._fields(marginal.departure(widened(z, waves), 0, level), forced, frame)

    def normalised(
        self, forcings: xr.Dataset, timescale: str, members: Sequence[int], years: tuple[int, int] | None = None,
        seed: int = 0, sampling: SamplingConfig | None = None, on_step: Callable[[float], None] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
        """As `draw`, before widths and marginals: (number, normalised fields (var, step, lat, lon))."""
        how = sampling or self.sampling
        plan, series = self._plan(forcings, timescale, years, how), self.codec.encode_forcings(forcings)
        seasons = self.marginals[self.backbone.spec.path(timescale)[-1].key].seasons
        for chosen in _grouped(members, self.members_together(timescale, plan, how)):
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16-mixed"),
            ):
                drawn = self.trajectories(timescale, series, plan, chosen, seed, how, on_step).float().cpu()
            for member, x in zip(chosen, drawn, strict=True):
                yield member, x.unflatten(1, (-1, seasons))[:, plan.keep].flatten(1, 2)

    def groups(
        self, forcings: xr.Dataset, timescale: str, members: Sequence[int], years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Members in the groups that go through the network together; drawing one of a group takes as long as all of it."""
        how = sampling or self.sampling
        return _grouped(members, self.members_together(timescale, self._plan(forcings, timescale, years, how), how))

    def windows_per_member(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> int:  # fmt: skip
        """Windows that the network calls of one member hold together, for progress."""
        return sum(n for _, n, _, _ in self.calls(forcings, timescale, years, sampling))

    def calls(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> list[tuple[Stage, int, tuple[int, ...], Condition]]:  # fmt: skip
        """What a member costs: for every kind of window its stage, how many pass through the network, the shape of one
        (var, step, lat, lon) and its condition."""
        how = sampling or self.sampling
        plan = self._plan(forcings, timescale, years, how)
        return self.windows(timescale, self.codec.encode_forcings(forcings), plan, how)

    def serial_calls(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> int:  # fmt: skip
        """Network calls of a member that wait for one another, whatever the machine."""
        how = sampling or self.sampling
        plan = self._plan(forcings, timescale, years, how)
        return self.rounds(plan) * sum(calls_of(how, len(plan.segments)))

    @property
    def how_members_hang_together(self) -> str:
        """For the files' comment."""
        return about.how_windows_join(self.backbone.spec)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.backbone.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(var, lat, lon) of the full grid."""
        return len(self.codec.variables), len(self.codec.grid.lat), len(self.codec.grid.lon)

    def members_together(self, timescale: str, plan: Plan, how: SamplingConfig) -> int:
        """Members of which so many windows pass through the network at once as fill a batch."""
        return max(1, how.batch // windows_in(self.backbone.spec, timescale, plan.segments)[-1])

    def trajectories(
        self, timescale: str, series: ForcingSeries, plan: Plan, members: Sequence[int], seed: int, how: SamplingConfig,
        on_step: Callable[[float], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Normalised fields (member, var, step, lat, lon) of the plan's last segment.

        A group is always drawn whole and a member at its place in it: on some processors the last bits of a product depend on
        how many rows there are and on which one it is.
        """
        spec, together = self.backbone.spec, self.members_together(timescale, plan, how)
        first = members[0] // together * together
        told = None if on_step is None else lambda windows: on_step(windows * len(members) / together)
        return cascade(
            spec, timescale, plan.segments, self.backbone.velocity, SeededNoise(seed),
            Conditions(series, self.device, self.source), range(first, first + together), self.shape,
            how.steps(len(plan.segments)), how.batch, device=self.device, on_step=told,
        )[[m - first for m in members]]  # fmt: skip

    def windows(
        self, timescale: str, series: ForcingSeries, plan: Plan, how: SamplingConfig
    ) -> list[tuple[Stage, int, tuple[int, ...], Condition]]:
        """What `calls` returns."""
        spec, (n_var, n_lat, n_lon) = self.backbone.spec, self.shape
        condition = Conditions(series, self.device, self.source)
        found: list[tuple[Stage, int, tuple[int, ...], Condition]] = []
        path = spec.path(timescale)
        for stage, segment, n_calls in zip(path, plan.segments, calls_of(how, len(path)), strict=True):
            for group in groups_of(spec, stage, segment):
                shape = (n_var, group[0].end - group[0].begin, n_lat // stage.pooling, n_lon // stage.pooling)
                found.append((stage, len(group) * n_calls, shape, condition(stage, segment, group[:1])))
        return found

    def rounds(self, plan: Plan) -> int:
        """How often all stages are walked through, one time after the other."""
        return 1

    def template(self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None) -> xr.Dataset:
        """Coordinates and attributes of the ensemble, without fields."""
        plan = self._plan(forcings, timescale, years, self.sampling)
        calendar = self.codec.calendar
        coords: dict[str, Any] = dict(time_coords(plan.labels, timescale, calendar))
        coords |= about.drivers(forcings, self.codec, timescale, plan.labels)
        attrs = {k: forcings.attrs[k] for k in ("experiment_id",) if k in forcings.attrs}
        attrs |= {k: str(self.provenance[k]) for k in ("source_id", "license") if k in self.provenance}
        attrs |= {"timescale": timescale, "calendar": calendar, "decade_start": self.decade_start}
        out = xr.Dataset(coords=coords | self.codec.grid.coords(), attrs=attrs)
        for axis in ("lat", "lon"):
            out[axis].attrs = grid_attrs(axis)
        return out

    def _plan(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None, how: SamplingConfig
    ) -> Plan:  # fmt: skip
        known = self.backbone.spec.timescales
        if timescale not in known:
            raise DataContractError(
                "sample", f"timescale {timescale!r}", f"one of {', '.join(known)}", "choose one of them"
            )
        scenario = f"forcings of {forcings.attrs.get('experiment_id', 'the scenario')}"
        have = (int(forcings.year.values[0]), int(forcings.year.values[-1]))
        wanted = years or have
        if wanted[0] < have[0] or wanted[1] > have[1] or wanted[0] > wanted[1]:
            raise DataContractError(
                scenario,
                f"years {have[0]}-{have[1]}",
                f"{wanted[0]}-{wanted[1]} inside them",
                "extend the file or narrow --years",
            )
        if forcings.attrs.get("calendar", self.codec.calendar) != self.codec.calendar:
            raise DataContractError(
                scenario,
                f"calendar {forcings.attrs['calendar']}",
                self.codec.calendar,
                "open them in that calendar",
            )
        calls = calls_of(how, len(self.backbone.spec.path(timescale)))
        return plan_windows(self.backbone.spec, timescale, have, wanted, self.decade_start, calls)

    def _fields(self, x: Tensor, forced: Tensor, frame: xr.Dataset) -> xr.Dataset:
        arrays = self.codec.decode(x, forced)
        out = frame.copy()
        for v, values in arrays.items():
            attrs = {"units": VARIABLES[v].units, "standard_name": VARIABLES[v].standard_name, "role": "field"}
            out[v] = (("time", "lat", "lon"), values, attrs)
        return out


def _grouped(members: Sequence[int], together: int) -> list[list[int]]:
    return [list(found) for _, found in itertools.groupby(members, lambda m: m // together)]
