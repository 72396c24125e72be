"""The parts of a build, each on its own: one field of one member, or the forcings of one run; from files to hidden shards.

A part knows everything it needs, so that any worker can do it, and says what it did in plain data: its line in the journal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from climatesuite.archive.joining import is_same_grid
from climatesuite.archive.lineage import check_seam
from climatesuite.archive.opening import READING
from climatesuite.archive.read import read_variable
from climatesuite.archive.repairs import recorded
from climatesuite.archive.scan import Entry
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import open_forcings
from climatesuite.harmonise.calendars import MONTHS_PER_YEAR, YEARS_PER_DECADE, time_coords
from climatesuite.harmonise.coarsen import all_timescales, weighted_means
from climatesuite.harmonise.curvilinear import is_cells, put_on_grid
from climatesuite.harmonise.grids import grid_coords, target_grid
from climatesuite.harmonise.statistics import merge, month_statistics
from climatesuite.store.layout import SCHEMA, STATISTICS, group_name
from climatesuite.store.place import Overlay, Place
from climatesuite.store.provenance import is_untouched, source_record
from climatesuite.store.write import Shards, write_forcings, write_statistics

BLOCK_BYTES = 32 * 10**6
"""Months are read and transformed in blocks of whole years of about this size."""
_GRID = ("lat", "lat_bnds", "lon", "lon_bnds")
Done = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What all parts share.

    Attributes:
        source: source_id.
        scenario: experiment_id.
        years: First and last year.
        grid: Rows and columns to regrid to; None keeps the grid.
        decade_start: First year of a decade; None is the first year.
        entries: The files; of forcings those whose first year gives grid and calendar.
        lost: Why a file of it cannot be used, where that is known beforehand.
    """

    source: str
    scenario: str
    years: tuple[int, int]
    grid: tuple[int, int] | None
    decade_start: int | None
    entries: tuple[Entry, ...]
    lost: str

    def spec(self) -> dict[str, Any]:
        """What decides its result, beside the content of its files."""
        grid = list(self.grid) if self.grid else None
        return {
            "schema": SCHEMA, "source": self.source, "scenario": self.scenario, "years": list(self.years), "grid": grid,
            "decade_start": self.decade_start,
        }  # fmt: skip

    def read(
        self, entries: Sequence[Entry], variable: str, years: tuple[int, int], on_overlap: str = "refuse"
    ) -> xr.Dataset:
        """Months as they are in files: cells of any shape, where they are to be put on a grid."""
        return read_variable(entries, variable, years, on_overlap, any_cells=self.grid is not None)

    def group(self, part: str) -> str:
        """Path of a group of its run."""
        return group_name(self.source, self.scenario, part)


@dataclass(frozen=True)
class FieldPart(Part):
    """One variable of one member; ``row`` is the member's place in the arrays."""

    member: str
    variable: str
    row: int
    on_overlap: str = "refuse"

    def spec(self) -> dict[str, Any]:
        ancestors = sorted({e.origin for e in self.entries if e.origin})
        more: dict[str, Any] = {"ancestors": ancestors} if ancestors else {}
        more |= {"stored": sorted({e.stored for e in self.entries})} if self.entries[0].stored else {}
        more |= {"on_overlap": self.on_overlap} if self.on_overlap != "refuse" else {}
        return {**super().spec(), "member": self.member, "variable": self.variable, "row": self.row, **more}

    def paths(self) -> list[Path]:
        """The files."""
        return [e.path for e in self.entries]

    def __str__(self) -> str:
        return f"{self.variable} of {self.source} {self.scenario} {self.member}"

    def write(self, place: Place) -> Done:
        """Write shards of months, years and decades, and statistics; see `write_part`."""
        sources = [source_record(e.path, _about(e)) for e in self.entries]
        repairs: list[str] = []
        check_seam(self.entries, self.variable, self.on_overlap, self.grid is not None)
        overlay = Overlay(place.store(read_only=False), {})
        template: xr.Dataset | None = None
        statistics: xr.Dataset | None = None
        for month in _blocks(self):
            if template is None:
                template = _template(month, self.years)
                writer = _Cascade(overlay, self, template)
            values = month[self.variable].values
            repairs += month.attrs["repairs"]
            writer.add(values)
            part = month_statistics(month, [self.variable])
            statistics = part if statistics is None else merge([statistics, part])
        assert template is not None and statistics is not None  # noqa: S101 - there is at least one whole year
        about = write_statistics(overlay, self.group(STATISTICS), self.row, statistics)
        licences = sorted({e.license or "not stated" for e in self.entries})
        sources = [recorded(r, repairs) for r in sources]
        return {
            "spec": self.spec(), "sources": sources, "objects": overlay.written, "licences": licences, **_described(template),
            "field": dict(month[self.variable].attrs), "statistics": about,
        }  # fmt: skip


