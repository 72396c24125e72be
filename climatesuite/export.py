"""Ensembles as CF NetCDF or Zarr: written member by member, and read back, whoever wrote them.

A file or store holds one scenario at one timescale, dims ``(member, time, lat, lon)``. Source of the rules: CF conventions 1.11.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.ensemble_file import open_ensemble
from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import grid_attrs

__all__ = ["annotate_zarr", "create_zarr", "open_ensemble", "write_cf", "write_zarr_member"]
CONVENTIONS = "CF-1.11"
FREQUENCIES = {"decade": "dec", "year": "yr", "month": "mon"}
_ADJECTIVES = {"decade": "decadal", "year": "annual", "month": "monthly"}
REQUIRED_ATTRS = ("institution", "source", "references")
CHUNK_VALUES = 2**20
"""Values in one chunk at most: 4 MB of float32 before compression."""
_INHERITED_ATTRS = ("source_id", "experiment_id", "decade_start", "native_calendar")
MEMBER_ATTRS: dict[str, Any] = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
_HEIGHT_ATTRS: dict[str, Any] = {
    "standard_name": "height",
    "long_name": "height",
    "units": "m",
    "positive": "up",
    "axis": "Z",
}
FIELD_DIMS = ("member", "time", "lat", "lon")


def write_cf(
    path: str | Path,
    members: Iterable[tuple[int, xr.Dataset]],
    template: xr.Dataset,
    attrs: Mapping[str, Any],
    *,
    complevel: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write an ensemble to a CF NetCDF4 file, one member in memory at a time.

    The file appears under its name only when whole: it is written to ``<path>.part`` and renamed. A failure, also one
    raised by ``members``, leaves nothing behind.

    Args:
        path: File to make; an existing one is replaced. Missing folders are made.
        members: Pairs of member number and Dataset ``(time, lat, lon)`` in canonical units, with the attribute ``units``
            on every variable. All members hold the same variables. May be a generator.
        template: Canonical Dataset: its ``time``, ``time_bnds``, ``lat``, ``lon``, ``lat_bnds``, ``lon_bnds``, forcings on the
            steps as coordinates where it has them, and its attributes ``timescale`` (required), ``source_id``, ``experiment_id``,
            ``decade_start``. Data variables are not looked at.
        attrs: Global attributes. ``institution``, ``source`` and ``references`` are required; say here too: title,
            license, seed, checkpoint_sha256, training_sources, model. Numbers and text are kept, lists of numbers become arrays,
            everything else JSON text; None is left out.
        complevel: zlib level; 0 is none.
        progress: Called with 1 after every member, e.g. ``tqdm(...).update``.

    Returns:
        The path.

    Raises:
        DataContractError: If a required attribute or bound is missing, there are no members or one twice, a member's
            dims, sizes, variables or units differ from what is expected, or a value is NaN.
    """
    out = Path(path)
    _check_attrs(out, attrs, template)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    try:
        with netCDF4.Dataset(part, "w", format="NETCDF4", clobber=True) as file:
            _write_frame(file, template)
            file.setncatts(_global_attrs(attrs, template, "write_cf"))
            _write_members(file, members, template, out.name, complevel, progress)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out


