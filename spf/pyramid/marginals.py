"""Scale and shape of every cell and season: departures to numbers that are about standard normal, and back.

A flow starts from Gaussian noise and its prior is Gaussian, but months of rain are not: with their mean and variance right, a
Gaussian's CRPS is 2% worse than the real distribution's. A shifted lognormal with the measured skewness closes that gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_BEND = 0.8
"""Skewness 3.7; beyond, rare draws would be tens of standard deviations large."""
STRAIGHT = 0.01
"""A smaller bend is none."""
FARTHEST = 4.0
"""Departures near or beyond a lognormal's end count as this many standard deviations."""


@dataclass(frozen=True)
class Marginal:
    """A shifted lognormal of mean zero for each variable, season and cell: with w = exp(bend^2),

        departure = gain sign(bend) (exp(|bend| y - bend^2 / 2) - 1) / sqrt(w - 1), y = sign(bend) z, z standard normal.

    The gain changes with the climate: by exp(growth (level - centre)), the level being warming (`FieldCodec.level`).

    Attributes:
        gain: Standard deviation of departures (var, season, lat, lon).
        bend: Standard deviation of the logarithm with the sign of the skewness, of the same shape; 0 is Gaussian. None: all are.
        growth: Change of the logarithm of the gain by unit of level, of the same shape; None: it does not change.
        levels: Centre of the levels, the lowest and the highest one in training, beyond which the gain stays (3,).
    """

    gain: Tensor
    bend: Tensor | None = None
    growth: Tensor | None = None
    levels: Tensor | None = None

    @property
    def seasons(self) -> int:
        """Steps of a year that differ."""
        return self.gain.shape[1]

    def normal(self, departures: Tensor, first: int, level: Tensor | None = None) -> Tensor:
        """Departures (..., var, step, lat, lon) to z; step number ``first`` since January of year 0 is the first.

        Args:
            departures: In scale units.
            first: Number of the first step.
            level: Of each step (step,); the centre if None.
        """
        season = self._season(departures.shape[-3], first)
        x = departures / self._gain(season, level).to(departures)
        if self.bend is None:
            return x
        sign, bend = _parted(self.bend[:, season].to(x))
        end = torch.exp(-FARTHEST * bend - bend.square() / 2)
        bent = torch.log((1 + sign * x * torch.expm1(bend.square()).sqrt()).clamp_min(end))
        return torch.where(sign == 0, x, sign * (bent / bend + bend / 2))

    def departure(self, z: Tensor, first: int, level: Tensor | None = None) -> Tensor:
        """Inverse of `normal`."""
        season = self._season(z.shape[-3], first)
        x = z
        if self.bend is not None:
            sign, bend = _parted(self.bend[:, season].to(z))
            bent = sign * torch.expm1(bend * sign * z - bend.square() / 2) / torch.expm1(bend.square()).sqrt()
            x = torch.where(sign == 0, z, bent)
        return x * self._gain(season, level).to(z)

    def _gain(self, season: Tensor | slice, level: Tensor | None) -> Tensor:
        gain = self.gain[:, season]
        if self.growth is None or self.levels is None or level is None:
            return gain
        moved = level.clamp(*self.levels[1:].tolist()) - self.levels[0]
        return gain * torch.exp(self.growth[:, season] * moved.to(gain)[:, None, None])

    def to_dict(self) -> dict[str, Tensor]:
        """Tensors only."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Marginal":
        """Inverse of `to_dict`."""
        return cls(data["gain"], data.get("bend"), data.get("growth"), data.get("levels"))

    def _season(self, steps: int, first: int) -> Tensor | slice:
        """Which season each step has; where there is one, it is broadcast and not copied."""
        return slice(None) if self.seasons == 1 else (first + torch.arange(steps)) % self.seasons


def _parted(bend: Tensor) -> tuple[Tensor, Tensor]:
    """Sign, 0 where straight, and size, 1 there."""
    straight = bend.abs() < STRAIGHT
    return torch.where(straight, 0.0, bend.sign()), torch.where(straight, 1.0, bend.abs())


def bend_of(skewness: Tensor) -> Tensor:
    """The bend of a lognormal with this skewness: the root of (w + 2) sqrt(w - 1) = |skewness| is known in closed form."""
    s = skewness.abs().double()
    root = (1 + s.square() / 2 + s * (1 + s.square() / 4).sqrt()) ** (1 / 3)
    bend = torch.log(root + 1 / root - 1).clamp_min(0).sqrt().clamp_max(MOST_BEND)
    return (bend * skewness.sign()).to(skewness)


def averaged(marginals: Sequence[Marginal]) -> Marginal:
    """Root mean square of the gains and mean of bends; without growth, as levels of models differ."""
    gain = torch.stack([m.gain.square() for m in marginals]).mean(0).sqrt()
    bends = [m.bend for m in marginals if m.bend is not None]
    return Marginal(gain, torch.stack(bends).sum(0) / len(marginals) if bends else None)
