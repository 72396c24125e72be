"""The structure table: statistics of an ensemble's members beside the interval of real members.

Members are read one at a time, so memory is that of one member whatever the ensemble. Ensemble and real members are cut to the
years they share, months and years each by themselves, as several of the statistics depend on the length of a record.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, structure
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import labels, plain_value, timescale_of
from climatesuite.harmonise.grids import cos_weights

LAG1_LOCAL = "lag-1 of years, local"
LAG1_GLOBAL = "lag-1 of years, global mean"
SD_LOCAL = "sd of years, local"
SD_GLOBAL = "sd of years, global mean"
DECADE_SEAM = "decade seam"
DECEMBER_SEAM = "December-January seam"
_POWER = "zonal power of years"
ZONAL_POWER = _POWER + ", wavenumbers {}-{}, over real"
NINO_SD = "Niño-3.4 sd"
NINO_SHARE = "Niño-3.4 share of variance at 2-7 years"
NINO_SEASON = "Niño-3.4 sd of DJF over MAM"
SHARED = "r2 of yearly tas and pr"
NEGATIVE_YEARS, NEGATIVE_MONTHS = "share of negative values, years", "share of negative values, months"
COHERENCE = "mean of months against years"
COHERENCE_LIMIT = 0.1
"""Largest rms gap between a sampled year and the mean of its months, in real yearly standard deviations (metrics.md 5.6)."""
MIN_YEARS = 10
NINO_MIN_YEARS = 30
_IN_UNITS = (SD_LOCAL, SD_GLOBAL, NINO_SD)
_NAMES = (LAG1_LOCAL, LAG1_GLOBAL, SD_LOCAL, SD_GLOBAL, DECADE_SEAM, DECEMBER_SEAM, _POWER,
          NINO_SD, NINO_SHARE, NINO_SEASON, SHARED, NEGATIVE_YEARS, NEGATIVE_MONTHS,
          COHERENCE)  # fmt: skip

Key = tuple[str, str]
"""Name of a statistic and its variable (``tas, pr`` for both)."""
Values = dict[Key, float]
Span = tuple[int, int]
"""First and last year, both included."""
Forced = Callable[[xr.Dataset], xr.Dataset]
"""Forced response ``(time, lat, lon)`` on the labels of a canonical Dataset, canonical units."""
Row = dict[str, Any]


def structure_table(
    ensemble: xr.Dataset | Mapping[str, xr.Dataset],
    real_members: xr.Dataset | Iterable[xr.Dataset],
    *,
    forced: Forced | None = None,
    decade_start: int | None = None,
) -> list[Row]:
    """Statistics of an ensemble's members beside real members, each taken about its own forced response.

    Yearly statistics come from sampled years where they are given, else from means of months; what needs months is left out
    where there are none, and a timescale of which fewer than 10 years are shared.

    Args:
        ensemble: Canonical Dataset ``(member, time, lat, lon)`` of months or years, or both by timescale (then month and
            year of one member label are one sample, as the cascade makes them). May be lazy.
        real_members: Canonical Datasets of months or years, of any scenarios, on the same grid.
        forced: Forced response of each Dataset given; by default a parabola per member, cell and calendar month.
        decade_start: First year of a decade; by default the ensemble's attribute, else its first year.

    Returns:
        Rows ``name, variable, value`` (mean over the ensemble's members), ``real_mean, real_lo, real_hi`` (mean of the real
        members -+ 2 standard deviations over them; None where there are fewer than 2), ``inside`` (None without an
        interval), ``units``, ``M``, ``N`` members. Zonal power is relative to the real mean. The mean of months against years has
        limits 0 and 0.1, and its unit is the real members' yearly standard deviation.

    Raises:
        DataContractError: If variables, units or grids differ, steps are missing, or no timescale has 10 shared years.
    """
    ours = _by_timescale(ensemble)
    reals = [real_members] if isinstance(real_members, xr.Dataset) else list(real_members)
    if not reals:
        raise DataContractError(
            "structure table", "no real members", "2 or more", "give runs of the Earth system model"
        )
    check_alike([*ours.values(), *reals], "structure table")
    spans = _spans(ours, reals)
    start = _decade_start(ours) if decade_start is None else decade_start
    sampled = _values(ours, spans, forced, start)
    real = [each for ds in reals for each in _values({timescale_of(ds, "real members"): ds}, spans, forced, start)]
    return _rows(sampled, real)


# ------------------------------------------------------------------------------------------------------- one member


@dataclass(frozen=True)
class _Side:
    """One timescale of an ensemble: what all its members share.

    Attributes:
        ds: Canonical Dataset, whole years in order.
        forced: Forced response by variable ``[T, lat, lon]``, score units; None for a trend of each member.
        year: Labels ``[T]``; month: ``[T]`` or None.
        weights: ``[lat]``, sum 1.
    """

    ds: xr.Dataset
    forced: Mapping[str, Array] | None
    year: NDArray[np.int64]
    month: NDArray[np.int64] | None
    weights: Array

    @classmethod
    def of(cls, ds: xr.Dataset, forced: Forced | None) -> "_Side":
        """Checked and ready; the forced response is evaluated once."""
        names = field_names(ds)
        by_name = None if forced is None else forced_fields(forced(ds), ds, names)
        month = np.asarray(ds["month"].values, dtype=np.int64) if "month" in ds.coords else None
        weights = np.asarray(cos_weights(ds["lat"]).values, dtype=np.float64)
        return cls(ds, by_name, np.asarray(ds["year"].values, dtype=np.int64), month, weights / weights.sum())

    def members(self) -> Iterator[dict[str, Array]]:
        """Fields ``[T, lat, lon]`` of each member by variable, score units."""
        names = field_names(self.ds)
        for fields in zip(*(diagnostics.members(self.ds, name) for name in names), strict=True):
            yield dict(zip(names, fields, strict=True))

    def departures(self, fields: Mapping[str, Array]) -> dict[str, Array]:
        """Of one member's fields, from the forced response or from its own trend."""
        if self.forced is not None:
            return {name: field - self.forced[name] for name, field in fields.items()}
        steps = 1 if self.month is None else structure.MONTHS
        return {name: structure.departures(field, steps) for name, field in fields.items()}

    def yearly(self) -> "_Side":
        """The same in years, for the means of its months; holds no fields of members."""
        if self.month is None:
            return self
        forced = None if self.forced is None else self.means(self.forced)
        return _Side(self.ds, forced, self.year[:: structure.MONTHS], None, self.weights)

    def means(self, fields: Mapping[str, Array]) -> dict[str, Array]:
        """Yearly means of fields of months."""
        return {name: structure.yearly_means(field, self.days) for name, field in fields.items()}

    @property
    def days(self) -> Array:
        """Length of each step ``[T]``."""
        return np.asarray(self.ds["days"].values, dtype=np.float64)


