"""Zonal waves of normalised fields: how much each varies, and how drawn ones are brought to what they should have."""

from collections.abc import Sequence

import torch
from torch import Tensor


def wave_power(z: Tensor, row_weights: Tensor) -> Tensor:
    """Mean square of every zonal wavenumber of (var, step, lat, lon), rows weighted: (var, wave); their sum is the mean square."""
    found, width = torch.fft.rfft(z, norm="ortho").abs().square(), z.shape[-1]
    twice = torch.full((width // 2 + 1,), 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    rows = (row_weights / row_weights.sum()).to(z)
    return torch.einsum("vthk,h->vk", found, rows) * twice / (z.shape[1] * width)


def widened(z: Tensor, factors: Sequence[Sequence[float]] | None) -> Tensor:
    """Fields (var, step, lat, lon) with their waves multiplied by factors (var, wave); as they are without factors."""
    if factors is None:
        return z
    return torch.fft.irfft(torch.fft.rfft(z) * torch.tensor(factors)[:, None, None], n=z.shape[-1])
