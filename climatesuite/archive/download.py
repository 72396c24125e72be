"""Public data sets by name: what they are, how big and under which licence; downloaded once, checked, resumable, laid out as read.

A catalog is a small YAML file (``catalogs/climatebench.yaml``). Every file is written beside its name and renamed when whole. A
broken download goes on where it stopped, if the server still has the same file. A digest in the catalog must agree; without one,
that of the first download is kept in ``fetched.json`` and every later one must agree with it.
"""

import fcntl
import hashlib
import json
import shutil
import sysconfig
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from tqdm import tqdm

from climatesuite import __version__
from climatesuite.errors import DataContractError
from climatesuite.store.provenance import digest

RECORD = "fetched.json"
ATTEMPTS, TIMEOUT_S, PAUSE_S = 4, 60.0, 2.0
BLOCK = 1 << 20
ROOM = 2.2
"""Free space wanted, times the size of a download: it and what is unpacked from it."""


@dataclass(frozen=True)
class Product:
    """A public data set.

    Attributes:
        name: Of the catalog.
        title: For people.
        license: Of the data.
        citation: What to cite.
        size: Roughly, for people.
        files: ``name``, ``url``, and where known ``sha256`` or ``md5``.
        unpack: Patterns of the file names wanted from archives; all are laid side by side.
        expected: File names that should be there in the end.
        notes: What to know of it.
    """

    name: str
    title: str
    license: str
    citation: str
    size: str
    files: tuple[Mapping[str, str], ...]
    unpack: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.title, f"size     {self.size}", f"licence  {self.license}", f"cite     {self.citation}"]
        return "\n".join(
            [*lines, *(f"note     {n}" for n in self.notes), *(f"from     {f['url']}" for f in self.files)]
        )


def catalog_file(name: str, kind: str = "", key: str = "") -> Path:
    """A catalog or recipe by name, from the checkout or the installation, or by path.

    Args:
        name: Its name, or a path.
        kind: Folder among the catalogs, e.g. ``layouts``.
        key: What a catalog of the kind that is meant has, e.g. ``parts``: only such ones are offered instead.

    Raises:
        DataContractError: If there is none.
    """
    roots = [Path(__file__).parents[2] / "catalogs", Path(sysconfig.get_path("data")) / "share/climatesuite/catalogs"]
    folders = [root / kind for root in roots]
    for path in (Path(name), *(folder / f"{name}.yaml" for folder in folders)):
        if path.is_file():
            return path
    offered = [p for folder in folders for p in folder.glob("*.yaml") if not key or key in read_yaml(p)]
    known = sorted({p.stem for p in offered})
    raise DataContractError(
        f"{kind.removesuffix('s') or 'catalog'} {name}",
        "no such file or name",
        f"a YAML file or one of {', '.join(known)}",
        "correct it",
    )


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        DataContractError: If it is not written in YAML, with the line.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DataContractError(str(path), f"not readable as YAML ({said})", "YAML", "correct that line") from error


def read_product(name: str) -> Product:
    """A data set that can be fetched.

    Raises:
        DataContractError: If there is no such catalog, or it does not say what to download.
    """
    path = catalog_file(name, key="files")
    content = read_yaml(path)
    wanted = ("title", "license", "citation", "size", "files")
    absent = [k for k in wanted if not isinstance(content, dict) or not content.get(k)]
    if absent:
        raise DataContractError(
            str(path), f"no {', '.join(absent)}", f"{', '.join(wanted)}", "name a catalog of downloads"
        )
    title, licence, citation, size = (str(content[k]) for k in wanted[:-1])
    unpack, expected, notes = (tuple(map(str, content.get(k) or ())) for k in ("unpack", "expected", "notes"))
    return Product(path.stem, title, licence, citation, size, tuple(content["files"]), unpack, expected, notes)


