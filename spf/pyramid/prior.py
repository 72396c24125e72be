"""What is known before any learning: the velocity of a Gaussian world with a few measured patterns per stage.

Every stage is scaled to unit variance per cell. Its fields split into the block mean, which hangs on the parent, and the detail
inside blocks. Each part is taken as a sum of leading patterns (principal components of the training departures, per variable)
with measured variances, and a rest that is white within the variance left in each cell; steps of a window are independent given
the parent. In that world the optimal velocity is linear: one factor per pattern, one per cell for the rest. The network learns
what differs: other correlations, time, forcing, non-Gaussian shapes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from spf.pyramid.operators import block_mean, upsample
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage


@dataclass(frozen=True)
class Modes:
    """Leading patterns of one part of a stage's fields, per variable.

    Attributes:
        patterns: Orthonormal (var, mode, lat, lon).
        variance: Variance along each (var, mode).
        noise: Variance of unit noise along each (var, mode); 1 but where blocks take part of it away.
        rest: Variance left in each cell (var, lat, lon).
    """

    patterns: Tensor
    variance: Tensor
    noise: Tensor
    rest: Tensor


@dataclass(frozen=True)
class Coupling:
    """How a stage's fields hang on their parent.

    Attributes:
        slope: Regression of the parent on the block mean (var,); 0 at stage 0.
        mean: Modes of the block mean, on the parent's grid.
        detail: Modes of what the block mean leaves, on the stage's grid; of no pattern and no rest where blocks are single cells.
    """

    slope: Tensor
    mean: Modes
    detail: Modes


def block_pool(x: Tensor, stage: Stage) -> Tensor:
    """Unweighted block means of (batch, var, time, lat, lon), one value a block."""
    rt, rh, rw = stage.factors
    b, v, t, h, w = x.shape
    return x.reshape(b, v, t // rt, rt, h // rh, rh, w // rw, rw).mean((3, 5, 7))


def measure_coupling(fields: Tensor, parent: Tensor, stage: Stage, n_modes: int) -> Coupling:
    """Coupling from clean samples (sample, var, time, lat, lon) of normalised fields and repeated parents."""
    mean = block_pool(fields, stage)
    detail = fields - upsample(mean, stage.factors)
    if stage.index == 0:
        slope = torch.zeros(fields.shape[1])
    else:
        axes = (0, 2, 3, 4)
        slope = (block_pool(parent, stage) * mean).mean(axes) / mean.square().mean(axes).clamp_min(1e-12)
    found = _modes(detail, n_modes)
    lost = block_mean(found.patterns.flatten(0, 1)[None].transpose(1, 0)[:, :, None], (1, *stage.factors[1:]))
    lost = lost.square().sum((1, 2, 3, 4)).reshape(found.noise.shape) * (
        stage.factors[1] * stage.factors[2] / stage.block_size
    )
    return Coupling(slope, _modes(mean, n_modes), Modes(found.patterns, found.variance, 1 - lost, found.rest))


def _modes(x: Tensor, n_modes: int) -> Modes:
    """Principal components of (sample, var, time, lat, lon), every step a sample, no mean removed."""
    n_var, h, w = x.shape[1], *x.shape[-2:]
    samples = x.movedim(1, 0).reshape(n_var, -1, h * w)
    k = max(0, min(n_modes, h * w // 4, samples.shape[1] // 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the randomised decomposition only
        _, values, vectors = torch.svd_lowrank(samples, q=min(k + 8, h * w, samples.shape[1]), niter=3)
    patterns, variance = vectors[..., :k].transpose(1, 2), values[:, :k].square() / samples.shape[1]
    explained = (variance[..., None] * patterns.square()).sum(1)
    rest = (samples.square().mean(1) - explained).clamp_min(1e-6)
    return Modes(
        patterns.reshape(n_var, k, h, w).contiguous(), variance, torch.ones(n_var, k), rest.reshape(n_var, h, w)
    )


class Prior(nn.Module):
    """Expected path target given the state, in the Gaussian world of one stage.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    def __init__(self, stage: Stage, coupling: Coupling) -> None:
        super().__init__()
        self.stage = stage
        self.slope: Tensor
        self.register_buffer("slope", coupling.slope, persistent=False)
        for part in ("mean", "detail"):
            for name, value in vars(getattr(coupling, part)).items():
                self.register_buffer(f"{part}_{name}", value, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """State (batch, var, time, lat, lon) and flow time (batch,) -> target of the same shape, in the state's precision."""
        stage, fall = self.stage, noise_fall(self.stage)
        t = t.to(x).reshape(-1, 1, 1, 1, 1)
        gain, signal, level = (1 - stage.sigma_end) / fall, t * (1 - stage.sigma_end), noise_level(t, stage)
        slope = self.slope.to(x).reshape(1, -1, 1, 1, 1) * (1 - stage.sigma_start)
        mean = block_pool(x, stage)
        out = upsample(
            self._part("mean", mean, gain - slope / fall, signal + (1 - t) * slope, level, stage.block_size),
            stage.factors,
        )
        if stage.block_size == 1:
            return out
        fine = self._part("detail", x - upsample(mean, stage.factors), gain, signal, level, 1)
        return out + fine - block_mean(fine, stage.factors)

    def _part(self, part: str, x: Tensor, gain: Tensor | float, signal: Tensor, level: Tensor, n: int) -> Tensor:
        """Scale each pattern, and each cell of the rest, by

        (gain signal variance - level noise) / (signal^2 variance + level^2 noise).
        """
        patterns, variance, noise, rest = (
            getattr(self, f"{part}_{k}").to(x) for k in ("patterns", "variance", "noise", "rest")
        )
        n_var, k = variance.shape
        whole = 1.0 / n if part == "mean" else 1.0 - 1.0 / self.stage.block_size
        inside = (rest[None, :, None], whole)
        along = (variance[None, :, None, :, None], noise[None, :, None, :, None] / n)

        def factor(law: tuple[Tensor, Tensor | float]) -> Tensor:
            return (gain * signal * law[0] - level * law[1]) / (signal.square() * law[0] + level.square() * law[1])

        amplitude = torch.einsum("bvthw,vkhw->bvtk", x, patterns)
        left = factor(inside) * (x - torch.einsum("bvtk,vkhw->bvthw", amplitude, patterns))
        left = left - torch.einsum("bvtk,vkhw->bvthw", torch.einsum("bvthw,vkhw->bvtk", left, patterns), patterns)
        scaled = amplitude * factor(along)[..., 0] if k else amplitude
        return left + torch.einsum("bvtk,vkhw->bvthw", scaled, patterns)


def coupling_to_dict(coupling: Coupling) -> dict[str, object]:
    """Plain dict of tensors."""
    return asdict(coupling)


def coupling_from_dict(data: Mapping[str, object]) -> Coupling:
    """Inverse of `coupling_to_dict`."""
    slope, mean, detail = data["slope"], data["mean"], data["detail"]
    if not isinstance(slope, Tensor) or not isinstance(mean, Mapping) or not isinstance(detail, Mapping):
        raise ValueError("checkpoint: couplings hold no patterns; it was made by another version, train again")
    return Coupling(slope, Modes(**mean), Modes(**detail))
