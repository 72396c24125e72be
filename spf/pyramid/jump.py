"""From a finished coarse stage to the start of the next, finer one."""

import math

from torch import Tensor

from spf.pyramid.operators import block_mean, upsample
from spf.pyramid.spec import Stage


def jump(x: Tensor, stage: Stage, noise: Tensor) -> Tensor:
    r"""Enter ``stage``: repeat the coarse state and add exactly the noise that repeating left out.

    With block size n, noise sigma at the coarse stage's end and sigma' at the finer one's start,

        x' = a Up(x) + sigma' (z - BlockMean(z)),   a = sigma' / (sigma sqrt(n)).

    Repeating makes noise that is constant in a block; z without its unweighted block mean is what is missing to white noise,
    so x' has mean (1 - sigma') Up(clean) and white noise of level sigma', whatever weights made the clean coarse field.

    Args:
        x: State at flow time 1 of the coarse stage (batch, var, time, lat, lon), normalised.
        stage: The stage being entered.
        noise: Unit Gaussian z of the fine shape.

    Raises:
        ValueError: If ``stage`` is the first, which starts from noise alone.
    """
    if stage.index == 0:
        raise ValueError("jump: stage 0 is entered from noise, not by a jump")
    n = stage.block_size
    gain = stage.sigma_start / (stage.sigma_parent * math.sqrt(n))
    return gain * upsample(x, stage.factors) + stage.sigma_start * (noise - block_mean(noise, stage.factors))