def _values(
    by_timescale: Mapping[str, xr.Dataset], spans: Mapping[str, Span], forced: Forced | None, decade_start: int
) -> list[Values]:
    """Statistics of every member: of its years (sampled, else means of months), of its months, of both together."""
    months, years = by_timescale.get("month"), by_timescale.get("year")
    annual, passes = years if years is not None else months, []
    if annual is not None and "year" in spans:
        passes.append(_year_pass(_Side.of(cut_to_years(annual, spans["year"]), forced), decade_start))
    if months is not None and "month" in spans:
        passes.append(_month_pass(_Side.of(cut_to_years(months, spans["month"]), forced)))
    if months is not None and years is not None and "year" in spans:
        first, last = common_years([months, years])
        shared = np.intersect1d(months["member"].values, years["member"].values)
        if first <= last and shared.size:
            pair = (_Side.of(cut_to_years(ds, (first, last)).sel(member=shared), None) for ds in (months, years))
            passes.append(_gap_pass(*pair))
    return [values for each in passes for values in each]


def _year_pass(side: _Side, decade_start: int) -> Iterator[Values]:
    yearly = side.yearly()
    for fields in side.members():
        yield _of_years(yearly, fields if side.month is None else side.means(fields), decade_start)


def _month_pass(side: _Side) -> Iterator[Values]:
    box = structure.nino34_weights(side.ds)
    for fields in side.members():
        yield _of_months(side, fields, box)


def _gap_pass(months: _Side, years: _Side) -> Iterator[Values]:
    """Mean squares of sampled years minus the means of their months."""
    for sampled, annual in zip(months.members(), years.members(), strict=True):
        yield {
            (COHERENCE, n): structure.mean_square_gap(field, annual[n], months.days, months.weights)
            for n, field in sampled.items()
        }


