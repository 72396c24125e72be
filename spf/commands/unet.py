"""Deterministic baselines: a UNet or a ClimaX-like transformer from a year's forcing maps to its fields, scored as one member."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.export import write_cf
from climatesuite.harmonise.coarsen import to_decade
from climatesuite.store.open import only, open_run
from spf.codec import Grid, measure_forcings, pool_forcings
from spf.commands.steps import hardware, ingest, provenance
from spf.commands.workspace import Workspace, open_workspace
from spf.config import load_config
from spf.learning.regression import Pairs, Regression, fit_regression, predict
from spf.network.backbone import count_parameters
from spf.network.climax import ClimaX
from spf.network.unet import UNet, check_grid
from spf.plain import to_dict

log = logging.getLogger("spf")


@dataclass(frozen=True)
class Architecture:
    """A network from maps to maps, and what its files say of it.

    Attributes:
        name: Of the command; files are ``<name>_yearly.nc`` and ``<name>_decadal.nc``.
        model: Name in tables.
        description: Completes "climatesuite-spf: ... from a year's forcing maps to its fields".
        reference: Where it is described.
        size: Keyword arguments of the network.
        learning_rate: Peak of the schedule.
        make: Builds it untrained; refuses a grid that it does not fit.
    """

    name: str
    model: str
    description: str
    reference: str
    size: Mapping[str, int | float]
    learning_rate: float
    make: "Callable[[YearCodec, Mapping[str, Any]], nn.Module]"

    def files(self, folder: Path) -> dict[str, Path]:
        """Files by timescale."""
        return {"year": folder / f"{self.name}_yearly.nc", "decade": folder / f"{self.name}_decadal.nc"}


def _make_unet(codec: "YearCodec", size: Mapping[str, Any]) -> UNet:
    check_grid(len(codec.grid.lat), len(codec.grid.lon), size["levels"])
    return UNet(codec.n_inputs, len(codec.variables), **size)


def _make_climax(codec: "YearCodec", size: Mapping[str, Any]) -> ClimaX:
    return ClimaX(codec.n_inputs, len(codec.variables), codec.grid.lat, codec.grid.lon, **size)


UNET = Architecture(
    "unet", "UNet (deterministic)", "a UNet", "https://arxiv.org/abs/1505.04597",
    {"width": 16, "levels": 3, "dropout": 0.0}, 3e-3, _make_unet,
)  # fmt: skip
CLIMAX = Architecture(
    "climax", "ClimaX-like (deterministic)", "a vision transformer in the manner of ClimaX, not pretrained,",
    "https://arxiv.org/abs/2301.10343",
    {"width": 128, "depth": 4, "heads": 4, "patch": 4, "dropout": 0.0}, 5e-4, _make_climax,
)  # fmt: skip


def unet(
    experiment: Path, folder: Path | None, minutes: float = 5.0, seed: int = 0, max_steps: int | None = None
) -> tuple[Path, ...]:
    """The UNet; see `deterministic`."""
    return deterministic(UNET, experiment, folder, minutes, seed, max_steps)


def climax(
    experiment: Path, folder: Path | None, minutes: float = 5.0, seed: int = 0, max_steps: int | None = None
) -> tuple[Path, ...]:
    """The ClimaX-like transformer; see `deterministic`."""
    return deterministic(CLIMAX, experiment, folder, minutes, seed, max_steps)


def deterministic(
    architecture: Architecture,
    experiment: Path,
    folder: Path | None,
    minutes: float = 5.0,
    seed: int = 0,
    max_steps: int | None = None,
) -> tuple[Path, ...]:
    """Train on the yearly fields of the training scenarios, predict the test scenario, write years and decades.

    Args:
        architecture: The network.
        experiment: A YAML file; archive, members, variables, forcings and years are taken from it.
        folder: Of the experiment; a store that is there is used.
        minutes: Wall time of training, half of it for the search of the step to stop at; the fit that is kept then takes no
            more steps than the search.
        seed: Of the first weights and the batches.
        max_steps: Stop after so many steps even if time is left.

    Returns:
        The yearly and the decadal file.

    Raises:
        DataContractError: If the folder holds predictions made with other settings.
        ValueError: If the grid does not fit the network.
    """
    config = load_config(experiment)
    work = open_workspace(config, folder or Path("runs") / config.name)
    how = Regression(minutes, learning_rate=architecture.learning_rate, seed=seed)
    how = how if max_steps is None else replace(how, max_steps=max_steps)
    settings = json.dumps(
        {"data": to_dict(config)["data"], "network": dict(architecture.size), "regression": asdict(how)}, sort_keys=True
    )
    files = architecture.files(work.folder)
    if _are_there(files, settings):
        log.info("predictions with these settings are there")
    else:
        ingest(work)
        _fit_and_write(architecture, work, how, files, settings)
    return tuple(files.values())


def hold_out(members: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Members to learn from and the one to stop by: the last of the scenario with most members, wherever another remains.

    Args:
        members: Training members by scenario.

    Returns:
        Both by scenario; nothing is held out where every scenario has one member.
    """
    label = max(members.values(), key=len)[-1]
    held = {e: [label] for e, m in members.items() if label in m and len(m) > 1}
    return {e: [m for m in found if m not in held.get(e, ())] for e, found in members.items()}, held


