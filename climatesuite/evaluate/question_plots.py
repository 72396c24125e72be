"""Figures of answers: intervals beside the truth, reliability diagrams, and the graph in which errors begin."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from climatesuite.evaluate import masks
from climatesuite.evaluate.blame import FAILS, FOLLOWS, PASSES, RAIN, ancestors, graph_of
from climatesuite.evaluate.by_region import exceedance_curves
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.plots import PALETTE, legend_below, new_axes, png, style, unit_text
from climatesuite.evaluate.questions import Asked

Row = Mapping[str, Any]
OURS, TRUTH = PALETTE[0], "#333333"
COLOURS: Mapping[str, str] = {PASSES: "#d9ead3", FAILS: "#D55E00", FOLLOWS: "#F5C49B"}


CHARTS = ("warming levels", "warming ratios", "hydrological sensitivity")
"""Questions whose rows share a unit and fit a chart."""


def pictures(asked: Asked, found: Mapping[str, Sequence[Row]]) -> dict[str, Axes]:
    """Figures of what was asked, by file stem.

    Args:
        asked: Ensemble and truth.
        found: Rows by part: ``answers``, ``regions``, ``blame``; absent ones get no figure.
    """
    rows = [r for part in ("answers", "blame") for r in found.get(part, ())]
    out = {stem: axes for stem, (axes, _) in charts(rows).items()}
    if "regions" in found:
        title = f"Exceedance of the 90 % quantile, {masks.LAND}, years"
        out["exceedance"] = reliability_diagram(exceedance_curves(asked, masks.LAND), title)
    return out


def charts(rows: Sequence[Row], model: str = "") -> dict[str, tuple[Axes, str]]:
    """Figure and caption of every question among some rows that has one, by file stem."""
    out: dict[str, tuple[Axes, str]] = {}
    of = f"{model}: " if model else ""
    for question in CHARTS:
        chosen = [r for r in rows if r["question"] == question]
        if chosen:
            caption = f"{of}{question}. Members (5–95 %) above the truth's members (least to greatest)."
            out[question.replace(" ", "-")] = interval_chart(chosen, question.capitalize()), caption
    blamed = [r for r in rows if r["question"] == "blame"]
    if blamed:
        caption = f"{of}dark where a failure begins, light where it may be a consequence, green where nothing fails."
        out["blame"] = blame_figure(blamed, "Where errors begin"), caption
    return out


def images(diagnostics: Mapping[str, Mapping[str, Sequence[Row] | str]]) -> dict[str, list[tuple[bytes, str]]]:
    """PNGs with captions by title, of rows by title and model; text instead of rows has none."""
    out: dict[str, list[tuple[bytes, str]]] = {}
    for title, by_model in diagnostics.items():
        for model, rows in by_model.items():
            drawn = {} if isinstance(rows, str) else charts(rows, model)
            out.setdefault(title, []).extend((png(axes), caption) for axes, caption in drawn.values())
    return out


def interval_chart(rows: Sequence[Row], title: str) -> Axes:
    """Value and interval of every row beside its reference and that one's range, one line a row, first row on top.

    Args:
        rows: Of one unit, e.g. crossing years of a question; rows without a value are left out.
        title: Above the chart.

    Raises:
        ValueError: If the rows have several units.
    """
    units = {str(r["units"]) for r in rows}
    if len(units) > 1:
        raise ValueError(f"rows in {', '.join(sorted(units))}: expected one unit in a chart")
    shown = [r for r in rows if r["value"] is not None]
    axes = new_axes((5.4, 0.9 + 0.3 * max(1, len(shown))))
    for y, r in enumerate(shown):
        for colour, place, keys in ((OURS, y - 0.13, ("value", "lo", "hi")),
                                    (TRUTH, y + 0.13, ("reference", "reference_lo", "reference_hi"))):  # fmt: skip
            middle, low, high = (r[k] for k in keys)
            label = None if y else ("ensemble, 5–95 %" if colour == OURS else "truth, least to greatest")
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
            if middle is not None:
                axes.plot([middle], [place], "o", color=colour, markersize=4, label=label)
    names = [", ".join(str(r[k]) for k in ("name", "region", "season") if r[k]) for r in shown]
    style(axes, title, unit_text(units.pop()) if units else "", "")
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(max(1, len(shown)) - 0.5, -0.5)
    legend_below(axes)
    return axes


def reliability_diagram(curves: Mapping[str, tuple[Array, Array]], title: str) -> Axes:
    """Observed frequency against forecast probability; area of a dot: how often that probability is given.

    Args:
        curves: By name, weight and observed share of k of M members ``[M + 1]`` each (``calibration.exceedance_curve``).
        title: Above the chart.
    """
    axes = new_axes((3.6, 3.6))
    axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=0.8, linestyle="--", label="reliable")
    for (name, (weight, share)), colour in zip(curves.items(), PALETTE, strict=False):
        probability = np.arange(weight.size) / (weight.size - 1)
        there = weight > 0
        axes.plot(probability[there], share[there], color=colour, linewidth=1.0, label=name)
        axes.scatter(probability[there], share[there], s=4 + 80 * weight[there], color=colour, alpha=0.7, linewidths=0)
    style(axes, title, "forecast probability", "observed frequency")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    legend_below(axes)
    return axes


def blame_figure(rows: Sequence[Row], title: str) -> Axes:
    """The graph of ``blame.blame_rows``: where failures begin in dark orange, their possible consequences in light orange."""
    status = {r["name"]: str(r["status"]) for r in rows}
    names = list(dict.fromkeys(n.split()[0] for n in status if n.split()[0] in ("tas", "pr")))
    graph = graph_of(names, any("seasonal" in n for n in status))
    depth = {n: len({a for a in ancestors(graph, n) if a.split()[0] == n.split()[0]}) for n in graph}
    last = max(depth.values()) + 1
    place: dict[str, tuple[float, float]] = {}
    for node in graph:
        word = node.split()[0]
        own = word in names
        place[node] = (
            float(depth[node] if own else last),
            float(names.index(word)) if own else 0.8 * (node == RAIN) - 0.2,
        )
    axes = new_axes((6.6, 1.1 + 0.9 * len(names)))
    patches = {}
    for node, (x, y) in place.items():
        box: dict[str, Any] = {
            "boxstyle": "round,pad=0.35",
            "facecolor": COLOURS[status[node]],
            "edgecolor": "#8a8a8a",
            "lw": 0.6,
        }
        ink = "white" if status[node] == FAILS else "#333333"
        words = axes.text(x, y, node.replace(" ", "\n", 1), ha="center", va="center", fontsize=6.5, color=ink, bbox=box)
        patches[node] = words.get_bbox_patch()
    for node, parents in graph.items():
        for parent in parents:
            arrow: dict[str, Any] = {
                "arrowstyle": "->",
                "color": "#8a8a8a",
                "lw": 0.8,
                "patchA": patches[parent],
                "patchB": patches[node],
            }
            axes.annotate("", place[node], place[parent], arrowprops=arrow)
    axes.set_xlim(-0.6, last + 0.7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.axis("off")
    return axes
