"""Which windows a scenario's years are made of, stage by stage."""

from dataclasses import dataclass

from spf.pyramid.spec import PyramidSpec
from spf.pyramid.windows import YEARS_PER_DECADE
from spf.sampling.sampler import Windows


@dataclass(frozen=True)
class Plan:
    """The windows of every stage and what of the last stage's output is kept.

    Attributes:
        stages: Windows of each stage.
        labels: Year labels of the result, ascending: years, or first years of decades.
        keep: Positions among the last stage's steps, all its windows laid end to end.
    """

    stages: tuple[Windows, ...]
    labels: list[int]
    keep: list[int]


@dataclass(frozen=True)
class _Decade:
    """A decade that is drawn: its first year, the stage-0 window and frame it is, and the years that are kept of it."""

    start: int
    window: int
    frame: int
    years: range


def plan_windows(
    spec: PyramidSpec, timescale: str, record: tuple[int, int], wanted: tuple[int, int], decade_start: int
) -> Plan:
    """Cut the record into windows, leaving out those that the wanted years do not need.

    Decades are counted from ``decade_start``. Years beyond the last whole decade come from a window whose last decade ends with
    the record, years before the first whole one from a window that begins with it. A window's place does not depend on
    ``wanted``, so a year is the same whichever years are asked for.

    Args:
        spec: The pyramid.
        timescale: Of the result.
        record: First and last year of the forcings.
        wanted: First and last year of the result, inside the record; for decades those wholly inside count.
        decade_start: First year of a decade.

    Raises:
        ValueError: If the record, or for decades the wanted years, hold no whole decade.
    """
    starts, length, decades = _cut(record, decade_start, spec.decades)
    if timescale == "decade":
        decades = [d for d in decades if len(d.years) == YEARS_PER_DECADE and wanted[0] <= d.start <= wanted[1] - 9]
    else:
        decades = [d for d in decades if d.years.start <= wanted[1] and d.years.stop > wanted[0]]
    if not decades:
        raise ValueError(f"{wanted[0]}-{wanted[1]} hold no whole decade from {decade_start}; widen the years")
    used = sorted({d.window for d in decades})
    stages = [Windows(tuple(starts[w] for w in used), length)]
    labels = [d.start for d in decades]
    keep = [used.index(d.window) * length + d.frame for d in decades]
    for stage in spec.path(timescale)[1:]:
        before = stages[-1]
        if stage.timescale == stage.parent_timescale:
            stages.append(Windows(before.starts, before.length))
        elif stage.timescale == "year":
            frames = tuple((used.index(d.window), d.frame) for d in decades)
            stages.append(Windows(tuple(d.start for d in decades), YEARS_PER_DECADE, frames))
            kept = [(y, i, y - d.start) for i, d in enumerate(decades) for y in d.years if wanted[0] <= y <= wanted[1]]
            labels, keep = [y for y, _, _ in kept], [i * YEARS_PER_DECADE + j for _, i, j in kept]
        else:
            frames = tuple(divmod(k, YEARS_PER_DECADE) for k in keep)
            stages.append(Windows(tuple(labels), 12, frames))
            keep = list(range(12 * len(labels)))
    return Plan(tuple(stages), labels, keep)


def _cut(record: tuple[int, int], decade_start: int, longest: int) -> tuple[list[int], int, list[_Decade]]:
    """Stage-0 windows of one length (starts, length) and every decade drawn from them, in time order."""
    first, last = record
    begin = decade_start - YEARS_PER_DECADE * ((decade_start - first) // YEARS_PER_DECADE)
    n = (last + 1 - begin) // YEARS_PER_DECADE
    if n < 1:
        raise ValueError(
            f"forcings {first}-{last} hold no whole decade from {decade_start}; an emulator needs ten years at least"
        )
    length = min(longest, n)
    offsets = list(range(0, n - length, length)) + [n - length]
    starts = [begin + YEARS_PER_DECADE * i for i in offsets]
    decades = []
    for i in range(n):
        window = min(i // length, len(offsets) - 1)
        start = begin + YEARS_PER_DECADE * i
        decades.append(_Decade(start, window, i - offsets[window], range(start, start + YEARS_PER_DECADE)))
    end = begin + YEARS_PER_DECADE * n
    if end <= last:
        starts.append(last + 1 - YEARS_PER_DECADE * length)
        decades.append(_Decade(last + 1 - YEARS_PER_DECADE, len(starts) - 1, length - 1, range(end, last + 1)))
    if begin > first:
        starts.append(first)
        decades.insert(0, _Decade(first, len(starts) - 1, 0, range(first, begin)))
    return starts, length, decades
