"""What a user asks for, in the forms that people write it, and the answer as labelled arrays, in memory or lazy."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dask
import dask.array as da
import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.export import MEMBER_ATTRS, field_attrs
from climatesuite.forcing.forcings import check_seen, fit_to, open_forcings
from climatesuite.harmonise.grids import with_bounds
from spf.codec import FieldCodec
from spf.config import SamplingConfig, expand

if TYPE_CHECKING:
    from spf.sampling.emulator import Emulator

log = logging.getLogger("spf")
EAGER_BYTES = 2**29
"""A larger ensemble is lazy: drawn when it is read, a few members at a time."""
_DRAWING = threading.Lock()
"""A lazy ensemble is drawn by one thread at a time: the network has all cores already, and memory stays flat."""


class HasForcings(Protocol):
    """Any object that is a scenario: its forcings are canonical (``climatesuite.forcing``)."""

    @property
    def forcings(self) -> xr.Dataset:
        """Canonical monthly forcings."""
        ...


Scenario = str | Path | xr.Dataset | HasForcings
"""A name such as ``ssp370``, a forcing file in ClimateBench's layout, canonical forcings, or an object with them."""
Years = slice | Sequence[int] | int | None
"""``slice(2015, 2099)`` or ``(2015, 2099)``, both ends included; one year; None for all that the forcings cover."""


