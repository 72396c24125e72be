"""What is known of the next step before any learning: the Gaussian world of `spf.pyramid.prior`, given clean steps before it."""

import torch
from torch import Tensor

from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.prior import SMALL, Part, Prior, pool_blocks, spread_blocks
from spf.pyramid.spec import Stage


class HistoryPrior(Prior):
    """Expected path target of a window's last step, given its state and the clean steps before it.

    For stages that do not refine time: a pattern's (or a cell's) parent is then a multiple of itself, and each series needs two
    numbers only, what its history predicts and the variance that is left.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, phase: Tensor | int = 0) -> Tensor:
        """Clean steps, then a state (batch, var, time, lat, lon), and flow time (batch,) -> target (batch, var, 1, lat, lon)."""
        mean = pool_blocks(x, self.stage)
        out = spread_blocks(self._next("mean", mean, t), self.stage)
        if "detail" in self.parts:
            fine = self._next("detail", x - spread_blocks(mean, self.stage), t)
            out = out + fine - spread_blocks(pool_blocks(fine, self.stage), self.stage)
        return out

    def _next(self, part: str, x: Tensor, t: Tensor) -> Tensor:
        law = Part(**{name: getattr(self, f"{part}_{name}").to(x) for name in Part.__dataclass_fields__})
        cells, before = self.stage.factors[1] * self.stage.factors[2], x.shape[2] - 1
        noise = 1.0 / cells if part == "mean" else 1.0
        within = noise if part == "mean" else 1.0 - 1.0 / cells
        amplitude = torch.einsum("bvthw,nvhw->bnt", x, law.patterns)
        rest = torch.einsum("avhw,bvthw->bahwt", law.axes, x - torch.einsum("bnt,nvhw->bvthw", amplitude, law.patterns))
        amplitude = next_step(amplitude, *predictor(law.covariance, before), law.slope, noise, t, self.stage)
        weights, left = predictor(law.correlation, before)  # (axis, class, step), (axis, class)
        axis, kind = torch.arange(len(weights), device=x.device)[:, None, None], law.persistence.long()
        slope = law.rest_slope[:, None, None]
        own = next_step(rest, weights[axis, kind], law.rest * left[axis, kind], slope, within, t, self.stage)
        out = torch.einsum("avhw,bahw->bvhw", law.axes, own)
        out = out - torch.einsum("bn,nvhw->bvhw", torch.einsum("bvhw,nvhw->bn", out, law.patterns), law.patterns)
        return (out + torch.einsum("bn,nvhw->bvhw", amplitude, law.patterns))[:, :, None]


def predictor(covariance: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """Best linear prediction of a stationary series from the ``before`` steps before it.

    Args:
        covariance: Autocovariance (..., lag).
        before: Steps of history.

    Returns:
        Weights of the steps, oldest first (..., step), and the variance that is left (...).
    """
    place = torch.arange(before, device=covariance.device)
    state = covariance[..., (place[:, None] - place).abs()]
    cross = covariance[..., before - place]
    ridge = SMALL * covariance[..., :1].clamp_min(SMALL)[..., None] * torch.eye(before).to(covariance)
    weights = torch.linalg.solve(state + ridge, cross)
    return weights, (covariance[..., 0] - (weights * cross).sum(-1)).clamp_min(0)


def next_step(
    x: Tensor, weights: Tensor, left: Tensor, slope: Tensor, noise: float, t: Tensor, stage: Stage
) -> Tensor:  # fmt: skip
    """E[path target | state, history] of independent Gaussian series.

    The clean value y is N(m, left) given the history, the state a y + level n, the target b y - n; with the innovation x - a m,

        E[target] = b m + (a b left - noise level) / (a^2 left + noise level^2) (x - a m).

    Args:
        x: Clean steps, then the state (batch, ..., step).
        weights: Of the clean steps (..., step).
        left: Variance given the history (...).
        slope: Of the parent on the clean value.
        noise: Variance of a series' noise at level 1.
        t: Flow time (batch,).
        stage: Gives the levels.
    """
    predicted = (weights * x[..., :-1]).sum(-1)
    t = t.to(x).reshape(-1, *[1] * (x.ndim - 2))
    lead, level = slope * (1 - stage.sigma_start), noise_level(t, stage)
    state = t * (1 - stage.sigma_end) + (1 - t) * lead
    target = (1 - stage.sigma_end - lead) / noise_fall(stage)
    gain = (state * target * left - noise * level) / (state**2 * left + noise * level**2 + SMALL)
    return target * predicted + gain * (x[..., -1] - state * predicted)
