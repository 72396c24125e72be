"""Windows of time: months are counted from year 0, so that a step of any timescale has an integer place.

A *segment* is a stretch of steps of one stage; a *tile* is the part of it that one call of the network sees: its own steps (the
core) and some of its neighbours' on either side (the halo). Only the core of the answer is used.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spf.pyramid.operators import pool_time
from spf.pyramid.spec import MONTHS_IN

YEARS_PER_DECADE = 10
CALENDAR_IDS = 23
"""Decade 0, months 1-12, year in decade 13-22."""


def january(year: int) -> int:
    """Place of a year's first month."""
    return 12 * year


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one stage.

    Attributes:
        start: Place of the first month.
        steps: How many.
        months: Length of a step.
        anchor: Place of a month at which a parent step begins.
    """

    start: int
    steps: int
    months: int
    anchor: int

    @property
    def stop(self) -> int:
        """Place of the month after the last."""
        return self.start + self.steps * self.months


class Tile(NamedTuple):
    """Positions in a segment: what a window sees, and what of it is its own."""

    begin: int
    core_begin: int
    core_end: int
    end: int


def tiles(steps: int, core: int, halo: int) -> list[Tile]:
    """Cut a segment of ``steps`` into windows; halos end with the segment."""
    cuts = [(a, min(a + core, steps)) for a in range(0, steps, core)]
    return [Tile(max(0, a - halo), a, b, min(steps, b + halo)) for a, b in cuts]


@dataclass(frozen=True)
class ForcingSeries:
    """Encoded forcings of one scenario.

    Attributes:
        first_year: Label of the first year.
        years: Annual means (year, forcing, lat, lon), on the pooled forcing grid.
        months: Monthly means (year, 12, forcing, lat, lon).
        days: Length of each year in days (year,).
    """

    first_year: int
    years: Tensor
    months: Tensor
    days: Tensor

    def window(self, timescale: str, start: int, steps: int) -> Tensor:
        """Forcings (forcing, step, lat, lon) of ``steps`` steps of ``timescale`` from the month at place ``start``.

        Beyond its ends the series is held at its first and last year: a trajectory is made of whole decades, of which years
        outside the record are drawn but not kept.
        """
        length = MONTHS_IN[timescale]
        if length < 12:
            place = torch.arange(start, start + steps * length)
            year = (place // 12 - self.first_year).clamp(0, len(self.years) - 1)
            return self.months[year, place % 12].unflatten(0, (steps, length)).mean(1).movedim(1, 0)
        first, n = start // 12 - self.first_year, steps * length // 12
        year = torch.arange(first, first + n).clamp(0, len(self.years) - 1)
        return pool_time(self.years[year].movedim(1, 0), length // 12, self.days[year])


def calendar_ids(timescale: str, start: int, steps: int, anchor: int) -> Tensor:
    """Absolute calendar id of each step (step,): 0 for decades, 1-12 for months, 13-22 for a year's place in its decade.

    Args:
        timescale: Of the steps; quarters have the id of their first month, lustra of their first year.
        start: Place of the first month.
        steps: How many.
        anchor: Place of a month at which a decade begins.
    """
    length = MONTHS_IN[timescale]
    place = start + length * torch.arange(steps)
    if length >= 120:
        return torch.zeros(steps, dtype=torch.long)
    if length >= 12:
        return 13 + torch.div(place - anchor, 12, rounding_mode="floor") % YEARS_PER_DECADE
    return 1 + place % 12
