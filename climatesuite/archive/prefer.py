"""Which of several files of one thing holds: the latest version, the preferred grid, the first of equal copies; never mixed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from climatesuite.archive.entry import Entry, Rejected

GRIDS = ("gn", "gr", "gr1", "gr2", "grz", "")
"""Grid labels of the atmosphere, the preferred one first: what the model computed on, then what was regridded."""
Dataset = tuple[str, ...]


def preferred(entries: Iterable[Entry]) -> tuple[list[Entry], list[Rejected]]:
    """Entries to use, and those for which another one stands, with the reason."""
    kept, aside = list(entries), []
    for rule in (_latest, _one_grid, _first_copy):
        kept, more = rule(kept)
        aside += more
    return kept, aside


def dataset_of(e: Entry) -> Dataset:
    """What has versions: one variable of one run on one grid."""
    return e.source_id, e.experiment_id, e.member, e.table_id, e.variable_id, e.grid_label, e.stored


def _latest(entries: list[Entry]) -> tuple[list[Entry], list[Rejected]]:
    newest: dict[Dataset, str] = {}
    for e in entries:
        newest[dataset_of(e)] = max(newest.get(dataset_of(e), ""), e.version)
    older = [e for e in entries if e.version < newest[dataset_of(e)]]
    return [e for e in entries if e not in older], [
        Rejected(e.path, f"version {e.version or 'unknown'} is not the latest") for e in sorted(older)
    ]


def _one_grid(entries: list[Entry]) -> tuple[list[Entry], list[Rejected]]:
    """One grid label for a variable of a source: the one of most runs, and of those the preferred one."""
    runs: dict[tuple[str, str], dict[str, set[tuple[str, str]]]] = {}
    for e in entries:
        labels = runs.setdefault((e.source_id, e.variable_id), {})
        labels.setdefault(e.grid_label, set()).add((e.experiment_id, e.member))
    rank = {label: i for i, label in enumerate(GRIDS)}
    best = {
        key: min(labels, key=lambda n: (-len(labels[n]), rank.get(n, len(rank)), n)) for key, labels in runs.items()
    }
    other = [e for e in entries if e.grid_label != best[e.source_id, e.variable_id]]
    return [e for e in entries if e.grid_label == best[e.source_id, e.variable_id]], [
        Rejected(e.path, f"grid {e.grid_label or 'unknown'}, {best[e.source_id, e.variable_id]} is preferred")
        for e in sorted(other)
    ]


def _first_copy(entries: list[Entry]) -> tuple[list[Entry], list[Rejected]]:
    """One of several files with the same bytes, or of several names of one file."""
    first: dict[tuple[Dataset, str, str, int, int], list[Path]] = {}
    kept, aside = [], []
    for e in sorted(entries):
        same = first.setdefault((dataset_of(e), e.start, e.stop, e.slot, e.path.stat().st_size), [])
        twin = next((p for p in same if p.samefile(e.path) or (p.is_file() and _digest(p) == _digest(e.path))), None)
        if twin is not None and (e.group == "" and twin != e.path):
            aside.append(Rejected(e.path, f"a copy of {twin}"))
        else:
            same.append(e.path)
            kept.append(e)
    return kept, aside


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
