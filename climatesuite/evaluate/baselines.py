"""Reference ensembles: a forced mean per time step plus the residuals that training runs left about it.

Draws of such an ensemble are noisy (a 20-member draw moves decadal CRPS / floor by several percent), so it is never drawn to
be scored: ``evaluate.series.pool_series`` takes the exact expectation over the whole pool.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.evaluate.kernels import Array
from climatesuite.forcing.response import ForcedResponse, fit_response
from climatesuite.harmonise.coarsen import to_decade, to_year

CLIMATOLOGY = "climatology"
PATTERN_SCALING = "pattern scaling (CO2)"
FLOOR = "internal variability floor"
Runs = Mapping[str, xr.Dataset]


@dataclass(frozen=True)
class ReferenceEnsemble:
    """A forced mean and a pool of residual fields, both in canonical units.

    Attributes:
        name: Name of the row.
        mean: Per variable ``(time, lat, lon)`` with coords year (and month).
        pool: Per variable ``(calendar_month, sample, lat, lon)`` for months, ``(sample, lat, lon)`` else, with the label
            of the year each residual comes from, ``year (sample)``.
    """

    name: str
    mean: xr.Dataset
    pool: xr.Dataset

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(str(name) for name in self.pool.data_vars)

    def since(self, first_year: int) -> "ReferenceEnsemble":
        """The same with residuals labelled ``first_year`` or later only: a period is scored with the pool of that period."""
        kept = np.flatnonzero(self.pool["year"].values >= first_year)
        if kept.size < 2:
            raise DataContractError(
                self.name, f"{kept.size} residuals from {first_year} on", "2 or more", "give longer training runs"
            )
        return self if kept.size == self.pool.sizes["sample"] else replace(self, pool=self.pool.isel(sample=kept))

    def pools(self, name: str) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """The time steps that share a pool, and that pool ``[K, lat, lon]`` in float64."""
        if "calendar_month" not in self.pool.dims:
            yield np.arange(self.mean.sizes["time"]), np.asarray(self.pool[name].values, dtype=np.float64)
            return
        month = np.asarray(self.mean["month"].values)
        for m in np.unique(month):
            yield np.flatnonzero(month == m), np.asarray(self.pool[name].sel(calendar_month=m).values, dtype=np.float64)


class Baseline(Protocol):
    """Anything that yields a reference ensemble for the time steps of a truth."""

    @property
    def name(self) -> str:
        """Name of the row."""
        ...

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels and grid of ``like``."""
        ...


def coarse_runs(
    runs: Runs, decade_start: int | None, timescales: Sequence[str] = TIMESCALES
) -> dict[str, dict[str, xr.Dataset]]:
    """The runs at each timescale: ``{timescale: {experiment_id: canonical Dataset}}``.

    Args:
        runs: Canonical month or year Datasets by scenario; year runs yield no ``month``.
        decade_start: First year of a decade; the runs' first year if None.
        timescales: Which to make.

    Raises:
        DataContractError: If there is no run, or months are asked of yearly runs.
    """
    if not runs:
        raise DataContractError("reference ensembles", "no training runs", "one or more", "give --reference files")
    out: dict[str, dict[str, xr.Dataset]] = {t: {} for t in timescales}
    for scenario, ds in runs.items():
        if "month" not in ds.coords and "month" in timescales:
            raise DataContractError(
                f"training run {scenario}", "yearly data", "months", "leave out the timescale month"
            )
        yearly = to_year(ds) if "month" in ds.coords else ds
        start = int(yearly["year"].values[0]) if decade_start is None else decade_start
        for t in timescales:
            out[t][scenario] = ds if t == "month" else yearly if t == "year" else to_decade(yearly, start)
    return out


def field_names(runs: Runs, variables: Sequence[str] | None = None) -> tuple[str, ...]:
    """The variables asked for, or all fields of the runs."""
    if variables is not None:
        return tuple(variables)
    first = next(iter(runs.values()))
    return tuple(str(n) for n, v in first.data_vars.items() if {"member", "time", "lat", "lon"} <= set(v.dims))


