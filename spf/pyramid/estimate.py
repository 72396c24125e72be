"""What one network call says about the clean fields and the noise: previews of an unfinished sample, and scores."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spf.pyramid.operators import upsample
from spf.pyramid.spec import Stage

Pool = Callable[[Tensor], Tensor]
"""A stage's fields (batch, var, time, lat, lon) to their parent, one value a block: any weighted sum inside blocks, so that day
and area weights and the gains of both stages may be in it."""


class Estimate(NamedTuple):
    """Expected clean fields, repeated parent and noise, given the state; all (batch, var, time, lat, lon)."""

    fields: Tensor
    parent: Tensor
    noise: Tensor


def estimate(x: Tensor, velocity: Tensor, t: Tensor, stage: Stage, pool: Pool | None = None) -> Estimate:
    r"""Clean fields and noise from the velocity at one state.

    State and velocity give both ends of the path, x_end = x + (1 - t) v and x_start = x - t v. Without their common noise

        d = sigma_start x_end - sigma_end x_start
          = sigma_start (1 - sigma_end) fields - sigma_end (1 - sigma_start) parent,

    where parent = Up(pool(fields)). A pool is a weighted sum inside blocks, hence pool(Up(p)) = pool(1) p, and pooling d leaves
    one equation a block for the parent. With the exact velocity the estimates are the exact conditional means; the score of the
    state is -noise / `noise_level`.

    Args:
        x: State (batch, var, time, lat, lon).
        velocity: dx/dt there, of the same shape.
        t: Flow time (batch,).
        stage: Gives levels and blocks.
        pool: From fields to parent; not needed at stage 0, which has none.

    Raises:
        ValueError: If a stage with a parent is given no pool, or its gain exceeds the parent's so far that state and velocity no
            longer determine the parent.
    """
    t = t.to(x).reshape(-1, 1, 1, 1, 1)
    start, end = x - t * velocity, x + (1 - t) * velocity
    difference = stage.sigma_start * end - stage.sigma_end * start
    own, inherited = stage.sigma_start * (1 - stage.sigma_end), stage.sigma_end * (1 - stage.sigma_start)
    if stage.index == 0:
        parent = torch.zeros_like(x)
    elif pool is None:
        raise ValueError(f"estimate: stage {stage.key} hangs on its parent; give the pool from its fields to it")
    else:
        left = own - inherited * pool(torch.ones_like(x[:1]))
        if not bool((left > 0).all()):
            raise ValueError(
                f"estimate: stage {stage.key} does not determine its parent; its gain exceeds the parent's by too much"
            )
        parent = upsample(pool(difference) / left, stage.factors)
    fields = (difference + inherited * parent) / own
    return Estimate(fields, parent, (start - (1 - stage.sigma_start) * parent) / stage.sigma_start)
