"""What the figures of a report show, as numbers: spectra, plumes, ranks and maps of an ensemble beside its truth.

Pure functions on canonical Datasets ``(member, time, lat, lon)``. Results are float64 in score units (K, mm day-1). Members
are taken one at a time, so that no float64 copy of an ensemble is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import scores
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import align
from climatesuite.harmonise.grids import cos_weights

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BANDS = {"0–20°": (0.0, 20.0), "20–60°": (20.0, 60.0), "60–90°": (60.0, 90.0)}
"""Bands of absolute latitude, degrees, in which spectra are averaged."""
GLOBE = (0.0, 90.0)
RANK_THINNING = (10, 8, 8)
"""Every 10th year, 8th row and 8th column are near enough to independent for a chi-square."""
_BLOCK_VALUES = 4_000_000


def members(ds: xr.Dataset, name: str) -> Iterator[Array]:
    """Each member of a variable in turn as float64 ``[time, lat, lon]``, score units.

    Raises:
        DataContractError: If the variable or one of its dims is missing, its unit is not canonical, or a value is NaN.
    """
    field = _field(ds, name)
    for number in range(field.sizes["member"]):
        values = np.asarray(field.isel(member=number).values, dtype=np.float64)
        scores.check_finite(field, values)
        yield values * VARIABLES[name].score_factor


def _field(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds or name not in VARIABLES:
        known = ", ".join(n for n in VARIABLES if n in ds) or "a canonical field"
        raise DataContractError(f"diagnostics of {name}", "no such variable", known, "name a field of the dataset")
    if set(ds[name].dims) != {"member", "time", "lat", "lon"}:
        raise DataContractError(name, f"dims {ds[name].dims}", "(member, time, lat, lon)", "rename the dims")
    units, wanted = ds[name].attrs.get("units"), VARIABLES[name].units
    if units != wanted:
        raise DataContractError(name, f"units {units!r}", repr(wanted), "convert and label it")
    return ds[name].transpose("member", "time", "lat", "lon")


def _calendar_groups(ds: xr.Dataset) -> list[NDArray[np.int64]]:
    """Steps that share a calendar month; all steps in one group for years and decades."""
    if "month" not in ds.coords:
        return [np.arange(ds.sizes["time"])]
    month = np.asarray(ds["month"].values)
    return [np.flatnonzero(month == m) for m in np.unique(month)]


def _row_weights(ds: xr.Dataset) -> Array:
    """Cosine weights of the rows, sum 1."""
    weights = np.asarray(cos_weights(ds["lat"]).values, dtype=np.float64)
    return weights / weights.sum()


def _labels(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    return {name: ds[name] for name in ("time", "year", "month", "days") if name in ds.coords}


def global_mean(ds: xr.Dataset, name: str) -> xr.DataArray:
    """Area mean of every member and step.

    Args:
        ds: Canonical Dataset; may be lazy.
        name: Variable.

    Returns:
        ``(member, time)``, score units, cosine weights, with coords year (and month).
    """
    weights = _row_weights(ds)
    values = np.stack([field.mean(axis=2) @ weights for field in members(ds, name)])
    coords = {"member": ds["member"], **_labels(ds)} if "member" in ds.coords else _labels(ds)
    return xr.DataArray(values, coords, ("member", "time"), name, {"units": VARIABLES[name].score_units})


def base_level(series: xr.DataArray, years: tuple[int, int]) -> xr.DataArray:
    """Mean of global means over members and some years, per calendar month where there are months.

    Args:
        series: ``(member, time)`` of :func:`global_mean`.
        years: First and last year label, both included.

    Returns:
        ``(month)`` or a scalar, unit of the series.

    Raises:
        DataContractError: If the series has no step in these years.
    """
    inside = np.flatnonzero((series["year"].values >= years[0]) & (series["year"].values <= years[1]))
    if not inside.size:
        found = f"years {int(series['year'].min())} to {int(series['year'].max())}"
        raise DataContractError("base period of a plume", found, f"{years[0]} to {years[1]}", "choose another period")
    part = series.isel(time=inside).mean("member")
    return part.groupby("month").mean() if "month" in part.coords else part.mean("time")


def anomaly(series: xr.DataArray, base: xr.DataArray) -> xr.DataArray:
    """Global means minus a level of :func:`base_level`: ``(member, time)``."""
    level = base.sel(month=series["month"]).drop_vars("month") if "month" in base.dims else base
    return series.copy(data=series.values - level.values)


def plume(series: xr.DataArray, quantiles: Sequence[float] = QUANTILES) -> xr.DataArray:
    """Quantiles over members of every step (linear interpolation between members, type 7).

    Args:
        series: ``(member, time)``.
        quantiles: Shares between 0 and 1.

    Returns:
        ``(quantile, time)``, unit of the series.
    """
    values = np.quantile(series.transpose("member", "time").values, quantiles, axis=0)
    coords = {"quantile": list(quantiles), **{k: v for k, v in series.coords.items() if v.dims == ("time",)}}
    return xr.DataArray(values, coords, ("quantile", "time"), series.name, series.attrs)


def zonal_power(values: Array) -> Array:
    """Power of each zonal wavenumber of each row, members and times averaged after the transform.

    F_k = rfft(z) / W and P_k = c_k abs(F_k)^2, c = 1 at k = 0 and, W even, at W / 2, else 2; so sum_k P_k is the zonal mean
    of z^2 (Parseval).

    Args:
        values: ``[..., lat, lon]``.

    Returns:
        ``[lat, W // 2 + 1]``, squared unit of the values.
    """
    width = values.shape[-1]
    spectrum = np.abs(np.fft.rfft(values, axis=-1) / width) ** 2
    spectrum[..., 1 : (width + 1) // 2] *= 2.0
    return spectrum.reshape(-1, *spectrum.shape[-2:]).mean(axis=0)


def _residuals(ds: xr.Dataset, name: str, kind: str) -> Iterator[Array]:
    """Members' departures, inflated so that their variance is unbiased."""
    size, groups = ds.sizes["member"], _calendar_groups(ds)
    if kind == "ensemble":
        if size < 2:
            raise DataContractError(f"{name}: spectrum", "1 member", "2 or more", "use kind='trend'")
        total = sum(members(ds, name))
        for field in members(ds, name):
            yield (field - total / size) * np.sqrt(size / (size - 1))
        return
    year = np.asarray(ds["year"].values, dtype=np.float64)
    if min(group.size for group in groups) < 3:
        raise DataContractError(
            f"{name}: spectrum", "fewer than 3 years", "3 or more to remove a trend", "give more years"
        )
    for field in members(ds, name):
        for group in groups:
            t = year[group] - year[group].mean()
            part = field[group] - field[group].mean(axis=0)
            part -= t[:, None, None] * (np.tensordot(t, part, axes=1) / (t @ t))
            field[group] = part * np.sqrt(group.size / (group.size - 2))
        yield field


def zonal_spectrum(ds: xr.Dataset, name: str, kind: str = "ensemble") -> xr.DataArray:
    """Zonal power spectrum of the variability, per row.

    Args:
        ds: Canonical Dataset.
        name: Variable.
        kind: ``ensemble``: departures from the ensemble's own mean, times sqrt(M / (M - 1)); ``trend``: from every
            cell's straight line in time (per calendar month), which one member allows.

    Returns:
        ``(lat, wavenumber)``, squared score units; its sum over wavenumbers is the variance of a row.

    Raises:
        DataContractError: If there are too few members or years for the kind.
        ValueError: On another kind.
    """
    if kind not in ("ensemble", "trend"):
        raise ValueError(f"kind {kind!r}: expected ensemble or trend")
    power = np.mean([zonal_power(part) for part in _residuals(ds, name, kind)], axis=0)
    coords = {"lat": ds["lat"], "wavenumber": np.arange(power.shape[1])}
    units = f"({VARIABLES[name].score_units})2"
    return xr.DataArray(power, coords, ("lat", "wavenumber"), name, {"units": units, "kind": kind})


def band_mean(spectrum: xr.DataArray, band: tuple[float, float] = GLOBE) -> xr.DataArray:
    """Area-weighted mean over the rows whose absolute latitude lies in a band ``[low, high)`` (90 included).

    Args:
        spectrum: ``(lat, ...)``.
        band: Degrees of absolute latitude.

    Raises:
        DataContractError: If the band has no row.
    """
    size = np.abs(spectrum["lat"].values)
    inside = np.flatnonzero((size >= band[0]) & ((size < band[1]) | (band[1] >= 90.0)))
    if not inside.size:
        found, wanted = f"no row between {band[0]:g} and {band[1]:g} degrees", "one or more"
        raise DataContractError("band of a spectrum", found, wanted, "choose a wider band")
    part = spectrum.isel(lat=inside)
    return part.weighted(cos_weights(part["lat"])).mean("lat").assign_attrs(spectrum.attrs)


def log_spectral_distance(spectrum: xr.DataArray, truth: xr.DataArray) -> float:
    """Root mean square over wavenumbers 1 to W / 2 - 1 of 10 log10(P / P_truth), dB; 0 is equal."""
    ratio = spectrum.values[1:-1] / truth.values[1:-1]
    return float(np.sqrt(np.mean((10.0 * np.log10(ratio)) ** 2)))


@dataclass(frozen=True)
class Ranks:
    """Where the truth ranks among the members.

    Attributes:
        shares: ``(rank)``, M + 1 area-weighted shares, sum 1; 1 / (M + 1) each if calibrated.
        reliability_index: Sum of abs(share - 1 / (M + 1)).
        chi2_ratio: Chi-square of a thinned sample over its M degrees of freedom; near 1 if calibrated, None if too few.
        thinned: Number of values in that sample.
    """

    shares: xr.DataArray
    reliability_index: float
    chi2_ratio: float | None
    thinned: int


def ranks(ensemble: xr.Dataset, truth: xr.Dataset, name: str) -> Ranks:
    """Rank histogram of every truth member, step and cell, ties split evenly, on the labels both have.

    Args:
        ensemble: Canonical Dataset of M members.
        truth: Canonical Dataset of N members.
        name: Variable.

    Raises:
        DataContractError: If labels, grids or units differ.
    """
    ours, theirs = align(ensemble, truth)
    x, y = _field(ours, name), _field(theirs, name)
    size, n_time = x.sizes["member"], x.sizes["time"]
    step = max(1, _BLOCK_VALUES // (x.isel(time=0).size + y.isel(time=0).size))
    total = np.zeros(size + 1)
    for first in range(0, n_time, step):
        block = slice(first, min(n_time, first + step))
        total += scores.rank_histogram(x.isel(time=block), y.isel(time=block)).values * (block.stop - first)
    shares = xr.DataArray(total / total.sum(), dims="rank", name="rank_histogram")
    counts = _thinned_counts(ours, theirs, name)
    few = counts.sum() < 5 * (size + 1)  # the usual bound of a chi-square: five expected in each class
    ratio = None if few else float(scores.rank_chi2(counts)) / size
    return Ranks(shares, float(scores.reliability_index(shares)), ratio, int(round(counts.sum())))


def _thinned_counts(ours: xr.Dataset, theirs: xr.Dataset, name: str) -> Array:
    """Rank counts of near-independent values, each of weight 1; of months only one a kept year."""
    years, rows, columns = RANK_THINNING
    year = np.asarray(ours["year"].values)
    kept = (year - year[0]) % years == 0
    if "month" in ours.coords:
        kept &= np.asarray(ours["month"].values) == int(ours["month"].values[0])
    where = {"time": np.flatnonzero(kept), "lat": slice(None, None, rows), "lon": slice(None, None, columns)}
    x, y = (_field(ds, name).isel(where) for ds in (ours, theirs))
    shares = scores.rank_histogram(x, y, xr.ones_like(x["lat"], dtype=np.float64))
    return np.asarray(shares.values * y.size)


def end_years(ds: xr.Dataset, n_years: int = 10) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last year labels of the first and of the last decade; of each half where there are fewer than 20 years."""
    year, span = np.asarray(ds["year"].values), 10 if ds.attrs.get("timescale") == "decade" else 1
    length = max(span, min(n_years, (int(year[-1]) + span - int(year[0])) // 2))
    first = (int(year[0]), int(year[0]) + length - span)
    return first, (int(year[-1]) - length + span, int(year[-1]))


def period_means(ds: xr.Dataset, name: str, years: tuple[int, int], months: Sequence[int] | None = None) -> Array:
    """Days-weighted mean of each member over some years (and calendar months): ``[member, lat, lon]``, score units.

    Raises:
        DataContractError: If there is no such step.
    """
    year = np.asarray(ds["year"].values)
    inside = (year >= years[0]) & (year <= years[1])
    if months is not None and "month" in ds.coords:
        inside &= np.isin(ds["month"].values, months)
    steps = np.flatnonzero(inside)
    if not steps.size:
        expected = f"{years[0]} to {years[1]}" + ("" if months is None else f", months {tuple(months)}")
        found = f"years {int(year[0])} to {int(year[-1])}"
        raise DataContractError(f"{name}: mean of a period", found, expected, "choose another period")
    part = ds.isel(time=steps)
    days = np.asarray(part["days"].values if "days" in part.coords else np.ones(steps.size), dtype=np.float64)
    return np.stack([np.tensordot(days / days.sum(), field, axes=1) for field in members(part, name)])


def change_maps(
    ensemble: xr.Dataset, truth: xr.Dataset, name: str, months: Sequence[int] | None = None, n_years: int = 10
) -> xr.Dataset:
    """Maps of the change and of the error of the ensemble mean.

    Args:
        ensemble: Canonical Dataset of M members.
        truth: Canonical Dataset of N members; both are cut to the labels they share.
        name: Variable.
        months: Calendar months (1 to 12) to keep, where there are months.
        n_years: Length of the first and the last period; see :func:`end_years`.

    Returns:
        ``(lat, lon)``, score units: ``change`` (ensemble mean, last minus first period), ``truth_change``, ``error``
        (ensemble mean minus truth mean, last period), ``error_noise``: standard deviation of the error of a perfect
        ensemble, s sqrt(1 / M + 1 / N) with s from the larger of both; NaN with one member each. Attributes ``first`` and
        ``last``: the periods.
    """
    ours, theirs = align(ensemble, truth)
    first, last = end_years(theirs, n_years)
    x, y = (period_means(ds, name, last, months) for ds in (ours, theirs))
    before_x, before_y = (period_means(ds, name, first, months).mean(axis=0) for ds in (ours, theirs))
    sample = x if len(x) >= len(y) else y
    deviation = sample.std(axis=0, ddof=1) if len(sample) > 1 else np.full(x.shape[1:], np.nan)
    maps = {
        "change": x.mean(axis=0) - before_x,
        "truth_change": y.mean(axis=0) - before_y,
        "error": x.mean(axis=0) - y.mean(axis=0),
        "error_noise": deviation * np.sqrt(1.0 / len(x) + 1.0 / len(y)),
    }
    span = 9 if theirs.attrs.get("timescale") == "decade" else 0
    about = {"first": (first[0], first[1] + span), "last": (last[0], last[1] + span)}
    return _maps(theirs, maps, name).assign_attrs(about)


def spread_map(ds: xr.Dataset, name: str) -> xr.DataArray:
    """Spread of members of each cell: root of the time mean of the variance over members (ddof = 1).

    Returns:
        ``(lat, lon)``, score units.

    Raises:
        DataContractError: With fewer than 2 members.
    """
    size = ds.sizes["member"]
    if size < 2:
        raise DataContractError(f"{name}: spread", "1 member", "2 or more", "draw more members")
    mean = np.zeros(tuple(ds.sizes[d] for d in ("time", "lat", "lon")))
    squares = np.zeros_like(mean)
    for count, field in enumerate(members(ds, name), start=1):  # Welford: no cancellation at 288 K
        delta = field - mean
        mean += delta / count
        squares += delta * (field - mean)
    return _maps(ds, {"spread": np.sqrt(squares.mean(axis=0) / (size - 1))}, name)["spread"]


def _maps(ds: xr.Dataset, maps: dict[str, Array], name: str) -> xr.Dataset:
    about = {"units": VARIABLES[name].score_units}
    coords = {n: ds[n] for n in ("lat", "lon", "lat_bnds", "lon_bnds") if n in ds.variables}
    out = xr.Dataset({key: (("lat", "lon"), values, about) for key, values in maps.items()})
    return out.assign_coords(coords)


def area_share(mask: xr.DataArray) -> float:
    """Share of the globe's area where a mask ``(lat, lon)`` holds."""
    return float(scores.area_mean(mask.astype(np.float64)))


def year_stride(ds: xr.Dataset, name: str, max_values: int) -> int:
    """Smallest k so that every k-th year holds no more than ``max_values`` values of a variable; 1 for decades."""
    if ds.attrs.get("timescale") == "decade":
        return 1
    n_years = np.unique(ds["year"].values).size
    return -(-n_years // max(1, max_values * n_years // _field(ds, name).size))


def every_year(ds: xr.Dataset, stride: int) -> xr.Dataset:
    """Every k-th year, whole, counted from the first."""
    year = np.asarray(ds["year"].values)
    return ds if stride == 1 else ds.isel(time=np.flatnonzero((year - year[0]) % stride == 0))
