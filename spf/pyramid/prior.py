"""What is known before any learning: the exact velocity of a world without spatial structure.

Every stage is scaled to unit variance per cell; how much of that variance the parent already holds is measured. In the world
that has just these two numbers (block means with variance ``share``, white detail inside blocks) the optimal velocity is a
linear function of the state, one factor for the block mean and one for the rest. The network learns what differs from it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spf.pyramid.operators import block_mean
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage


@dataclass(frozen=True)
class Coupling:
    """How a stage's fields hang on their parent, per variable.

    Attributes:
        share: Variance of the block mean over the variance of the field, in [0, 1].
        slope: Regression of the (repeated) parent on the block mean.
    """

    share: tuple[float, ...]
    slope: tuple[float, ...]


def measure_coupling(fields: Tensor, parent: Tensor, stage: Stage) -> Coupling:
    """Coupling from clean samples (sample, var, time, lat, lon) of fields and repeated parents."""
    mean = block_mean(fields, stage.factors)
    axes = (0, 2, 3, 4)
    total, inside = fields.square().mean(axes), mean.square().mean(axes)
    slope = (parent * mean).mean(axes) / inside.clamp_min(1e-12)
    if stage.index == 0:
        return Coupling((1.0,) * fields.shape[1], (0.0,) * fields.shape[1])
    share = (inside / total).clamp(1e-3, 1 - 1e-3)
    return Coupling(tuple(share.tolist()), tuple(slope.tolist()))


def prior_target(x: Tensor, t: Tensor, stage: Stage, coupling: Coupling) -> Tensor:
    """Expected path target given the state, in the structureless world; x (batch, var, time, lat, lon), t (batch,)."""
    share = torch.tensor(coupling.share, dtype=x.dtype, device=x.device).reshape(1, -1, 1, 1, 1)
    slope = torch.tensor(coupling.slope, dtype=x.dtype, device=x.device).reshape(1, -1, 1, 1, 1)
    t = t.to(x).reshape(-1, 1, 1, 1, 1)
    n, fall = stage.block_size, noise_fall(stage)
    signal, level = t * (1 - stage.sigma_end), noise_level(t, stage)
    gain = (1 - stage.sigma_end) / fall
    mixed = signal + (1 - t) * (1 - stage.sigma_start) * slope
    lost = gain - (1 - stage.sigma_start) * slope / fall
    mean_factor = (lost * mixed * share - level / n) / (mixed.square() * share + level.square() / n)
    if n == 1:
        return mean_factor * x
    detail_noise = 1 - 1 / n
    detail_factor = (gain * signal * (1 - share) - level * detail_noise) / (
        signal.square() * (1 - share) + level.square() * detail_noise
    )
    mean = block_mean(x, stage.factors)
    return mean_factor * mean + detail_factor * (x - mean)
