"""What is known of a stage before any learning: patterns, persistence, the parent's share, how detail follows means.

Every stage is scaled to unit variance per cell. Its fields split into the mean over each spatial block, which hangs on the
parent, and the detail inside blocks. Detail is smooth: most of it follows from the means of the blocks around, and some from the
leading patterns of all means. Each part, detail without what so follows, is a sum of leading patterns of all variables together
(principal components of the training departures) and a rest. A pattern's amplitude is a stationary series with its measured
autocovariance, the leading ones with one another's too, for what moves from one to the next is the persistence of the Pacific and
of global means; so is the rest of a cell, along the two (or more) directions in which its variables do not covary, with the mean
autocorrelation of cells that are as persistent. The parent is a multiple of the mean over its steps. `covariance` measures it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spf.pyramid.operators import upsample
from spf.pyramid.spec import Stage

CLASSES = 6
"""Classes of cells by persistence."""
SMALL = 1e-6
REACH = 2
NEAR = (2 * REACH + 1) ** 2 - 1
"""Blocks around a block whose means its detail follows, two to each side."""


@dataclass(frozen=True)
class Part:
    """One part (block means, or detail) of a stage's fields; n patterns, V variables, lags 0 ... L - 1.

    Attributes:
        patterns: Orthonormal (n, var, lat, lon).
        covariance: Autocovariance of their amplitudes by lag in steps (n, lag).
        together: Covariances of the k leading amplitudes with one another, that of the second index the later (k, k, lag).
        slope: Regression of the parent on the mean over its steps, per pattern (n,); 0 where there is no parent.
        axes: Directions in which the rest of a cell has uncorrelated variables (axis, var, lat, lon), orthonormal per cell.
        rest: Variance left along each axis (axis, lat, lon).
        persistence: Class of each axis and cell (axis, lat, lon), integers.
        correlation: Autocorrelation of the rest by axis, class and lag (axis, class, lag).
        rest_slope: As ``slope``, per axis (axis,).
    """

    patterns: Tensor
    covariance: Tensor
    together: Tensor
    slope: Tensor
    axes: Tensor
    rest: Tensor
    persistence: Tensor
    correlation: Tensor
    rest_slope: Tensor


@dataclass(frozen=True)
class Coupling:
    """How a stage's fields hang on their parent, on each other and in time.

    Attributes:
        mean: Of the block means, on the parent's grid (the stage's own at stage 0 or where space does not refine).
        detail: Of what they and their surroundings leave, on the stage's grid; None where blocks are single cells.
        surroundings: Regression of a cell's detail on the means of the blocks around its own, less its own's
            (var, near, lat, lon); None where there is no detail.
        companions: Detail that comes with a unit amplitude of each leading pattern of the means, beyond what its surroundings
            imply (n, var, lat, lon); None where there is no detail.
        followed: Variance of the detail that follows from both (var, lat, lon); None where there is no detail.
    """

    mean: Part
    detail: Part | None = None
    surroundings: Tensor | None = None
    companions: Tensor | None = None
    followed: Tensor | None = None


@dataclass(frozen=True)
class Series:
    """Normalised fields of one run at one stage, in time order, with their repeated parents.

    Attributes:
        fields: (var, step, lat, lon).
        parent: The same shape; zeros at stage 0.
        position: Place of each step in its parent's block (step,).
    """

    fields: Tensor
    parent: Tensor
    position: Tensor


def white_coupling(stage: Stage, n_var: int, grid: tuple[int, int]) -> Coupling:
    """Unit variance in every cell and nothing else, for a stage on ``grid`` (lat, lon): what an emulator knows without data."""
    _, rh, rw = stage.factors

    def part(h: int, w: int) -> Part:
        axes = torch.eye(n_var)[:, :, None, None].expand(n_var, n_var, h, w).contiguous()
        rest, classes = torch.ones(n_var, h, w), torch.zeros(n_var, h, w, dtype=torch.uint8)
        return Part(
            torch.zeros(0, n_var, h, w), torch.zeros(0, 1), torch.zeros(0, 0, 1), torch.zeros(0), axes, rest, classes,
            torch.ones(n_var, CLASSES, 1), torch.zeros(n_var),
        )  # fmt: skip

    mean = part(grid[0] // rh, grid[1] // rw)
    if stage.cells == 1:
        return Coupling(mean)
    nothing = torch.zeros(n_var, *grid)
    return Coupling(mean, part(*grid), torch.zeros(n_var, NEAR, *grid), torch.zeros(0, n_var, *grid), nothing)


def pool_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Unweighted means over spatial blocks: (..., lat, lon) -> (..., lat / r_h, lon / r_w)."""
    _, rh, rw = stage.factors
    *lead, h, w = x.shape
    return x.reshape(*lead, h // rh, rh, w // rw, rw).mean((-3, -1))


def spread_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Inverse direction of `pool_blocks`: repeat in space."""
    return upsample(x, (1, *stage.factors[1:]))


def around(mean: Tensor) -> Tensor:
    """Means of the 24 blocks around each block less its own: (..., lat, lon) -> (24, ..., lat, lon).

    Longitude is periodic; a row beyond a pole is taken like the last one.
    """
    n = mean.shape[-2]
    places = torch.arange(n, device=mean.device)
    rows = {i: mean.index_select(-2, (places + i).clamp(0, n - 1)) for i in range(-REACH, REACH + 1)}
    away = [(i, j) for i in rows for j in range(-REACH, REACH + 1) if (i, j) != (0, 0)]
    return torch.stack([rows[i].roll(-j, -1) - mean for i, j in away])


def follow(mean: Tensor, surroundings: Tensor, patterns: Tensor, companions: Tensor, stage: Stage) -> Tensor:
    """The detail that block means (..., var, step, lat, lon) imply by surroundings and patterns, on the stage's grid."""
    return surrounded(mean, surroundings, stage) + accompanied(mean, patterns, companions)


def surrounded(mean: Tensor, surroundings: Tensor, stage: Stage) -> Tensor:
    """Detail by the means of the blocks around."""
    out = torch.zeros(())
    for j, difference in enumerate(around(mean)):
        out = out + spread_blocks(difference, stage) * surroundings[:, j, None]
    return out


def accompanied(mean: Tensor, patterns: Tensor, companions: Tensor) -> Tensor:
    """Detail by the amplitudes of leading patterns."""
    amplitude = torch.einsum("...vthw,nvhw->...nt", mean, patterns[: len(companions)])
    return torch.einsum("...nt,nvhw->...vthw", amplitude, companions)


def coupling_to_dict(coupling: Coupling) -> dict[str, Any]:
    """Plain dict of tensors."""
    return {k: v for k, v in asdict(coupling).items() if v is not None}


def coupling_from_dict(data: Mapping[str, Any]) -> Coupling:
    """Inverse of `coupling_to_dict`."""
    if not isinstance(data.get("mean"), Mapping) or set(data["mean"]) != set(Part.__dataclass_fields__):
        raise ValueError("checkpoint: couplings of another version of the package; train again")
    rest = {k: data[k] for k in ("surroundings", "companions", "followed") if k in data}
    return Coupling(Part(**data["mean"]), Part(**data["detail"]) if "detail" in data else None, **rest)