def forcings_of(scenario: Scenario, codec: FieldCodec, known: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Canonical monthly forcings of a scenario on an emulator's grid and calendar.

    Args:
        scenario: See `Scenario`. A name is looked for among ``known``, then as ``forcings/inputs_<name>.nc`` in CLIMATE_DATA.
        codec: Of the emulator.
        known: Forcings that the emulator carries, by scenario.

    Raises:
        DataContractError: If there is no such scenario or file, a forcing that the emulator was trained with is missing, or it is
            a scenario of one's own that departs in another forcing.
    """
    if isinstance(scenario, xr.Dataset):
        return _fitted(scenario, codec)
    if isinstance(scenario, str | Path):
        if str(scenario) in known:
            return known[str(scenario)]
        return open_on_grid(_file_of(scenario, known), codec)
    if not isinstance(getattr(scenario, "forcings", None), xr.Dataset):
        raise DataContractError(
            "scenario", f"a {type(scenario).__name__}", "a name, a forcing file, an xarray.Dataset or an object with .forcings",
            "open it first",
        )  # fmt: skip
    return _fitted(scenario.forcings, codec)


def open_on_grid(path: str | Path, codec: FieldCodec) -> xr.Dataset:
    """Forcings from a file in ClimateBench's input layout, on an emulator's grid and calendar, in memory."""
    grid = xr.Dataset(coords=codec.grid.coords())
    found = open_forcings(path, codec.forcings, grid=grid, calendar=codec.calendar).load()
    check_seen(found, codec.forcings)
    return found


def _file_of(scenario: str | Path, known: Mapping[str, xr.Dataset]) -> Path:
    path = Path(scenario)
    if path.suffix or len(path.parts) > 1 or isinstance(scenario, Path):
        return path
    file = expand("${CLIMATE_DATA}/forcings") / f"inputs_{scenario}.nc"
    if file.is_file():
        return file
    where = "CLIMATE_DATA is not set" if "CLIMATE_DATA" not in os.environ else f"no {file.name} in {file.parent}"
    raise DataContractError(
        f"scenario {str(scenario)!r}", f"not among {', '.join(known) or 'none'} that the emulator carries, and {where}",
        "a scenario whose forcings are known", "give its forcing file inputs_<scenario>.nc, or an xarray.Dataset of forcings",
    )  # fmt: skip


def _fitted(forcings: xr.Dataset, codec: FieldCodec) -> xr.Dataset:
    """As they are where they fit, else by `fit_to`."""
    grid = xr.Dataset(coords=codec.grid.coords())
    if forcings.attrs.get("calendar", codec.calendar) == codec.calendar and _same_grid(forcings, grid):
        check_seen(forcings, codec.forcings)
        return forcings
    return fit_to(with_bounds(forcings) if "lat" in forcings.dims else forcings, codec.forcings, grid, codec.calendar)


def _same_grid(a: xr.Dataset, b: xr.Dataset) -> bool:
    return "lat" not in a.dims or all(
        a.sizes[d] == b.sizes[d] and np.allclose(a[d].values, b[d].values, atol=1e-4) for d in ("lat", "lon")
    )


def years_of(years: Years, forcings: xr.Dataset) -> tuple[int, int]:
    """First and last year.

    Raises:
        DataContractError: If a slice has a step, or years are not two whole numbers.
    """
    have = (int(forcings.year.values[0]), int(forcings.year.values[-1]))
    if years is None:
        return have
    if isinstance(years, slice):
        if years.step not in (None, 1):
            raise DataContractError("years", f"{years}", "a slice without a step", "select from the result")
        return (
            have[0] if years.start is None else int(years.start),
            have[1] if years.stop is None else int(years.stop),
        )
    ends = (years, years) if isinstance(years, int | np.integer) else tuple(years)
    if len(ends) != 2 and not isinstance(years, range):
        raise DataContractError("years", f"{years}", "first and last", "write slice(2015, 2099) or (2015, 2099)")
    return int(ends[0]), int(ends[-1])


def numbers_of(members: int | Sequence[int]) -> list[int]:
    """Numbers of the members.

    Raises:
        DataContractError: If there are none, or one twice.
    """
    numbers = list(range(members)) if isinstance(members, int | np.integer) else [int(m) for m in members]
    if not numbers:
        raise DataContractError("sample", "no members asked for", "at least one", "set members to 1 or more")
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise DataContractError("sample", f"members {numbers}", "every number once, from 0", "name each member once")
    return numbers


def check_variables(variables: Sequence[str] | None, codec: FieldCodec) -> tuple[str, ...]:
    """The fields wanted, in the emulator's order.

    Raises:
        DataContractError: If it does not emulate one of them.
    """
    wanted = codec.variables if variables is None else [variables] if isinstance(variables, str) else variables
    absent = [v for v in wanted if v not in codec.variables]
    if absent or not wanted:
        raise DataContractError(
            "sample", f"variables {', '.join(absent) or 'none'}", f"some of {', '.join(codec.variables)}, which it was trained on",
            "leave them out, or train an emulator of them",
        )  # fmt: skip
    return tuple(v for v in codec.variables if v in wanted)


def ensemble(
    emulator: "Emulator", forcings: xr.Dataset, timescale: str, members: list[int], years: tuple[int, int], seed: int,
    how: SamplingConfig, variables: Sequence[str],
) -> xr.Dataset:  # fmt: skip
    """Members (member, time, lat, lon) in canonical units; lazy (dask) where they would take more than `EAGER_BYTES`.

    A lazy ensemble is computed in groups of members that go through the network together; both variables of a group are one task.
    """
    frame = emulator.template(forcings, timescale, years)
    shape = tuple(frame.sizes[d] for d in ("time", "lat", "lon"))
    draw = partial(_block, emulator, forcings, timescale, years, seed, how, variables, shape)
    if 4 * len(variables) * len(members) * int(np.prod(shape)) <= EAGER_BYTES:
        fields: Any = draw(members)
    else:
        groups = emulator.groups(forcings, timescale, members, years, how)
        fields = da.concatenate([_lazy(draw, group, (len(variables), len(group), *shape)) for group in groups], axis=1)
        log.info("%d members, %.1f GB: drawn when they are read", len(members), fields.nbytes / 1e9)
    out = frame.assign_coords(member=("member", np.array(members), MEMBER_ATTRS))
    for i, v in enumerate(variables):
        out[v] = (("member", "time", "lat", "lon"), fields[i], {**field_attrs(v), "role": "field"})
        out[v].attrs.pop("coordinates", None)  # xarray writes it
    return out


def _block(
    emulator: "Emulator", forcings: xr.Dataset, timescale: str, years: tuple[int, int], seed: int, how: SamplingConfig,
    variables: Sequence[str], shape: tuple[int, ...], members: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """Some members as one array (var, member, time, lat, lon)."""
    out = np.empty((len(variables), len(members), *shape), np.float32)
    with _DRAWING:
        for row, (_, fields) in enumerate(emulator.draw(forcings, timescale, members, years, seed, how)):
            for i, v in enumerate(variables):
                out[i, row] = fields[v].values
    return out


def _lazy(draw: Callable[[Sequence[int]], np.ndarray], members: list[int], shape: tuple[int, ...]) -> da.Array:
    return da.from_delayed(dask.delayed(draw, pure=False)(members), shape, np.float32)
