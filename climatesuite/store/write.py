"""Writing runs into a store that is not published yet: arrays are made whole, members filled in one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr

from climatesuite.store.layout import chunks_of, coordinate_arrays, shards_of


class RunWriter:
    """One run at one timescale.

    Args:
        root: Group of the store.
        name: Path of the run's group.
        template: Canonical Dataset of one member (time, lat, lon): coordinates and attributes.
        fields: Names of the variables.
        members: Labels of all members, in order.
    """

    def __init__(
        self, root: zarr.Group, name: str, template: xr.Dataset, fields: Sequence[str], members: Sequence[str]
    ) -> None:
        self.group = root.create_group(name)
        self.members, self.fields = list(members), list(fields)
        self.timescale = str(template.attrs["timescale"])
        attrs = {k: _plain(v) for k, v in template.attrs.items()}
        self.group.attrs.update({**attrs, "members": self.members, "fields": self.fields})
        for coord, (dims, values, about) in coordinate_arrays(template).items():
            _create(self.group, coord, dims, values.shape, values.dtype, about, values.shape, None)[...] = values
        dims = ("member", "time", "lat", "lon")
        shape = (len(self.members), *(template.sizes[d] for d in dims[1:]))
        self.arrays = {f: self._array(f, dims, shape, np.dtype("float32"), template[f].attrs) for f in self.fields}

    def add(self, member: str, ds: xr.Dataset) -> None:
        """Write one member's fields."""
        row = self.members.index(member)
        for field in self.fields:
            self.arrays[field][row] = ds[field].transpose("time", "lat", "lon").values.astype(np.float32)

    def add_forcings(self, forcings: xr.Dataset) -> None:
        """Write the scenario's forcings, (time) or (time, lat, lon)."""
        for name, field in forcings.data_vars.items():
            dims = tuple(map(str, field.dims))
            array = self._array(str(name), dims, field.shape, field.dtype, field.attrs)
            array[...] = field.values
        self.group.attrs["forcings"] = [str(n) for n in forcings.data_vars]

    def _array(
        self, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, attrs: Mapping[str, Any]
    ) -> zarr.Array:
        chunks = chunks_of(shape, dims, self.timescale)
        return _create(
            self.group, name, dims, shape, dtype, attrs, chunks, shards_of(shape, dims, self.timescale, dtype.itemsize)
        )


def write_statistics(root: zarr.Group, name: str, members: Sequence[str], parts: Sequence[xr.Dataset]) -> None:
    """Write every member's statistics, stacked along member."""
    group = root.create_group(name)
    group.attrs["members"] = list(members)
    for key in parts[0].data_vars:
        values = np.stack([p[key].values for p in parts])
        dims = ("member", *map(str, parts[0][key].dims))
        chunk = (1, *values.shape[1:])
        _create(group, str(key), dims, values.shape, values.dtype, parts[0][key].attrs, chunk, None)[...] = values
    for coord in ("calendar_month", "lat", "lon"):
        values = np.asarray(parts[0][coord].values)
        _create(group, coord, (coord,), values.shape, values.dtype, {}, values.shape, None)[...] = values


def _create(
    group: zarr.Group, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, attrs: Mapping[str, Any],
    chunks: tuple[int, ...], shards: tuple[int, ...] | None,
) -> zarr.Array:  # fmt: skip
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=chunks, shards=shards, dimension_names=dims,
        attributes={k: _plain(v) for k, v in attrs.items()}, fill_value=np.nan if dtype.kind == "f" else 0,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
