"""Down and up: block means of data (area- or day-weighted), block means of noise (unweighted), block repeats."""

from torch import Tensor


def pool_space(x: Tensor, factor: int, row_weights: Tensor) -> Tensor:
    """Area-weighted block mean in space.

    Args:
        x: (..., lat, lon).
        factor: Block edge; must divide both axes.
        row_weights: Area weight of each row (lat,), any positive scale.

    Returns:
        (..., lat / factor, lon / factor).
    """
    if factor == 1:
        return x
    *lead, h, w = x.shape
    blocks = x.reshape(*lead, h // factor, factor, w // factor, factor).mean(-1)
    weights = row_weights.to(x).reshape(h // factor, factor, 1)
    return (blocks * weights).sum(-2) / weights.sum(-2)


def pool_rows(row_weights: Tensor, factor: int) -> Tensor:
    """Row weights of the pooled grid (lat / factor,)."""
    return row_weights.reshape(-1, factor).sum(-1)


def pool_time(x: Tensor, ratio: int, weights: Tensor) -> Tensor:
    """Weighted mean over blocks of ``ratio`` steps: x (..., time, lat, lon), weights (time,) -> (..., time / ratio, lat, lon)."""
    if ratio == 1:
        return x
    *lead, t, h, w = x.shape
    weight = weights.to(x).reshape(t // ratio, ratio, 1, 1)
    return (x.reshape(*lead, t // ratio, ratio, h, w) * weight).sum(-3) / weight.sum(-3)


def upsample(x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Block repeat of (..., time, lat, lon) by (time, lat, lon) factors; nearest, never interpolated."""
    for axis, factor in zip((-3, -2, -1), factors, strict=True):
        if factor > 1:
            x = x.repeat_interleave(factor, dim=axis)
    return x


def block_mean(x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Unweighted mean over each block, repeated back to the fine grid; same shape as x (..., time, lat, lon)."""
    rt, rh, rw = factors
    if rt * rh * rw == 1:
        return x
    *lead, t, h, w = x.shape
    mean = x.reshape(*lead, t // rt, rt, h // rh, rh, w // rw, rw).mean((-5, -3, -1))
    return upsample(mean, factors)
