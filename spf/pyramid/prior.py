"""What is known before any learning: the velocity of a Gaussian world with the measured couplings of a stage.

In that world the optimal velocity is linear: one small matrix over the steps of a window for each pattern and each class of
cells (`coupling`). Detail is taken about what the expected block means imply. The network learns what differs: forcing, other
correlations, non-Gaussian shapes.
"""

import math

import torch
from torch import Tensor, nn

from spf.pyramid.coupling import SMALL, Coupling, Part, follow, pool_blocks, spread_blocks
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage


class Prior(nn.Module):
    """Expected path target given the state, in the Gaussian world of one stage.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    def __init__(self, stage: Stage, coupling: Coupling) -> None:
        super().__init__()
        self.stage, self.has_detail = stage, coupling.detail is not None
        self.surroundings: Tensor
        self.companions: Tensor
        self.followed: Tensor
        self.mean_patterns: Tensor
        for name in ("surroundings", "companions", "followed"):
            self.register_buffer(name, getattr(coupling, name), persistent=False)
        for part in ("mean", "detail") if self.has_detail else ("mean",):
            for name, value in vars(getattr(coupling, part)).items():
                self.register_buffer(f"{part}_{name}", value, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, phase: Tensor | int = 0) -> Tensor:
        """State (batch, var, time, lat, lon) and flow time (batch,) -> target of the same shape, float32 or wider.

        Args:
            x: The state.
            t: Flow time.
            phase: Place of the first step in its parent's block; of the whole batch.
        """
        stage = self.stage
        times, where = torch.unique(t.to(x), return_inverse=True)
        mean, cells = pool_blocks(x, stage), stage.cells
        law = self._law("mean", x)
        target, expected, unknown = self._part(law, mean, times, where, int(phase), 1 / cells, 1 / cells)
        out = spread_blocks(target, stage)
        if not self.has_detail:
            return out
        implied = self._implied(expected)
        signal = (times * (1 - stage.sigma_end))[where].reshape(-1, 1, 1, 1, 1)
        detail = x - spread_blocks(mean, stage) - signal * implied
        law, white = self._law("detail", x), 1 - 1 / cells
        spread = unknown[where].reshape(-1, 1, 1, 1) * torch.einsum(
            "avhw,vhw->ahw", law.axes.square(), self.followed.to(x)
        )
        fine = self._part(law, detail, times, where, int(phase), 1.0, white, spread)[0]
        fine = fine + (1 - stage.sigma_end) / noise_fall(stage) * implied
        return out + fine - spread_blocks(pool_blocks(fine, stage), stage)

    def _implied(self, mean: Tensor) -> Tensor:
        """Detail that block means imply."""
        s, p, c = (given.to(mean) for given in (self.surroundings, self.mean_patterns, self.companions))
        return follow(mean, s, p, c, self.stage)

    def _law(self, part: str, x: Tensor) -> Part:
        return Part(**{name: getattr(self, f"{part}_{name}").to(x) for name in Part.__dataclass_fields__})

    def _part(
        self, law: Part, x: Tensor, times: Tensor, where: Tensor, phase: int, noise: float, white: float,
        spread: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Regression along time of each pattern, and of each class of cells for the rest.

        Args:
            law: Of the part.
            x: Its state.
            times: Distinct flow times.
            where: Which of them each window has.
            phase: Place of the first step in its parent's block.
            noise: Variance of unit noise along a pattern.
            white: The same in a cell.
            spread: Variance to add to the rest (batch, axis, lat, lon).

        Returns:
            Expected target and expected clean fields, like x, and the share of the rest's variance that is unknown (time,).
        """
        amplitude = torch.einsum("bvthw,nvhw->bnt", x, law.patterns)
        rest = x - torch.einsum("bnt,nvhw->bvthw", amplitude, law.patterns)
        both = self._pattern_matrices(law, times, x.shape[2], noise, phase)
        left, unknown = self._rest(law, rest, times, where, white, phase, spread)
        out = []
        for matrices, field in zip(both, left, strict=True):
            inside = torch.einsum("bvthw,nvhw->bnt", field, law.patterns)
            change = torch.einsum("bnij,bnj->bni", matrices[where], amplitude) - inside
            out.append(field + torch.einsum("bnt,nvhw->bvthw", change, law.patterns))
        return out[0], out[1], unknown

    def _pattern_matrices(self, law: Part, times: Tensor, steps: int, noise: float, phase: int) -> list[Tensor]:
        """E[target | state] and E[clean | state] of each pattern's amplitude, (time, n, step, step) each."""
        if not len(law.patterns):
            return [law.slope.new_zeros(len(times), 0, steps, steps)] * 2
        state, cross, clean = self._moments(law.covariance, law.slope, times, steps, phase)
        level = noise_level(times, self.stage).reshape(-1, 1, 1, 1)
        eye = torch.eye(steps).to(state)
        # in double precision, as series that hardly change are nearly singular
        state = (state + (noise * level.square() + SMALL) * eye).double()
        sought = (cross - noise * level * eye, clean)
        return [torch.linalg.solve(state, m.double(), left=False).to(law.slope) for m in sought]

    def _rest(
        self, law: Part, x: Tensor, times: Tensor, where: Tensor, noise: float, phase: int, spread: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The same for every cell along its axes: with variance r, (r B - noise level)(r A + noise level^2)^-1.

        A is diagonalised once a class, so that a cell costs a few small products.
        """
        steps = x.shape[2]
        state, cross, clean = self._moments(law.correlation, law.rest_slope[:, None], times, steps, phase)
        # single precision has given NaN here: at flow time 0 only whole parents are in the state, and many eigenvalues are 0
        values, vectors = (
            part.to(x) for part in torch.linalg.eigh(state.double())
        )  # (time, axis, class, step[, step])
        turned, cleared = cross @ vectors, clean @ vectors
        x = turn(law.axes, x)
        level = noise_level(times, self.stage).to(x)
        white = (noise * level.square())[where].reshape(-1, 1, 1)
        lost = (noise * level)[where].reshape(-1, 1, 1)
        outs = torch.empty_like(x), torch.empty_like(x)
        flat, targets, means = x.flatten(3), outs[0].flatten(3), outs[1].flatten(3)
        for axis in range(x.shape[1]):
            kind, variance = law.persistence[axis].flatten(), law.rest[axis].flatten()[None]
            if spread is not None:
                variance = variance + spread[:, axis].flatten(1)
            for c in range(law.correlation.shape[1]):
                chosen = (kind == c).nonzero()[:, 0]
                if not len(chosen):
                    continue
                q, a = vectors[where, axis, c], values[where, axis, c].clamp_min(0)[:, :, None]
                r = variance[:, None, chosen]
                spectral = (q.transpose(1, 2) @ flat[:, axis][..., chosen]) / (r * a + white + SMALL)
                targets[:, axis, :, chosen] = r * (turned[where, axis, c] @ spectral) - lost * (q @ spectral)
                means[:, axis, :, chosen] = r * (cleared[where, axis, c] @ spectral)
        seen = values + (noise * level.square()).reshape(-1, 1, 1, 1) + SMALL
        known = cleared.square() / seen[..., None, :]
        total = law.correlation[..., 0].mean() * steps
        unknown = (1 - known.sum((-1, -2)).mean((1, 2)) / total).clamp(0, 1)
        back = law.axes.transpose(0, 1)
        return (turn(back, outs[0]), turn(back, outs[1])), unknown

    def _moments(
        self, lagged: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Covariance of the clean part of the state, and of clean target and clean fields with it: (time, ..., step, step) each.

        Args:
            lagged: Autocovariance (..., lag).
            slope: Of the parent (...,).
            times: Flow times.
            steps: In the window.
            phase: Place of the first step in its block.
        """
        stage, ratio = self.stage, self.stage.factors[0]
        own, mixed, above = block_moments(lagged, steps, ratio, phase)
        fall = noise_fall(stage)
        slope = slope[..., None, None] * (1 - stage.sigma_start)
        t = times.reshape(-1, *[1] * own.ndim)
        alpha, beta = t * (1 - stage.sigma_end), (1 - t) * slope
        gain, lead = (1 - stage.sigma_end) / fall, slope / fall
        state = alpha**2 * own + alpha * beta * (mixed + mixed.transpose(-1, -2)) + beta**2 * above
        cross = gain * (alpha * own + beta * mixed) - lead * (alpha * mixed.transpose(-1, -2) + beta * above)
        return state, cross, alpha * own + beta * mixed


def turn(axes: Tensor, x: Tensor) -> Tensor:
    """Each cell's variables along its axes (axis, var, lat, lon): (batch, var, time, lat, lon) -> (batch, axis, time, lat, lon)."""
    return torch.stack([sum((axis[v] * x[:, v] for v in range(1, len(axis))), axis[0] * x[:, 0]) for axis in axes], 1)


def block_moments(lagged: Tensor, steps: int, ratio: int, phase: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (..., step, step) of a stationary series with itself, with the means over its blocks, and of those.

    Args:
        lagged: Autocovariance (..., lag); zero beyond.
        steps: In the window.
        ratio: Steps in a block.
        phase: Place of the window's first step in its block; blocks may reach beyond the window.
    """
    blocks = math.ceil((phase + steps) / ratio)
    whole = torch.arange(blocks * ratio)
    lag = (whole[:, None] - whole[None]).abs()
    full = torch.where(lag < lagged.shape[-1], lagged[..., lag.clamp_max(lagged.shape[-1] - 1)], lagged.new_zeros(()))
    inside = slice(phase, phase + steps)
    own = full[..., inside, inside]
    if ratio == 1:
        return own, own, own
    means = full.unflatten(-1, (blocks, ratio)).mean(-1).repeat_interleave(ratio, -1)
    above = means.unflatten(-2, (blocks, ratio)).mean(-2).repeat_interleave(ratio, -2)
    return own, means[..., inside, inside], above[..., inside, inside]