def create_zarr(
    path: str | Path, template: xr.Dataset, variables: Sequence[str], members: Sequence[int], attrs: Mapping[str, Any]
) -> Path:
    """Make a CF Zarr v3 store of an ensemble, whole but for its fields, which :func:`write_zarr_member` fills in.

    A member is one file of each variable, so that processes can write members side by side. A member that is not written
    yet reads as NaN.

    Args:
        path: Folder to make.
        template: As for :func:`write_cf`.
        variables: Names of the fields.
        members: Numbers of all members, in order.
        attrs: As for :func:`write_cf`.

    Returns:
        The path.

    Raises:
        DataContractError: If there is something at the path, a required attribute or bound is missing, there are no
            members or one twice, or a variable is unknown.
    """
    out = Path(path)
    _check_attrs(out, attrs, template)
    if out.exists():
        raise DataContractError(str(out), "already there", "a new name", "choose another name or delete it")
    if not members or len(set(members)) < len(members):
        raise DataContractError(out.name, f"members {list(members)}", "each number once", "number members 0 to M - 1")
    unknown = [v for v in variables if v not in VARIABLES]
    if unknown or not variables:
        raise DataContractError(
            out.name, f"variables {list(variables)}", f"some of {', '.join(VARIABLES)}", "name fields only"
        )
    root = zarr.open_group(str(out), mode="w-", zarr_format=3)
    root.attrs.update({k: _json(v) for k, v in _global_attrs(attrs, template, "create_zarr").items()})
    frame: dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]] = {
        "member": (("member",), np.asarray(members, dtype=np.int32), MEMBER_ATTRS),
        **_coordinates(template),
    }
    if "tas" in variables:
        frame["height"] = ((), np.asarray(2.0), _HEIGHT_ATTRS)
    for name, (dims, values, about) in frame.items():
        array = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape, dimension_names=dims, attributes=about
        )
        array[...] = values
    chunk = _chunks(template.sizes)
    n_time, n_chunks = template.sizes["time"], -(-template.sizes["time"] // chunk[1])
    for name in (v for v in VARIABLES if v in variables):
        root.create_array(
            name, shape=(len(members), n_time, *chunk[2:]), dtype=np.float32, dimension_names=FIELD_DIMS, chunks=chunk,
            shards=(1, n_chunks * chunk[1], *chunk[2:]) if n_chunks > 1 else None, fill_value=np.nan,
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
            attributes=field_attrs(name),
        )  # fmt: skip
    return out


def write_zarr_member(path: str | Path, number: int, fields: xr.Dataset) -> None:
    """Write one member's fields into a store of :func:`create_zarr`; no other member is touched.

    Args:
        path: The store.
        number: Of the member.
        fields: Dataset ``(time, lat, lon)`` in canonical units, with the attribute ``units`` on every variable.

    Raises:
        DataContractError: If the store has no such member, or its dims, sizes, variables or units differ from what is
            expected, or a value is NaN.
    """
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    arrays = {n: a for n, a in root.arrays() if n in VARIABLES}
    if set(fields.data_vars) != set(arrays):
        raise DataContractError(
            f"member {number}", f"variables {sorted(map(str, fields.data_vars))}", ", ".join(sorted(arrays)),
            "give fields only, those of the store",
        )  # fmt: skip
    (rows,) = np.nonzero(np.asarray(root["member"][...]) == number)  # type: ignore[index]
    if rows.size == 0:
        raise DataContractError(
            Path(path).name, f"no member {number}", "one of the store", "create it with that member"
        )
    for name, array in arrays.items():
        sizes = dict(zip(FIELD_DIMS, array.shape, strict=True))
        array[int(rows[0])] = _values(fields[name], name, number, sizes)


def annotate_zarr(path: str | Path, attrs: Mapping[str, Any]) -> None:
    """Add global attributes to a store of :func:`create_zarr`."""
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    root.attrs.update({k: _json(_plain(v)) for k, v in attrs.items() if v is not None})


def _json(value: Any) -> Any:
    """An attribute value of NetCDF as JSON has it."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _check_attrs(out: Path, attrs: Mapping[str, Any], template: xr.Dataset) -> None:
    missing = [name for name in REQUIRED_ATTRS if not attrs.get(name)]
    if missing:
        raise DataContractError(
            out.name, f"no global attributes {', '.join(missing)}", "text in each of them", "pass them in attrs"
        )
    timescale = template.attrs.get("timescale")
    if timescale not in FREQUENCIES:
        raise DataContractError(
            out.name,
            f"timescale {timescale!r} in the template",
            f"one of {', '.join(FREQUENCIES)}",
            "set its attribute",
        )
    absent = [n for n in ("time", "time_bnds", "lat", "lon", "lat_bnds", "lon_bnds") if n not in template.variables]
    if absent:
        raise DataContractError(
            out.name,
            f"a template without {', '.join(absent)}",
            "a canonical Dataset",
            "copy its coordinates from a store",
        )


def _write_frame(file: netCDF4.Dataset, template: xr.Dataset) -> None:
    """Dimensions and coordinates; member is unlimited, as its length is not known yet."""
    file.createDimension("member", None)
    for name in ("time", "lat", "lon"):
        file.createDimension(name, template.sizes[name])
    file.createDimension("bnds", 2)
    file.createVariable("member", "i4", ("member",), chunksizes=(1024,)).setncatts(MEMBER_ATTRS)
    for name, (dims, values, attrs) in _coordinates(template).items():
        coordinate = file.createVariable(name, "f8", dims)
        coordinate.setncatts(attrs)
        coordinate[:] = values


def _coordinates(template: xr.Dataset) -> dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]]:
    """Time, latitude, longitude, their bounds, and forcings on the steps, as numbers: name -> (dims, values, CF attributes)."""
    bounds = template["time_bnds"].transpose("time", ...).values
    first = bounds.flat[0]
    if not isinstance(first, cftime.datetime):
        raise DataContractError(
            "time of the template", f"values of type {type(first).__name__}", "cftime dates", "open it with cftime"
        )
    units, calendar = f"days since {first.year:04d}-01-01", first.calendar
    about = {
        "standard_name": "time",
        "long_name": "time",
        "axis": "T",
        "bounds": "time_bnds",
        **leap_seconds(calendar),
    }
    out: dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]] = {
        "time": (
            ("time",),
            np.asarray(cftime.date2num(template["time"].values, units, calendar), dtype=np.float64),
            {**about, "units": units, "calendar": calendar},
        ),
        "time_bnds": (
            ("time", "bnds"), np.asarray(cftime.date2num(bounds, units, calendar), dtype=np.float64), {}
        ),
    }  # fmt: skip
    for name in ("lat", "lon"):
        edges = template[f"{name}_bnds"].transpose(name, ...).values
        out[name] = ((name,), np.asarray(template[name].values, dtype=np.float64), grid_attrs(name))
        out[f"{name}_bnds"] = ((name, "bnds"), np.asarray(edges, dtype=np.float64), {})
    for name in (n for n in FORCINGS if n in template.coords):
        about = {k: template[name].attrs[k] for k in ("long_name", "units")}
        out[name] = (("time",), np.asarray(template[name].values, dtype=np.float64), about)
    return out


def leap_seconds(calendar: str) -> dict[str, str]:
    """What CF 1.11 wants to be said of calendars that could have them."""
    real = calendar in ("standard", "proleptic_gregorian", "julian")
    return {"units_metadata": "leap_seconds: none"} if real else {}


def _plain(value: Any) -> Any:
    """An attribute value that NetCDF can hold."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        number = int(value)
        return np.int32(number) if abs(number) < 2**31 else str(number)
    if isinstance(value, (float, np.floating, str)):
        return value
    if isinstance(value, np.ndarray) or (
        isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) and v is not True for v in value)
    ):
        array = np.asarray(value)
        return (
            array.astype(np.int32)
            if array.dtype.kind in "iu" and abs(array).max() < 2**31
            else array.astype(np.float64)
        )
    return str(value) if isinstance(value, os.PathLike) else json.dumps(value, default=str, sort_keys=True)


