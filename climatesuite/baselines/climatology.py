"""References that know no forcing: the mean of all training years, and the first decade held.

Both hold the real variability; what they lack is the response.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.baselines.names import CLIMATOLOGY, FIRST_DECADE
from climatesuite.baselines.reference import (
    Array,
    ReferenceEnsemble,
    Runs,
    coarse_runs,
    field_names,
    known,
    on_steps,
    residual_pool,
)
from climatesuite.conventions import TIMESCALES


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
            expanded = {s: expand(means[t], ds, names) for s, ds in coarse[t].items()}
            residuals[t] = residual_pool(coarse[t], expanded, names)
        return cls(means, residuals)

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels of ``like``."""
        pool = known(self.residuals, timescale, self.name)
        return ReferenceEnsemble(self.name, expand(self.means[timescale], like, tuple(map(str, pool.data_vars))), pool)


def first_decade(
    runs: Runs, variables: Sequence[str] | None = None, decade_start: int | None = None,
    timescales: Sequence[str] = TIMESCALES,
) -> Climatology:  # fmt: skip
    """The first ten years of all training runs held for ever: their mean, and their departures from it.

    The scenarios have hardly parted by then. The departures carry no year, as all of them serve every period.
    """
    early = {}
    for scenario, ds in runs.items():
        year = np.asarray(ds["year"].values)
        first = int(year[0]) if decade_start is None else decade_start
        early[scenario] = ds.isel(time=np.flatnonzero((year >= first) & (year < first + 10)))
    fitted = Climatology.fit(early, variables, decade_start, timescales)
    return replace(fitted, name=FIRST_DECADE, residuals={t: p.drop_vars("year") for t, p in fitted.residuals.items()})


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


def expand(mean: xr.Dataset, like: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """A climatology repeated on the time steps of ``like``."""
    fields = {}
    for name in names:
        values = np.asarray(mean[name].values, dtype=np.float64)
        by_step = values[np.asarray(like["month"].values) - 1] if values.ndim == 3 else None
        fields[name] = np.broadcast_to(values, (like.sizes["time"], *values.shape)) if by_step is None else by_step
    return on_steps(fields, like, {n: mean[n].attrs for n in names})
