"""The official ClimateBench files from Zenodo: resumed where a transfer broke, remembered by size and hash, unpacked flat.

Zenodo publishes no checksum of these tar files in the paper; the sha256 of the first whole download is kept beside them in
``SHA256SUMS``, and a later download that differs is refused.
"""

import hashlib
import http.client
import logging
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from climatesuite.errors import DataContractError

URL = "https://zenodo.org/records/7064308/files"
"""Record of Watson-Parris (2022), doi 10.5281/zenodo.7064308."""
ARCHIVES = ("train_val.tar.gz", "test.tar.gz")
SUMS = "SHA256SUMS"
CHUNK = 1 << 20
log = logging.getLogger("climatesuite")


def download(
    folder: str | Path, url: str = URL, archives: Sequence[str] = ARCHIVES, timeout_s: float = 60.0
) -> list[Path]:
    """Fetch and unpack what is not there yet.

    Args:
        folder: Where the tar files, their hashes and ``inputs_*.nc``, ``outputs_*.nc`` go.
        url: Folder of the archives.
        archives: Their names.
        timeout_s: Seconds without an answer after which a transfer is given up; give the command again to go on.

    Returns:
        The NetCDF files of all archives.

    Raises:
        DataContractError: If the server does not deliver, sends another size than it said, or other bytes than the first time.
    """
    out, files = Path(folder), []
    out.mkdir(parents=True, exist_ok=True)
    for name in archives:
        path = out / name
        if not path.exists():
            _fetch(f"{url}/{name}", path, timeout_s)
        _check_sum(path)
        files += _unpack(path, out)
    return files


def _fetch(url: str, path: Path, timeout_s: float) -> None:
    """One file, from where an earlier transfer stopped; it has its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            goes_on = answer.status == 206
            size = int(answer.headers.get("Content-Length", -1)) + (have if goes_on else 0)
            log.info("%s: %.0f of %.0f MB are there", path.name, (have if goes_on else 0) / 1e6, size / 1e6)
            with part.open("ab" if goes_on else "wb") as file:
                while block := answer.read(CHUNK):
                    file.write(block)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise DataContractError(url, f"answer {error.code}", "the file", "check the address") from error
        size = have
    except (OSError, http.client.HTTPException) as error:
        raise DataContractError(url, str(error), "the whole file", "give the command again: it goes on") from error
    if part.stat().st_size != size:
        found = f"{part.stat().st_size} bytes of {size}"
        raise DataContractError(url, found, "the whole file", "give the command again: it goes on where it stopped")
    part.replace(path)


def _check_sum(path: Path) -> None:
    """Hold a file against the hash of its first download, which is noted now if it is the first."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sums = path.with_name(SUMS)
    known = dict(line.split()[::-1] for line in sums.read_text().splitlines()) if sums.exists() else {}
    if known.setdefault(path.name, digest) != digest:
        raise DataContractError(
            path.name, f"sha256 {digest[:12]}…", f"{known[path.name][:12]}… of the first download",
            f"delete it and download again, or delete its line in {SUMS}",
        )  # fmt: skip
    sums.write_text("".join(f"{value}  {name}\n" for name, value in sorted(known.items())))


def _unpack(path: Path, folder: Path) -> list[Path]:
    """The NetCDF files of an archive, without its folders; those that are there in full stay."""
    made = []
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                target = folder / Path(entry.name).name
                if not entry.isfile() or not target.name.startswith(("inputs_", "outputs_")):
                    continue
                if not target.exists() or target.stat().st_size != entry.size:
                    source, part = archive.extractfile(entry), target.with_name(target.name + ".part")
                    with part.open("wb") as file:
                        while source is not None and (block := source.read(CHUNK)):
                            file.write(block)
                    part.replace(target)
                made.append(target)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataContractError(
            path.name, f"not readable ({error})", "a whole tar file", "delete it and download again"
        ) from error
    return made
