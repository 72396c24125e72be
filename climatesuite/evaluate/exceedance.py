"""How likely an ensemble finds a threshold to be crossed, cell by cell."""

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics
from climatesuite.evaluate.kernels import Array


def exceedance(
    ds: xr.Dataset,
    name: str,
    threshold: float,
    years: tuple[int, int],
    base: tuple[int, int] | None = None,
    *,
    is_below: bool = False,
) -> xr.DataArray:
    """Share of members and steps of a period in which a cell lies above (or below) a threshold.

    Args:
        ds: Canonical Dataset ``(member, time, lat, lon)``; may be lazy.
        name: Variable.
        threshold: In score units (K, mm day-1): of the departure from ``base``, or of the value itself without one.
        years: First and last year label of the period.
        base: First and last year label of the reference: the ensemble's mean there, of each calendar month where steps are months.
        is_below: Count what lies below the threshold.

    Returns:
        ``(lat, lon)``, shares between 0 and 1; a value equal to the threshold does not count.

    Raises:
        DataContractError: If a period holds no step, or the variable is missing.
    """
    year = np.asarray(ds["year"].values)
    steps = np.flatnonzero((year >= years[0]) & (year <= years[1]))
    if not steps.size:
        raise DataContractError(
            f"{name}: exceedance", f"years {int(year[0])} to {int(year[-1])}", f"{years[0]} to {years[1]}", "choose another period"
        )  # fmt: skip
    part = ds.isel(time=steps)
    level = threshold + (0.0 if base is None else reference(ds, part, name, base))
    counts = np.zeros((part.sizes["lat"], part.sizes["lon"]))
    for field in diagnostics.members(part, name):
        counts += ((field < level) if is_below else (field > level)).sum(axis=0)
    shares = counts / (part.sizes["member"] * steps.size)
    return xr.DataArray(shares, {"lat": ds["lat"], "lon": ds["lon"]}, ("lat", "lon"), name, {"units": "1"})


def reference(ds: xr.Dataset, part: xr.Dataset, name: str, base: tuple[int, int]) -> Array:
    """The ensemble's mean over the base years for the steps of a part: ``[time or 1, lat, lon]``, score units.

    Months get the mean of their calendar month.
    """
    if "month" not in ds.coords:
        return diagnostics.period_means(ds, name, base).mean(axis=0)[None]
    of_month = {m: diagnostics.period_means(ds, name, base, (m,)).mean(axis=0) for m in np.unique(part["month"].values)}
    return np.stack([of_month[m] for m in part["month"].values])
