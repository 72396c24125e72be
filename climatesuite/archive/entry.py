"""What a scan finds: files that can be used, and files that were set aside."""

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = "Amon"
"""The one table that is read: monthly atmosphere."""


@dataclass(frozen=True, order=True)
class Entry:
    """One file that can be used, or one member in it; months are YYYYMM.

    Attributes:
        path: A local file; of a URL its copy.
        version: ``v20190815``, "" outside a tree of versions.
        parent_experiment_id: The run that this one branches off.
        parent_member: Its member.
        url: Where the file came from.
        group: Group in the file that holds it.
        slot: Position of the member in a file of several; -1 for a file of one.
        until: Last month to use; "" is all.
        origin: ``experiment_id member`` of an ancestor whose months these are, once it is joined.
        stored: Name of the variable in the file, where it is another.
        terms: Stored variables that make the variable together: one, or several that are added.
        notes: What name, folders and attributes said differently, and what was assumed.
    """

    source_id: str
    experiment_id: str
    member: str
    variable_id: str
    start: str
    stop: str
    path: Path
    grid_label: str
    version: str
    license: str
    tracking_id: str
    table_id: str = TABLE
    calendar: str = ""
    parent_experiment_id: str = ""
    parent_member: str = ""
    url: str = ""
    group: str = ""
    slot: int = -1
    until: str = ""
    origin: str = ""
    stored: str = ""
    terms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A file that was set aside, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Scan:
    """All files that were looked at: usable ones, those that cannot be used, and those for which another one stands."""

    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]
    replaced: tuple[Rejected, ...] = ()

    def table(self) -> str:
        """One line a run: source, scenario, variables, members, months, files."""
        runs: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            runs.setdefault((entry.source_id, entry.experiment_id), []).append(entry)
        lines = [f"{'source':16s} {'scenario':14s} {'variables':12s} {'members':>7s} {'months':15s} {'files':>5s}"]
        for (source, scenario), found in sorted(runs.items()):
            names = ",".join(sorted({e.variable_id for e in found}))
            months = f"{min(e.start for e in found)}-{max(e.stop for e in found)}"
            members = len({e.member for e in found})
            lines.append(f"{source:16s} {scenario:14s} {names:12s} {members:7d} {months:15s} {len(found):5d}")
        return "\n".join(lines)


def member_key(label: str) -> tuple[int, ...]:
    """Sort key that puts r10 after r9."""
    return tuple(int(n) for n in re.findall(r"\d+", label))
