"""What is measured on the training runs before learning: the marginals of cells and the couplings between stages."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from spf.learning.data import TrainingRun, Windows
from spf.pyramid.coupling import Coupling, Series
from spf.pyramid.covariance import measure_coupling
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
TAPER = {"decade": 5.0, "lustrum": 3.0, "year": 16.0, "quarter": 24.0, "month": 24.0}
"""Steps over which measured autocovariances fade: a record holds few independent decades."""
REGIONS = (((-90.0, 90.0), (0.0, 360.0)), ((-5.0, 5.0), (190.0, 240.0)))
"""Latitudes and longitudes of the globe and of Niño-3.4, degrees."""
MOST_GROWTH = 0.3
"""Of the logarithm of a standard deviation by kelvin of warming."""


def measure_marginals(
    runs: Sequence[TrainingRun], spec: PyramidSpec, row_weights: Tensor, progress: bool = False, growth: bool = True
) -> dict[str, Marginal]:
    """Scale and shape of every stage's departures by stage key, per variable, cell and season.

    There are few decades. They count as Gaussian, and away from the coarsest grid a decade's deviation is the year's times a ratio
    measured over the coarsest cells; it grows with warming as the year's does.

    Args:
        runs: Of one source.
        spec: The pyramid.
        row_weights: Area weight of each full-grid row (lat,).
        progress: Whether to show it.
        growth: Whether deviations may change with the level; otherwise they are those of all years.

    Returns:
        12 seasons for months, 4 for quarters, otherwise 1.
    """
    marginals, levels = {}, [run.levels if growth else torch.zeros_like(run.levels) for run in runs]
    for key, stage in tqdm(spec.stages().items(), desc="measuring variances", disable=not progress):
        if stage.months < 12:
            marginals[key] = marginal_of([_seasons(run, stage, row_weights) for run in runs], levels)
            continue
        years = [pool_space(run.years, stage.pooling, row_weights) for run in runs]
        marginal = marginal_of([[x[:, :, None]] for x in years], levels)
        if stage.months == 12:
            marginals[key] = marginal
            continue
        yearly = _deviation(torch.cat(years, 1))
        means = torch.cat([_running_means(y, stage.months // 12) for y in years], 1)
        coarse = spec.pooling[0] // stage.pooling
        rows = torch.ones(yearly.shape[-2])
        ratio = (
            pool_space(_deviation(means).square(), coarse, rows) / pool_space(yearly.square(), coarse, rows)
        ).sqrt()
        gain = yearly * upsample(ratio, (1, coarse, coarse))
        marginals[key] = Marginal(gain, None, marginal.growth, marginal.levels)
    return marginals


@dataclass
class Sums:
    """Of departures x (var, season, lat, lon) and their levels t over years."""

    n: int = 0
    t: float = 0.0
    tt: float = 0.0
    xx: Tensor = field(default_factory=lambda: torch.zeros(()))
    txx: Tensor = field(default_factory=lambda: torch.zeros(()))
    xxx: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, x: Tensor, level: Tensor) -> None:
        """Years of departures (var, year, season, lat, lon) at their levels (year,)."""
        t, square = level.reshape(-1, 1, 1, 1), x.square()
        self.n, self.t, self.tt = (
            self.n + len(level),
            self.t + float(level.sum()),
            self.tt + float(level.square().sum()),
        )
        self.xx, self.txx = self.xx + square.sum(1), self.txx + (t * square).sum(1)
        self.xxx = self.xxx + (square * x).sum(1)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def growth(self) -> Tensor:
        """Half the slope of variance on level, over the variance: smoothed over neighbouring cells and seasons."""
        spread = self.tt - self.t**2 / max(1, self.n)
        if spread < 1e-6 * max(1.0, self.tt):
            return torch.zeros_like(self.xx)
        slope = (self.txx - self.t / self.n * self.xx) / spread
        return smoothed(slope / (2 * self.xx / self.n).clamp_min(SMALLEST**2))


def marginal_of(samples: Sequence[Iterable[Tensor]], levels: Sequence[Tensor]) -> Marginal:
    """The marginal of departures of runs (var, year, season, lat, lon), piece by piece, and the runs' levels (year,).

    What two halves of the runs agree on decides how much of the growth is believed.
    """
    halves = Sums(), Sums()
    for i, (pieces, level) in enumerate(zip(samples, levels, strict=True)):
        done = 0
        for x in pieces:
            halves[i % 2].add(x, level[done : done + x.shape[1]])
            done += x.shape[1]
    total = halves[0] + halves[1] if halves[1].n else halves[0]
    growth = (total.growth() * agreement(*(h.growth() for h in halves))).clamp(-MOST_GROWTH, MOST_GROWTH)
    whole = torch.cat(list(levels))
    centre = total.t / total.n
    # so that the gain at the centre gives the measured moments over all levels
    second, third = (
        torch.as_tensor(sum(torch.exp(power * growth * float(t - centre)) for t in whole)) / len(whole)
        for power in (2, 3)
    )
    gain = (total.xx / total.n / second).sqrt().clamp_min(SMALLEST)
    bend = bend_of(total.xxx / total.n / gain**3 / third)
    if not bool(whole.any()):
        return Marginal(gain, bend)
    return Marginal(gain, bend, growth, torch.tensor([centre, float(whole.min()), float(whole.max())]))


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Reliability of the mean of two measurements (var, ...) of the same numbers (var, 1, 1, 1); 0 without a second."""
    if one.shape != other.shape:
        return torch.zeros(one.shape[0], 1, 1, 1)
    both = (one * other).flatten(1).mean(1) / (0.5 * (one.square() + other.square())).flatten(1).mean(1).clamp_min(
        1e-12
    )
    return (2 * both / (1 + both).clamp_min(1e-6)).clamp(0, 1).reshape(-1, 1, 1, 1)


