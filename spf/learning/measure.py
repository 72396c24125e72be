"""What is measured on the training runs before learning: the marginals of cells and the couplings between stages."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from spf.learning.data import TrainingRun, Windows
from spf.pyramid.coupling import Coupling, Series, measure_coupling
from spf.pyramid.marginals import Marginal, bend_of
from spf.pyramid.operators import pool_space, upsample
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import YEARS_PER_DECADE, january

PATTERNS = 240
"""With fewer, what is left to single cells puts too much variance at small scales (zonal power beyond wavenumber 7, untrained,
CESM2: 2.4 times the real one with 48, 1.0 with 240)."""
SMALLEST = 1e-4
"""Least standard deviation, in scale units: a cell that never changes is no division by zero."""
SERIES_YEARS = 40
"""Longest stretch of a run that is held at once when months are measured; longer runs are measured in several."""
TAPER = {"decade": 1.5, "lustrum": 3.0, "year": 16.0, "quarter": 24.0, "month": 24.0}
"""Steps over which measured autocovariances fade: a record holds few independent decades."""


def measure_marginals(
    runs: Sequence[TrainingRun], spec: PyramidSpec, row_weights: Tensor, progress: bool = False
) -> dict[str, Marginal]:
    """Scale and shape of every stage's departures by stage key, per variable, cell and season.

    There are few decades. They count as Gaussian, and away from the coarsest grid a decade's deviation is the year's times a ratio
    measured over the coarsest cells.

    Returns:
        12 seasons for months, 4 for quarters, otherwise 1.
    """
    marginals = {}
    for key, stage in tqdm(spec.stages().items(), desc="measuring variances", disable=not progress):
        if stage.months < 12:
            marginals[key] = _marginal(_seasons(runs, stage, row_weights))
            continue
        years = [pool_space(run.years, stage.pooling, row_weights) for run in runs]
        if stage.months == 12:
            marginals[key] = _marginal(x[:, :, None] for x in years)
            continue
        yearly = _deviation(torch.cat(years, 1))
        means = torch.cat([_running_means(y, stage.months // 12) for y in years], 1)
        coarse = spec.pooling[0] // stage.pooling
        rows = torch.ones(yearly.shape[-2])
        ratio = (
            pool_space(_deviation(means).square(), coarse, rows) / pool_space(yearly.square(), coarse, rows)
        ).sqrt()
        marginals[key] = Marginal(yearly * upsample(ratio, (1, coarse, coarse)))
    return marginals


def _marginal(samples: Iterable[Tensor]) -> Marginal:
    """Of departures (var, year, season, lat, lon), piece by piece."""
    count, second, third = 0, torch.zeros(()), torch.zeros(())
    for x in samples:
        count, second, third = count + x.shape[1], second + x.square().sum(1), third + (x**3).sum(1)
    gain = (second / count).sqrt().clamp_min(SMALLEST)
    return Marginal(gain, bend_of(third / count / gain**3))


def _seasons(runs: Sequence[TrainingRun], stage: Stage, row_weights: Tensor) -> Iterator[Tensor]:
    """Departures (var, 1, season, lat, lon) of every year of every run at a stage."""
    for run in runs:
        for year in range(run.first_year, run.first_year + run.years.shape[1]):
            fields = run.fields(stage.timescale, january(year), 12 // stage.months)
            yield pool_space(fields, stage.pooling, row_weights)[:, None]


def _running_means(years: Tensor, length: int) -> Tensor:
    """Running means of (var, year, lat, lon) over ``length`` years: decades of every phase."""
    total = torch.cat([torch.zeros_like(years[:, :1]), years.double().cumsum(1).to(years)], 1)
    return (total[:, length:] - total[:, :-length]) / length


def _deviation(x: Tensor) -> Tensor:
    """Root mean square over steps of (var, step, lat, lon), never zero: (var, 1, lat, lon)."""
    return x.square().mean(1, keepdim=True).sqrt().clamp_min(SMALLEST)


def measure_couplings(runs: Sequence[TrainingRun], windows: Windows, progress: bool = False) -> dict[str, Coupling]:
    """How each stage hangs on its parent, which patterns it has and how they persist, from the whole runs."""
    couplings, spec = {}, windows.spec
    n_years = sum(run.years.shape[1] for run in runs)
    for key, stage in tqdm(spec.stages().items(), desc="measuring patterns", disable=not progress):
        series = [s for run in runs for s in _series(run, windows, stage)]
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        lags = spec.core[stage.timescale] + 2 * spec.halo[stage.timescale] + 2 * block
        independent = n_years // max(1, stage.months // 12)
        taper = TAPER[stage.timescale]
        couplings[key] = measure_coupling(series, stage, min(PATTERNS, independent // 2), lags, taper)
    return couplings


def _series(run: TrainingRun, windows: Windows, stage: Stage) -> list[Series]:
    """The run at a stage: for decades of every second phase, otherwise stretch by stretch."""
    n_years, first = run.years.shape[1], run.first_year
    if stage.months >= 120:
        starts = [(first + phase, (n_years - phase) // YEARS_PER_DECADE) for phase in range(0, YEARS_PER_DECADE, 2)]
        stretches = [(january(y), n * YEARS_PER_DECADE) for y, n in starts if n > 0]
    else:
        whole = n_years // YEARS_PER_DECADE * YEARS_PER_DECADE
        step = whole if stage.months >= 12 else min(whole, SERIES_YEARS)
        stretches = [(january(first + i), min(step, whole - i)) for i in range(0, whole, step)]
    out = []
    for start, years in stretches:
        steps = 12 * years // stage.months
        fields, parent = windows.fields(run, stage, start, steps, start)
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        out.append(Series(fields, parent, torch.arange(steps) % block))
    return out
