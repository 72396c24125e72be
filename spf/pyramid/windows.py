"""Windows of time: which years a stage's windows cover, and their forcings and calendar ids."""

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


@dataclass(frozen=True)
class DecadeWindow:
    """A stage-0 window: ``length`` decades from year ``start``."""

    start: int
    length: int

    def starts(self) -> tuple[int, ...]:
        """First year of each decade in it."""
        return tuple(self.start + YEARS_PER_DECADE * i for i in range(self.length))


def decade_windows(first: int, last: int, decade_start: int, longest: int, whole_only: bool) -> tuple[DecadeWindow, ...]:
    """Stage-0 windows over the years first..last (the forcing record).

    Whole decades from ``decade_start`` (or from ``first`` if that is later), cut into windows of at most ``longest``; unless
    ``whole_only``, the years left over at the end hang on one more window whose last decade ends in ``last``.

    Raises:
        ValueError: If the record holds no whole decade.
    """
    begin = decade_start if decade_start >= first else first
    n_whole = (last + 1 - begin) // YEARS_PER_DECADE
    if n_whole < 1:
        raise ValueError(f"forcings {first}-{last} hold no whole decade; an emulator needs at least ten years")
    windows = [
        DecadeWindow(begin + YEARS_PER_DECADE * i, min(longest, n_whole - i)) for i in range(0, n_whole, longest)
    ]
    rest = (last + 1 - begin) - YEARS_PER_DECADE * n_whole
    if rest and not whole_only:
        length = min(longest, (last + 1 - first) // YEARS_PER_DECADE)
        windows.append(DecadeWindow(last + 1 - YEARS_PER_DECADE * length, length))
    return tuple(windows)
