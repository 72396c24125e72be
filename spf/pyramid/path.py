"""A stage's straight path between its noisy coarse start and its less noisy end."""

from typing import NamedTuple

from torch import Tensor

from spf.pyramid.spec import Stage


class PathPoint(NamedTuple):
    """A point on a stage's path and the network's target there, both (batch, var, time, lat, lon)."""

    x_t: Tensor
    target: Tensor


def endpoints(fields: Tensor, parent: Tensor, noise: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """Start and end of the path; both share one noise, so only the amount of it changes.

    x_start = (1 - sigma_start) parent + sigma_start noise,  x_end = (1 - sigma_end) fields + sigma_end noise.

    Args:
        fields: Clean fields of the stage, normalised (batch, var, time, lat, lon).
        parent: Clean fields of the stage before, repeated to this stage's shape; ignored at stage 0 (sigma_start = 1).
        noise: Unit Gaussian noise of the same shape.
        stage: Gives the levels.
    """
    x_start = (1 - stage.sigma_start) * parent + stage.sigma_start * noise
    x_end = (1 - stage.sigma_end) * fields + stage.sigma_end * noise
    return x_start, x_end


def path_point(fields: Tensor, parent: Tensor, noise: Tensor, t: Tensor, stage: Stage) -> PathPoint:
    """The state at flow time t (batch,) and the target: the velocity divided by the fall in noise, in which noise has weight -1."""
    x_start, x_end = endpoints(fields, parent, noise, stage)
    t = t.reshape(-1, 1, 1, 1, 1)
    return PathPoint((1 - t) * x_start + t * x_end, (x_end - x_start) / noise_fall(stage))


def noise_fall(stage: Stage) -> float:
    """How much the noise coefficient falls over the stage; velocity = noise_fall x target."""
    return stage.sigma_start - stage.sigma_end


def noise_level(t: Tensor, stage: Stage) -> Tensor:
    """Noise coefficient at flow time t."""
    return (1 - t) * stage.sigma_start + t * stage.sigma_end
