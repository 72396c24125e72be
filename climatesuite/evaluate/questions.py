"""What a climate scientist asks an ensemble first, each answer beside the truth's members.

When are 1.5, 2, 3 K crossed? When does the change emerge, where? How fast is the trend, how much more do poles and land warm, and
winters? How much more does it rain per kelvin, how many months are dry, is rain ever negative, does variability grow?

An answer is a list of rows (``evaluate.answers``); :data:`QUESTIONS` names them. Yearly values come from sampled years where they
are given, else from months; what needs months is left out where there are none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, masks, structure, warming
from climatesuite.evaluate.answers import Row, beside, row
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import timescale_of
from climatesuite.evaluate.structure_table import MIN_YEARS, check_alike, common_years, cut_to_years, field_names
from climatesuite.store.open import only

LEVELS = (1.5, 2.0, 3.0)
BASE = (2015, 2024)
OFFSET = 1.24
"""K. Observed global mean surface temperature of 2015-2024 above 1850-1900, 1.24 [1.11 to 1.35] (Forster et al. 2025, Indicators of
Global Climate Change 2024, doi 10.5194/essd-17-2641-2025)."""
SEASONS = {"DJF": structure.DJF, "JJA": (6, 7, 8)}
"""Months of one calendar year; December is not carried over into the next."""
DRY = 0.1
"""mm day-1; a month with less is dry."""


@dataclass(frozen=True, eq=False)
class Sides:
    """One timescale of an ensemble and of the truth, cut to the whole years both have.

    Attributes:
        ensemble: Canonical Dataset of M members; may be lazy.
        truth: Canonical Dataset of N members.
    """

    ensemble: xr.Dataset
    truth: xr.Dataset

    @property
    def both(self) -> tuple[xr.Dataset, xr.Dataset]:
        """Ensemble and truth."""
        return self.ensemble, self.truth


@dataclass(frozen=True, eq=False)
class Asked:
    """An ensemble and its truth, read as often as an answer needs, one member at a time.

    Attributes:
        sides: By timescale, ``year``, ``month`` or both.
        offset: K that the base period 2015-2024 lies above pre-industrial.
        reference_regions: See ``masks.reference_regions``.
    """

    sides: Mapping[str, Sides]
    offset: float = OFFSET
    reference_regions: str | Path = masks.SREX

    @property
    def annual(self) -> Sides:
        """Where yearly values are taken from."""
        return self.sides["year"] if "year" in self.sides else self.sides["month"]

    @property
    def names(self) -> list[str]:
        """Variables that all have."""
        return field_names(self.annual.ensemble)

    @cached_property
    def year(self) -> NDArray[np.int64]:
        """Years of yearly values ``[T]``."""
        return np.unique(np.asarray(self.annual.truth["year"].values, dtype=np.int64))

    @property
    def width(self) -> int:
        """Years of running means and of the first and last period: 20, or half of a shorter record."""
        return min(warming.WINDOW, self.year.size // 2)

    @property
    def window(self) -> tuple[int, int]:
        """First and last year."""
        return int(self.year[0]), int(self.year[-1])

    @cached_property
    def regions(self) -> xr.DataArray:
        """Weights ``(region, lat, lon)``: large regions first, then reference regions."""
        return xr.concat([self.large, masks.reference_regions(self.annual.truth, self.reference_regions)], "region")

    @cached_property
    def large(self) -> xr.DataArray:
        """Weights of globe, land, ocean and polar caps ``(region, lat, lon)``."""
        return masks.large_regions(self.annual.truth)

    @cached_property
    def _series(self) -> dict[tuple[str, str], tuple[Array, Array]]:
        return {}

    def series(self, name: str, season: str = "annual") -> tuple[Array, Array]:
        """Yearly values of every region of ensemble ``[M, region, T]`` and truth ``[N, region, T]``, score units.

        Raises:
            KeyError: On a season without months.
        """
        key = (name, season)
        if key not in self._series:
            side = self.annual if season == "annual" else self.sides["month"]
            x, y = (yearly_values(regional_series(ds, name, self.regions), ds, season) for ds in side.both)
            self._series[key] = x, y
        return self._series[key]

    def place(self, region: str) -> int:
        """Index of a region."""
        return self.regions["region"].values.tolist().index(region)

    @property
    def seasons(self) -> list[str]:
        """``annual``, and DJF and JJA where there are months."""
        return ["annual", *(SEASONS if "month" in self.sides else ())]


def ask(
    ensemble: xr.Dataset | Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    *,
    offset: float = OFFSET,
    regions: str | Path = masks.SREX,
) -> Asked:
    """Ensemble and truth made ready for questions.

    Args:
        ensemble: Canonical Dataset ``(member, time, lat, lon)`` of years or months, or both by timescale; may be lazy.
        truth: Canonical months of the held-out members.
        offset: K that 2015-2024 lies above pre-industrial. Default: observed, :data:`OFFSET`. An Earth system model's own is
            better where its historical run is there.
        regions: ``srex`` or a file of polygons, see ``masks.reference_regions``.

    Raises:
        DataContractError: If there are neither months nor years, grids or variables differ, or fewer than 10 whole years are
            shared.
    """
    given = [ensemble] if isinstance(ensemble, xr.Dataset) else list(ensemble.values())
    by_timescale = {timescale_of(ds, "the ensemble"): ds for ds in given}
    sides: dict[str, Sides] = {}
    for timescale in ("year", "month"):
        if timescale not in by_timescale:
            continue
        names = [n for n in field_names(by_timescale[timescale]) if n in truth]
        pair = [only(ds, names) for ds in (by_timescale[timescale], truth)]
        check_alike(pair, f"questions, {timescale}")
        first, last = common_years(pair)
        if last - first + 1 >= MIN_YEARS:
            sides[timescale] = Sides(*(cut_to_years(ds, (first, last)) for ds in pair))
    if not sides:
        found = f"timescales {sorted(by_timescale)}, no {MIN_YEARS} whole years shared with the truth"
        raise DataContractError("questions", found, f"{MIN_YEARS} years of months or years", "sample more years")
    return Asked(sides, offset, regions)


def question_rows(asked: Asked, names: Sequence[str] | None = None) -> list[Row]:
    """Rows of all questions, or of those named, in the order of :data:`QUESTIONS`."""
    return [r for name, answer in QUESTIONS.items() if names is None or name in names for r in answer(asked)]


# ------------------------------------------------------------------------------------------------------------ reading


def regional_series(ds: xr.Dataset, name: str, regions: xr.DataArray) -> Array:
    """Weighted means of every member and step over regions: ``[member, region, time]``, score units."""
    weights = np.asarray(regions.values, dtype=np.float64)
    return np.stack([np.tensordot(weights, field, axes=([1, 2], [1, 2])) for field in diagnostics.members(ds, name)])


def yearly_values(series: Array, ds: xr.Dataset, season: str = "annual") -> Array:
    """Days-weighted means of each year or season: ``[..., 12 T] -> [..., T]``; years are left as they are.

    Args:
        series: Last axis the steps of ``ds``.
        ds: With months of whole years, or years.
        season: ``annual`` or one of :data:`SEASONS`.
    """
    if "month" not in ds.coords:
        return series
    months = range(1, 13) if season == "annual" else SEASONS[season]
    days = np.asarray(ds["days"].values, dtype=np.float64).reshape(-1, structure.MONTHS)
    share = days * np.isin(np.arange(1, 13), list(months))
    by_year = series.reshape(*series.shape[:-1], -1, structure.MONTHS)
    means: Array = (by_year * share).sum(axis=-1) / share.sum(axis=-1)
    return means


def yearly_fields(ds: xr.Dataset, name: str) -> Iterator[Array]:
    """Yearly fields ``[T, lat, lon]`` of every member, score units."""
    for field in diagnostics.members(ds, name):
        has_months = "month" in ds.coords
        yield structure.yearly_means(field, np.asarray(ds["days"].values, dtype=np.float64)) if has_months else field


# ------------------------------------------------------------------------------------------------------------ answers


def warming_levels(asked: Asked) -> list[Row]:
    """Crossing years of 1.5, 2 and 3 K: 20-year means of the global mean, above 2015-2024 plus the offset."""
    if "tas" not in asked.names:
        return []
    inside = (asked.year >= BASE[0]) & (asked.year <= BASE[1])
    about: Row = {"question": "warming levels", "variable": "tas", "region": masks.GLOBE, "units": "year",
             "window": asked.window, "timescale": "year"}  # fmt: skip
    if not inside.any():
        return [
            row(
                **about,
                name="crossing years",
                note=f"no year of {BASE[0]}–{BASE[1]}, so nothing to add {asked.offset:g} K to",
            )
        ]
    sides = [s[:, asked.place(masks.GLOBE)] for s in asked.series("tas")]
    rise = [s - s[:, inside].mean() + asked.offset for s in sides]
    note = f"{BASE[0]}–{BASE[1]} is {asked.offset:g} K above pre-industrial"
    return [
        beside((warming.crossing_years(r, asked.year, level, asked.width) for r in rise), centre="median",
               **about, name=f"{level:g} K crossed", note=note)
        for level in LEVELS
    ]  # fmt: skip


def emergence(asked: Asked) -> list[Row]:
    """Years from which regional means stay beyond twice their noise, and the share of the globe where cells do."""
    base, rows = (asked.window[0], asked.window[0] + asked.width - 1), []
    for name in asked.names:
        about: Row = {"question": "time of emergence", "variable": name, "window": asked.window, "timescale": "year"}
        found = [warming.emergence_years(s, asked.year, base) for s in asked.series(name)]
        rows += [
            beside((f[:, r] for f in found), centre="median", **about, name="regional mean emerged", region=str(region),
                   units="year")
            for r, region in enumerate(asked.regions["region"].values)
        ]  # fmt: skip
        weights = asked.regions.values[asked.place(masks.GLOBE)]
        local = [np.stack([warming.emergence_years(f.transpose(1, 2, 0), asked.year, base) for f in yearly_fields(ds, name)])
                 for ds in asked.annual.both]  # fmt: skip
        for by in (int(asked.year[asked.year.size // 2]), asked.window[1]):
            shares = [100.0 * np.tensordot(years <= by, weights, axes=2) for years in local]
            rows.append(beside(shares, **about, name=f"area emerged by {by}", region=masks.GLOBE, units="%"))
    return rows


def trends(asked: Asked) -> list[Row]:
    """Least-squares trends of regional means, by season."""
    rows = []
    for name, season in _each(asked):
        found = [warming.slopes(s, asked.year) for s in asked.series(name, season)]
        rows += [
            beside((f[:, asked.place(region)] for f in found), question="trends", name="trend", variable=name, region=region,
                   season=season, units=f"{VARIABLES[name].score_units} decade-1", window=asked.window, timescale="year")
            for region in masks.LARGE
        ]  # fmt: skip
    return rows


def warming_ratios(asked: Asked) -> list[Row]:
    """Polar amplification and the land-sea contrast, by season."""
    if "tas" not in asked.names:
        return []
    pairs = {
        "Arctic amplification": (masks.ARCTIC, masks.GLOBE), "Antarctic amplification": (masks.ANTARCTIC, masks.GLOBE),
        "land over ocean warming": (masks.LAND, masks.OCEAN),
    }  # fmt: skip
    rows = []
    for season in asked.seasons:
        change = [warming.change(s, asked.width) for s in asked.series("tas", season)]
        for name, (above, below) in pairs.items():
            ratios = [warming.ratio(c[:, asked.place(above)], c[:, asked.place(below)]) for c in change]
            rows.append(beside(ratios, question="warming ratios", name=name, variable="tas", season=season, units="1",
                               window=asked.window, timescale="year"))  # fmt: skip
    return rows


def seasonal_changes(asked: Asked) -> list[Row]:
    """Change from the first to the last 20 years by season: K, and rain in % of the first."""
    rows = []
    for name, season in _each(asked):
        sides = asked.series(name, season)
        change = [warming.change(s, asked.width) for s in sides]
        units = VARIABLES[name].score_units
        if VARIABLES[name].is_nonnegative:
            change, units = (
                [100.0 * c / s[..., : asked.width].mean(axis=-1) for c, s in zip(change, sides, strict=True)],
                "%",
            )
        rows += [
            beside((c[:, asked.place(region)] for c in change), question="change by season", name="last minus first years",
                   variable=name, region=region, season=season, units=units, window=asked.window, timescale="year")
            for region in masks.LARGE
        ]  # fmt: skip
    return rows


def hydrology(asked: Asked) -> list[Row]:
    """Hydrological sensitivity: change of rain in % of the first 20 years per kelvin of global warming."""
    if not {"tas", "pr"} <= set(asked.names):
        return []
    globe = asked.place(masks.GLOBE)
    sides = list(zip(asked.series("pr"), asked.series("tas"), strict=True))
    rows = []
    for region in (masks.GLOBE, masks.LAND, masks.OCEAN):
        found = [warming.per_kelvin(rain[:, asked.place(region)], tas[:, globe], asked.width) for rain, tas in sides]
        rows.append(beside(found, question="hydrological sensitivity", name="rain per global warming", variable="pr",
                           region=region, units="% K-1", window=asked.window, timescale="year"))  # fmt: skip
    return rows


def dry_months(asked: Asked) -> list[Row]:
    """Share of negative values, and of months on land drier than 0.1 mm day-1, at the beginning and the end."""
    if "pr" not in asked.names or "month" not in asked.sides:
        return []
    both, land = asked.sides["month"].both, asked.regions.values[asked.place(masks.LAND)]
    steps = structure.MONTHS * asked.width
    negative, dry = ([], []), ([], [])  # type: tuple[list[float], list[float]], tuple[list[Array], list[Array]]
    for side, ds in enumerate(both):
        for field in diagnostics.members(ds, "pr"):
            negative[side].append(100.0 * structure.negative_share(field))
            share = 100.0 * np.tensordot(field < DRY, land, axes=2)
            dry[side].append(np.array([share[:steps].mean(), share[-steps:].mean()]))
    about: Row = {
        "question": "dry months",
        "variable": "pr",
        "units": "%",
        "window": asked.window,
        "timescale": "month",
    }
    rows = [beside((np.array(n) for n in negative), **about, name="values below zero", region=masks.GLOBE)]
    for i, when in enumerate(("first", "last")):
        parts = [np.stack(d)[:, i] for d in dry]
        rows.append(
            beside(parts, **about, name=f"months below {DRY:g} mm day-1, {when} {asked.width} years", region=masks.LAND)
        )
    return rows


def variability_growth(asked: Asked) -> list[Row]:
    """Growth of local year-to-year standard deviation from the first to the last third of the years, in % per kelvin."""
    if "tas" not in asked.names:
        return []
    where = [masks.GLOBE, masks.LAND, masks.OCEAN]
    weights = np.stack([asked.regions.values[asked.place(r)].ravel() for r in where])
    third = asked.year.size // 3
    rise = [warming.change(s[:, asked.place(masks.GLOBE)], third) for s in asked.series("tas")]
    rows = []
    for name in asked.names:
        found = []
        for ds, warmed in zip(asked.annual.both, rise, strict=True):
            growth = [warming.variance_change(structure.departures(f, 1).reshape(asked.year.size, -1), weights)
                      for f in yearly_fields(ds, name)]  # fmt: skip
            percent = 100.0 * np.expm1(0.5 * np.stack(growth))
            found.append(warming.ratio(percent, np.broadcast_to(warmed[:, None], percent.shape)))
        rows += [
            beside((f[:, i] for f in found), question="variability and warming", name="growth of local yearly sd", variable=name,
                   region=region, units="% K-1", window=asked.window, timescale="year")
            for i, region in enumerate(where)
        ]  # fmt: skip
    return rows


def _each(asked: Asked) -> list[tuple[str, str]]:
    return [(name, season) for name in asked.names for season in asked.seasons]


QUESTIONS: dict[str, Callable[[Asked], list[Row]]] = {
    "warming levels": warming_levels,
    "time of emergence": emergence,
    "trends": trends,
    "warming ratios": warming_ratios,
    "change by season": seasonal_changes,
    "hydrological sensitivity": hydrology,
    "dry months": dry_months,
    "variability and warming": variability_growth,
}
