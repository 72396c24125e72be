"""Where a store comes from: every source file with its digest, settings, version; and digests of what was written."""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from climatesuite import __version__
from climatesuite.errors import DataContractError

NAME = "provenance.json"


def digest(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def source_record(path: Path, tracking_id: str = "") -> dict[str, Any]:
    """Name, size, time stamp and digest of an input."""
    stat = path.stat()
    record = {"name": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "sha256": digest(path)}
    return {**record, "tracking_id": tracking_id} if tracking_id else record


def is_unchanged(record: dict[str, Any], path: Path) -> bool:
    """Whether an input is what it was: same size and time stamp, or same digest."""
    stat = path.stat()
    if stat.st_size != record["bytes"]:
        return False
    return stat.st_mtime_ns == record["modified_ns"] or digest(path) == record["sha256"]


def write_provenance(
    store: Path,
    settings: dict[str, Any],
    sources: list[dict[str, Any]],
    licenses: Iterable[str],
    rejected: list[dict[str, str]],
) -> None:
    """Write ``provenance.json`` into a finished staging folder; digests cover every other file in it."""
    arrays = {
        str(p.relative_to(store)): [p.stat().st_size, digest(p)]
        for p in sorted(store.rglob("*"))
        if p.is_file() and p.name != NAME
    }
    content = {
        "version": __version__,
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "settings": settings,
        "sources": sources,
        "licenses": sorted({part for text in licenses for part in text.split("; ")}),
        "set_aside": rejected,
        "files": arrays,
    }
    (store / NAME).write_text(json.dumps(content, indent=1) + "\n")


def read_provenance(store: str | Path) -> dict[str, Any]:
    """The store's provenance.

    Raises:
        DataContractError: If there is none.
    """
    path = Path(store) / NAME
    if not path.is_file():
        raise DataContractError(str(store), f"no {NAME}", "a store made by climatesuite build", "build it again")
    return json.loads(path.read_text())
