"""Ensembles as CF NetCDF: written member by member, and read back, whoever wrote them.

A file holds one scenario at one timescale, dims ``(member, time, lat, lon)``. Source of the rules: CF conventions 1.11.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import VARIABLES
from climatesuite.ensemble_file import open_ensemble
from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import grid_attrs

__all__ = ["open_ensemble", "write_cf"]
CONVENTIONS = "CF-1.11"
FREQUENCIES = {"decade": "dec", "year": "yr", "month": "mon"}
_ADJECTIVES = {"decade": "decadal", "year": "annual", "month": "monthly"}
REQUIRED_ATTRS = ("institution", "source", "references")
CHUNK_VALUES = 2**20
"""Values in one chunk at most: 4 MB of float32 before compression."""
_INHERITED_ATTRS = ("source_id", "experiment_id", "decade_start")


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
        template: Canonical Dataset: its ``time``, ``time_bnds``, ``lat``, ``lon``, ``lat_bnds``, ``lon_bnds`` and its
            attributes ``timescale`` (required), ``source_id``, ``experiment_id``, ``decade_start``. Data variables are
            not looked at.
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
            _write_global_attrs(file, attrs, template)
            _write_members(file, members, template, out.name, complevel, progress)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out


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
    member = file.createVariable("member", "i4", ("member",), chunksizes=(1024,))
    member.setncatts({"standard_name": "realization", "long_name": "ensemble member", "units": "1"})
    _write_time(file, template)
    for name in ("lat", "lon"):
        coordinate = file.createVariable(name, "f8", (name,))
        coordinate.setncatts(grid_attrs(name))
        coordinate[:] = template[name].values
        bounds = file.createVariable(f"{name}_bnds", "f8", (name, "bnds"))
        bounds[:] = template[f"{name}_bnds"].transpose(name, ...).values


def _write_time(file: netCDF4.Dataset, template: xr.Dataset) -> None:
    bounds = template["time_bnds"].transpose("time", ...).values
    first = bounds.flat[0]
    if not isinstance(first, cftime.datetime):
        raise DataContractError(
            "time of the template", f"values of type {type(first).__name__}", "cftime dates", "open it with cftime"
        )
    units, calendar = f"days since {first.year:04d}-01-01", first.calendar
    time = file.createVariable("time", "f8", ("time",))
    about = {"standard_name": "time", "long_name": "time", "axis": "T", "bounds": "time_bnds"}
    time.setncatts({**about, "units": units, "calendar": calendar})
    time[:] = cftime.date2num(template["time"].values, units, calendar)
    file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = cftime.date2num(bounds, units, calendar)


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


def _write_global_attrs(file: netCDF4.Dataset, attrs: Mapping[str, Any], template: xr.Dataset) -> None:
    timescale = template.attrs["timescale"]
    inherited = {k: template.attrs[k] for k in _INHERITED_ATTRS if k in template.attrs}
    scenario = attrs.get("experiment_id", inherited.get("experiment_id", "a scenario"))
    made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: written by climatesuite.export.write_cf"
    history = f"{made}\n{attrs['history']}" if attrs.get("history") else made
    title = attrs.get("title") or f"Emulated climate of {scenario}, {_ADJECTIVES[timescale]} means"
    own = {"Conventions": CONVENTIONS, "title": title, "frequency": FREQUENCIES[timescale], "timescale": timescale}
    for name, value in {**inherited, **attrs, **own, "history": history}.items():
        if value is not None:
            file.setncattr(name, _plain(value))


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
            file[name][row] = _values(fields[name], name, number, template)
        file["member"][row] = number
        if progress is not None:
            progress(1)
    if not seen:
        raise DataContractError(subject, "no members", "one or more", "draw at least one member")


def _create_fields(file: netCDF4.Dataset, names: tuple[str, ...], template: xr.Dataset, complevel: int) -> None:
    n_time, n_lat, n_lon = (template.sizes[d] for d in ("time", "lat", "lon"))
    chunk = (1, min(n_time, max(1, CHUNK_VALUES // (n_lat * n_lon))), n_lat, n_lon)
    if "tas" in names:
        height = file.createVariable("height", "f8", ())
        height.setncatts(
            {"standard_name": "height", "long_name": "height", "units": "m", "positive": "up", "axis": "Z"}
        )
        height[...] = 2.0
    packing: dict[str, Any] = {"zlib": complevel > 0, "complevel": complevel or 1, "shuffle": complevel > 0}
    for name in names:
        variable = VARIABLES[name]
        field = file.createVariable(name, "f4", ("member", "time", "lat", "lon"), chunksizes=chunk, **packing)
        field.setncatts(
            {"standard_name": variable.standard_name, "long_name": variable.long_name, "units": variable.units,
             "cell_methods": "area: time: mean"}
        )  # fmt: skip
        if name == "tas":
            field.setncatts({"coordinates": "height", "units_metadata": "temperature: on_scale"})


def _values(field: xr.DataArray, name: str, number: int, template: xr.Dataset) -> NDArray[np.float32]:
    """One member's values ``[time, lat, lon]``, checked."""
    subject, units = f"{name} of member {number}", VARIABLES[name].units
    if field.attrs.get("units") != units:
        raise DataContractError(
            subject, f"units {field.attrs.get('units')!r}", repr(units), "convert the field and set its attribute units"
        )
    wanted = {d: template.sizes[d] for d in ("time", "lat", "lon")}
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
