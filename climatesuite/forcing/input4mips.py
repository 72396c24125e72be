"""Emissions from the files that CMIP's modelling groups are given (input4MIPs): gridded, by sector, by kind.

Sectors and levels are summed, anthropogenic and aircraft files added; maps are regridded conservatively with the global total kept
to 1e-6, or refused; files of anchor years (2015, 2020, 2030, ...) are filled linearly for each calendar month. CO2 is summed up
over the years. What was counted is part of the result's ``accounting``: open burning makes it another one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import FORCINGS, SECONDS_PER_DAY
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import open_whole
from climatesuite.forcing.totals import cell_area, cumulated
from climatesuite.harmonise.calendars import canonical_calendar, month_lengths, time_coords
from climatesuite.harmonise.grids import grid_coords, is_global, order_axis, regrid
from climatesuite.harmonise.units import conversion

Array = NDArray[np.float64]
Years = NDArray[np.int64]
SPECIES = ("CO2", "CH4", "SO2", "BC")
KIND = re.compile(r"^(?P<species>CO2|CH4|SO2|BC)(?:_em_(?P<kind>anthro|AIR_anthro|openburning|biomassburning))?$")
BURNING = ("openburning", "biomassburning")
SUMMED = ("sector", "level", "height", "lev")
BLOCK_BYTES = 2**26
"""Of one block of months in memory: half a degree of eight sectors is 17 MB a month."""
LARGEST_GAP = 10
"""Years between anchor years; more is a missing file."""
KEPT = 1e-6
"""Relative change of a global total in regridding that is allowed."""
FLUX = "kg m-2 s-1"


@dataclass(frozen=True)
class Emissions:
    """Monthly emissions of one species, summed over everything that was given.

    Attributes:
        flux: ``(time, lat, lon)``, kg m-2 s-1, on the grid wanted, whole years, ``days`` along time.
        kinds: What was added: anthro, AIR_anthro, openburning, ...
        sectors: Names of sectors, where files give them.
        filled: Years filled between anchor years.
        license: Of the files.
    """

    flux: xr.Dataset
    kinds: tuple[str, ...]
    sectors: tuple[str, ...]
    filled: int
    license: str

    def yearly_mass(self, species: str) -> Array:
        """Global total of every year, Gt."""
        rate = (self.flux[species].astype(np.float64) * cell_area(self.flux)).sum(("lat", "lon")).values
        return np.asarray((rate * self.flux["days"].values).reshape(-1, 12).sum(1) * SECONDS_PER_DAY / 1e12)


def read_emissions(files: Iterable[str | Path], grid: xr.Dataset | None = None) -> dict[str, Emissions]:
    """Emissions by species from any number of files.

    Args:
        files: NetCDF with ``SO2_em_anthro (time[, sector][, level], lat, lon)`` and the like.
        grid: Where maps are wanted; default each species' own grid.

    Raises:
        DataContractError: If a file holds no emissions, shares instead of emissions, unknown units, unclear times, months twice,
            gaps of more than ten years, negative SO2, BC or CH4, or maps that are not global; or a total is not kept.
    """
    found: dict[str, dict[str, list[_File]]] = {}
    for path in map(Path, files):
        part = _read(path, grid)
        found.setdefault(part.species, {}).setdefault(part.kind, []).append(part)
    if not found:
        raise DataContractError("emissions", "no files", "files of input4MIPs", "name them")
    return {species: _together(species, kinds) for species, kinds in found.items()}


def forcings_of(
    emissions: Mapping[str, Emissions], experiment_id: str, co2_before: float | None = None, base_year: int = 1850
) -> xr.Dataset:
    """Canonical monthly forcings: cumulative CO2, CH4 of the year, maps of SO2 and BC with their season.

    Args:
        emissions: By species.
        experiment_id: Name of the scenario.
        co2_before: Gt of CO2 from ``base_year`` to the first year here; may be left out if that is the base year.
        base_year: From which CO2 is counted.

    Raises:
        DataContractError: If species differ in years, or what CO2 was emitted before is not said.
    """
    years = {s: np.unique(e.flux["year"].values).astype(int) for s, e in emissions.items()}
    first = next(iter(years.values()))
    if any(not np.array_equal(first, y) for y in years.values()):
        said = ", ".join(f"{s} {y[0]}-{y[-1]}" for s, y in years.items())
        raise DataContractError(
            f"forcings of {experiment_id}", f"years {said}", "the same for all", "give matching files"
        )
    calendar = str(next(iter(emissions.values())).flux.attrs["calendar"])
    coords = time_coords(first.tolist(), "month", calendar)
    maps = [e.flux for s, e in emissions.items() if FORCINGS[s].is_gridded]
    grid = {n: maps[0][n] for n in ("lat", "lon", "lat_bnds", "lon_bnds")} if maps else {}
    data: dict[str, Any] = {}
    for species, found in emissions.items():
        about = FORCINGS[species]
        attrs = {"long_name": about.long_name, "units": about.units, "role": "forcing"}
        if about.is_gridded:
            data[species] = (("time", "lat", "lon"), found.flux[species].values.astype(np.float32), attrs)
        elif species == "CO2":
            if co2_before is None and first[0] != base_year:
                raise DataContractError(
                    f"CO2 of {experiment_id}", f"emissions from {first[0]} on",
                    f"what was emitted from {base_year} to {first[0] - 1}",
                    "say co2_before (--co2-before), the last value of the historical forcings",
                )  # fmt: skip
            data[species] = ("time", (co2_before or 0.0) + cumulated(found.yearly_mass("CO2")).values, attrs)
        else:
            data[species] = ("time", np.repeat(found.yearly_mass(species), 12), attrs)
    kinds = sorted({k for e in emissions.values() for k in e.kinds})
    attrs = {
        "experiment_id": experiment_id, "timescale": "month", "calendar": calendar, "accounting": accounting_name(kinds),
        "license": "; ".join(dict.fromkeys(e.license for e in emissions.values())), "base_year": str(base_year),
        "sources": "; ".join(f"{s}: {', '.join(e.kinds)}" + (f" of {', '.join(e.sectors)}" if e.sectors else "")
                             for s, e in emissions.items()),
    }  # fmt: skip
    return xr.Dataset(data, {**coords, **grid}, attrs)


def accounting_name(kinds: Sequence[str]) -> str:
    """Name of the accounting that sums these kinds of emissions; burning makes it another one."""
    return "input4mips" + (", with open burning" if any(k in BURNING for k in kinds) else "")


# ---- one file


@dataclass(frozen=True)
class _File:
    species: str
    kind: str
    flux: xr.Dataset
    years: Years
    months: Years
    calendar: str
    sectors: tuple[str, ...]
    license: str
    name: str


def _read(path: Path, grid: xr.Dataset | None) -> _File:
    with open_file(path) as ds:
        matching = [(str(n), m) for n in ds.data_vars if (m := KIND.match(str(n)))]
        if len(matching) != 1:
            shares = " (shares of emissions are not emissions)" if "percentage" in path.name.lower() else ""
            raise DataContractError(
                path.name, f"variables {named(ds)}{shares}", "one of SO2_em_anthro, BC_em_AIR_anthro, CO2_em_openburning, ...",
                "leave the file out, or rename its variable",
            )  # fmt: skip
        variable, match = matching[0]
        field, where = ds[variable], f"{variable} in {path.name}"
        factor, _ = conversion(str(field.attrs.get("units", "none")), FLUX, where, is_water=False)
        years, months, calendar = months_of(ds, path.name)
        month_bytes = 8 * field.size // max(1, field.sizes["time"])
        block = max(1, BLOCK_BYTES // month_bytes)
        blocks = []
        for first in range(0, field.sizes["time"], block):
            part = slice(first, first + block)
            summed = _summed(field.isel(time=part), where, years[part], months[part]) * factor
            here = gridded(summed, match["species"], ds, path.name)
            there = here if grid is None else regrid(here, grid)
            _check_kept(here[match["species"]], there[match["species"]], cell_area(here), cell_area(there), where)
            blocks.append(there)
        flux = blocks[0].drop_vars(match["species"]).assign({
            match["species"]: (("time", "lat", "lon"), np.concatenate([b[match["species"]].values for b in blocks]))
        })  # fmt: skip
        kind = match["kind"] or next((b for b in BURNING if b in path.name), "anthro")
        sectors = tuple(re.findall(r"\d+:\s*([^;]+)", str(ds["sector"].attrs.get("ids", "")))) if "sector" in ds else ()
        licence = str(ds.attrs.get("license", "not stated"))
    return _File(
        match["species"], kind, flux, years, months, calendar, tuple(s.strip() for s in sectors), licence, path.name
    )


def open_file(path: Path) -> xr.Dataset:
    if not path.is_file():
        raise DataContractError(str(path), "no such file", "a file of input4MIPs", "correct the path")
    return open_whole(path)


def named(ds: xr.Dataset) -> str:
    return ", ".join(map(str, ds.data_vars)) or "none"


def dates_of(ds: xr.Dataset, subject: str) -> NDArray[np.object_]:
    time = ds["time"]
    try:
        return np.atleast_1d(
            cftime.num2date(time.values, str(time.attrs["units"]), str(time.attrs.get("calendar", "standard")))
        )
    except (KeyError, ValueError) as error:
        raise DataContractError(
            f"time in {subject}", f"{error}", "e.g. days since 1850-01-01", "correct its units"
        ) from error


def months_of(ds: xr.Dataset, subject: str) -> tuple[Years, Years, str]:
    dates = dates_of(ds, subject)
    calendar = canonical_calendar(str(ds["time"].attrs.get("calendar", "standard")))
    return np.array([d.year for d in dates]), np.array([d.month for d in dates]), calendar


def whole_years(years: Years, months: Years, subject: str) -> Years:
    """The years of a file whose months go from January to December, each once."""
    whole = np.unique(years)
    if not np.array_equal(12 * years + months - 1, (12 * whole[:, None] + np.arange(12)).reshape(-1)):
        for year in whole:
            if sorted(months[years == year]) != list(range(1, 13)):
                have = ", ".join(map(str, months[years == year]))
                raise DataContractError(
                    f"time in {subject}", f"months {have} of {year}", "all twelve, once", "give whole years"
                )
        raise DataContractError(f"time in {subject}", "months out of order", "one after the other", "sort the file")
    return np.asarray(whole)


def _summed(months: xr.DataArray, where: str, years: Years, numbers: Years) -> xr.DataArray:
    """Sectors and levels together; a cell without a value has no emissions, a month without any is an error."""
    values = months.load()
    there = values.notnull().any([d for d in values.dims if d != "time"]).values
    if not there.all():
        i = int(there.argmin())
        raise DataContractError(
            where, f"no value at all in {years[i]}-{numbers[i]:02d}", "emissions", "download it again"
        )
    return values.astype(np.float64).fillna(0.0).sum([d for d in values.dims if d in SUMMED])


def gridded(field: xr.DataArray, name: str, ds: xr.Dataset, subject: str) -> xr.Dataset:
    """The field on ascending axes with bounds; refused if it is not global."""
    if set(field.dims) != {"time", "lat", "lon"}:
        raise DataContractError(
            subject, f"dimensions {field.dims}", "(time[, sector][, level], lat, lon)", "rename or select"
        )
    axes, order = [], {}
    for axis in ("lat", "lon"):
        bounds = ds.variables.get(f"{axis}_bnds", ds.variables.get(f"{axis}_bounds", None))
        x, b, order[axis] = order_axis(
            field[axis].values, None if bounds is None or axis not in ds else bounds.values, axis, subject
        )
        axes += [x, b]
    values = field.transpose("time", "lat", "lon").isel(order).values
    out = xr.Dataset({name: (("time", "lat", "lon"), values)}, grid_coords(*axes))
    if not is_global(out):
        raise DataContractError(subject, "maps that do not cover the globe", "global maps", "give another file")
    return out


def _check_kept(
    here: xr.DataArray, there: xr.DataArray, area: xr.DataArray, new_area: xr.DataArray, where: str
) -> None:
    before, after = ((f * a).sum(("lat", "lon")).values for f, a in ((here, area), (there, new_area)))
    lost = np.abs(after - before) > KEPT * np.maximum(np.abs(before), 1e-30)
    if lost.any():
        i = int(lost.argmax())
        raise DataContractError(
            where, f"a total of {after[i]:g} kg s-1 after regridding", f"{before[i]:g}", "is the grid whole?"
        )


# ---- all files of a species


def _together(species: str, kinds: Mapping[str, Sequence[_File]]) -> Emissions:
    parts, filled = {}, 0
    for kind, files in kinds.items():
        parts[kind], more = _filled(species, kind, sorted(files, key=lambda f: f.years[0]))
        filled = max(filled, more)
    first = next(iter(parts.values()))
    for kind, part in parts.items():
        if not np.array_equal(part["year"], first["year"]):
            a, b = (f"{int(p['year'][0])}-{int(p['year'][-1])}" for p in (part, first))
            raise DataContractError(
                f"{species} {kind}", f"years {a}", f"{b}, those of {next(iter(parts))}", "give matching files"
            )
    flux = first.copy()
    flux[species] = sum((p[species] for k, p in parts.items() if p is not first), first[species])
    low = float(flux[species].min())
    if species != "CO2" and low < -1e-20:
        raise DataContractError(
            f"emissions of {species}", f"{low:.3g} kg m-2 s-1", "zero or more: only CO2 can be removed", "correct them"
        )
    if species != "CO2":
        flux[species] = flux[species].clip(0.0)
    every = [f for files in kinds.values() for f in files]
    sectors = tuple(dict.fromkeys(s for f in every for s in f.sectors))
    licence = "; ".join(dict.fromkeys(f.license for f in every))
    return Emissions(flux, tuple(sorted(kinds)), sectors, filled, licence)


def _filled(species: str, kind: str, files: Sequence[_File]) -> tuple[xr.Dataset, int]:
    """Months of every year from all files of a kind, filled for each calendar month between anchor years."""
    subject = f"{species} {kind}"
    years = np.concatenate([whole_years(f.years, f.months, f.name) for f in files])
    doubled = years[1:][np.diff(years) <= 0]
    if doubled.size:
        raise DataContractError(
            subject,
            f"{doubled[0]} in two files",
            "every year once",
            f"leave one of {', '.join(f.name for f in files)} out",
        )
    gaps = np.diff(years)
    if (gaps > LARGEST_GAP).any():
        a = int(years[:-1][gaps > LARGEST_GAP][0])
        raise DataContractError(
            subject, f"nothing between {a} and {int(years[years > a][0])}", "every year, or every tenth", "add the file"
        )
    if len({f.calendar for f in files}) > 1:
        raise DataContractError(
            subject, f"calendars {', '.join(sorted({f.calendar for f in files}))}", "one", "convert the files"
        )
    values = np.concatenate([f.flux[species].values for f in files]).reshape(
        years.size, 12, *files[0].flux[species].shape[1:]
    )
    whole = np.arange(years[0], years[-1] + 1)
    at = np.searchsorted(years, whole, side="right") - 1
    after = np.minimum(at + 1, years.size - 1)
    step = np.maximum(years[after] - years[at], 1)
    share = ((whole - years[at]) / step)[:, None, None, None]
    months = ((1 - share) * values[at] + share * values[after]).reshape(12 * whole.size, *values.shape[2:])
    calendar = files[0].calendar
    space = {n: files[0].flux[n] for n in ("lat", "lon", "lat_bnds", "lon_bnds")}
    out = xr.Dataset({species: (("time", "lat", "lon"), months)}, space, {"calendar": calendar})
    number = np.repeat(whole, 12)
    days = month_lengths(whole, calendar).reshape(-1)
    return out.assign_coords(year=("time", number), days=("time", days)), int(whole.size - years.size)
