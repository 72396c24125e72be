"""The learning curves of a training as one figure."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spf.learning.logs import TRAINING, VALIDATION

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
SMOOTHED = 0.05
"""Time constant of the smoothing, as a fraction of a stage's losses."""


def read_curves(path: Path, value: str, key: str = "stage") -> dict[str, Curve]:
    """Steps and values of a column of a log, by stage key in sorted order."""
    found: dict[str, list[tuple[float, float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row[key], []).append((float(row["step"]), float(row[value])))
    return {name: (np.array(rows)[:, 0], np.array(rows)[:, 1]) for name, rows in sorted(found.items())}


def smooth(values: Iterable[float], time_constant: float) -> NDArray[np.float64]:
    """Running mean of the logarithm with exponentially fading weights; unbiased from the first value on."""
    keep, total, weight, out = np.exp(-1 / max(time_constant, 1e-9)), 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + np.log(value), keep * weight + 1
        out.append(np.exp(total / weight))
    return np.array(out)


def learning_curves(folder: Path) -> Axes:
    """Losses of the training log by stage, those of held-out members where there are any, and the learning rate.

    Args:
        folder: Holds ``training.csv`` and perhaps ``validation.csv``.

    Returns:
        The axes of the losses (log scale over steps); the learning rate has axes of its own on the right.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    trained = read_curves(folder / TRAINING, "loss")
    checked = read_curves(folder / VALIDATION, "loss") if (folder / VALIDATION).exists() else {}
    for i, (key, (steps, losses)) in enumerate(trained.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(steps, smooth(losses, SMOOTHED * len(losses)), color=colour, linewidth=1.1, label=key)
        if key in checked:
            axes.plot(*checked[key], color=colour, linewidth=0.8, linestyle="--", marker="o", markersize=2.5)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, smoothed" + (" (dashed: held-out members)" if checked else ""))
    axes.grid(True, which="both", color="#d9d9d9", linewidth=0.4)
    rates = axes.twinx()
    for steps, values in read_curves(folder / TRAINING, "learning_rate").values():
        rates.plot(steps, values, ".", color="#767676", markersize=1.2)
    rates.set_ylabel("learning rate (grey)", color="#767676")
    rates.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return axes


def write_learning_curves(folder: Path) -> Axes:
    """`learning_curves`, also written to ``learning.png``."""
    axes = learning_curves(folder)
    cast(Figure, axes.figure).savefig(folder / "learning.png", format="png", metadata={"Software": None})
    return axes
