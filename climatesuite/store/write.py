"""Writing runs into a store that is not published yet: arrays are made whole, members filled in one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from climatesuite.errors import DataContractError
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
        self.shape = tuple(template.sizes[d] for d in ("time", "lat", "lon"))
        arrays = coordinate_arrays(template)
        attrs = {k: _plain(v) for k, v in template.attrs.items()}
        beside = " ".join(n for n, (dims, _, _) in arrays.items() if dims != (n,))
        self.group.attrs.update({**attrs, "members": self.members, "fields": self.fields, "coordinates": beside})
        for coord, (dims, values, about) in arrays.items():
            _create(self.group, coord, dims, values.shape, values.dtype, about, values.shape, None)[...] = values
        dims, shape = ("member", "time", "lat", "lon"), (len(self.members), *self.shape)
        self.arrays = {f: self._array(f, dims, shape, np.dtype("float32"), template[f].attrs) for f in self.fields}

    def add(self, member: str, ds: xr.Dataset) -> None:
        """Write one member's fields (time, lat, lon).

        Raises:
            DataContractError: If a field has another shape than the first member's.
        """
        row = self.members.index(member)
        for field, array in self.arrays.items():
            values = ds[field].transpose("time", "lat", "lon").values
            if values.shape != self.shape:
                raise DataContractError(
                    f"{field} of {member} in {self.group.path}", f"shape {values.shape}", f"{self.shape}, as the first member",
                    "set years so that all members cover them",
                )  # fmt: skip
            array[row] = values.astype(np.float32, copy=False)

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


def write_statistics(root: zarr.Group, name: str, members: Sequence[str], member: str, part: xr.Dataset) -> None:
    """Write one member's statistics into their group, which the first one makes for all members.

    Args:
        root: Group of the store.
        name: Path of the group.
        members: Labels of all members, in order.
        member: Whose statistics these are.
        part: As `harmonise.statistics.month_statistics` returns them.
    """
    if name not in root:
        group = root.create_group(name, attributes={"members": list(members)})
        for coord in ("calendar_month", "lat", "lon"):
            values = np.asarray(part[coord].values)
            _create(group, coord, (coord,), values.shape, values.dtype, {}, values.shape, None)[...] = values
        for key, field in part.data_vars.items():
            dims, shape = ("member", *map(str, field.dims)), (len(members), *field.shape)
            _create(group, str(key), dims, shape, field.dtype, field.attrs, (1, *field.shape), None)
    for key, field in part.data_vars.items():
        root[f"{name}/{key}"][list(members).index(member)] = field.values  # type: ignore[index]


def _create(
    group: zarr.Group, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, attrs: Mapping[str, Any],
    chunks: tuple[int, ...], shards: tuple[int, ...] | None,
) -> zarr.Array:  # fmt: skip
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=chunks, shards=shards, dimension_names=dims,
        attributes={k: _plain(v) for k, v in attrs.items()}, fill_value=np.nan if dtype.kind == "f" else 0,
        # bit planes of smooth fields compress well; neither zstd nor blosc notices a flipped bit, the checksum does
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
