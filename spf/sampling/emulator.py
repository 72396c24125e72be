"""A trained emulator: forcings in, a calibrated ensemble of named fields out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import open_forcings
from climatesuite.harmonise.calendars import time_coords
from spf import checkpoint
from spf.codec import FieldCodec
from spf.config import NetworkConfig, SamplingConfig, from_dict
from spf.interfaces import Condition
from spf.network.backbone import Backbone
from spf.precision import precision_of
from spf.pyramid.coupling import coupling_from_dict
from spf.pyramid.noise import SeededNoise
from spf.pyramid.spec import PyramidSpec, Stage
from spf.pyramid.windows import ForcingSeries, Segment, Tile, calendar_ids
from spf.sampling.plan import Plan, plan_windows
from spf.sampling.sampler import cascade, groups_of, phase_of, windows_in
from spf.sampling.solvers import CALLS_PER_STEP

log = logging.getLogger("spf")


@dataclass(frozen=True, repr=False)
class Emulator:
    """Draws members of any scenario at any timescale, directly.

    Attributes:
        backbone: The network.
        codec: The door to physical fields.
        gains: Per-cell standard deviations by stage key.
        decade_start: First year of the decades that are scored.
        provenance: What it was made from.
        digest: sha256 of the checkpoint file ("" if never saved).
        precision: ``32-true`` or ``bf16-mixed``; of the network alone, all other arithmetic is float32.
    """

    backbone: Backbone
    codec: FieldCodec
    gains: dict[str, Tensor]
    decade_start: int
    provenance: dict[str, Any]
    digest: str = ""
    precision: str = "32-true"

    @classmethod
    def load(cls, path: str | Path) -> "Emulator":
        """Read a checkpoint; the network runs in the precision of its training, as far as this machine has it.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is not a checkpoint.
        """
        content = checkpoint.load(path)
        backbone = make_backbone(content)
        backbone.load_state_dict(content["weights"])
        backbone.eval()
        codec = FieldCodec.from_dict(content["codec"])
        start = int(content["config"]["data"]["decade_start"])
        precision = precision_of(content["config"]["training"]["precision"])
        return cls(backbone, codec, content["gains"], start, content["provenance"], checkpoint.sha256(path), precision)

    def __repr__(self) -> str:
        known, members = self.provenance, {e: len(m) for e, m in self.provenance["training_members"].items()}
        return f"Emulator of {known['source_id']} {', '.join(self.codec.variables)}, trained on {members}, {self.precision}"

    def open_forcings(self, path: str | Path) -> xr.Dataset:
        """Forcings of a scenario from a file in ClimateBench's input layout, on this emulator's grid and calendar.

        Raises:
            DataContractError: If the file or a forcing that the emulator was trained with is missing.
        """
        grid = xr.Dataset(coords=self.codec.grid.coords())
        return open_forcings(path, self.codec.forcings, grid=grid, calendar=self.codec.calendar).load()

    def sample(
        self,
        forcings: xr.Dataset,
        timescale: str,
        members: int | Sequence[int] = 20,
        years: tuple[int, int] | None = None,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> xr.Dataset:
        """An ensemble in memory.

        Args:
            forcings: Canonical monthly forcings of whole years on the emulator's grid (see `open_forcings`).
            timescale: ``decade``, ``year`` or ``month``.
            members: How many, or which; a member is the same whatever is drawn beside it.
            years: First and last year; default all that the forcings cover.
            seed: Of the noise.
            sampling: Solver and batch size.

        Returns:
            Dataset (member, time, lat, lon) in canonical units with time bounds.

        Raises:
            DataContractError: If forcings are missing, or do not cover the years.
        """
        numbers = list(range(members)) if isinstance(members, int) else [int(m) for m in members]
        if not numbers:
            raise DataContractError("sample", "no members asked for", "at least one", "set members to 1 or more")
        for warning in self.codec.beyond_training(forcings):
            log.warning("%s", warning)
        drawn = list(self.draw(forcings, timescale, numbers, years, seed, sampling))
        return xr.concat(
            [fields.expand_dims(member=[m]) for m, fields in drawn], "member", data_vars="minimal", coords="minimal"
        )

    def draw(
        self,
        forcings: xr.Dataset,
        timescale: str,
        members: Sequence[int],
        years: tuple[int, int] | None = None,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, xr.Dataset]]:
        """Members one after another, as (number, Dataset (time, lat, lon)); memory does not grow with the ensemble.

        So many members go through the network together as fill a batch. ``on_step`` is told how many windows a finished network
        call held; a member has `windows_per_member` of them.
        """
        how = sampling or SamplingConfig()
        series, plan = self._prepare(forcings, timescale, years, how)
        predictor = self.codec.predictor(forcings)
        frame = self.template(forcings, timescale, years)
        device = next(self.backbone.parameters()).device
        spec = self.backbone.spec
        path = spec.path(timescale)
        shape = (len(self.codec.variables), len(self.codec.grid.lat), len(self.codec.grid.lon))
        together = max(1, how.batch // windows_in(spec, timescale, plan.segments)[-1])
        condition = Conditions(series, device)
        gain = self.gains[path[-1].key]
        for first in range(0, len(members), together):
            chosen = members[first : first + together]
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, self.precision == "bf16-mixed"):
                drawn = cascade(
                    spec, timescale, plan.segments, self.backbone.velocity, SeededNoise(seed), condition, chosen, shape,
                    how.steps(len(path)), how.batch, device=device, on_step=on_step,
                ).float().cpu()  # fmt: skip
            for member, x in zip(chosen, drawn, strict=True):
                kept = x.unflatten(1, (-1, gain.shape[1]))[:, plan.keep] * gain[:, None]
                forced = self.codec.forced(predictor, timescale, plan.labels, member)
                yield member, self._fields(kept.flatten(1, 2), forced, frame)

    def windows_per_member(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> int:  # fmt: skip
        """Windows that the network calls of one member hold together, for progress."""
        how = sampling or SamplingConfig()
        plan, spec = self._prepare(forcings, timescale, years, how)[1], self.backbone.spec
        found = windows_in(spec, timescale, plan.segments)
        return sum(n * c for n, c in zip(found, calls_of(how, len(spec.path(timescale))), strict=True))

    def calls(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> list[tuple[Stage, int, tuple[int, ...], Condition]]:  # fmt: skip
        """What a member costs: for every kind of window its stage, how many pass through the network, the shape of one
        (var, step, lat, lon) and its condition."""
        how, spec = sampling or SamplingConfig(), self.backbone.spec
        series, plan = self._prepare(forcings, timescale, years, how)
        condition, n_var = Conditions(series, next(self.backbone.parameters()).device), len(self.codec.variables)
        n_lat, n_lon = len(self.codec.grid.lat), len(self.codec.grid.lon)
        found: list[tuple[Stage, int, tuple[int, ...], Condition]] = []
        path = spec.path(timescale)
        for stage, segment, n_calls in zip(path, plan.segments, calls_of(how, len(path)), strict=True):
            for group in groups_of(spec, stage, segment):
                shape = (n_var, group[0].end - group[0].begin, n_lat // stage.pooling, n_lon // stage.pooling)
                found.append((stage, len(group) * n_calls, shape, condition(stage, segment, group[:1])))
        return found

    def template(self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None = None) -> xr.Dataset:
        """Coordinates and attributes of the ensemble, without fields."""
        _, plan = self._prepare(forcings, timescale, years, SamplingConfig())
        calendar = self.codec.calendar
        coords: dict[str, Any] = dict(time_coords(plan.labels, timescale, calendar))
        attrs = {k: forcings.attrs[k] for k in ("experiment_id",) if k in forcings.attrs}
        attrs |= {k: str(self.provenance[k]) for k in ("source_id", "license") if k in self.provenance}
        attrs |= {"timescale": timescale, "calendar": calendar, "decade_start": self.decade_start}
        return xr.Dataset(coords=coords | self.codec.grid.coords(), attrs=attrs)

    def _prepare(
        self, forcings: xr.Dataset, timescale: str, years: tuple[int, int] | None, how: SamplingConfig
    ) -> tuple[ForcingSeries, Plan]:
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
        plan = plan_windows(self.backbone.spec, timescale, have, wanted, self.decade_start, calls)
        return self.codec.encode_forcings(forcings), plan

    def _fields(self, x: Tensor, forced: Tensor, frame: xr.Dataset) -> xr.Dataset:
        arrays = self.codec.decode(x, forced)
        out = frame.copy()
        for v, values in arrays.items():
            attrs = {"units": VARIABLES[v].units, "standard_name": VARIABLES[v].standard_name, "role": "field"}
            out[v] = (("time", "lat", "lon"), values, attrs)
        return out


@dataclass(frozen=True)
class Conditions:
    """Conditions of windows from a scenario's encoded forcings."""

    series: ForcingSeries
    device: torch.device

    def __call__(self, stage: Stage, segment: Segment, found: Sequence[Tile]) -> Condition:
        """One row a window; all windows are of one shape and place in their parents' blocks."""
        forcings, ids = [], []
        for tile in found:
            start, steps = segment.start + tile.begin * segment.months, tile.end - tile.begin
            forcings.append(self.series.window(stage.timescale, start, steps))
            ids.append(calendar_ids(stage.timescale, start, steps, segment.anchor))
        phase = phase_of(stage, segment, found[0])
        return Condition(torch.stack(forcings).to(self.device), torch.stack(ids).to(self.device), phase=phase)


def calls_of(how: SamplingConfig, n_stages: int) -> list[int]:
    """Network calls of each stage."""
    return [s.n_steps * CALLS_PER_STEP[s.solver] for s in how.steps(n_stages)]


def make_backbone(content: dict[str, Any]) -> Backbone:
    """A network of the checkpoint's shape, untrained."""
    config = content["config"]
    spec, size = from_dict(PyramidSpec, config["pyramid"]), from_dict(NetworkConfig, config["network"])
    couplings = {k: coupling_from_dict(c) for k, c in content["couplings"].items()}
    grid = content["codec"]["grid"]
    n_fields, n_forcings = len(content["codec"]["scales"]), len(content["codec"]["forcing_mean"])
    return Backbone(size, spec, couplings, grid["lat"].tolist(), grid["lon"].tolist(), n_fields, n_forcings)
