"""What a build is asked for: which files make which part of the store, and everything else that decides what is in it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climatesuite.archive.layouts import Layout, read_layout
from climatesuite.archive.lineage import joined
from climatesuite.archive.read import Key, select
from climatesuite.archive.scan import NAME, TABLE, Entry, Rejected, Scan, member_key, scan
from climatesuite.building.units import FieldPart, ForcingPart
from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import forcing_file
from climatesuite.store.layout import SCHEMA

Files = Mapping[str, Mapping[str, Sequence[Entry]]]
VERSION = re.compile(r"v\d{8}")


@dataclass(frozen=True)
class Request:
    """Everything that decides what is in the store.

    Attributes:
        files: Entries by run, member and variable.
        forcings: Forcing file by scenario.
        settings: What must be the same for a store to be added to; ``runs`` are the members asked for.
        rejected: Files that were seen and not used.
        lost: Of files that belong to the request and cannot be used: the reason.
    """

    files: Mapping[Key, Files]
    forcings: Mapping[str, Path]
    settings: dict[str, Any]
    rejected: tuple[Rejected, ...]
    lost: Mapping[Path, str]

    def labels(self, key: Key) -> tuple[str, ...]:
        """Members of a run, in order."""
        return tuple(sorted(self.files[key], key=member_key))

    def parts(
        self, rows: Mapping[Key, Sequence[str]], new: Mapping[Key, Sequence[str]]
    ) -> list[FieldPart | ForcingPart]:
        """The parts that make new members.

        Args:
            rows: All members of every run in the order of the store.
            new: Those to be made; a run of which all are new gets its forcings too.
        """
        out: list[FieldPart | ForcingPart] = []
        for key, labels in new.items():
            fields = [
                self._field(key, m, v, list(rows[key]).index(m)) for m in labels for v in self.settings["variables"]
            ]
            out += fields
            usable = [part for part in fields if not part.lost]
            if key[1] in self.forcings and len(labels) == len(rows[key]) and usable:
                out.append(self._drivers(usable[0]))
        return out

    def _field(self, key: Key, label: str, variable: str, row: int) -> FieldPart:
        entries, settings = tuple(self.files[key][label][variable]), self.settings
        lost = next((self.lost[e.path] for e in entries if e.path in self.lost), "")
        first, last = settings["years"] or whole_years(entries)
        lost = lost or _uncovered(entries, first, last)
        return FieldPart(
            source=key[0], scenario=key[1], member=label, variable=variable, row=row, entries=entries,
            years=(first, last), grid=tuple(settings["grid"]) if settings["grid"] else None, decade_start=settings["decade_start"],
            lost=lost, on_overlap=settings.get("on_overlap", "refuse"),
        )  # fmt: skip

    def _drivers(self, beside: FieldPart) -> ForcingPart:
        return ForcingPart(
            source=beside.source, scenario=beside.scenario, entries=beside.entries, years=beside.years, grid=beside.grid,
            decade_start=beside.decade_start, lost="", path=self.forcings[beside.scenario], names=tuple(self.settings["forcings"]),
        )  # fmt: skip


def whole_years(entries: Sequence[Entry]) -> tuple[int, int]:
    """First and last year that files cover from January to December, by what the scan says; the last before the first if none."""
    start, stop = min(e.start[:6] for e in entries), max(e.stop[:6] for e in entries)
    return int(start[:4]) + (start[4:] > "01"), int(stop[:4]) - (stop[4:] < "12")


def _uncovered(entries: Sequence[Entry], first: int, last: int) -> str:
    start, stop = min(e.start[:6] for e in entries), max(e.stop[:6] for e in entries)
    if first > last:
        return f"months {start} to {stop}, no whole year"
    is_covered = start <= f"{first:04d}01" and f"{last:04d}12" <= stop
    return "" if is_covered else f"months {start} to {stop}, asked for are all of {first}-{last}"


def make_request(
    archive: str | Path | Sequence[str | Path],
    sources: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | None,
    variables: Sequence[str],
    forcings: str | Path | None,
    forcing_names: Sequence[str],
    years: tuple[int, int] | None,
    grid: tuple[int, int] | None,
    decade_start: int | None,
    join_parents: bool = False,
    on_overlap: str = "refuse",
    layout: str | Path | None = None,
) -> Request:
    """Find the files; arguments are those of `climatesuite.build.build`.

    Raises:
        DataContractError: If anything asked for is not there.
    """
    own = read_layout(layout) if layout is not None else None
    found = scan(archive, own)
    found = joined(found) if join_parents else found
    if not variables:
        raise DataContractError("variables", "none", "at least one", "name the fields, e.g. tas pr")
    if years is not None and years[0] > years[1]:
        raise DataContractError("years", f"{years[0]}-{years[1]}", "the first before the last", "swap them")
    unknown = [n for n in forcing_names if n not in FORCINGS]
    if unknown:
        raise DataContractError("forcings", f"{unknown} unknown", f"some of {', '.join(FORCINGS)}", "correct the names")
    if members is not None and experiments is None:
        experiments = list(members)
    lost = _lost(found, own, sources, experiments, members, variables)
    files = select(_with_lost(found, lost, own), variables, experiments, members, sources)
    for source in sources or []:
        absent = [e for e in experiments or [] if (source, e) not in files]
        if absent or all(s != source for s, _ in files):
            raise DataContractError(
                f"source {source}", f"no files of {', '.join(absent) or 'it'}", "files of every source and scenario asked for",
                "add them, or build the sources apart",
            )  # fmt: skip
    scenarios = sorted({scenario for _, scenario in files})
    drivers = {} if forcings is None else {e: forcing_file(forcings, e) for e in scenarios}
    settings = {
        "schema": SCHEMA, "runs": {"/".join(k): sorted(f, key=member_key) for k, f in sorted(files.items())},
        "variables": list(dict.fromkeys(variables)), "forcings": list(dict.fromkeys(forcing_names)) if drivers else [],
        "years": list(years) if years else None, "grid": list(grid) if grid else None, "decade_start": decade_start,
    }  # fmt: skip
    settings |= {"join_parents": True} if join_parents else {}
    settings |= {"on_overlap": on_overlap} if on_overlap != "refuse" else {}
    aside = tuple(r for r in (*found.rejected, *found.replaced) if not _is_driver(r.path, forcings))
    return Request(files, drivers, settings, aside, lost)


def _is_driver(path: Path, forcings: str | Path | None) -> bool:
    """Whether a file is one of the forcings, which may lie among the files of an archive."""
    if forcings is None:
        return False
    given = Path(forcings).resolve()
    return path.resolve() == given or (path.resolve().parent == given and path.name.startswith("inputs_"))


def _lost(
    found: Scan,
    layout: Layout | None,
    sources: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | None,
    variables: Sequence[str],
) -> dict[Path, str]:
    """Files that belong to a request by name and cannot be used: without them a member or years would be lost."""
    newest: dict[tuple[str, ...], str] = {}
    for e in found.entries:
        newest[e.source_id, e.experiment_id, e.member, e.variable_id, e.grid_label] = e.version
    lost = {}
    for r in found.rejected:
        named = _named(r.path, layout)
        if named is None:
            continue
        source, scenario, member, name = (named[n] for n in ("source_id", "experiment_id", "member", "variable_id"))
        is_asked = (
            name in variables
            and (not sources or source in sources)
            and (not experiments or scenario in experiments)
            and (members is None or member in members.get(scenario, []))
        )
        replaced_by = newest.get((source, scenario, member, name, named["grid_label"]), "")
        if is_asked and not any(part < replaced_by for part in r.path.parts if VERSION.fullmatch(part)):
            lost[r.path] = r.reason
    return lost


def _named(path: Path, layout: Layout | None) -> dict[str, Any] | None:
    """Fields of an entry by a file's name alone; None where it is no name of months that are used."""
    if layout is not None and (about := layout.facets(path.name)) is not None:
        return about
    named = NAME.match(path.name)
    if named is None or named["table_id"] != TABLE or named["rest"] or not named["start"]:
        return None
    names = ("source_id", "experiment_id", "member", "variable_id", "start", "grid_label")
    return {**{n: named[n] for n in names}, "stop": named["stop"] or named["start"]}


def _with_lost(found: Scan, lost: Iterable[Path], layout: Layout | None) -> Scan:
    """The scan with entries for files that cannot be used, by their names: their parts will fail, and only those."""
    more = []
    for path in lost:
        facets = _named(path, layout)
        assert facets is not None  # noqa: S101 - it was matched before
        more.append(Entry(**facets, path=path, version="", license="", tracking_id=""))
    return Scan((*found.entries, *more), found.rejected)
