"""What a window of time is conditioned on: its forcings and its calendar ids."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spf.pyramid.operators import pool_time

YEARS_PER_DECADE = 10


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

    def window(self, timescale: str, start: int, length: int) -> Tensor:
        """Forcings (forcing, step, lat, lon) of ``length`` steps of ``timescale`` from year label ``start``."""
        i = start - self.first_year
        if timescale == "month":
            return self.months[i].movedim(1, 0)
        if timescale == "year":
            return self.years[i : i + length].movedim(1, 0)
        stop = i + YEARS_PER_DECADE * length
        return pool_time(self.years[i:stop].movedim(1, 0), YEARS_PER_DECADE, self.days[i:stop])


def calendar_ids(timescale: str, length: int) -> Tensor:
    """Absolute calendar id of each step of a window (length,): decade 0, month 1-12, year in decade 13-22."""
    if timescale == "decade":
        return torch.zeros(length, dtype=torch.long)
    if timescale == "month":
        return torch.arange(1, 13)
    return 13 + torch.arange(length) % YEARS_PER_DECADE