def smoothed(x: Tensor) -> Tensor:
    """Means over a season and its neighbours, and over three by three cells, periodic in season and longitude."""
    if x.shape[1] > 2:
        x = (x.roll(1, 1) + x + x.roll(-1, 1)) / 3
    x = (x.roll(1, -1) + x + x.roll(-1, -1)) / 3
    x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)
    return (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 3


def _seasons(run: TrainingRun, stage: Stage, row_weights: Tensor) -> Iterator[Tensor]:
    """Departures (var, 1, season, lat, lon) of every year of a run at a stage."""
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


def measure_couplings(
    runs: Sequence[TrainingRun], windows: Windows, progress: bool = False, wide: Tensor | None = None
) -> dict[str, Coupling]:
    """How each stage hangs on its parent, which patterns it has and how they persist, from the whole runs.

    Args:
        runs: The runs.
        windows: Builds their windows.
        progress: Whether to show it.
        wide: Weights (region, lat, lon) of averages of every variable that count among the leading patterns, see `regions`.
    """
    couplings, spec = {}, windows.spec
    n_years = sum(run.years.shape[1] for run in runs)
    for key, stage in tqdm(spec.stages().items(), desc="measuring patterns", disable=not progress):
        series = [s for run in runs for s in _series(run, windows, stage)]
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        lags = spec.core[stage.timescale] + 2 * spec.halo[stage.timescale] + 2 * block
        independent = n_years // max(1, stage.months // 12)
        averages = None if wide is None else _averages(wide, windows.marginals[key], stage)
        patterns, taper = min(PATTERNS, independent // 2), TAPER[stage.timescale]
        couplings[key] = measure_coupling(series, stage, patterns, lags, taper, averages)
    return couplings


def regions(lat_bnds: Sequence[tuple[float, float]], lon_bnds: Sequence[tuple[float, float]]) -> Tensor:
    """Area of every cell inside regions whose averages matter, the globe and Niño-3.4: (region, lat, lon), sum 1 each.

    Args:
        lat_bnds: Edges of the rows, degrees.
        lon_bnds: Edges of the columns, degrees east.
    """
    lat, lon = (torch.tensor(b, dtype=torch.float64).sort(1).values for b in (lat_bnds, lon_bnds))
    found = []
    for (south, north), (west, east) in REGIONS:
        rows = torch.deg2rad(lat.clamp(south, north)).sin().diff(dim=1)
        columns = torch.stack([(lon + turn).clamp(west, east).diff(dim=1)[:, 0] for turn in (-360.0, 0.0, 360.0)]).sum(
            0
        )
        found.append(rows * columns)
    return torch.stack([x / x.sum() for x in found]).float()


def _averages(wide: Tensor, marginal: Marginal, stage: Stage) -> Tensor:
    """Weights, of length 1, of every variable's regional averages in normalised fields of a stage (average, var, lat, lon)."""
    area = pool_space(wide, stage.pooling, torch.ones(wide.shape[-2]))
    weights = area[:, None] * marginal.gain.mean(1)
    each = (torch.eye(weights.shape[1])[:, None, :, None, None] * weights).flatten(0, 1)
    return each / each.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


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
