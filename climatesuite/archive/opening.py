"""Opening files as they are stored, nothing decoded: NetCDF with or without groups, local or fetched through fsspec."""

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import fsspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.io import netcdf_file

from climatesuite.errors import DataContractError

READING = RLock()
"""Held while a file is open: the HDF5 library is not safe for threads. What is done with the numbers needs no lock."""
HUGE = 1e15
"""No climate variable is this large: such values are fill values, whether an attribute says so or not."""
_DEFAULT_FILLS = {"i1": -127, "u1": 255, "i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295}


@contextmanager
def open_raw(path: Path, group: str = "") -> Iterator[xr.Dataset]:
    """A file, or a group in it beside the coordinates of the groups above.

    Args:
        path: NetCDF file.
        group: E.g. ``r1i1p1f1/atmos``; default the root.

    Yields:
        Lazy Dataset of raw numbers with all attributes, ``_FillValue`` and ``scale_factor`` among them.
    """
    names = ["", *("/".join(group.split("/")[: i + 1]) for i in range(group.count("/") + 1))] if group else [""]
    options: dict[str, Any] = {"decode_cf": False, "create_default_indexes": False, "engine": "netcdf4"}
    with READING:
        opened = [xr.open_dataset(path, group=name or None, **options) for name in names]
        try:
            whole = opened[-1]
            for above in reversed(opened[:-1]):
                lacking = [n for n in above.variables if n not in whole.variables]
                whole = whole.assign({str(n): above[n].variable for n in lacking}).assign_attrs(
                    {**above.attrs, **whole.attrs}
                )
            yield whole
        finally:
            for ds in opened:
                ds.close()


def check_length(path: Path) -> None:
    """Raise OSError if a classic file ends before its data: the NetCDF library would read the rest as zeros."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps still open, which nothing here keeps
            netcdf_file(str(path), "r", mmap=True).close()
    except ValueError as error:
        raise OSError("the file is shorter than its header says") from error


def unpack(raw: xr.DataArray, subject: str) -> NDArray[Any]:
    """Numbers with NaN where they are missing; packed integers unpacked with the file's own scale, in float64.

    Missing is what ``_FillValue`` or ``missing_value`` name, NaN, default fill values of integers, and what is beyond 1e15.

    Raises:
        DataContractError: If scale or offset are not numbers, or the data is not numeric.
    """
    values = raw.values
    if values.dtype.kind not in "iuf":
        raise DataContractError(subject, f"values of type {values.dtype}", "numbers", "correct the file")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    attrs = raw.attrs
    if str(attrs.get("_Unsigned", "")).lower() == "true" and values.dtype.kind == "i":
        values = values.view(values.dtype.str.replace("i", "u"))
    fills = _fills(attrs, values.dtype, subject)
    if values.dtype.kind == "f":
        return _mask(values, [f for f in fills if abs(f) < HUGE], attrs, subject)
    missing = np.isin(values, np.array(fills, dtype=np.float64))
    scale, offset = (
        _number(attrs, key, default, subject) for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    out = values.astype(np.float64) * scale + offset
    out[missing] = np.nan
    return out


def _mask(values: NDArray[Any], fills: list[float], attrs: dict[Any, Any], subject: str) -> NDArray[Any]:
    """Floats with their missing values as NaN, scaled where the file says so."""
    with np.errstate(invalid="ignore"):
        sound = np.abs(values) < HUGE  # false for NaN
    for fill in fills:
        sound &= values != values.dtype.type(fill)
    if not sound.all():
        values = np.where(sound, values, values.dtype.type(np.nan))
    if "scale_factor" in attrs or "add_offset" in attrs:
        scale, offset = (
            _number(attrs, key, default, subject) for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
        return values.astype(np.float64) * scale + offset
    return values


def _fills(attrs: dict[Any, Any], dtype: np.dtype, subject: str) -> list[float]:
    """All values that mean missing, as they are stored."""
    fills = [default] if (default := _DEFAULT_FILLS.get(dtype.str[1:])) is not None else []
    out = [float(f) for f in fills]
    for key in ("_FillValue", "missing_value"):
        if key in attrs:
            try:
                out += [float(f) for f in np.atleast_1d(attrs[key]).astype(np.float64)]
            except (TypeError, ValueError):
                raise DataContractError(subject, f"{key} {attrs[key]!r}", "a number", "correct the attribute") from None
    return out


def _number(attrs: dict[Any, Any], key: str, default: float, subject: str) -> float:
    try:
        return float(attrs.get(key, default))
    except (TypeError, ValueError):
        raise DataContractError(subject, f"{key} {attrs[key]!r}", "one number", "correct the attribute") from None


def is_url(path: str | Path) -> bool:
    """Whether it is a URL for fsspec rather than a path."""
    return "://" in str(path)


def list_urls(url: str) -> list[str]:
    """The files under a URL, with their protocol; itself where it is a file.

    Raises:
        DataContractError: If there is nothing, or it cannot be reached.
    """
    try:
        fs, root = fsspec.core.url_to_fs(url)
        found = sorted(fs.find(root)) if fs.isdir(root) else [root] if fs.exists(root) else []
    except (OSError, ImportError, ValueError) as error:
        raise DataContractError(
            url, f"cannot be listed ({error})", "a URL that fsspec can open", "check it, or install its package"
        ) from error
    if not found:
        raise DataContractError(url, "no such file or folder", "CMIP files", "correct the URL")
    return [str(fs.unstrip_protocol(f)) for f in found]


def local_copy(url: str) -> Path:
    """A local file with the content of a URL: itself where it is local, otherwise a copy, kept while the remote one is the same.

    Copies lie in the folder that ``CLIMATESUITE_CACHE`` names, default ``~/.cache/climatesuite``.

    Raises:
        OSError: If it cannot be fetched.
    """
    fs, root = fsspec.core.url_to_fs(url)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return Path(root)
    cache = Path(os.environ.get("CLIMATESUITE_CACHE", Path.home() / ".cache" / "climatesuite"))
    key = hashlib.sha256(f"{url} {fs.ukey(root)} {fs.size(root)}".encode()).hexdigest()[:16]
    out = cache / key / Path(root).name
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f"{out.name}.{uuid.uuid4().hex}.part")
        try:
            fs.get_file(root, str(partial))
            partial.rename(out)
        finally:
            partial.unlink(missing_ok=True)
    return out
