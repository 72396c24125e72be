"""Writing into a store: arrays declared, a member's steps streamed into shards, coordinates and forcings written whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from climatesuite.store.layout import chunks_of, coordinate_arrays, shards_of
from climatesuite.store.metadata import group_node, plain
from climatesuite.store.place import Overlay

FIELD = ("member", "time", "lat", "lon")


def declare(
    overlay: Overlay, path: str, dims: Sequence[str], shape: Sequence[int], dtype: Any, attrs: Mapping[str, Any],
    chunks: tuple[int, ...] | None = None, shards: tuple[int, ...] | None = None,
) -> zarr.Array:  # fmt: skip
    """An array without data; by default one chunk."""
    kind = np.dtype(dtype)
    return zarr.create_array(
        overlay, name=path, shape=tuple(shape), dtype=kind, chunks=chunks or tuple(max(1, n) for n in shape), shards=shards,
        dimension_names=list(dims), attributes={k: plain(v) for k, v in attrs.items()}, zarr_format=3, overwrite=False,
        fill_value=np.nan if kind.kind == "f" else 0,
        # bit planes of smooth fields compress well; neither zstd nor blosc notices a flipped bit, the checksum does
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
    )  # fmt: skip


def declare_steps(
    overlay: Overlay, path: str, dims: Sequence[str], shape: Sequence[int], dtype: Any, attrs: Mapping[str, Any], timescale: str
) -> zarr.Array:  # fmt: skip
    """An array with time steps of a timescale: chunks of a training window, in shards."""
    where = tuple(dims), np.dtype(dtype).itemsize
    chunks, shards = (
        chunks_of(tuple(shape), where[0], timescale),
        shards_of(tuple(shape), where[0], timescale, where[1]),
    )
    return declare(overlay, path, dims, shape, dtype, attrs, chunks, shards)


def declare_group(overlay: Overlay, path: str, attrs: Mapping[str, Any]) -> None:
    """A group, and those above it where absent."""
    parts = path.split("/")
    for depth in range(len(parts)):
        overlay.nodes.setdefault("/".join(parts[:depth]), group_node({}))
    overlay.nodes[path] = group_node(attrs)


def declare_run(
    overlay: Overlay, group: str, template: xr.Dataset, fields: Mapping[str, Mapping[str, Any]], members: Sequence[str]
) -> None:
    """A run at one timescale: its group, its coordinates with their values, its fields without.

    Args:
        overlay: The store.
        group: Path of the group.
        template: Canonical coordinates and attributes of the timescale.
        fields: Attributes of the fields, by name.
        members: Labels of all members, in order.
    """
    arrays = coordinate_arrays(template)
    beside = " ".join(n for n, (dims, _, _) in arrays.items() if dims != (n,))
    about = {"members": list(members), "fields": list(fields), "coordinates": beside}
    declare_group(overlay, group, {**template.attrs, **about})
    for name, (dims, values, attrs) in arrays.items():
        declare(overlay, f"{group}/{name}", dims, values.shape, values.dtype, attrs)[...] = values
    shape = (len(members), *(template.sizes[d] for d in FIELD[1:]))
    for name, stated in fields.items():
        declare_steps(overlay, f"{group}/{name}", FIELD, shape, np.float32, stated, str(template.attrs["timescale"]))


class Shards:
    """One member's field at one timescale, written shard by shard as steps come in; holds one shard at most.

    Args:
        overlay: The store.
        path: Path of the array.
        row: Place of the member.
        shape: Steps, rows and columns of the whole field.
        timescale: ``month``, ``year`` or ``decade``.
    """

    def __init__(self, overlay: Overlay, path: str, row: int, shape: tuple[int, int, int], timescale: str) -> None:
        self.array = declare_steps(overlay, path, FIELD, (row + 1, *shape), np.float32, {}, timescale)
        self.row, self.steps = row, shape[0]
        unit = self.array.shards or self.array.chunks
        self.length, self.begin, self.filled = int(unit[1]), 0, 0
        self.buffer = np.empty((min(self.length, self.steps), *shape[1:]), dtype=np.float32)

    def add(self, values: NDArray) -> None:
        """The next steps (step, lat, lon)."""
        while len(values):
            room = min(self.length, self.steps - self.begin) - self.filled
            part, values = values[:room], values[room:]
            self.buffer[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            if self.filled == min(self.length, self.steps - self.begin):
                self.array[self.row, self.begin : self.begin + self.filled] = self.buffer[: self.filled]
                self.begin, self.filled = self.begin + self.filled, 0


def write_forcings(overlay: Overlay, group: str, forcings: xr.Dataset) -> None:
    """A scenario's forcings (time) or (time, lat, lon) into a run's group, at the Dataset's timescale."""
    for name, field in forcings.data_vars.items():
        dims = tuple(map(str, field.dims))
        array = declare_steps(
            overlay, f"{group}/{name}", dims, field.shape, field.dtype, field.attrs, str(forcings.attrs["timescale"])
        )
        array[...] = field.values


def declare_statistics(overlay: Overlay, group: str, template: xr.Dataset, fields: Mapping[str, Mapping[str, Any]],
                       members: Sequence[str]) -> None:  # fmt: skip
    """The group of sufficient statistics, (member, calendar_month) or (member, calendar_month, lat, lon).

    Args:
        overlay: The store.
        group: Path of the group.
        template: As `harmonise.statistics.month_statistics` returns them, or just its coordinates.
        fields: dims, shape, dtype and attrs of each statistic of one member, by name.
        members: Labels of all members, in order.
    """
    declare_group(overlay, group, {"members": list(members)})
    for coord in ("calendar_month", "lat", "lon"):
        values = np.asarray(template[coord].values)
        declare(overlay, f"{group}/{coord}", (coord,), values.shape, values.dtype, {})[...] = values
    for name, about in fields.items():
        _declare_statistic(overlay, f"{group}/{name}", about, len(members))


def _declare_statistic(overlay: Overlay, path: str, about: Mapping[str, Any], members: int) -> zarr.Array:
    chunk = (1, *about["shape"])
    return declare(
        overlay, path, ("member", *about["dims"]), (members, *about["shape"]), about["dtype"], about["attrs"], chunk
    )


def statistics_about(part: xr.Dataset) -> dict[str, dict[str, Any]]:
    """dims, shape, dtype and attrs of each statistic, as plain data."""
    return {
        str(n): {"dims": list(map(str, v.dims)), "shape": list(v.shape), "dtype": str(v.dtype), "attrs": dict(v.attrs)}
        for n, v in part.data_vars.items()
    }


def write_statistics(overlay: Overlay, group: str, row: int, part: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Write one member's statistics; what `declare_statistics` needs to know of them."""
    about = statistics_about(part)
    for name, spec in about.items():
        _declare_statistic(overlay, f"{group}/{name}", spec, row + 1)[row] = part[name].values
    return about