def residual_pool(runs: Runs, means: Mapping[str, xr.Dataset], variables: Sequence[str]) -> xr.Dataset:
    """All residuals of the runs about their means, float32, in the order scenario, member, time.

    Args:
        runs: Datasets of one timescale by scenario.
        means: The mean of each scenario ``(time, lat, lon)`` on the run's steps.
        variables: Names.

    Returns:
        ``(calendar_month, sample, lat, lon)`` where runs have months, else ``(sample, lat, lon)``.
    """
    fields = {}
    stacked = {key: _stacked_labels(runs, key) for key in ("year", "month")}
    month = stacked["month"]
    groups = [slice(None)] if month is None else [np.flatnonzero(month == m) for m in np.unique(month)]
    for name in variables:
        parts = []
        for scenario, ds in runs.items():
            mean = np.asarray(means[scenario][name].transpose("time", "lat", "lon").values, dtype=np.float64)
            for x in ds[name].transpose("member", "time", "lat", "lon"):
                parts.append((np.asarray(x.values, dtype=np.float64) - mean).astype(np.float32))
        values, dims, attrs = np.concatenate(parts), ("sample", "lat", "lon"), ds[name].attrs
        cube = values if month is None else np.stack([values[g] for g in groups])
        fields[name] = (dims if month is None else ("calendar_month", *dims), cube, attrs)
    year = stacked["year"]
    coords = {"lat": ds["lat"], "lon": ds["lon"], "year": ("sample", None if year is None else year[groups[0]])}
    return xr.Dataset(fields, coords if month is None else {**coords, "calendar_month": np.unique(month)})


def _stacked_labels(runs: Runs, key: str) -> NDArray[np.int64] | None:
    """Labels ``key`` of all runs in the order scenario, member, time; None where runs have none."""
    if any(key not in ds.coords for ds in runs.values()):
        return None
    return np.concatenate(
        [np.tile(np.asarray(ds[key].values, dtype=np.int64), ds.sizes["member"]) for ds in runs.values()]
    )


def _on_steps(fields: Mapping[str, Array], like: xr.Dataset, attrs: Mapping[str, Mapping]) -> xr.Dataset:
    """Fields ``[T, lat, lon]`` on the time steps and grid of a canonical Dataset."""
    names = [
        n
        for n in ("time", "year", "month", "days", "time_bnds", "lat", "lon", "lat_bnds", "lon_bnds")
        if n in like.variables
    ]
    frame = like[names].set_coords([n for n in names if n not in like.coords])
    fields_named = {n: (("time", "lat", "lon"), v, dict(attrs[n])) for n, v in fields.items()}
    return frame.assign(fields_named).assign_attrs(like.attrs)


