"""Zonal waves of fields: an orthonormal change of coordinates along longitude, in which what is left of fields is stationary."""

import functools
import math

import torch
from torch import Tensor


@functools.cache
def wave_matrix(width: int) -> Tensor:
    """Orthonormal rows: the mean, then cosine and sine of each wavenumber, (wave, lon) in double precision.

    >>> torch.allclose(wave_matrix(6) @ wave_matrix(6).T, torch.eye(6, dtype=torch.float64))
    True
    """
    place, number = torch.arange(width, dtype=torch.float64), (torch.arange(width) + 1) // 2
    angle = 2 * math.pi * number[:, None] * place / width
    rows = torch.where((torch.arange(width) % 2 == 1)[:, None], angle.cos(), angle.sin())
    rows[0] = 1.0
    return rows / rows.norm(dim=1, keepdim=True)


def to_waves(x: Tensor, inner: int = 1) -> Tensor:
    """Waves (..., lat, wave) of fields (..., lat, lon); with ``inner`` columns to a block, of each of them along the blocks."""
    blocks = x.unflatten(-1, (-1, inner))
    return torch.einsum("kw,...wi->...ki", wave_matrix(blocks.shape[-2]).to(x), blocks).flatten(-2)


def from_waves(x: Tensor, inner: int = 1) -> Tensor:
    """Inverse of `to_waves`."""
    waves = x.unflatten(-1, (-1, inner))
    return torch.einsum("kw,...ki->...wi", wave_matrix(waves.shape[-2]).to(x), waves).flatten(-2)