def _fit_and_write(
    architecture: Architecture, work: Workspace, how: Regression, files: Mapping[str, Path], settings: str
) -> None:
    data = work.config.data
    scenarios = {e: _yearly(work, e).sel(member=list(m)).load() for e, m in data.train.items()}
    codec = YearCodec.fit(scenarios, data.variables, data.forcings)
    log.info("training (predicted %.1f minutes at most)", how.minutes)
    network, facts = train(architecture, codec, scenarios, how, work.progress)
    forcings = only(_yearly(work, work.test_scenario()), data.forcings).load()
    begin = time.monotonic()
    fields = codec.fields(predict(network, codec.inputs(forcings)), forcings)
    attrs = _attributes(architecture, work, scenarios, facts, time.monotonic() - begin, settings)
    for timescale, ds in (("decade", to_decade(fields, data.decade_start)), ("year", fields)):
        write_cf(files[timescale], [(0, ds)], ds, attrs)


def train(
    architecture: Architecture,
    codec: "YearCodec",
    scenarios: Mapping[str, xr.Dataset],
    how: Regression,
    progress: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Fit twice: without one member to find the step at which its error is least, then on all members up to that step.

    Args:
        architecture: The network.
        codec: Fitted on these scenarios.
        scenarios: Yearly Datasets with members and forcings.
        how: Budget of both fits together; time ends the first only, so that the second is a matter of steps.
        progress: Whether to show bars.

    Returns:
        The network, and how the training went.

    Raises:
        ValueError: If the grid does not fit the network.
    """
    members = {e: [str(m) for m in ds.member.values] for e, ds in scenarios.items()}
    kept, held = hold_out(members)
    rows, facts = codec.grid.row_weights(), {}
    if held:
        search = replace(how, minutes=how.minutes / 2)
        stop = codec.pairs(scenarios, held)
        pairs = codec.pairs(scenarios, kept)
        found = fit_regression(_network(architecture, codec, how.seed), pairs, rows, search, stop, progress)
        how = replace(how, minutes=math.inf, max_steps=found["steps"], stop_step=found["kept_step"])
        facts = {"held_out_to_stop": held, "search": found}
    network = _network(architecture, codec, how.seed)
    facts |= {"final": fit_regression(network, codec.pairs(scenarios, members), rows, how, None, progress)}
    return network, facts | {"parameters": count_parameters(network), "seed": how.seed}


def _network(architecture: Architecture, codec: "YearCodec", seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return architecture.make(codec, architecture.size)


def _yearly(work: Workspace, scenario: str) -> xr.Dataset:
    return open_run(work.store, work.config.data.source_id, scenario, "year")


def _are_there(files: Mapping[str, Path], settings: str) -> bool:
    """Whether all files were made with these settings.

    Raises:
        DataContractError: If one was made with others.
    """
    for path in files.values():
        if path.exists():
            with netCDF4.Dataset(path) as file:
                made_with = str(getattr(file, "settings", ""))
            if made_with != settings:
                raise DataContractError(
                    str(path), "made with other settings", "the same minutes, steps, seed and data",
                    "choose another folder with --out, or delete the file",
                )  # fmt: skip
    return all(path.exists() for path in files.values())


def _attributes(
    architecture: Architecture,
    work: Workspace,
    scenarios: Mapping[str, xr.Dataset],
    facts: Mapping[str, Any],
    seconds: float,
    settings: str,
) -> dict[str, Any]:
    known = provenance(work, dict(scenarios))
    return {
        "title": f"Deterministic prediction of {known['source_id']} under {work.test_scenario()}",
        "institution": "made with climatesuite-spf",
        "source": f"climatesuite-spf: {architecture.description} from a year's forcing maps to its fields, least squares",
        "references": architecture.reference,
        "model": architecture.model,
        "license": known["license"],
        "training_sources": {"source_id": known["source_id"], "members": known["training_members"]},
        "training": {k: v for k, v in facts.items() if k not in ("parameters", "seed")},
        "seed": facts["seed"],
        "params": facts["parameters"],
        "runtime_s": round(seconds, 3),
        "hardware": hardware(),
        "settings": settings,
        "comment": "One member, the expected field of a year: no internal variability. Negative precipitation is set to zero.",
    }


@dataclass(frozen=True)
class YearCodec:
    """Yearly Datasets to standardised tensors and back; every number is measured on the training scenarios.

    Attributes:
        climatology: Mean over all training years and members (var, lat, lon), canonical units.
        scale: Root-mean-square departure from it, one number a variable (var, 1, 1).
        forcing_mean: Mean of each forcing in each cell (forcing, lat, lon), canonical unit.
        forcing_scale: Root-mean-square departure from it, one number a forcing (forcing, 1, 1).
        grid: Of the fields.
        variables: Order of the fields.
        forcings: Order of the forcings.
    """

    climatology: Tensor
    scale: Tensor
    forcing_mean: Tensor
    forcing_scale: Tensor
    grid: Grid
    variables: tuple[str, ...]
    forcings: tuple[str, ...]

    @classmethod
    def fit(cls, scenarios: Mapping[str, xr.Dataset], variables: Sequence[str], forcings: Sequence[str]) -> "YearCodec":
        """Measure everything on yearly Datasets (member, time, lat, lon) with forcings, by scenario."""
        grid = Grid.of(next(iter(scenarios.values())))
        fields = torch.cat([_stack(ds, variables).flatten(0, 1) for ds in scenarios.values()])
        climatology = fields.mean(0)
        rows = grid.row_weights().double()[:, None]
        scale = ((fields - climatology).square() * rows).mean((0, 2, 3)).sqrt()
        mean, spread, _ = measure_forcings(scenarios, forcings, grid, 1)
        maps = torch.from_numpy(np.stack([mean[f] for f in forcings]))
        spreads = torch.tensor([spread[f] for f in forcings], dtype=torch.float64)[:, None, None]
        return cls(climatology, scale[:, None, None], maps, spreads, grid, tuple(variables), tuple(forcings))

    @property
    def n_inputs(self) -> int:
        """Channels of the inputs."""
        return len(self.forcings) + len(self._static())

    def inputs(self, ds: xr.Dataset) -> Tensor:
        """Forcings of every year, and what never changes (year, channel, lat, lon) float32.

        Raises:
            DataContractError: If a forcing is absent.
        """
        maps = (pool_forcings(ds, self.forcings, self.grid, 1) - self.forcing_mean) / self.forcing_scale
        return torch.cat([maps, self._static().expand(len(maps), -1, -1, -1)], 1).float()

    def pairs(self, scenarios: Mapping[str, xr.Dataset], members: Mapping[str, Sequence[str]]) -> Pairs:
        """Every year of the scenarios named in ``members`` with the mean of these members."""
        chosen = {e: scenarios[e].sel(member=list(m)) for e, m in members.items()}
        targets = [((_stack(ds, self.variables).mean(0) - self.climatology) / self.scale) for ds in chosen.values()]
        counts = [torch.full((ds.sizes["time"],), float(ds.sizes["member"])) for ds in chosen.values()]
        inputs = [self.inputs(ds) for ds in chosen.values()]
        return Pairs(torch.cat(inputs), torch.cat(targets).float(), torch.cat(counts))

    def fields(self, x: Tensor, ds: xr.Dataset) -> xr.Dataset:
        """Network output (year, var, lat, lon) -> Dataset on the years of ``ds``, canonical units; never negative rain."""
        values = (x.double() * self.scale + self.climatology).numpy()
        out = ds.drop_vars(list(ds.data_vars))
        for i, v in enumerate(self.variables):
            field = np.maximum(values[:, i], 0.0) if VARIABLES[v].is_nonnegative else values[:, i]
            out[v] = (("time", "lat", "lon"), field.astype(np.float32), {"units": VARIABLES[v].units})
        return out

    def _static(self) -> Tensor:
        """Place on the unit sphere and the training climatology in units of its own deviation in space."""
        lat = torch.deg2rad(torch.tensor(self.grid.lat, dtype=torch.float64))[:, None]
        lon = torch.deg2rad(torch.tensor(self.grid.lon, dtype=torch.float64))[None]
        place = torch.stack([lat.sin() + 0 * lon, lat.cos() * lon.cos(), lat.cos() * lon.sin()])
        level = self.climatology - self.climatology.mean((1, 2), keepdim=True)
        return torch.cat([place, level / level.square().mean((1, 2), keepdim=True).sqrt()])


def _stack(ds: xr.Dataset, variables: Sequence[str]) -> Tensor:
    """Fields (member, year, var, lat, lon) float64."""
    values = [ds[v].transpose("member", "time", "lat", "lon").values for v in variables]
    return torch.from_numpy(np.stack(values, 2)).double()