@dataclass(frozen=True)
class Climatology:
    """The mean of all training years, per calendar month for months, with the training residuals about it.

    Attributes:
        means: ``{timescale: Dataset}``: ``(calendar_month, lat, lon)`` for months, ``(lat, lon)`` else.
        residuals: ``{timescale: residual_pool(...)}``.
    """

    means: Mapping[str, xr.Dataset]
    residuals: Mapping[str, xr.Dataset]
    name: str = CLIMATOLOGY

    @classmethod
    def fit(
        cls, runs: Runs, variables: Sequence[str] | None = None, decade_start: int | None = None,
        timescales: Sequence[str] = TIMESCALES,
    ) -> "Climatology":  # fmt: skip
        """Average all members and years of all training runs (each member and year counts once).

        A decade's mean is the mean of the single years, as whole decades may leave years over.
        """
        names = field_names(runs, variables)
        coarse = coarse_runs(runs, decade_start, sorted({"year", *timescales}))
        means, residuals = {}, {}
        for t in timescales:
            source = coarse["month" if t == "month" else "year"]
            means[t] = _overall_mean(source, names)
            expanded = {s: _expand(means[t], ds, names) for s, ds in coarse[t].items()}
            residuals[t] = residual_pool(coarse[t], expanded, names)
        return cls(means, residuals)

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels of ``like``."""
        pool = _known(self.residuals, timescale, self.name)
        return ReferenceEnsemble(self.name, _expand(self.means[timescale], like, tuple(map(str, pool.data_vars))), pool)


def _known(pools: Mapping[str, xr.Dataset], timescale: str, name: str) -> xr.Dataset:
    if timescale not in pools:
        raise DataContractError(name, f"fitted for {', '.join(pools)}", timescale, "fit it with this timescale")
    return pools[timescale]


def _overall_mean(runs: Runs, names: Sequence[str]) -> xr.Dataset:
    """Mean over scenarios, members and years (by calendar month where there are months), float64."""
    out = {}
    for name in names:
        total: Array | float = 0.0
        count: NDArray[np.int64] | int = 0
        for ds in runs.values():
            run = ds[name].transpose("member", "time", "lat", "lon")
            series = np.asarray(run.values).mean(axis=0, dtype=np.float64) * run.sizes["member"]
            if "month" in ds.coords:
                groups = [ds["month"].values == m for m in range(1, 13)]
                total = total + np.stack([series[g].sum(axis=0) for g in groups])
                count = count + np.array([g.sum() * run.sizes["member"] for g in groups])[:, None, None]
            else:
                total, count = total + series.sum(axis=0), count + series.shape[0] * run.sizes["member"]
        is_month = "month" in ds.coords
        coords = {"lat": ds["lat"].values, "lon": ds["lon"].values}
        out[name] = xr.DataArray(
            total / count,
            {"calendar_month": np.arange(1, 13), **coords} if is_month else coords,
            ("calendar_month", "lat", "lon") if is_month else ("lat", "lon"),
            attrs=ds[name].attrs,
        )
    return xr.Dataset(out)


def _expand(mean: xr.Dataset, like: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """A climatology repeated on the time steps of ``like``."""
    fields = {}
    for name in names:
        values = np.asarray(mean[name].values, dtype=np.float64)
        by_step = values[np.asarray(like["month"].values) - 1] if values.ndim == 3 else None
        fields[name] = np.broadcast_to(values, (like.sizes["time"], *values.shape)) if by_step is None else by_step
    return _on_steps(fields, like, {n: mean[n].attrs for n in names})


@dataclass(frozen=True)
class PatternScaling:
    """The forced response to annual-mean cumulative CO2 with the residuals of the training runs about it.

    Attributes:
        response: Least squares per cell and calendar month; its years and decades are days-weighted means of its months.
        residuals: ``{timescale: residual_pool(...)}``.
        predictor: Annual predictor ``(year)`` of the scenario to be predicted.
    """

    response: ForcedResponse
    residuals: Mapping[str, xr.Dataset]
    predictor: xr.DataArray
    name: str = PATTERN_SCALING

    @classmethod
    def fit(
        cls, runs: Runs, predictors: Mapping[str, xr.DataArray], target: xr.DataArray,
        variables: Sequence[str] | None = None, decade_start: int | None = None, timescales: Sequence[str] = TIMESCALES,
    ) -> "PatternScaling":  # fmt: skip
        """Fit on training runs of months; ``predictors`` by scenario, ``target`` of the test scenario, all ``(year)``."""
        names = field_names(runs, variables)
        response = fit_response(runs, predictors, names)
        coarse = coarse_runs(runs, decade_start, timescales)
        residuals = {}
        for t in timescales:
            means = {s: _response_on(response, predictors[s], t, ds, names) for s, ds in coarse[t].items()}
            residuals[t] = residual_pool(coarse[t], means, names)
        return cls(response, residuals, target)

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels of ``like``, driven by ``predictor``."""
        pool = _known(self.residuals, timescale, self.name)
        names = tuple(map(str, pool.data_vars))
        mean = _response_on(self.response, self.predictor, timescale, like, names)
        return ReferenceEnsemble(self.name, mean, pool)


def _response_on(
    response: ForcedResponse, predictor: xr.DataArray, timescale: str, like: xr.Dataset, names: Sequence[str]
) -> xr.Dataset:
    """The response on exactly the labels of ``like``; ForcedResponse raises where the predictor does not reach."""
    wanted = np.unique(np.asarray(like["year"].values, dtype=np.int64))
    out = response.evaluate(predictor, timescale, years=wanted.tolist())
    if timescale == "month":
        out = out.isel(time=np.isin(protocol.labels(out), protocol.labels(like)))
    if not np.array_equal(protocol.labels(out), protocol.labels(like)):
        raise DataContractError(
            "forced response", "other time labels than the run", "the run's labels", "use sorted, whole months"
        )
    fields = {n: np.asarray(out[n].transpose("time", "lat", "lon").values, dtype=np.float64) for n in names}
    return _on_steps(fields, like, {n: like[n].attrs if n in like else {} for n in names})
