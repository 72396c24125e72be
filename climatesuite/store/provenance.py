"""Where a store comes from: every source file with its digest, settings, versions; and digests of what was written."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from climatesuite import __version__
from climatesuite.errors import DataContractError

NAME = "provenance.json"
_LIBRARIES = ("numpy", "xarray", "zarr", "netCDF4", "cftime")


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_digest(settings: Mapping[str, Any]) -> str:
    """sha256 of settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def code_commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed without one."""
    here = Path(__file__)
    for question in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
        try:
            done = subprocess.run(["git", *question], cwd=here.parent, capture_output=True, text=True)
        except FileNotFoundError:  # no git
            return None
        if done.returncode:
            return None
    return done.stdout.strip()


def source_record(path: Path, about: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name, size, time stamp and digest of an input, and what it says about itself (facets, licence, tracking_id)."""
    stat = path.stat()
    told = {k: v for k, v in (about or {}).items() if v}
    return {
        "name": path.name,
        "bytes": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "sha256": digest(path),
        **told,
    }


def is_untouched(record: Mapping[str, Any], path: Path) -> bool:
    """Whether an input has the size and time stamp of its record."""
    if not path.is_file():
        return False
    stat = path.stat()
    return stat.st_size == record["bytes"] and stat.st_mtime_ns == record["modified_ns"]


def is_unchanged(record: Mapping[str, Any], path: Path) -> bool:
    """Whether an input is what it was: same size and time stamp, or else the same digest (a copy has a new time stamp)."""
    if is_untouched(record, path):
        return True
    return path.is_file() and path.stat().st_size == record["bytes"] and digest(path) == record["sha256"]


def write_provenance(
    store: Path,
    settings: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    licenses: Iterable[str],
    rejected: Sequence[Mapping[str, str]],
) -> None:
    """Write ``provenance.json`` into a finished staging folder; digests cover every other file in it.

    Args:
        store: The folder.
        settings: Everything that decides what is in the store.
        sources: Records of the input files.
        licenses: Licence texts of the inputs.
        rejected: Name and reason of files that were seen and not used.
    """
    content = {
        "version": __version__,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "settings": dict(settings),
        "settings_sha256": settings_digest(settings),
        "sources": list(sources),
        "licenses": sorted(set(licenses)),
        "set_aside": list(rejected),
        "files": {name: [p.stat().st_size, digest(p)] for name, p in _contents(store).items()},
    }
    (store / NAME).write_text(json.dumps(content, indent=1) + "\n")


def read_provenance(store: str | Path) -> dict[str, Any]:
    """The store's provenance.

    Raises:
        DataContractError: If there is none, or it is damaged.
    """
    path = Path(store) / NAME
    remedy = "choose another name, or delete it and build it again"
    if not path.is_file():
        raise DataContractError(str(store), f"no {NAME}", "a store made by climatesuite build", remedy)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise DataContractError(str(path), f"damaged ({error})", "what build wrote", remedy) from error
    if not isinstance(content, dict) or not {"settings", "sources", "files"} <= set(content):
        raise DataContractError(str(path), "no settings, sources and files in it", "what build wrote", remedy)
    return content


def changed_files(store: str | Path, deep: bool) -> dict[str, str]:
    """What differs from the day of publishing, by file name: missing, added, of another size, and if ``deep`` of other content."""
    path = Path(store)
    there, known = _contents(path), read_provenance(path)["files"]
    problems = {name: "not there when it was built" for name in there if name not in known}
    for name, (size, sha256) in known.items():
        if name not in there:
            problems[name] = "missing"
        elif there[name].stat().st_size != size:
            problems[name] = f"{there[name].stat().st_size} bytes, {size} when it was built"
        elif deep and digest(there[name]) != sha256:
            problems[name] = "changed since it was built"
    return problems


def _contents(store: Path) -> dict[str, Path]:
    found = {p.relative_to(store).as_posix(): p for p in sorted(store.rglob("*")) if p.is_file()}
    found.pop(NAME, None)
    return found