def fetch(product: Product, out: str | Path, progress: bool = True) -> list[Path]:
    """Download a data set, check it, unpack it; what is there already stays.

    Args:
        product: From `read_product`.
        out: Folder.
        progress: Whether to show bars on stderr.

    Returns:
        The files, as laid out.

    Raises:
        DataContractError: If a file cannot be had, ends early, is a web page, has another digest than before, or does not fit on
            the disk; if an archive is damaged; if another process is fetching into ``out``.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        record = _read_record(folder)
        for about in product.files:
            if not _is_done(folder, about["name"], record):
                record[about["name"]] = _fetch_one(folder, about, product, record.get(about["name"], {}), progress)
                _write_record(folder, record)
        made = sorted({folder / name for about in product.files for name in record[about["name"]]["holds"]})
    return made


def missing(product: Product, folder: str | Path) -> list[str]:
    """Names that should be there and are not."""
    return [name for name in product.expected if not (Path(folder) / name).is_file()]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / f".{RECORD}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataContractError(
                str(folder), "another process is fetching into it", "one at a time", "wait until it is done"
            ) from error
        yield


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    return json.loads(path.read_text())["files"] if path.is_file() else {}


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    staging = folder / f".{RECORD}.new"
    staging.write_text(json.dumps({"version": __version__, "files": record}, indent=1) + "\n")
    staging.replace(folder / RECORD)


def _is_done(folder: Path, name: str, record: Mapping[str, Any]) -> bool:
    """Whether a download was unpacked, and all it held is there with its size."""
    holds = record.get(name, {}).get("holds", {})
    return bool(holds) and all((folder / n).is_file() and (folder / n).stat().st_size == b for n, b in holds.items())


def _fetch_one(
    folder: Path, about: Mapping[str, str], product: Product, before: Mapping[str, Any], progress: bool
) -> dict[str, Any]:
    name, url = about["name"], about["url"]
    part = folder / f".{name}.part"
    _download(url, part, name, progress)
    sha256 = digest(part)
    wanted = about.get("sha256") or before.get("sha256")
    md5 = about.get("md5")
    if (wanted and sha256 != wanted) or (md5 and _md5(part) != md5):
        said = "the catalog" if about.get("sha256") or md5 else f"the first download, {before.get('date')}"
        _forget(part)
        raise DataContractError(
            name,
            f"sha256 {sha256[:16]}…",
            f"that of {said}",
            f"it changed at {url} or was damaged on the way: fetch again",
        )
    holds = _laid_out(part, folder, name, product.unpack)
    _forget(part)
    return {
        "url": url,
        "sha256": sha256,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "license": product.license,
        "holds": holds,
    }


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _download(url: str, part: Path, name: str, progress: bool) -> None:
    """The whole file in ``part``, which is gone on with where it is the server's; several attempts."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataContractError(name, f"address {url}", "http or https", "correct the catalog")
    for attempt in range(ATTEMPTS):
        try:
            _go_on(url, part, name, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DataContractError(
                    name, f"{url} answers {error.code} {error.reason}", "the file", "is the address right?"
                ) from error
            reason: Exception = error
        except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = error
        time.sleep(PAUSE_S * attempt)
    have = part.stat().st_size if part.is_file() else 0
    raise DataContractError(
        name, f"not all of it came ({reason}); {have / 1e6:.1f} MB are kept", f"the whole file of {url}",
        "fetch again: it goes on where it stopped",
    ) from reason  # fmt: skip


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _go_on(url: str, part: Path, name: str, progress: bool) -> None:
    state = _state(part)
    known = json.loads(state.read_text()) if state.is_file() and part.is_file() else {}
    have = part.stat().st_size if known.get("url") == url else 0
    if have and have == known["bytes"]:
        return
    have = have if known.get("tag") else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"climatesuite/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known["tag"])
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        is_rest = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if is_rest else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise DataContractError(name, f"a web page at {url}", "the file", "is a login or another address needed?")
        _check_room(part, name, (total or 0) - have)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        state.write_text(json.dumps({"url": url, "tag": "" if tag.startswith("W/") else tag, "bytes": total}))
        _save(answer, part, have, total, name, progress)
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size} of {total} bytes")


def _save(answer: HTTPResponse, part: Path, have: int, total: int | None, name: str, progress: bool) -> None:
    with (
        part.open("r+b" if have else "wb") as file,
        tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        file.seek(have)
        file.truncate()
        while block := answer.read(BLOCK):
            file.write(block)
            bar.update(len(block))


def _check_room(part: Path, name: str, more: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if more * ROOM > free:
        raise DataContractError(
            name, f"{free / 1e9:.1f} GB free", f"{more * ROOM / 1e9:.1f} GB, for it and what it unpacks to",
            "free space or choose another folder",
        )  # fmt: skip


def _laid_out(part: Path, folder: Path, name: str, patterns: tuple[str, ...]) -> dict[str, int]:
    """The download under its name, or what is wanted of an archive, side by side; names and sizes."""
    is_archive = tarfile.is_tarfile(part) or (zipfile.is_zipfile(part))
    if not patterns or not is_archive:
        if patterns:
            _forget(part)
            raise DataContractError(name, "no archive", "a tar or zip file", "is the address right?")
        part.replace(folder / name)
        return {name: (folder / name).stat().st_size}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
        try:
            _unpack(part, Path(scratch))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataContractError(
                name, f"a damaged archive ({error})", "a whole one", f"delete {part} and fetch again"
            ) from error
        found = [p for p in sorted(Path(scratch).rglob("*")) if p.is_file() and _is_wanted(p, patterns)]
        if not found:
            raise DataContractError(name, f"none of {', '.join(patterns)} in it", "the data", "is the address right?")
        holds: dict[str, int] = {}
        for path in found:
            if path.name in holds:
                raise DataContractError(name, f"{path.name} twice in it", "every file once", "unpack it by hand")
            holds[path.name] = path.stat().st_size
        for path in found:
            path.replace(folder / path.name)
    return holds


def _forget(part: Path) -> None:
    for path in (part, _state(part)):
        path.unlink(missing_ok=True)


def _is_wanted(path: Path, patterns: tuple[str, ...]) -> bool:
    """By pattern; never what macOS leaves beside every file."""
    is_rubbish = path.name.startswith("._") or "__MACOSX" in path.parts
    return not is_rubbish and any(path.match(p) for p in patterns)


def _unpack(part: Path, scratch: Path) -> None:
    if tarfile.is_tarfile(part):
        with tarfile.open(part) as archive:
            archive.extractall(scratch, filter="data")
    else:
        with zipfile.ZipFile(part) as archive:
            archive.extractall(scratch)
