"""What every score demands of its arrays: finite values, equal coordinates, one unit; and how large ones are cut to blocks."""

from collections.abc import Hashable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import cos_weights

TARGET = "target"
"""Dim of the truth's single members in a result."""
BLOCK_BYTES = 64_000_000
"""Float64 values of one block: all members of as many steps (and, of a single step, rows) as fit."""
_COORDINATE_TOLERANCE_DEG = 1e-4
_LEAST_RAIN_STD = 1e-3
"""mm day-1. Fields of rain vary a thousandfold more; in kg m-2 s-1 they vary less."""


def label(field: xr.DataArray) -> str:
    """What to call an array in an error."""
    return str(field.name) if field.name is not None else "field"


def check_finite(field: xr.DataArray, values: NDArray | None = None) -> None:
    """Raise DataContractError if a value is NaN or infinite.

    Args:
        field: Its name goes into the error.
        values: Values already read; the field's own, read at once, if None.
    """
    _check_values(np.asarray(field.values) if values is None else values, label(field), allow_nan=False)


def _check_values(values: NDArray, subject: str, allow_nan: bool) -> None:
    bad = int(np.isinf(values).sum()) if allow_nan else int(values.size - np.isfinite(values).sum())
    if bad:
        kind, remedy = ("infinite", "correct them") if allow_nan else ("NaN or infinite", "mask or fill before scoring")
        raise DataContractError(subject, f"{bad} of {values.size} values are {kind}", "finite values", remedy)


def _checked_block(values: NDArray, subject: str, units: str | None, skipna: bool) -> NDArray[np.float64]:
    out = np.asarray(values, dtype=np.float64)
    _check_values(out, subject, skipna)
    rain = out[np.isfinite(out)] if subject == "pr" and units == "mm day-1" else out[:0]
    if rain.size >= 100 and 0.0 < rain.std() < _LEAST_RAIN_STD:
        found = f"values labelled {units} that vary by {rain.std():.2g}"
        raise DataContractError(
            subject, found, f"{_LEAST_RAIN_STD:g} or more", "multiply kg m-2 s-1 by 86400, or label them"
        )
    return out


def checked(field: xr.DataArray, skipna: bool = False) -> xr.DataArray:
    """The field in float64; every block is checked when it is computed, at once for an array in memory.

    Args:
        field: Any dims; dask-backed or not.
        skipna: Whether NaN may pass. Infinite values never do.

    Raises:
        DataContractError: On a value that is infinite or, without ``skipna``, NaN (from within the block, when computed); on
            rain labelled mm day-1 whose values can only be kg m-2 s-1.
    """
    return xr.apply_ufunc(
        _checked_block, field, kwargs={"subject": label(field), "units": field.attrs.get("units"), "skipna": skipna},
        dask="parallelized", output_dtypes=[np.float64], keep_attrs=True,
    )  # fmt: skip


