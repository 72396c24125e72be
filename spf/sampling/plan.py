"""Which steps a scenario's years are made of, stage by stage: segments, units of noise, and what is kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import YEARS_PER_DECADE, Segment, january

DECADE = MONTHS_IN["decade"]


@dataclass(frozen=True)
class Plan:
    """The trajectory of one member, stage by stage, and what of the last stage is kept.

    Attributes:
        segments: Steps of each stage; each lies inside the one before.
        labels: Year labels of the result, ascending: years, or first years of decades.
        keep: Positions in the last segment, in units of a label: decades, years, or years of twelve months.
    """

    segments: tuple[Segment, ...]
    labels: list[int]
    keep: list[int]


def unit_steps(stage: Stage) -> int:
    """Steps that share one key of noise: a decade, the years of a decade, or the months of a year."""
    return max(1, (DECADE if stage.months >= 12 else 12) // stage.months)


def plan_windows(
    spec: PyramidSpec,
    timescale: str,
    record: tuple[int, int],
    wanted: tuple[int, int],
    decade_start: int,
    calls: Sequence[int],
) -> Plan:
    """Lay a member's trajectory over the record and leave out what the wanted years do not need.

    A trajectory is made of whole decades from ``decade_start``, as many as cover the record; their years beyond the record are
    drawn with the forcings held and not kept. A network call sees the halo of a window, so ``calls`` of them carry influence
    over as many windows; so many are drawn beside the wanted ones, and a year is the same whichever years are asked for.

    Args:
        spec: The pyramid.
        timescale: Of the result.
        record: First and last year of the forcings.
        wanted: First and last year of the result, inside the record; for decades those wholly inside count.
        decade_start: First year of a decade.
        calls: Network calls of each stage.

    Raises:
        ValueError: If the record, or for decades the wanted years, hold no whole decade.
    """
    first, last = record
    begin = decade_start - YEARS_PER_DECADE * math.ceil((decade_start - first) / YEARS_PER_DECADE)
    n = math.ceil((last + 1 - begin) / YEARS_PER_DECADE)
    whole = [begin + YEARS_PER_DECADE * i for i in range(n)]
    whole = [d for d in whole if d >= first and d + YEARS_PER_DECADE - 1 <= last]
    if not whole:
        raise ValueError(
            f"forcings {first}-{last} hold no whole decade from {decade_start}; an emulator needs ten years at least"
        )
    if timescale == "decade":
        labels = [d for d in whole if wanted[0] <= d <= wanted[1] - YEARS_PER_DECADE + 1]
        span = YEARS_PER_DECADE
    else:
        labels, span = list(range(wanted[0], wanted[1] + 1)), 1
    if not labels:
        raise ValueError(f"{wanted[0]}-{wanted[1]} hold no whole decade from {decade_start}; widen the years")
    outer = (january(begin), january(begin + YEARS_PER_DECADE * n))
    need = (january(labels[0]), january(labels[-1] + span))
    segments: list[Segment] = []
    stages = spec.path(timescale)
    for k in range(len(stages) - 1, -1, -1):
        need = _segment_range(stages[k], spec, need, outer, calls[k])
        segments.insert(0, Segment(need[0], (need[1] - need[0]) // stages[k].months, stages[k].months, january(begin)))
    keep = [(january(y) - segments[-1].start) // (12 * span) for y in labels]
    return Plan(tuple(segments), labels, keep)


def _segment_range(
    stage: Stage, spec: PyramidSpec, need: tuple[int, int], outer: tuple[int, int], calls: int
) -> tuple[int, int]:
    """Months of a stage's segment: the needed ones and, where windows see halos, as many windows beside them as calls.

    Its ends are those of windows and of blocks of parents, counted from the start of the trajectory.
    """
    tile = spec.core[stage.timescale] * stage.months
    margin = calls * tile if spec.halo[stage.timescale] else 0
    grid = math.lcm(tile, max(unit_steps(stage) * stage.months, MONTHS_IN[stage.parent_timescale]))
    low = outer[0] + grid * math.floor((need[0] - margin - outer[0]) / grid)
    high = outer[0] + grid * math.ceil((need[1] + margin - outer[0]) / grid)
    return max(outer[0], low), min(outer[1], high)


def levels_of(yearly: Tensor, first: int, timescale: str, labels: Sequence[int]) -> Tensor:
    """Level of each step (step,) from the years' (year,); a decade that reaches beyond the record has its years' inside.

    Args:
        yearly: Of all years on record.
        first: Label of the first one.
        timescale: Of the steps.
        labels: Years of the steps, or first years.
    """
    length = max(1, MONTHS_IN[timescale] // 12)
    each = torch.stack([yearly[label - first : label - first + length].mean() for label in labels])
    return each.repeat_interleave(max(1, 12 // MONTHS_IN[timescale]))
