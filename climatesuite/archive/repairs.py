"""What was set right in files: sentences that begin with the file, said aloud once a kind, and kept beside the file's record."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from climatesuite.errors import RepairWarning


def say(repairs: Iterable[str], stacklevel: int = 3) -> None:
    """Warn once of every kind of repair, with the first file and how many more."""
    files: dict[str, list[str]] = {}
    for text in dict.fromkeys(repairs):
        file, _, what = text.partition(": ")
        files.setdefault(what, []).append(file)
    for what, names in files.items():
        more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
        warnings.warn(f"{names[0]}{more}: {what}", RepairWarning, stacklevel=stacklevel)


def recorded(record: Mapping[str, Any], repairs: Iterable[str]) -> dict[str, Any]:
    """A file's record with the sentences that begin with its name."""
    begin = f"{record['name']}: "
    mine = [text.removeprefix(begin) for text in dict.fromkeys(repairs) if text.startswith(begin)]
    return {**record, "repairs": mine} if mine else dict(record)


def of_records(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The sentences again, each with its file before it."""
    return [f"{r['name']}: {text}" for r in records for text in r.get("repairs", [])]
