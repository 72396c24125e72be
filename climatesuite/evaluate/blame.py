"""Where an error begins: diagnostics as a small directed graph, in which a failure is laid at the earliest node that fails.

    monthly field -> area mean -> seasonal cycle -> trend -> ratios            (of each variable; ratios join variables)

A node's statistics are blind to what first appears further down: the field is looked at without its trend and season, the level of
the area mean at the beginning of the record, the season as a departure from the year, the trend as a slope. So an error first shows
at the node where it is made, and what fails below it may be its consequence: mend the cause, then look again. The idea, to score a
chain of physical quantities along its graph, is that of PRISM-Physics (Zhao et al. 2025, arXiv 2510.03185).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import t as student

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, masks, structure, warming
from climatesuite.evaluate.answers import Row, row
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.questions import SEASONS, Asked, yearly_values
from climatesuite.harmonise.coarsen import to_year

FIELD, MEAN, SEASON, TREND = "field", "area mean", "seasonal cycle", "trend"
RATIOS, RAIN = "warming ratios", "rain per kelvin"
CHAIN = (FIELD, MEAN, SEASON, TREND)
ERROR = 0.05
"""Chance that anything at all is blamed in a perfect ensemble, shared out evenly over all statistics."""
PASSES, FAILS, FOLLOWS = "passes", "fails here", "consequence"
Graph = Mapping[str, tuple[str, ...]]
"""Parents of every node, parents first."""


def graph_of(names: list[str], has_months: bool) -> dict[str, tuple[str, ...]]:
    """The graph for some variables; without months there is no seasonal cycle, and the trend follows the area mean."""
    kinds = [kind for kind in CHAIN if has_months or kind != SEASON]
    graph: dict[str, tuple[str, ...]] = {}
    for name in names:
        for i, kind in enumerate(kinds):
            graph[f"{name} {kind}"] = (f"{name} {kinds[i - 1]}",) if i else ()
    if "tas" in names:
        graph[RATIOS] = (f"tas {TREND}",)
    if {"tas", "pr"} <= set(names):
        graph[RAIN] = (f"tas {TREND}", f"pr {TREND}")
    return graph


def ancestors(graph: Graph, node: str) -> set[str]:
    """All nodes from which a node can be reached."""
    found: set[str] = set()
    for parent in graph[node]:
        found |= {parent} | ancestors(graph, parent)
    return found


def attribute(graph: Graph, failing: set[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Status of every node and where its failure begins.

    Args:
        graph: Parents of every node.
        failing: Nodes that fail by themselves.

    Returns:
        By node: ``passes``, ``fails here`` (no ancestor fails) or ``consequence``, and for the last the failing nodes without
        failing ancestors among its ancestors.
    """
    roots = {n for n in failing if not ancestors(graph, n) & failing}
    out: dict[str, tuple[str, tuple[str, ...]]] = {}
    for node in graph:
        causes = tuple(n for n in graph if n in roots & ancestors(graph, node))
        if node not in failing:
            out[node] = (PASSES, ())
        else:
            out[node] = (FOLLOWS, causes) if causes else (FAILS, ())
    return out


@dataclass
class Statistics:
    """One number a member for every statistic of every node, collected member by member.

    Attributes:
        values: By (node, statistic).
        units: The same.
    """

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    units: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, node: str, name: str, value: float, units: str) -> None:
        """Append the value of the next member."""
        self.values.setdefault((node, name), []).append(float(value))
        self.units[node, name] = units


def blame_rows(asked: Asked) -> list[Row]:
    """One row a node: its worst statistic, whether it fails, and whether the failure begins there.

    A statistic fails where the means of the ensemble's and of the truth's members differ by more than members of one population
    do (Student's t with the variance within both, 5 % shared out over all statistics).

    Returns:
        Rows in the order of the graph; ``value`` of the ensemble, ``reference`` of the truth with the interval in which the value
        would pass; besides the usual fields ``status`` (``passes``, ``fails here``, ``consequence``) and ``cause``,
        a list of nodes.

    Raises:
        DataContractError: With one member on each side, which leaves no variance within.
    """
    side = asked.sides.get("month", asked.annual)
    size, n_truth = (ds.sizes["member"] for ds in side.both)
    if size + n_truth < 3:
        raise DataContractError("blame", "one member on each side", "three or more in all", "draw more members")
    regions = xr.concat([asked.large, masks.latitude_bands(side.truth)], "region")
    has_months = "month" in side.ensemble.coords
    truth = side.truth if has_months or "month" not in side.truth.coords else to_year(side.truth)
    x, y = (_statistics(ds, regions, asked.width) for ds in (side.ensemble, truth))
    graph = graph_of(asked.names, has_months)
    level = ERROR / len(x.values)
    worst: dict[str, Row] = {}
    for key in x.values:
        found = _compared(key, x, y, level, asked)
        if key[0] not in worst or found["excess"] > worst[key[0]]["excess"]:
            worst[key[0]] = found
    status = attribute(graph, {node for node, found in worst.items() if not found["agrees"]})
    rows = []
    for node, (word, causes) in status.items():
        found = {k: v for k, v in worst[node].items() if k != "excess"}
        note = {PASSES: None, FAILS: "the failure begins here", FOLLOWS: f"may follow from {', '.join(causes)}"}[word]
        rows.append(found | {"note": note, "status": word, "cause": list(causes)})
    return rows