def _global_attrs(attrs: Mapping[str, Any], template: xr.Dataset, writer: str) -> dict[str, Any]:
    """Global attributes in the order in which they are written, all plain."""
    timescale = template.attrs["timescale"]
    inherited = {k: template.attrs[k] for k in _INHERITED_ATTRS if k in template.attrs}
    scenario = attrs.get("experiment_id", inherited.get("experiment_id", "a scenario"))
    made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: written by climatesuite.export.{writer}"
    history = f"{made}\n{attrs['history']}" if attrs.get("history") else made
    title = attrs.get("title") or f"Emulated climate of {scenario}, {_ADJECTIVES[timescale]} means"
    own = {"Conventions": CONVENTIONS, "title": title, "frequency": FREQUENCIES[timescale], "timescale": timescale}
    every = {**inherited, **attrs, **own, "history": history}
    return {name: _plain(value) for name, value in every.items() if value is not None}


def _write_members(
    file: netCDF4.Dataset,
    members: Iterable[tuple[int, xr.Dataset]],
    template: xr.Dataset,
    subject: str,
    complevel: int,
    progress: Callable[[int], object] | None,
) -> None:
    names: tuple[str, ...] = ()
    seen: set[int] = set()
    for row, (number, fields) in enumerate(members):
        if number in seen:
            raise DataContractError(subject, f"member {number} twice", "every member once", "number members 0 to M - 1")
        seen.add(number)
        if not names:
            names = tuple(n for n in VARIABLES if n in fields.data_vars)
            _create_fields(file, names, template, complevel)
        found = sorted(map(str, fields.data_vars))
        if found != sorted(names) or not names:
            expected = ", ".join(names) or f"variables among {', '.join(VARIABLES)}"
            raise DataContractError(
                f"member {number}", f"variables {found}", expected, "give fields only, the same for every member"
            )
        for name in names:
            file[name][row] = _values(fields[name], name, number, template.sizes)
        file["member"][row] = number
        if progress is not None:
            progress(1)
    if not seen:
        raise DataContractError(subject, "no members", "one or more", "draw at least one member")


