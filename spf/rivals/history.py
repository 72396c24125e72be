"""What is known of the next step before any learning: the Gaussian world of `spf.pyramid.prior`, given clean steps before it."""

import torch
from torch import Tensor, nn

from spf.pyramid.coupling import SMALL, Coupling, Part, follow, pool_blocks, spread_blocks
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage


class HistoryPrior(nn.Module):
    """Expected path target of a window's last step, given its state and the clean steps before it.

    For stages that do not refine time: a pattern's (or a cell's) parent is then a multiple of itself, and each series needs two
    numbers only, what its history predicts and the variance that is left.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    def __init__(self, stage: Stage, coupling: Coupling) -> None:
        super().__init__()
        self.stage, self.has_detail = stage, coupling.detail is not None
        self.surroundings: Tensor
        self.companions: Tensor
        self.mean_patterns: Tensor
        for name in ("surroundings", "companions"):
            self.register_buffer(name, getattr(coupling, name), persistent=False)
        for part in ("mean", "detail") if self.has_detail else ("mean",):
            for name, value in vars(getattr(coupling, part)).items():
                self.register_buffer(f"{part}_{name}", value, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, phase: Tensor | int = 0) -> Tensor:
        """Clean steps, then a state (batch, var, time, lat, lon), and flow time (batch,) -> target (batch, var, 1, lat, lon)."""
        stage, cells = self.stage, self.stage.cells
        mean = pool_blocks(x, stage)
        target, expected = self._next(self._law("mean", x), mean, t, 1 / cells, 1 / cells)
        out = spread_blocks(target, stage)
        if not self.has_detail:
            return out
        known = torch.cat([mean[:, :, :-1], expected], 2)
        implied = follow(
            known, self.surroundings.to(x), self.mean_patterns.to(x), self.companions.to(x), stage
        )  # fmt: skip
        signal = torch.ones_like(x[:, :1, :, :1, :1])
        signal[:, :, -1] = (t.to(x) * (1 - stage.sigma_end)).reshape(-1, 1, 1, 1)
        detail = x - spread_blocks(mean, stage) - signal * implied
        fine = self._next(self._law("detail", x), detail, t, 1.0, 1 - 1 / cells)[0]
        fine = fine + (1 - stage.sigma_end) / noise_fall(stage) * implied[:, :, -1:]
        return out + fine - spread_blocks(pool_blocks(fine, stage), stage)

    def _law(self, part: str, x: Tensor) -> Part:
        return Part(**{name: getattr(self, f"{part}_{name}").to(x) for name in Part.__dataclass_fields__})

    def _next(self, law: Part, x: Tensor, t: Tensor, noise: float, white: float) -> tuple[Tensor, Tensor]:
        """Expected target and expected clean field of the last step."""
        before = x.shape[2] - 1
        amplitude = torch.einsum("bvthw,nvhw->bnt", x, law.patterns)
        rest = torch.einsum("avhw,bvthw->bahwt", law.axes, x - torch.einsum("bnt,nvhw->bvthw", amplitude, law.patterns))
        amplitudes = next_step(amplitude, *predictor(law.covariance, before), law.slope, noise, t, self.stage)
        weights, left = predictor(law.correlation, before)  # (axis, class, step), (axis, class)
        axis, kind = torch.arange(len(weights), device=x.device)[:, None, None], law.persistence.long()
        slope = law.rest_slope[:, None, None]
        owns = next_step(rest, weights[axis, kind], law.rest * left[axis, kind], slope, white, t, self.stage)
        outs = []
        for along, own in zip(amplitudes, owns, strict=True):
            out = torch.einsum("avhw,bahw->bvhw", law.axes, own)
            out = out - torch.einsum("bn,nvhw->bvhw", torch.einsum("bvhw,nvhw->bn", out, law.patterns), law.patterns)
            outs.append((out + torch.einsum("bn,nvhw->bvhw", along, law.patterns))[:, :, None])
        return outs[0], outs[1]


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
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """E[path target | state, history] and E[clean value | state, history] of independent Gaussian series.

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
    total, surprise = state**2 * left + noise * level**2 + SMALL, x[..., -1] - state * predicted
    gain = (state * target * left - noise * level) / total
    return target * predicted + gain * surprise, predicted + state * left / total * surprise