def _compared(key: tuple[str, str], x: Statistics, y: Statistics, level: float, asked: Asked) -> Row:
    """A statistic of both sides; ``excess`` is the difference over the largest that passes."""
    ours, theirs = (np.array(s.values[key]) for s in (x, y))
    ours, theirs = (v[np.isfinite(v)] for v in (ours, theirs))
    about = {"question": "blame", "name": key[0], "region": key[1], "units": x.units[key], "M": ours.size, "N": theirs.size,
             "window": asked.window, "reference_kind": "truth members, where the value would pass"}  # fmt: skip
    free = ours.size + theirs.size - 2
    if not ours.size or not theirs.size or free < 1:
        return row(**about, note="not defined") | {"agrees": True, "excess": -1.0}
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in (ours, theirs)) / free
    half = float(student.ppf(1.0 - level / 2.0, free)) * np.sqrt(within * (1.0 / ours.size + 1.0 / theirs.size))
    value, known = float(ours.mean()), float(theirs.mean())
    half = max(
        half, 1e-9 * max(abs(value), abs(known), 1e-12)
    )  # rounding where no member varies, e.g. no negative rain
    answer = row(**about, value=value, reference=known, reference_lo=known - half, reference_hi=known + half,
                 agrees=bool(abs(value - known) <= half))  # fmt: skip
    return answer | {"excess": abs(value - known) / half}


def _statistics(ds: xr.Dataset, regions: xr.DataArray, width: int) -> Statistics:
    """Statistics of all members of one side."""
    out = Statistics()
    names = [n for n in VARIABLES if n in ds]
    globe = regions.sel(region=masks.GLOBE).values
    for fields in zip(*(diagnostics.members(ds, n) for n in names), strict=True):
        series = {n: np.tensordot(regions.values, f, axes=([1, 2], [1, 2])) for n, f in zip(names, fields, strict=True)}
        by_region = {n: dict(zip(regions["region"].values.tolist(), s, strict=True)) for n, s in series.items()}
        for name, values in zip(names, fields, strict=True):
            found = _of_variable(ds, name, values, by_region[name], globe, width)
            for kind, statistic, value, units in found:
                out.add(f"{name} {kind}", statistic, value, units)
        for node, statistic, value, units in _ratios(ds, by_region, width):
            out.add(node, statistic, value, units)
    return out


Found = tuple[str, str, float, str]
"""Node or kind of node, statistic, value, unit."""


def _of_variable(
    ds: xr.Dataset, name: str, values: Array, series: Mapping[str, Array], globe: Array, width: int
) -> Iterator[Found]:
    """Statistics of one member of one variable: field, area mean, season, trend."""
    units, has_months = VARIABLES[name].score_units, "month" in ds.coords
    year = np.unique(np.asarray(ds["year"].values, dtype=np.int64))
    bands = [region for region in series if region not in masks.LARGE]
    annual = {region: yearly_values(s, ds) for region, s in series.items()}
    mean = annual[masks.GLOBE]
    rest = structure.departures(values, structure.MONTHS if has_months else 1)
    yield FIELD, "local sd", float(np.sqrt(((rest**2).mean(axis=0) * globe).sum())), units
    if VARIABLES[name].is_nonnegative:
        yield FIELD, "share below zero", 100.0 * structure.negative_share(values), "%"
    for region in bands:
        yield FIELD, f"{region} minus globe", start_level(annual[region] - mean, year, width), units
    yield FIELD, "land minus ocean", start_level(annual[masks.LAND] - annual[masks.OCEAN], year, width), units
    yield MEAN, "level at the beginning", start_level(mean, year, width), units
    yield MEAN, "sd of years", structure.departures(mean, 1).std(), units
    if has_months:
        first = slice(0, structure.MONTHS * width)
        for region in [masks.GLOBE, *bands]:
            cycle = series[region][first].reshape(-1, structure.MONTHS).mean(axis=0)
            for label, wave in (("January–July", np.cos), ("April–October", np.sin)):
                swing = 2.0 / 12.0 * cycle @ wave(2.0 * np.pi * np.arange(12) / 12.0)
                yield SEASON, f"{region}, {label}", swing, units
    for season in ["annual", *(SEASONS if has_months else ())]:
        slope = warming.slopes(yearly_values(series[masks.GLOBE], ds, season), year)
        yield TREND, f"globe, {season}", float(slope), f"{units} decade-1"


def _ratios(ds: xr.Dataset, by_region: Mapping[str, Mapping[str, Array]], width: int) -> Iterator[Found]:
    """Ratios that join regions and variables, of one member."""
    if "tas" not in by_region:
        return
    tas = {region: yearly_values(s, ds) for region, s in by_region["tas"].items()}
    change = {region: warming.change(s, width) for region, s in tas.items()}
    for above, below in ((masks.ARCTIC, masks.GLOBE), (masks.ANTARCTIC, masks.GLOBE), (masks.LAND, masks.OCEAN)):
        yield RATIOS, f"{above} over {below}", float(warming.ratio(change[above], change[below])), "1"
    if "pr" in by_region:
        rain = yearly_values(by_region["pr"][masks.GLOBE], ds)
        yield RAIN, "globe", float(warming.per_kelvin(rain, tas[masks.GLOBE], width)), "% K-1"


def start_level(x: Array, year: NDArray[np.int64], width: int) -> float:
    """Mean of the first ``width`` years, carried back to the first with the slope of all: blind to a straight trend.

    Args:
        x: ``[T]``.
        year: ``[T]``.
        width: Years averaged.
    """
    slope = float(warming.slopes(x, year)) / 10.0
    return float(x[:width].mean() - slope * (year[:width].mean() - year[0]))
