"""Scores reduced to one number per step and member, block by block: the only place where large ensembles are read.

Every score of a row (pooled RMSE, CRPS, spread-skill, intervals) is a mean over such series, so a prediction is read once for
its scores and once, some members at a time, for its variability. Memory stays at one block of ``BLOCK_BYTES`` and a few copies of
it, whatever the ensemble: steps of all members, rows of one step where a step is larger. Stored chunks larger than a block are
read again for each block in them; ensembles are best chunked by time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.baselines.reference import ReferenceEnsemble
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate import kernels
from climatesuite.evaluate.checks import BLOCK_BYTES, check_finite
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import HEADLINE_FIRST_YEAR, Period, check_field
from climatesuite.harmonise.grids import cos_weights

RANK_THINNING = (10, 8, 8)
"""Every 10th step of a year label, 8th row and 8th column enter the chi-square: neighbours are correlated."""


@dataclass(frozen=True)
class TruthSeries:
    """What the truth alone says. N members, T steps; score units.

    Attributes:
        floor: ``[N, T]`` area mean of half the mean absolute difference to the other members; NaN if N = 1.
        variance: ``[T]`` area mean of the variance over members, ddof = 1; NaN if N = 1.
        variability: Detrended variance in time, area mean, by period name.
        mean: ``[T]`` area mean of the members' mean.
    """

    floor: Array
    variance: Array
    variability: dict[str, float]
    mean: Array


@dataclass(frozen=True)
class ScoreSeries:
    """What an ensemble scores at each step; area means, score units.

    Attributes:
        size: Ensemble size M; None for an exact expectation over a residual pool.
        crps: ``[N, T]``; kind as in ``kind``.
        crps_plain: ``[N, T]``, or None for a pool.
        absolute: ``[N, T]`` abs(ensemble mean - member).
        square: ``[N, T]`` (ensemble mean - member)^2.
        mean_error: ``[T]`` ensemble mean - mean of members.
        mean_square: ``[T]`` its square, area mean.
        variance: ``[T]`` ensemble variance, ddof = 1; NaN if M = 1.
        inflation: (M + 1) / M of the spread-skill ratio.
        late_square: Area mean of the squared time-mean error over the late window, NaN where it has no steps.
        variability: Detrended variance in time, area mean, by period name.
        ranks: ``[T, M + 1]`` area-weighted rank shares, thinned_ranks: the same from a thinned sample, unweighted.
    """

    size: int | None
    kind: str
    crps: Array
    crps_plain: Array | None
    absolute: Array
    square: Array
    mean_error: Array
    mean_square: Array
    variance: Array
    inflation: float
    late_square: float
    variability: dict[str, float]
    ranks: Array | None = None
    thinned_ranks: Array | None = None


class _Reader:
    """One variable of a dataset as float64 blocks ``[member, time, cell]`` of some rows, in score units."""

    def __init__(self, ds: xr.Dataset, name: str, subject: str) -> None:
        self.field = ds[name].transpose("member", "time", "lat", "lon")
        self.name, self.subject = name, subject
        self.factor = VARIABLES[name].score_factor

    def block(self, steps: slice | NDArray[np.int64], member: slice = slice(None), rows: slice = slice(None)) -> Array:
        return self.scaled(self.raw(steps, member, rows))

    def raw(self, steps: slice | NDArray[np.int64], member: slice, rows: slice) -> NDArray:
        """The same as stored, ``[member, time, lat, lon]``, checked."""
        values = np.asarray(self.field.isel(member=member, time=steps, lat=rows).values)
        check_finite(self.field.rename(f"{self.name} in {self.subject}"), values)
        return values

    def scaled(self, values: NDArray) -> Array:
        """Float64 in score units, with rows and columns as one axis."""
        out = np.array(values, dtype=np.float64)
        out *= self.factor
        return out.reshape(*out.shape[:-2], -1)


def _cell_weights(ds: xr.Dataset) -> Array:
    w = np.asarray(cos_weights(ds["lat"]).values, dtype=np.float64)
    return np.repeat(w / (w.sum() * ds.sizes["lon"]), ds.sizes["lon"])


def _blocks(n_time: int, values_per_step: int) -> Iterator[slice]:
    length = max(1, BLOCK_BYTES // (8 * values_per_step))
    for first in range(0, n_time, length):
        yield slice(first, min(first + length, n_time))


def _tiles(length: int, depth: int, grid: tuple[int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Slices along an axis, of rows, and of the cells in them, so that all of ``depth`` fit into ``BLOCK_BYTES`` with them.

    Whole maps where they fit, else as many rows as do; area means are sums over cells, so the tiles' parts add up.
    """
    n_rows, n_columns = grid
    height = int(np.clip(BLOCK_BYTES // (8 * depth * n_columns), 1, n_rows))
    for part in _blocks(length, depth * height * n_columns):
        for first in range(0, n_rows, height):
            rows = slice(first, min(first + height, n_rows))
            yield part, rows, slice(rows.start * n_columns, rows.stop * n_columns)


def _grid(ds: xr.Dataset) -> tuple[int, int]:
    return ds.sizes["lat"], ds.sizes["lon"]


def _variability(reader: _Reader, ds: xr.Dataset, w: Array, spans: tuple[Period, ...]) -> dict[str, float]:
    """Detrended variance, mean over members, by period: as many members (or rows of one) at a time as a block holds."""
    year = np.asarray(ds["year"].values, dtype=np.int64)
    month = np.asarray(ds["month"].values, dtype=np.int64) if "month" in ds.coords else None
    sums = {span.name: 0.0 for span in spans}
    size = reader.field.sizes["member"]
    depth = max(1, year.size * reader.field.dtype.itemsize // 8)
    for some, rows, cells in _tiles(size, depth, _grid(ds)):
        for one in reader.raw(
            slice(None), some, rows
        ):  # in float64 one by one: a block of float32 holds twice the members
            x = reader.scaled(one)
            for span in spans:
                s = span.steps
                variance = kernels.detrended_variance(x[s], year[s], None if month is None else month[s])
                sums[span.name] += float(variance @ w[cells])
    return {name: value / size for name, value in sums.items()}


def truth_series(truth: xr.Dataset, name: str, spans: tuple[Period, ...]) -> TruthSeries:
    """Floor, variance and variability of one variable of an (aligned) truth with dims ``(member, time, lat, lon)``.

    Raises:
        DataContractError: On NaN or values that cannot be in the stated unit.
    """
    reader, w = _Reader(truth, name, "the truth"), _cell_weights(truth)
    size, n_time = truth.sizes["member"], truth.sizes["time"]
    nothing = 0.0 if size > 1 else np.nan
    floor, variance, mean = np.full((size, n_time), nothing), np.full(n_time, nothing), np.zeros(n_time)
    for span, rows, cells in _tiles(n_time, size, _grid(truth)):
        y, area = reader.block(span, rows=rows), w[cells]
        mean[span] += y.mean(axis=0) @ area
        if size > 1:
            floor[:, span] += kernels.half_pair_means(y) @ area
            variance[span] += kernels.variance(y) @ area
    check_field(name, truth[name], "the truth", float(mean.mean()) / reader.factor)
    return TruthSeries(floor, variance, _variability(reader, truth, w, spans), mean)


def ensemble_series(
    prediction: xr.Dataset,
    truth: xr.Dataset,
    name: str,
    spans: tuple[Period, ...],
    late: NDArray[np.int64],
    subject: str = "the prediction",
) -> ScoreSeries:
    """Score series of one variable of a prediction aligned with its truth, both ``(member, time, lat, lon)``.

    Args:
        prediction: M members; may be lazy.
        truth: N members on the same labels and grid.
        name: Variable.
        spans: Periods for the variability.
        late: Steps of the late window (of the time-mean error).
        subject: What to call the prediction in errors.

    Raises:
        DataContractError: On NaN or values that cannot be in the stated unit.
    """
    forecast, target, w = _Reader(prediction, name, subject), _Reader(truth, name, "the truth"), _cell_weights(truth)
    size, n_target, n_time = prediction.sizes["member"], truth.sizes["member"], truth.sizes["time"]
    kind = "fair" if size > 1 else "mae"
    crps, plain, absolute, square = (np.zeros((n_target, n_time)) for _ in range(4))
    mean_error, mean_square, variance = np.zeros(n_time), np.zeros(n_time), np.zeros(n_time)
    ranks, thinned = np.zeros((n_time, size + 1)), np.zeros((n_time, size + 1))
    late_map, total = np.zeros(w.size), 0.0
    keep_time, keep_cell = _thinning(truth)
    for span, rows, cells in _tiles(n_time, max(size, n_target), _grid(truth)):
        x, y, area = forecast.block(span, rows=rows), target.block(span, rows=rows), w[cells]
        distance, pairs = kernels.mean_abs_difference(x, y), kernels.pair_sum(x)
        crps[:, span] += kernels.crps_from(distance, pairs, size, kind) @ area
        plain[:, span] += kernels.crps_from(distance, pairs, size, "plain") @ area
        centre = x.mean(axis=0)
        absolute[:, span] += np.abs(centre - y) @ area
        square[:, span] += (centre - y) ** 2 @ area
        error = centre - y.mean(axis=0)
        mean_error[span] += error @ area
        mean_square[span] += error**2 @ area
        total += float((centre @ area).sum())
        late_map[cells] += error[np.isin(np.arange(span.start, span.stop), late)].sum(axis=0)
        ranks[span] += kernels.rank_shares(x, y, area).mean(axis=0)
        steps, points = keep_time[span], keep_cell[cells]
        if steps.any() and points.any():
            few, true = (values[:, steps][:, :, points] for values in (x, y))
            shares = kernels.rank_shares(few, true, np.ones(int(points.sum())))
            thinned[np.flatnonzero(steps) + span.start] += shares.sum(axis=0)
        variance[span] += kernels.variance(x) @ area if size > 1 else np.nan
    check_field(name, prediction[name], subject, total / n_time / forecast.factor)
    late_square = float((late_map / late.size) ** 2 @ w) if late.size else float("nan")
    return ScoreSeries(
        size, kind, crps, plain, absolute, square, mean_error, mean_square, variance, (size + 1) / size, late_square,
        _variability(forecast, prediction, w, spans), ranks, thinned,
    )  # fmt: skip


def _thinning(ds: xr.Dataset) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which steps ``[T]`` and cells ``[P]`` enter the chi-square of the ranks."""
    every, rows, columns = RANK_THINNING
    year = np.asarray(ds["year"].values, dtype=np.int64)
    times = (year - year[0]) % every == 0
    if "month" in ds.coords:
        times &= np.asarray(ds["month"].values) == ds["month"].values[0]
    cells = np.zeros((ds.sizes["lat"], ds.sizes["lon"]), dtype=bool)
    cells[::rows, ::columns] = True
    return times, cells.ravel()


def pool_series(
    reference: ReferenceEnsemble,
    truth: xr.Dataset,
    name: str,
    span: Period,
    late: NDArray[np.int64],
) -> ScoreSeries:
    """Score series of a reference ensemble over one period, exact over all residuals of that period.

    CRPS and spread are those of forced mean + pool. The errors of the mean (RMSE, bias, MAE) are the forced mean's own; the
    pool's mean, zero but for incomplete last decades and shortened periods, enters only the spread-skill ratio. Months of an
    ensemble of several responses are scored about their mean: on CESM2 that moves a month's CRPS by 0.1 %, and
    the expectation over all pairs would take minutes.

    Returns:
        See :class:`ScoreSeries`; steps outside the period are NaN.
    """
    if span.name == "headline":
        reference = reference.since(HEADLINE_FIRST_YEAR)
    w, target = _cell_weights(truth), _Reader(truth, name, "the truth")
    n_target, n_time = truth.sizes["member"], truth.sizes["time"]
    forced = np.asarray(reference.mean[name].values, dtype=np.float64).reshape(n_time, -1) * target.factor
    crps, absolute, square = (np.full((n_target, n_time), np.nan) for _ in range(3))
    mean_error, mean_square, variance = (np.full(n_time, np.nan) for _ in range(3))
    late_map, noise, size = np.zeros(w.size), [], reference.pool.sizes["sample"]
    shifts = reference.shifts(name) * target.factor
    if "calendar_month" in reference.pool.dims:
        shifts = shifts.mean(axis=0, keepdims=True)
    n_all = size * shifts.shape[0]
    for steps, residuals in reference.pools(name):
        steps = np.intersect1d(steps, span.steps)
        pool = kernels.SortedPool(residuals.reshape(size, -1) * target.factor)
        between = shifts[:, steps].var(axis=0) @ w
        variance[steps] = (pool.variance @ w * (size - 1) / size + between) * n_all / (n_all - 1)
        noise.append(float(pool.variance @ w) * (size - 1) / size)
        for part in _blocks(steps.size, 8 * n_target * w.size):  # the search holds some arrays of this size
            s = steps[part]
            z = target.block(s) - forced[s]
            distance = np.mean([pool.mean_abs_difference(z - d) for d in shifts[:, s]], axis=0)
            pairs = np.stack([pool.shifted_pairs(d) for d in shifts[:, s].swapaxes(0, 1)])
            crps[:, s] = kernels.crps_from(distance, pairs, n_all, "fair") @ w
            absolute[:, s], square[:, s] = np.abs(z) @ w, (pool.mean - z) ** 2 @ w
            error = -z.mean(axis=0)
            mean_error[s], mean_square[s] = error @ w, error**2 @ w
            late_map += error[np.isin(s, late)].sum(axis=0)
    late_square = float((late_map / late.size) ** 2 @ w) if late.size else float("nan")
    year, month = np.asarray(truth["year"].values, dtype=np.int64)[span.steps], None
    if "month" in truth.coords:
        month = np.asarray(truth["month"].values, dtype=np.int64)[span.steps]
    # a draw's variance: the trend-free part of the forced mean, and independent residuals
    variability = float(kernels.detrended_variance(forced[span.steps], year, month) @ w) + float(np.mean(noise))
    return ScoreSeries(
        None, "fair", crps, None, absolute, square, mean_error, mean_square, variance, (n_all + 1) / n_all, late_square,
        {span.name: variability},
    )  # fmt: skip