def in_blocks(field: xr.DataArray, whole: str | None = None) -> xr.DataArray:
    """The field cut so that a float64 copy of a chunk stays within ``BLOCK_BYTES``.

    Small arrays that are not dask-backed pass unchanged; others, on disk or in memory, are cut along time, and along rows where
    one step of all members is too large. A dask array's chunks are never joined, except along ``whole``.

    Args:
        field: Dims may include time and lat.
        whole: Dim that a block must hold at full length; chunks that hold few members of all steps are then held until their
            last step is scored, so ensembles should be chunked by time.
    """
    if field.chunks is None and 8 * field.size <= BLOCK_BYTES:
        return field
    lengths = {d: field.sizes[d] for d in field.dims}
    if field.chunks is not None:
        lengths = {d: max(sizes) for d, sizes in zip(field.dims, field.chunks, strict=True)}
        if whole in lengths:
            lengths[whole] = field.sizes[whole]
    for dim in (d for d in ("time", "lat") if d in lengths):
        others = int(np.prod([n for d, n in lengths.items() if d != dim]))
        lengths[dim] = int(np.clip(BLOCK_BYTES // (8 * max(others, 1)), 1, max(lengths[dim], 1)))
    return field.chunk(lengths)


def same_coordinate(dim: Hashable, a: xr.DataArray, b: xr.DataArray) -> bool:
    """Whether two arrays of equal length have the same labels along a dim: years and months where both have them."""
    if dim == "time" and "year" in a.coords and "year" in b.coords:
        # mid-period dates differ between calendars and tools; the period's labels do not
        return all(
            name in a.coords and name in b.coords and np.array_equal(a[name], b[name])
            for name in ("year", "month")
            if name in a.coords or name in b.coords
        )
    if dim not in a.coords or dim not in b.coords:
        has_years = dim == "time" and ("year" in a.coords or "year" in b.coords)
        return dim not in a.coords and dim not in b.coords and not has_years
    left, right = a[dim].values, b[dim].values
    if len({getattr(v.flat[0], "calendar", None) for v in (left, right) if v.size}) > 1:
        return False  # cftime refuses to compare
    if dim in ("lat", "lon"):
        return bool(np.allclose(left, right, rtol=0.0, atol=_COORDINATE_TOLERANCE_DEG))
    return np.array_equal(left, right)


def _labels(dim: Hashable, field: xr.DataArray) -> NDArray:
    """What is compared, as text: ``2015-01`` for months, ``2015`` for years, else the coordinate with its calendar."""
    if dim == "time" and "year" in field.coords:
        year, month = field["year"].values, field["month"].values if "month" in field.coords else None
        return np.array([str(y) if month is None else f"{y}-{month[i]:02d}" for i, y in enumerate(year)])
    if dim not in field.coords:
        return np.full(field.sizes[dim], "no label")
    return np.array([f"{v} {v.calendar}" if hasattr(v, "calendar") else f"{v}" for v in field[dim].values])


def _difference(dim: Hashable, a: xr.DataArray, b: xr.DataArray) -> str:
    """Where two coordinates first differ."""
    ours, theirs = _labels(dim, a), _labels(dim, b)
    common = min(ours.size, theirs.size)
    odd = np.flatnonzero(ours[:common] != theirs[:common])
    where = int(odd[0]) if odd.size else common
    shown = [str(v[where]) if where < v.size else "nothing" for v in (ours, theirs)]
    return f"{shown[0]} against {shown[1]} at index {where}"


def check_comparable(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str = "member") -> None:
    """Check that two arrays differ in their members only.

    Raises:
        DataContractError: If dimensions, their lengths or labels, latitudes, longitudes or units differ.
    """
    subject = f"{label(forecast)}: forecast against truth"
    ours, theirs = ([d for d in field.dims if d not in (member_dim, TARGET)] for field in (forecast, truth))
    if set(ours) != set(theirs):
        raise DataContractError(
            subject,
            f"dimensions {ours}",
            f"the truth's, {theirs}",
            "rename or select until both agree; nothing is broadcast",
        )
    for dim in ours:
        if forecast.sizes[dim] != truth.sizes[dim] or not same_coordinate(dim, forecast, truth):
            found = f"coordinate {dim} ({forecast.sizes[dim]} values) is not the truth's ({truth.sizes[dim]} values)"
            raise DataContractError(
                subject,
                f"{found}: {_difference(dim, forecast, truth)}",
                f"equal {dim}",
                "regrid or align by labels first (evaluate.protocol.align)",
            )
    units = [field.attrs["units"] for field in (forecast, truth) if "units" in field.attrs]
    if len(set(units)) > 1:
        raise DataContractError(subject, f"units {units[0]!r}", f"the truth's, {units[1]!r}", "convert one of them")


def check_member_dim(forecast: xr.DataArray, member_dim: str) -> None:
    """Raise DataContractError unless the ensemble has its dim."""
    if member_dim not in forecast.dims:
        found = f"dims {forecast.dims}"
        raise DataContractError(label(forecast), found, f"a dimension {member_dim!r}", "name the ensemble's dim")


def row_weights(field: xr.DataArray, weights: xr.DataArray | None = None) -> xr.DataArray:
    """Area weights ``(lat)`` of a field's rows, sum 1, without coordinates: the cosine of latitude by default.

    Raises:
        DataContractError: If lat or lon is missing, lat has no values or leaves the sphere, or weights lie on other latitudes
            or are negative.
    """
    if "lat" not in field.dims or "lon" not in field.dims:
        found = f"dims {field.dims}"
        raise DataContractError(label(field), found, "lat and lon among them", "rename the horizontal dims")
    if weights is None:
        if "lat" not in field.coords:  # numbers of rows would pass for degrees
            raise DataContractError(label(field), "rows without latitudes", "a coordinate lat", "assign it in degrees")
        if float(np.abs(field["lat"]).max()) > 90.0 + _COORDINATE_TOLERANCE_DEG:
            raise DataContractError(label(field), "a latitude beyond 90", "degrees", "correct the coordinate lat")
    w = cos_weights(field["lat"]) if weights is None else weights
    if w.dims != ("lat",) or w.sizes["lat"] != field.sizes["lat"] or not same_coordinate("lat", w, field):
        raise DataContractError(
            "area weights", f"dims {w.dims}", "one weight per latitude of the field", "compute them from its lat"
        )
    values = np.asarray(w.values, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        found = f"weights from {values.min():g}, sum {values.sum():g}"
        raise DataContractError("area weights", found, "finite weights of 0 or more, some above", "correct them")
    return xr.DataArray(values / values.sum(), dims="lat")