@dataclass(frozen=True)
class ForcingPart(Part):
    """The forcings of a run at all its timescales."""

    path: Path
    names: tuple[str, ...]

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "forcings": list(self.names)}

    def paths(self) -> list[Path]:
        """The file."""
        return [self.path]

    def __str__(self) -> str:
        return f"forcings of {self.source} {self.scenario}"

    def write(self, place: Place) -> Done:
        """Write them at all timescales; see `write_part`."""
        sources = [source_record(self.path, {"source_id": self.source, "experiment_id": self.scenario})]
        first = self.years[0]
        month = self.read(self.entries, self.entries[0].variable_id, (first, first))
        template = _template(_on_grid(month, self.grid, str(self)), self.years)
        with READING:
            drivers = _drivers(self, template)
        overlay = Overlay(place.store(read_only=False), {})
        for timescale, ds in all_timescales(drivers, self.decade_start).items():
            write_forcings(overlay, self.group(timescale), ds)
        arrays = {p: n for p, n in overlay.nodes.items() if n["node_type"] == "array"}
        return {
            "spec": self.spec(), "sources": sources, "objects": overlay.written, "arrays": arrays,
            "licences": [str(drivers.attrs["license"])], **_described(template),
        }  # fmt: skip


def write_part(part: FieldPart | ForcingPart, url: str) -> Done:
    """Do one part: its data is on disk when this returns, and invisible.

    Args:
        part: Which.
        url: The place to write to.

    Returns:
        Its line in the journal: what it is (``spec``), what it read (``sources``), what it wrote (``objects``: size and sha256 by
        name), and coordinates and attributes for the metadata.

    Raises:
        DataContractError: If a file is unusable, breaks the contract or changes meanwhile.
    """
    if part.lost:
        raise DataContractError(str(part), part.lost, "files that can be used", "download them again, or leave it out")
    place = Place(url)
    done = part.write(place)
    for record, path in zip(done["sources"], part.paths(), strict=True):
        if not is_untouched(record, path):
            raise DataContractError(
                record["name"], "it changed while it was read", "files at rest", "build again when they are complete"
            )
    place.flush(done["objects"])
    return done


def template_of(done: Mapping[str, Any]) -> xr.Dataset:
    """Canonical monthly coordinates and attributes of a part, without data."""
    first, last = done["spec"]["years"]
    space = grid_coords(*(np.asarray(done["grid"][n], dtype=np.float64) for n in _GRID))
    coords = {**time_coords(range(first, last + 1), "month", done["attrs"]["calendar"]), **space}
    return xr.Dataset(coords=coords, attrs=done["attrs"])


def check_grid(part: xr.Dataset, first: xr.Dataset, subject: str) -> None:
    """Refuse another grid than before.

    Raises:
        DataContractError: With both.
    """
    if not is_same_grid(part, first):
        shapes = [_shape_of(ds) for ds in (part, first)]
        raise DataContractError(
            subject, f"a grid of {shapes[0]}, but what came before has {shapes[1]}", "one grid", "leave it out"
        )


def _shape_of(ds: xr.Dataset) -> str:
    if is_cells(ds):
        return f"{ds.sizes['cell']} cells with corners"
    return f"{ds.sizes['lat']} x {ds.sizes['lon']} cells from {float(ds.lat[0]):g}"


class _Cascade:
    """Months as they come, and the years and decades that they make."""

    def __init__(self, overlay: Overlay, part: FieldPart, template: xr.Dataset) -> None:
        scales = all_timescales(template, part.decade_start)
        self.days = {t: ds.days.values for t, ds in scales.items()}
        space = template.sizes["lat"], template.sizes["lon"]
        self.shards = {
            t: Shards(overlay, f"{part.group(t)}/{part.variable}", part.row, (ds.sizes["time"], *space), t)
            for t, ds in scales.items()
        }
        decades = scales["decade"].year.values if "decade" in scales else []
        self.skip = int(decades[0]) - part.years[0] if len(decades) else -1
        self.left, self.pending, self.months, self.years = len(decades), list[np.ndarray](), 0, 0

    def add(self, values: np.ndarray) -> None:
        """The months of the next whole years."""
        self.shards["month"].add(values)
        days = self.days["month"][self.months : self.months + len(values)].reshape(-1, MONTHS_PER_YEAR)
        years = weighted_means(values, days, 0)
        self.shards["year"].add(years)
        for one in years:
            self._add_year(one)
        self.months += len(values)

    def _add_year(self, one: np.ndarray) -> None:
        self.years += 1
        if self.left == 0 or self.years <= self.skip:
            return
        self.pending.append(one)
        if len(self.pending) == YEARS_PER_DECADE:
            days = self.days["year"][self.years - YEARS_PER_DECADE : self.years]
            self.shards["decade"].add(weighted_means(np.stack(self.pending), days[None], 0))
            self.pending, self.left = [], self.left - 1