def _create_fields(file: netCDF4.Dataset, names: tuple[str, ...], template: xr.Dataset, complevel: int) -> None:
    if "tas" in names:
        height = file.createVariable("height", "f8", ())
        height.setncatts(_HEIGHT_ATTRS)
        height[...] = 2.0
    packing: dict[str, Any] = {"zlib": complevel > 0, "complevel": complevel or 1, "shuffle": complevel > 0}
    for name in names:
        field = file.createVariable(name, "f4", FIELD_DIMS, chunksizes=_chunks(template.sizes), **packing)
        field.setncatts(field_attrs(name))
        field.set_var_chunk_cache(4 * math.prod(_chunks(template.sizes)), 1, 1.0)  # a chunk is written once: keep one


def _chunks(sizes: Mapping[Any, int]) -> tuple[int, int, int, int]:
    """One member, the whole globe, as many steps as 4 MB hold."""
    n_time, n_lat, n_lon = (sizes[d] for d in ("time", "lat", "lon"))
    return (1, min(n_time, max(1, CHUNK_VALUES // (n_lat * n_lon))), n_lat, n_lon)


def field_attrs(name: str) -> dict[str, Any]:
    """CF attributes of a field."""
    variable = VARIABLES[name]
    attrs = {
        "standard_name": variable.standard_name, "long_name": variable.long_name, "units": variable.units,
        "cell_methods": "area: time: mean",
    }  # fmt: skip
    return attrs | ({"coordinates": "height", "units_metadata": "temperature: on_scale"} if name == "tas" else {})


def _values(field: xr.DataArray, name: str, number: int, sizes: Mapping[Any, int]) -> NDArray[np.float32]:
    """One member's values ``[time, lat, lon]``, checked."""
    subject, units = f"{name} of member {number}", VARIABLES[name].units
    if field.attrs.get("units") != units:
        raise DataContractError(
            subject, f"units {field.attrs.get('units')!r}", repr(units), "convert the field and set its attribute units"
        )
    wanted = {d: sizes[d] for d in ("time", "lat", "lon")}
    if dict(field.sizes) != wanted:
        raise DataContractError(
            subject,
            f"sizes {dict(field.sizes)}",
            f"{wanted} as in the template",
            "write one member on the template's grid",
        )
    values = np.asarray(field.transpose("time", "lat", "lon").values, dtype=np.float32)
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataContractError(
            subject, f"{bad} of {values.size} values are NaN or infinite", "finite values", "check the sampler"
        )
    return values
