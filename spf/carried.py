"""Forcings that a checkpoint carries, so that scenarios can be drawn by name: what the network sees of them, and no more.

Maps are area means of the blocks that the network sees, as a product of few series and few maps: files whose maps are interpolated
between anchor years are sums of a dozen maps. What comes back is canonical again; inside a block all cells are alike.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climatesuite.conventions import FORCINGS
from climatesuite.harmonise.calendars import time_coords
from spf.codec import FieldCodec, pool_forcings

ENERGY_LEFT = 5e-5
"""Root-mean-square error over the root mean square of a forcing's maps, at most."""

ABOUT = ("experiment_id", "license", "accounting")


class Carried(Mapping[str, xr.Dataset]):
    """Canonical monthly forcings by scenario, made when they are asked for.

    Attributes:
        content: What `pack` made, by scenario.
        codec: Of the emulator; gives grid and names.
    """

    def __init__(self, content: Mapping[str, Any], codec: FieldCodec) -> None:
        self.content, self.codec = content, codec

    def __getitem__(self, scenario: str) -> xr.Dataset:
        return unpack(self.content[scenario], self.codec)

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


def pack(forcings: xr.Dataset, codec: FieldCodec) -> dict[str, Any]:
    """Forcings of a scenario (`FieldCodec.encode_forcings`) as tensors, numbers and strings.

    Raises:
        DataContractError: If a forcing that the emulator was trained with is absent.
    """
    pooled = pool_forcings(forcings, codec.forcings, codec.grid, codec.forcing_pooling)  # (time, forcing, lat, lon)
    parts = {}
    for i, name in enumerate(codec.forcings):
        gridded = "lat" in forcings[name].dims
        parts[name] = _factors(pooled[:, i]) if gridded else {"series": pooled[:, i, 0, 0].clone()}
    about = {k: str(forcings.attrs.get(k, "not stated")) for k in ABOUT}
    years = [int(forcings.year.values[0]), int(forcings.year.values[-1])]
    return {**about, "calendar": codec.calendar, "years": years, "forcings": parts}


def unpack(content: Mapping[str, Any], codec: FieldCodec) -> xr.Dataset:
    """Inverse of `pack`: canonical monthly forcings on the emulator's grid, maps constant within blocks."""
    first, last = content["years"]
    coords: dict[str, Any] = dict(time_coords(range(first, last + 1), "month", content["calendar"]))
    block = np.ones((codec.forcing_pooling, codec.forcing_pooling), np.float32)
    fields: dict[str, Any] = {}
    for name, part in content["forcings"].items():
        attrs = {"units": FORCINGS[name].units, "role": "forcing"}
        if "series" in part:
            fields[name] = ("time", part["series"].numpy(), attrs)
        else:
            maps = torch.einsum("tr,rhw->thw", part["series_of_maps"], part["maps"]).numpy()
            fields[name] = (("time", "lat", "lon"), np.kron(maps, block), attrs)
    about = {k: content[k] for k in (*ABOUT, "calendar")} | {"timescale": "month"}
    return xr.Dataset(fields, coords | codec.grid.coords(), about)


def _factors(maps: Tensor) -> dict[str, Tensor]:
    """(time, lat, lon) as series (time, rank) times maps (rank, lat, lon), of the least rank that leaves next to nothing."""
    u, s, v = torch.linalg.svd(maps.flatten(1), full_matrices=False)
    left = s.square().flip(0).cumsum(0).flip(0)  # of the energy, from each rank on
    rank = int((left > ENERGY_LEFT**2 * left[0]).sum()) or 1
    return {"series_of_maps": (u[:, :rank] * s[:rank]).float(), "maps": v[:rank].reshape(-1, *maps.shape[1:]).float()}