def _of_years(side: _Side, fields: Mapping[str, Array], decade_start: int) -> Values:
    """Statistics of one member's years ``[T, lat, lon]``."""
    parts, out, w = side.departures(fields), _negative(NEGATIVE_YEARS, fields), side.weights
    seams = structure.decade_seams(side.year, decade_start)
    for name, a in parts.items():
        series = structure.area_means(a, w)
        out[LAG1_LOCAL, name] = float(structure.area_means(structure.lag1(a), w))
        out[LAG1_GLOBAL, name] = float(structure.lag1(series))
        out[SD_LOCAL, name] = float(np.sqrt(structure.area_means((a**2).mean(axis=0), w)))
        out[SD_GLOBAL, name] = float(series.std())
        if seams.any():
            out[DECADE_SEAM, name] = structure.step_ratio(a, seams, w)
        out |= {(ZONAL_POWER.format(*band), name): value for band, value in structure.band_power(a, w).items()}
    if {"tas", "pr"} <= set(parts):
        out[SHARED, "tas, pr"] = structure.shared_variance(parts["tas"], parts["pr"], w)
    return out


def _of_months(side: _Side, fields: Mapping[str, Array], box: Array | None) -> Values:
    """Statistics of one member's months ``[T, lat, lon]``."""
    out, w, month = _negative(NEGATIVE_MONTHS, fields), side.weights, np.asarray(side.month)
    for name, a in side.departures(fields).items():
        out[DECEMBER_SEAM, name] = structure.step_ratio(a, structure.december_seams(month), w)
        if name == "tas" and box is not None and month.size >= structure.MONTHS * NINO_MIN_YEARS:
            found = structure.nino34(a, month, box)
            out |= {(NINO_SD, name): found["sd"], (NINO_SHARE, name): found["share"],
                    (NINO_SEASON, name): found["season"]}  # fmt: skip
    return out


def _negative(label: str, fields: Mapping[str, Array]) -> Values:
    """Share of impossible values of one member, by variable that knows none."""
    return {(label, n): structure.negative_share(f) for n, f in fields.items() if VARIABLES[n].is_nonnegative}


# ------------------------------------------------------------------------------------------------------------- rows


def _rows(sampled: list[Values], real: list[Values]) -> list[Row]:
    """One row a statistic of the sampled members, in the order of the names above."""
    rows = []
    for key in sorted(dict.fromkeys(key for values in sampled for key in values), key=_place):
        name, variable = key
        found, known = _collected(sampled, key), _collected(real, key)
        if name == COHERENCE:  # collected as a mean square; real years are the means of their months
            known = _collected(real, (SD_LOCAL, variable))
            row = interval_row(name, variable, float(np.sqrt(found.mean()) / known.mean()), np.zeros(1))
            row |= {"real_lo": 0.0, "real_hi": COHERENCE_LIMIT, "inside": row["value"] <= COHERENCE_LIMIT}
        else:
            scale = float(known.mean()) if name.startswith(_POWER) and known.size else 1.0
            row = interval_row(name, variable, float(found.mean()) / scale, known / scale)
        units = VARIABLES[variable].score_units if name in _IN_UNITS else "1"
        rows.append(row | {"units": units, "M": found.size, "N": known.size})
    return rows


def _collected(members: list[Values], key: Key) -> Array:
    return np.array([values[key] for values in members if key in values])


def interval_row(name: str, variable: str, value: float, real: Array) -> Row:
    """A row of a value beside real ones: their mean -+ 2 standard deviations (ddof = 1); no interval below 2 of them.

    Args:
        name: Of the statistic.
        variable: Name.
        value: Mean over sampled members.
        real: One value a real member.
    """
    known = float(real.mean()) if real.size else None
    low, high, inside = None, None, None
    if known is not None and real.size > 1:
        half = 2.0 * float(real.std(ddof=1))
        low, high = known - half, known + half
        inside = bool(low <= value <= high)
    row = {"name": name, "variable": variable, "value": value, "real_mean": known, "real_lo": low, "real_hi": high,
           "inside": inside}  # fmt: skip
    return {key: plain_value(each) for key, each in row.items()}


def _place(key: Key) -> tuple[int, int]:
    """Order of a row; bands of wavenumbers keep the order in which they were made."""
    name, variable = key
    order = _NAMES.index(_POWER if name.startswith(_POWER) else name)
    return order, list(VARIABLES).index(variable) if variable in VARIABLES else 0


# ----------------------------------------------------------------------------------------------------------- checks


