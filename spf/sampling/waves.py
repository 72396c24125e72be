"""Zonal waves of normalised fields: how much each varies, and how drawn ones are brought to what they should have."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from spf.config import SamplingConfig

log = logging.getLogger("spf")


def wave_power(x: Tensor) -> Tensor:
    """Mean square of every zonal wavenumber of (var, step, lat, lon) in each row, adding up to the row's: (var, lat, wave)."""
    found, width = torch.fft.rfft(x, norm="ortho").abs().square(), x.shape[-1]
    twice = torch.full((width // 2 + 1,), 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    return found.mean(1) * twice / width


def widened(z: Tensor, factors: Tensor | None) -> Tensor:
    """Fields (var, step, lat, lon) with their waves multiplied by factors (var, lat, wave); as they are without factors."""
    return z if factors is None else torch.fft.irfft(torch.fft.rfft(z) * factors[:, None], n=z.shape[-1])


def factors_of(
    widths: Mapping[str, Tensor], timescale: str, how: SamplingConfig, measured: SamplingConfig, n_stages: int
) -> Tensor | None:
    """Factors of a timescale, if any: those of the steps that they were ``measured`` with, and of no others."""
    if timescale in widths and how.steps(n_stages) != measured.steps(n_stages):
        log.warning("drawn with other steps than its experiment's: %ss keep the width that these give", timescale)
        return None
    return widths.get(timescale)
