"""Scenarios joined to the runs that they branch off by their parent attributes (ssp534-over: ssp585, historical); seams checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from climatesuite.archive.entry import Entry, Scan
from climatesuite.archive.joining import read_variable
from climatesuite.archive.months import month_text
from climatesuite.errors import DataContractError
from climatesuite.harmonise.curvilinear import CORNERS, cell_areas, is_cells
from climatesuite.harmonise.grids import area_weights

JUMP_SIGMA = 5.0
"""A change of the area mean across a seam beyond this many standard deviations of changes from month to month is no weather."""
SEAM_YEARS = 10
CONTROLS = ("piControl", "esm-piControl", "1pctCO2", "piControl-spinup")
Run = tuple[str, str, str]


def joined(found: Scan) -> Scan:
    """Every run with the months of its ancestors before it, as far as they are in the archive.

    An ancestor is the run of the same source that ``parent_experiment_id`` and ``parent_variant_label`` name, never one that merely
    bears the same member label. Control runs are no ancestors: their years are none of the calendar's. The entries of an ancestor
    take the names of the run that they are put before, with ``origin`` and the last month to use (``until``).

    Raises:
        DataContractError: If a parent that is there ends before its child begins or has another calendar.
    """
    runs: dict[Run, dict[str, list[Entry]]] = {}
    for e in found.entries:
        runs.setdefault((e.source_id, e.experiment_id, e.member), {}).setdefault(e.variable_id, []).append(e)
    entries = list(found.entries)
    for run, by_variable in runs.items():
        for name, own in by_variable.items():
            entries += _ancestors(run, name, own, runs)
    return Scan(tuple(sorted(entries)), found.rejected, found.replaced)


def parent_of(entries: Sequence[Entry]) -> tuple[str, str]:
    """experiment_id and member that a run's files name as their parent; "" where there is none to join.

    Raises:
        DataContractError: If files of one run name differing parents.
    """
    named = {
        (e.parent_experiment_id, e.parent_member) for e in entries if e.parent_experiment_id not in ("", *CONTROLS)
    }
    if len(named) > 1:
        told = " and ".join(" ".join(p) for p in sorted(named))
        raise DataContractError(
            f"{entries[0].experiment_id} {entries[0].member} of {entries[0].source_id}", f"files with differing parents {told}",
            "one parent", "give files of one run",
        )  # fmt: skip
    return next(iter(named), ("", ""))


def parents(found: Scan) -> list[str]:
    """A sentence for every run that names a parent: whether its parent's files are there."""
    there = {(e.source_id, e.experiment_id, e.member) for e in found.entries}
    named = {(e.source_id, e.experiment_id, e.member): parent_of([e]) for e in found.entries}
    return [
        f"parent: {' '.join(run)} branches off {' '.join(parent)}"
        + ("" if (run[0], *parent) in there else ", which is not here")
        for run, parent in sorted(named.items())
        if parent[0]
    ]


def _ancestors(run: Run, name: str, own: Sequence[Entry], runs: Mapping[Run, Mapping[str, list[Entry]]]) -> list[Entry]:
    """Entries of the ancestors of one variable of a run, relabelled and cut at the month before their child begins."""
    out: list[Entry] = []
    child, seen = own, {run}
    while True:
        experiment, member = parent_of(child)
        key = (run[0], experiment, member)
        elder = runs.get(key, {}).get(name, []) if experiment and key not in seen else []
        if not elder:
            return out
        seen.add(key)
        begins = min(e.start for e in child)
        last = month_text(12 * int(begins[:4]) + int(begins[4:6]) - 2).replace("-", "")
        if max(e.stop for e in elder) < last:
            raise DataContractError(
                f"{name} of {' '.join(run)}", f"its parent {experiment} {member} ends in {max(e.stop for e in elder)}",
                f"months to {last}", "add the parent's last files, or read the scenario by itself",
            )  # fmt: skip
        calendars = {e.calendar for e in (*elder, *own)}
        if len(calendars) > 1:
            raise DataContractError(
                f"{name} of {' '.join(run)}", f"calendars {' and '.join(sorted(calendars))} in it and its parent {experiment}",
                "one calendar", "read the scenario by itself",
            )  # fmt: skip
        cut = [e for e in elder if e.start <= last]
        out += [
            replace(
                e, experiment_id=run[1], member=run[2], until=min(last, e.stop), stop=min(last, e.stop),
                origin=f"{experiment} {member}", parent_experiment_id="", parent_member="",
            )
            for e in cut
        ]  # fmt: skip
        child = elder


def check_seam(entries: Sequence[Entry], name: str, on_overlap: str = "refuse", any_cells: bool = False) -> None:
    """Refuse a joined run whose area mean jumps where an ancestor ends.

    The change across the seam, less the usual change between these two calendar months, is held against the standard deviation of
    such changes in the ten years on either side.

    Raises:
        DataContractError: With the jump and the months.
    """
    for last in sorted({e.until for e in entries if e.until and e.origin}):
        if not any(e.start > last for e in entries):
            continue
        year = int(last[:4])
        first, stop = min(e.start for e in entries), max(e.stop for e in entries)
        years = (
            max(year - SEAM_YEARS + 1, int(first[:4]) + (first[4:6] > "01")),
            min(year + SEAM_YEARS, int(stop[:4]) - (stop[4:6] < "12")),
        )
        if years[0] > years[1]:
            continue
        near = [e for e in entries if int(e.start[:4]) <= years[1] and int(e.stop[:4]) >= years[0]]
        jump = seam_jump(read_variable(near, name, years, on_overlap, any_cells), name, 12 * year + int(last[4:6]) - 1)
        if jump > JUMP_SIGMA:
            origin = next(e.origin for e in entries if e.until == last)
            raise DataContractError(
                f"{name} of {entries[0].source_id} {entries[0].experiment_id} {entries[0].member}",
                f"its mean jumps by {jump:.1f} standard deviations after {last[:4]}-{last[4:6]}, where {origin} ends",
                f"less than {JUMP_SIGMA:g}", "check that parent_variant_label names the right run",
            )  # fmt: skip


def seam_jump(field: xr.Dataset, name: str, last: int) -> float:
    """Change of the area mean after a month (12 x year + month - 1) beyond the usual one, in standard deviations of changes."""
    if is_cells(field):
        area = cell_areas(*(field[n].values for n in CORNERS))
        mean = field[name].values.astype(np.float64) @ area / area.sum()
    else:
        mean = field[name].weighted(area_weights(field)).mean(("lat", "lon")).values.astype(np.float64)
    index = field.year.values * 12 + field.month.values - 1
    steps, month = np.diff(mean), index[1:] % 12
    at = np.flatnonzero(index[1:] == last + 1)
    if at.size == 0:
        return 0.0
    others = np.arange(steps.size) != at[0]
    usual = np.array(
        [np.mean(steps[others & (month == m)]) if (others & (month == m)).any() else 0.0 for m in range(12)]
    )
    beyond = steps - usual[month]
    spread = float(np.std(beyond[others], ddof=1)) if others.sum() > 12 else float("inf")
    return abs(float(beyond[at[0]])) / max(spread, 1e-30)
