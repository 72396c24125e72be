"""The one ensemble type of the baselines: a forced mean per time step plus the residuals that training runs left about it.

Draws of such an ensemble are noisy (a 20-member draw moves decadal CRPS / floor by several percent), so it is not drawn to be
scored: ``evaluate.series.pool_series`` takes the exact expectation over the whole pool. It is drawn to be looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import YEARS_PER_DECADE, time_coords
from climatesuite.harmonise.coarsen import to_decade, to_year

Array = NDArray[np.float64]
Runs = Mapping[str, xr.Dataset]
"""Canonical Datasets by scenario."""
FRAME = ("time", "year", "month", "days", "time_bnds", "lat", "lon", "lat_bnds", "lon_bnds")
"""Labels and bounds that a field takes over from the run whose steps it lies on."""


@dataclass(frozen=True)
class ReferenceEnsemble:
    """A forced mean and a pool of residual fields, both in canonical units.

    Attributes:
        name: Name of the row.
        mean: Per variable ``(time, lat, lon)`` with coords year (and month).
        pool: Per variable ``(calendar_month, sample, lat, lon)`` for months, ``(sample, lat, lon)`` else; with the label
            of the year each residual comes from, ``year (sample)``, unless every period is to use all of them.
        offsets: Per variable ``(response, time, lat, lon)``: what each of several equally likely forced responses is beside
            their mean. None where there is one response.
    """

    name: str
    mean: xr.Dataset
    pool: xr.Dataset
    offsets: xr.Dataset | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(str(name) for name in self.pool.data_vars)

    def since(self, first_year: int) -> "ReferenceEnsemble":
        """The same with residuals labelled ``first_year`` or later only: a period is scored with the pool of that period.

        Raises:
            DataContractError: If fewer than two are left.
        """
        if "year" not in self.pool.coords:
            return self
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

    def shifts(self, name: str) -> Array:
        """The offsets ``[response, time, cell]``, one of zeros where there is one response."""
        if self.offsets is None:
            return np.zeros((1, self.mean.sizes["time"], self.mean.sizes["lat"] * self.mean.sizes["lon"]))
        field = np.asarray(self.offsets[name].transpose("response", "time", "lat", "lon").values, dtype=np.float64)
        return field.reshape(*field.shape[:2], -1)

    def draw(self, members: int, seed: int) -> xr.Dataset:
        """Members of the ensemble: a residual for every step, whole fields of all variables together.

        Months take the twelve months of one residual year, so a member is consistent within a year and from variable to
        variable, never from one year to the next. Member i takes response i (in turn) and is the same whatever is drawn
        beside it.

        Returns:
            Canonical Dataset ``(member, time, lat, lon)``, float32.

        Raises:
            DataContractError: If no member is asked for.
        """
        if members < 1:
            raise DataContractError(self.name, f"{members} members", "1 or more", "ask for members")
        is_month = "calendar_month" in self.pool.dims
        _, step_of = np.unique(self.mean["year"].values, return_inverse=True)
        chosen = [np.random.default_rng([seed, m]).integers(self.pool.sizes["sample"], size=step_of.max() + 1)[step_of]
                  for m in range(members)]  # fmt: skip
        fields = {}
        for name in self.variables:
            forced = np.asarray(self.mean[name].transpose("time", "lat", "lon").values, dtype=np.float64)
            shift = self.shifts(name).reshape(-1, *forced.shape)
            pool = self.pool[name].values
            first = (np.asarray(self.mean["month"].values) - int(self.pool["calendar_month"][0]),) if is_month else ()
            out = np.empty((members, *forced.shape), dtype=np.float32)
            for m in range(members):
                out[m] = forced + shift[m % shift.shape[0]] + pool[(*first, chosen[m])]
            fields[name] = out
        return on_steps(fields, self.mean, {n: self.mean[n].attrs for n in fields})


class Baseline(Protocol):
    """Anything that yields a reference ensemble for the time steps of a truth."""

    @property
    def name(self) -> str:
        """Name of the row."""
        ...

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels and grid of ``like``."""
        ...


@runtime_checkable
class Drawn(Protocol):
    """A baseline whose members depend on each other's steps, so that it can only be drawn."""

    @property
    def name(self) -> str:
        """Name of the row."""
        ...

    def draw(self, timescale: str, like: xr.Dataset, members: int, seed: int) -> xr.Dataset:
        """Members on the labels and grid of ``like``."""
        ...


def draw(baseline: Baseline | Drawn, timescale: str, like: xr.Dataset, members: int, seed: int = 0) -> xr.Dataset:
    """Members of any baseline: canonical Dataset ``(member, time, lat, lon)`` on the labels of ``like``."""
    drawn = (
        baseline.draw(timescale, like, members, seed)
        if isinstance(baseline, Drawn)
        else baseline.ensemble(timescale, like).draw(members, seed)
    )
    return drawn.assign_attrs(model=baseline.name, seed=seed)


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


def known(pools: Mapping[str, xr.Dataset], timescale: str, name: str) -> xr.Dataset:
    """The pool of a timescale.

    Raises:
        DataContractError: If the baseline was not fitted for it.
    """
    if timescale not in pools:
        raise DataContractError(name, f"fitted for {', '.join(pools)}", timescale, "fit it with this timescale")
    return pools[timescale]


def decades_of_years(draw_years: Callable[[xr.Dataset], xr.Dataset], like: xr.Dataset) -> xr.Dataset:
    """Decades as day-weighted means of the years that ``draw_years`` gives for the labels of the years within them."""
    years = np.concatenate(
        [np.arange(y, y + YEARS_PER_DECADE) for y in np.asarray(like["year"].values, dtype=np.int64)]
    )
    grid = like[[n for n in FRAME if n in like.variables and "time" not in like[n].dims]]
    frame = grid.assign_coords(time_coords(years, "year", like.attrs["calendar"]))
    drawn = to_decade(draw_years(frame.assign_attrs(like.attrs | {"timescale": "year"})), int(years[0]))
    fields = {n: drawn[n].transpose("member", "time", "lat", "lon").values for n in map(str, drawn.data_vars)}
    return on_steps(fields, like, {n: drawn[n].attrs for n in fields})


def on_steps(fields: Mapping[str, np.ndarray], like: xr.Dataset, attrs: Mapping[str, Mapping]) -> xr.Dataset:
    """Fields ``[T, lat, lon]`` or ``[member, T, lat, lon]`` on the time steps and grid of a canonical Dataset."""
    names = [n for n in FRAME if n in like.variables]
    frame = like[names].set_coords([n for n in names if n not in like.coords])
    dims = ("member", "time", "lat", "lon")
    named = {n: (dims[4 - v.ndim :], v, dict(attrs[n])) for n, v in fields.items()}
    sizes = {v.shape[0] for v in fields.values() if v.ndim == 4}
    frame = frame.assign_coords(member=("member", np.arange(max(sizes)))) if sizes else frame
    return frame.assign(named).assign_attrs(like.attrs)