def _blocks(part: FieldPart) -> Iterator[xr.Dataset]:
    """Its months in order, in blocks of whole years, canonical and on the target grid."""
    first, last = part.years
    size = max(1, BLOCK_BYTES // (_bytes_per_month(part.entries[0], part.variable) * MONTHS_PER_YEAR))
    before: xr.Dataset | None = None
    while first <= last:
        stop = min(first + size - 1, last)
        month = part.read(_covering(part.entries, first, stop), part.variable, (first, stop), part.on_overlap)
        if before is not None:
            check_grid(month, before, str(part))
        before = month.drop_dims("time")
        yield _on_grid(month, part.grid, str(part))
        first = stop + 1


def _bytes_per_month(entry: Entry, name: str) -> int:
    """Size of a decoded month; that of a map of one degree where the header does not say."""
    try:
        with READING, netCDF4.Dataset(entry.path) as file:
            stored = (file[entry.group] if entry.group else file)[entry.stored or name]
            return max(4, 4 * int(stored.size) // stored.shape[stored.dimensions.index("time")])
    except (OSError, LookupError, ValueError, ZeroDivisionError):  # the reader will say what is wrong, if anything
        return 4 * 180 * 360


def _covering(entries: Sequence[Entry], first: int, last: int) -> Sequence[Entry]:
    """The files with months in some years; all of them where none has, so that the reader says what is missing."""
    found = [e for e in entries if int(e.start[:4]) <= last and int(e.stop[:4]) >= first]
    return found or entries


def _on_grid(month: xr.Dataset, grid: tuple[int, int] | None, subject: str) -> xr.Dataset:
    """Months on the target grid, where there is one.

    Raises:
        DataContractError: If the files cover less than half of a target cell.
    """
    if grid is None:
        return month
    out = put_on_grid(month, target_grid(grid))
    empty = max(int(np.isnan(v.values[0]).sum()) for v in out.data_vars.values())
    if empty:
        raise DataContractError(
            subject, f"less than half of the area of {empty} of {grid[0] * grid[1]} target cells is covered",
            "files of the whole sphere", "build without a grid where the files' own is rectilinear, or leave them out",
        )  # fmt: skip
    return out


def _template(month: xr.Dataset, years: tuple[int, int]) -> xr.Dataset:
    """Coordinates of all years on a block's grid."""
    space = {n: month[n].variable for n in _GRID}
    calendar = str(month.attrs["calendar"])
    return xr.Dataset(
        coords={**time_coords(range(years[0], years[1] + 1), "month", calendar), **space}, attrs={"calendar": calendar}
    )


def _described(template: xr.Dataset) -> dict[str, Any]:
    return {"grid": {n: template[n].values.tolist() for n in _GRID}, "attrs": {"calendar": template.attrs["calendar"]}}


def _drivers(part: ForcingPart, month: xr.Dataset) -> xr.Dataset:
    ds = open_forcings(part.path, part.names, part.scenario, grid=month, calendar=str(month.attrs["calendar"]))
    wanted = np.unique(month.year.values)
    missing = sorted(set(wanted.tolist()) - set(ds.year.values.tolist()))
    if missing:
        raise DataContractError(
            f"forcings of {part.scenario} in {part.path.name}", f"no year {missing[0]}", f"{wanted[0]}-{wanted[-1]}",
            "extend the file or narrow years",
        )  # fmt: skip
    ds = ds.isel(time=np.isin(ds.year.values, wanted))
    ds = ds.drop_vars([n for n in ds.data_vars if n not in part.names]).drop_vars("erf_year", errors="ignore")
    return ds.assign_coords({c: month[c] for c in _GRID})


def _about(e: Entry) -> dict[str, str]:
    names = ("source_id", "experiment_id", "member", "variable_id", "grid_label", "version", "license", "tracking_id",
             "origin")  # fmt: skip
    return {n: str(getattr(e, n)) for n in names} | ({"stored": e.stored} if e.stored else {})
