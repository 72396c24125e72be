"""How wide drawn fields are: measured once on the training scenarios after training, and set right when members are drawn.

A flow that is solved in few steps, windows that see their neighbours only, and what the prior leaves out make some scales a little
too narrow or too wide. One factor for every zonal wavenumber of a row, variable and timescale gives drawn members of the training
scenarios the power of the training runs. Decades are left as they are: their forced response was fitted on the same ones,
so those of other scenarios depart from it by more.
"""

import logging
from collections.abc import Iterator, Mapping

import torch
import xarray as xr
from torch import Tensor

from climatesuite.store.open import only
from spf import checkpoint
from spf.commands.workspace import Workspace
from spf.learning.data import open_training_runs
from spf.pyramid.windows import january
from spf.sampling.emulator import Emulator
from spf.sampling.plan import levels_of
from spf.sampling.waves import wave_power, widened

log = logging.getLogger("spf")
MEMBERS = 2
"""Drawn of each training scenario."""
LAST_YEARS = {"month": 40, "year": 80}
"""Of the record, at most."""
SEED = 20_150_102
MOST = 2.0
"""Farther from 1 it is no matter of width."""


def set_widths(work: Workspace) -> None:
    """Measure the factors, once, and keep them in the checkpoint; not for emulators of several Earth system models."""
    content = checkpoint.load(work.checkpoint)
    if "widths" in content or "sources" in content:
        return
    log.info("measuring the width of drawn fields on the training scenarios")
    emulator = Emulator.load(work.checkpoint)
    scenarios = {e: work.scenario(e, members).load() for e, members in work.config.data.train.items()}
    content["widths"] = {}
    for timescale in sorted(set(emulator.backbone.spec.timescales) - {"decade"}):
        found = widths(emulator, scenarios, timescale)
        content["widths"][timescale] = found
        log.info("waves of drawn %ss are multiplied by %.2f to %.2f", timescale, float(found.min()), float(found.max()))
    checkpoint.save(work.checkpoint, content)


def widths(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Tensor:
    """Factor of each zonal wavenumber in each row (var, lat, wave) that gives drawn departures the power of training runs.

    Args:
        emulator: Without widths.
        scenarios: Canonical monthly fields and forcings of the training scenarios.
        timescale: Of the fields; years or months.
    """
    drawn, real = (
        torch.stack([wave_power(x) for x in found(emulator, scenarios, timescale)]).mean(0)
        for found in (drawn_departures, training_departures)
    )
    return (_smoothed(real) / _smoothed(drawn)).sqrt().clamp(1 / MOST, MOST)


def _smoothed(power: Tensor) -> Tensor:
    """Means over three rows and three wavenumbers, fewer at the edges."""
    return torch.nn.functional.avg_pool2d(power, 3, 1, 1, count_include_pad=False)


def _years(ds: xr.Dataset, timescale: str) -> tuple[int, int]:
    """First and last year of what is compared."""
    first, last = (int(ds.year.values[i]) for i in (0, -1))
    return max(first, last + 1 - LAST_YEARS[timescale]), last


def drawn_departures(
    emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str, seed: int = SEED
) -> Iterator[Tensor]:
    """Departures (var, step, lat, lon) of drawn members from their forced responses, in scale units, with the emulator's widths."""
    stage = emulator.backbone.spec.path(timescale)[-1]
    for ds in scenarios.values():
        forcings, years = only(ds, emulator.codec.forcings), _years(ds, timescale)
        moved = emulator.codec.level(emulator.codec.predictor(ds))
        level = levels_of(moved, int(ds.year.values[0]), timescale, range(years[0], years[1] + 1))
        for _, z in emulator.normalised(forcings, timescale, range(MEMBERS), years, seed):
            z = widened(z, emulator.widths.get(timescale))
            yield emulator.marginals[stage.key].departure(z, 0, level)


def training_departures(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Iterator[Tensor]:
    """The same of the training runs."""
    stage = emulator.backbone.spec.path(timescale)[-1]
    for run in open_training_runs(scenarios, emulator.codec):
        first, last = _years(scenarios[run.scenario], timescale)
        yield run.fields(timescale, january(first), (last + 1 - first) * 12 // stage.months)
