"""How wide drawn fields are: measured once on the training scenarios after training, and set right when members are drawn.

A flow that is solved in few steps, windows that see their neighbours only, and what the prior leaves out make some scales of
normalised fields a little too narrow or too wide. One factor a variable, timescale and zonal wavenumber gives drawn members of the
training scenarios the power of the training runs. Decades are left as they are: their forced response was fitted on the same ones,
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
from spf.learning.data import Windows, open_training_runs
from spf.pyramid.windows import january
from spf.sampling.emulator import Emulator
from spf.sampling.waves import wave_power

log = logging.getLogger("spf")
MEMBERS = 2
"""Drawn of each training scenario."""
LAST_YEARS = {"month": 40, "year": 80}
"""Of the record, at most."""
SEED = 20_150_102
MOST = 1.25
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
        content["widths"][timescale] = found.tolist()
        log.info("waves of drawn %ss are multiplied by %.2f to %.2f", timescale, float(found.min()), float(found.max()))
    checkpoint.save(work.checkpoint, content)


def widths(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Tensor:
    """Factor of each variable's zonal wavenumbers (var, wave) that gives drawn, normalised fields the power of training runs.

    Args:
        emulator: Without widths.
        scenarios: Canonical monthly fields and forcings of the training scenarios.
        timescale: Of the fields; years or months.
    """
    rows = emulator.codec.grid.row_weights()
    drawn, real = (
        torch.stack([wave_power(z, rows) for z in found]).mean(0)
        for found in (_drawn(emulator, scenarios, timescale), training_fields(emulator, scenarios, timescale))
    )
    return (real / drawn).sqrt().clamp(1 / MOST, MOST)


def _years(first: int, last: int, timescale: str) -> tuple[int, int]:
    """First and last year of what is compared: whole decades, as years hang on those."""
    return last + 1 - min(LAST_YEARS[timescale], last - first + 1) // 10 * 10, last


def _drawn(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Iterator[Tensor]:
    for ds in scenarios.values():
        years = _years(int(ds.year.values[0]), int(ds.year.values[-1]), timescale)
        forcings = only(ds, emulator.codec.forcings)
        yield from (z for _, z in emulator.normalised(forcings, timescale, range(MEMBERS), years, SEED))


def training_fields(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Iterator[Tensor]:
    """Normalised fields (var, step, lat, lon) of every training run."""
    spec, codec = emulator.backbone.spec, emulator.codec
    windows = Windows(spec, codec.grid.row_weights(), emulator.marginals)
    stage = spec.path(timescale)[-1]
    for run in open_training_runs(scenarios, codec):
        first, last = _years(run.first_year, run.first_year + run.years.shape[1] - 1, timescale)
        steps = (last - first + 1) * 12 // stage.months
        # parents' blocks begin with the fields, so that all of them are on record
        yield windows.fields(run, stage, january(first), steps, january(first))[0]
