"""What is measured on the training runs before learning: per-cell gains and the couplings between stages."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from spf.learning.data import TrainingRun, Windows
from spf.pyramid.operators import pool_space, upsample
from spf.pyramid.prior import Coupling, measure_coupling
from spf.pyramid.spec import PyramidSpec, Stage
from spf.pyramid.windows import YEARS_PER_DECADE

COUPLING_WINDOWS = 256
MODES = 24


def measure_gains(
    runs: Sequence[TrainingRun], spec: PyramidSpec, row_weights: Tensor, progress: bool = False
) -> dict[str, Tensor]:
    """Standard deviation of every stage's departures by stage key, per variable, cell and (for months) calendar month.

    There are few decades, so away from the coarsest grid a decade's deviation is the year's times a ratio measured over the
    coarsest cells.

    Returns:
        (var, 1, lat, lon); (var, 12, lat, lon) for months.
    """
    gains = {}
    for key, stage in tqdm(spec.stages().items(), desc="measuring variances", disable=not progress):
        if stage.timescale == "month":
            gains[key] = _month_deviation(runs, stage, row_weights)
            continue
        years = [pool_space(run.years, stage.pooling, row_weights) for run in runs]
        yearly = _deviation(torch.cat(years, 1))
        if stage.timescale == "year":
            gains[key] = yearly
            continue
        decades = torch.cat([_running_decades(y) for y in years], 1)
        coarse = spec.pooling[0] // stage.pooling
        rows = torch.ones(yearly.shape[-2])
        ratio = (
            pool_space(_deviation(decades).square(), coarse, rows) / pool_space(yearly.square(), coarse, rows)
        ).sqrt()
        gains[key] = yearly * upsample(ratio, (1, coarse, coarse))
    return gains


def _running_decades(years: Tensor) -> Tensor:
    """Ten-year running means of (var, year, lat, lon): decades of every phase."""
    total = torch.cat([torch.zeros_like(years[:, :1]), years.double().cumsum(1).to(years)], 1)
    return (total[:, YEARS_PER_DECADE:] - total[:, :-YEARS_PER_DECADE]) / YEARS_PER_DECADE


def _deviation(x: Tensor) -> Tensor:
    """Root mean square over steps of (var, step, lat, lon), never zero: (var, 1, lat, lon)."""
    return x.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)


def _month_deviation(runs: Sequence[TrainingRun], stage: Stage, row_weights: Tensor) -> Tensor:
    total, count = torch.zeros(()), 0
    for run in runs:
        for i in range(run.years.shape[1]):
            total = total + pool_space(run.fields("month", run.first_year + i, 12), stage.pooling, row_weights).square()
            count += 1
    return (total / count).sqrt().clamp_min(1e-4)


def measure_couplings(runs: Sequence[TrainingRun], windows: Windows, progress: bool = False) -> dict[str, Coupling]:
    """How each stage hangs on its parent and which patterns it has, from windows spread over the runs."""
    couplings = {}
    n_years = sum(run.years.shape[1] for run in runs)
    for key, stage in tqdm(windows.spec.stages().items(), desc="measuring patterns", disable=not progress):
        span = 1 if stage.timescale == "month" else YEARS_PER_DECADE
        length = {"month": 12, "year": YEARS_PER_DECADE, "decade": 1}[stage.timescale]
        step = 2 if stage.timescale == "decade" else span  # decades overlap: every other phase
        places = [(run, s) for run in runs for s in range(0, run.years.shape[1] - span + 1, step)]
        chosen = places[:: max(1, len(places) // COUPLING_WINDOWS)]
        built = [windows.build(run, stage, run.first_year + offset, length) for run, offset in chosen]
        fields, parent = torch.stack([w.fields for w in built]), torch.stack([w.parent for w in built])
        independent = n_years // YEARS_PER_DECADE if stage.timescale == "decade" else n_years
        couplings[key] = measure_coupling(fields, parent, stage, min(MODES, independent // 4))
    return couplings