def _by_timescale(ensemble: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Months and years of an ensemble; decades are left out, as eight of them have no structure to measure."""
    given = [ensemble] if isinstance(ensemble, xr.Dataset) else list(ensemble.values())
    found = {timescale_of(ds, "ensemble"): ds for ds in given}
    kept = {t: ds for t, ds in found.items() if t != "decade"}
    if not kept:
        raise DataContractError("structure table", f"timescales {sorted(found)}", "months or years", "sample them")
    return kept


def field_names(ds: xr.Dataset) -> list[str]:
    """Names of the known fields of a Dataset, in the order of the conventions."""
    return [name for name in VARIABLES if name in ds]


def check_alike(datasets: Sequence[xr.Dataset], who: str) -> None:
    """Check that Datasets have one grid, the same variables, and steps that follow each other.

    Raises:
        DataContractError: If they do not.
    """
    names, lat, lon = field_names(datasets[0]), datasets[0]["lat"].values, datasets[0]["lon"].values
    for number, ds in enumerate(datasets):
        subject = f"{who}, dataset {number + 1} of {len(datasets)}"
        if field_names(ds) != names or not names:
            raise DataContractError(
                subject, f"variables {field_names(ds)}", f"{names or list(VARIABLES)}", "select the same everywhere"
            )
        same = ds.sizes["lat"] == lat.size and ds.sizes["lon"] == lon.size
        if not same or not (np.allclose(ds["lat"], lat, atol=1e-4) and np.allclose(ds["lon"], lon, atol=1e-4)):
            raise DataContractError(subject, "another grid than the first", "one grid", "regrid first")
        steps = labels(ds)
        if np.any(np.diff(steps) != 1):
            raise DataContractError(subject, "missing, repeated or unsorted steps", "every step once", "sort or fill")


def _spans(ours: Mapping[str, xr.Dataset], reals: Sequence[xr.Dataset]) -> dict[str, Span]:
    """The whole years shared by ensemble and real members, for each timescale whose record is long enough.

    Raises:
        DataContractError: If none is.
    """
    with_months = [ds for ds in reals if "month" in ds.coords]
    shared = {"year": common_years([ours["year"] if "year" in ours else ours["month"], *reals])}
    if "month" in ours:
        shared["month"] = common_years([ours["month"], *with_months])
    spans = {t: (first, last) for t, (first, last) in shared.items() if last - first + 1 >= MIN_YEARS}
    if not spans:
        longest = max(last - first + 1 for first, last in shared.values())
        found = f"{max(0, longest)} whole years shared"
        raise DataContractError("structure table", found, f"{MIN_YEARS} or more", "give longer records of equal years")
    return spans


def common_years(datasets: Sequence[xr.Dataset]) -> Span:
    """First and last whole year that all have; the last before the first if there is none."""
    spans = []
    for ds in datasets:
        year = np.asarray(ds["year"].values, dtype=np.int64)
        month = np.asarray(ds["month"].values) if "month" in ds.coords else None
        late_start, early_end = (0, 0) if month is None else (month[0] != 1, month[-1] != structure.MONTHS)
        spans.append((int(year[0]) + int(late_start), int(year[-1]) - int(early_end)))
    return max(first for first, _ in spans), min(last for _, last in spans)


def cut_to_years(ds: xr.Dataset, span: Span) -> xr.Dataset:
    begin, end = np.searchsorted(np.asarray(ds["year"].values), [span[0], span[1] + 1])
    return ds.isel(time=slice(int(begin), int(end)))


def _decade_start(ours: Mapping[str, xr.Dataset]) -> int:
    for ds in ours.values():
        if "decade_start" in ds.attrs:
            return int(ds.attrs["decade_start"])
    return min(int(ds["year"].values[0]) for ds in ours.values())


def forced_fields(response: xr.Dataset, like: xr.Dataset, names: Sequence[str]) -> dict[str, Array]:
    """A forced response by variable ``[time, lat, lon]`` in score units.

    Raises:
        DataContractError: If its labels are not those of the fields.
    """
    if not np.array_equal(labels(response), labels(like)):
        raise DataContractError(
            "forced response of departures",
            "other time labels than the fields",
            "equal labels",
            "evaluate it on them",
        )
    return {
        n: np.asarray(response[n].transpose("time", "lat", "lon").values, dtype=np.float64) * VARIABLES[n].score_factor
        for n in names
    }
