"""Where a store comes from: every source file with its digest, settings, versions; and digests of what was written."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from climatesuite import __version__
from climatesuite.errors import DataContractError
from climatesuite.store.place import BUILDING, NODE, Place

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


def unmatched(records: Iterable[Mapping[str, Any]], paths: Iterable[Path]) -> list[str]:
    """Names of the inputs without a record, and of the records without an input; every record stands for one input.

    An input is known by name, size and time stamp, otherwise by its content: a copy has a new time stamp, perhaps another name.
    """
    left, unknown, out = list(records), list[Path](), list[str]()
    for path in paths:
        known = next((r for r in left if r["name"] == path.name and is_untouched(r, path)), None)
        unknown += [path] if known is None else []
        left = [r for r in left if r is not known]
    for path in unknown:
        alike = [r for r in left if path.is_file() and r["bytes"] == path.stat().st_size]
        found = digest(path) if alike else ""
        known = next((r for r in alike if r["sha256"] == found), None)
        out += [path.name] if known is None else []
        left = [r for r in left if r is not known]
    return list(dict.fromkeys([*out, *(str(r["name"]) for r in left)]))


def software() -> dict[str, Any]:
    """Versions of this package and its libraries, its commit, and the time."""
    return {
        "version": __version__,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "commit": code_commit(),
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def provenance_file(content: Mapping[str, Any]) -> tuple[str, bytes]:
    """Name and content of the provenance: the root names it, and states of a store do not share one."""
    text = (json.dumps(content, indent=1) + "\n").encode()
    return f"provenance-{hashlib.sha256(text).hexdigest()[:12]}.json", text


def provenance_name(store: str | Path) -> str:
    """Name of a store's provenance file; that of older stores where its root names none."""
    try:
        root = json.loads(Place(str(store)).read(NODE))
    except (FileNotFoundError, ValueError):
        return NAME
    return str(root.get("attributes", {}).get("provenance", NAME)) if isinstance(root, dict) else NAME


def read_provenance(store: str | Path) -> dict[str, Any]:
    """The store's provenance.

    Raises:
        DataContractError: If there is none, or it is damaged.
    """
    name = provenance_name(store)
    remedy = "choose another name, or delete it and build it again"
    try:
        content = json.loads(Place(str(store)).read(name))
    except FileNotFoundError:
        raise DataContractError(str(store), f"no {name}", "a store made by climatesuite build", remedy) from None
    except ValueError as error:
        raise DataContractError(f"{store}/{name}", f"damaged ({error})", "what build wrote", remedy) from error
    if not isinstance(content, dict) or not {"settings", "sources", "files"} <= set(content):
        raise DataContractError(f"{store}/{name}", "no settings, sources and files in it", "what build wrote", remedy)
    return content


def changed_files(store: str | Path, deep: bool) -> dict[str, str]:
    """What differs from the day of publishing, by file name: missing, added, of another size, and if ``deep`` of other content.

    Data of an unfinished addition is no part of the store and no difference; nor are hidden files, which desktops and file systems
    leave behind.
    """
    place, known = Place(str(store)), read_provenance(store)["files"]
    there = place.sizes()
    shown = [n for n in there if not n.startswith(".") and "/." not in n]
    is_adding = any(name.startswith(BUILDING) for name in there)
    own = {NODE, provenance_name(store)}
    problems = {} if is_adding else {n: "not there when it was built" for n in shown if n not in known and n not in own}
    for name, (size, sha256) in known.items():
        if name not in there:
            problems[name] = "missing"
        elif there[name] != size:
            problems[name] = f"{there[name]} bytes, {size} when it was built"
        elif deep and place.digest(name) != sha256:
            problems[name] = "changed since it was built"
    return problems
