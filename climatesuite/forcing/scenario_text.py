"""A scenario for a person: a short table, and a figure."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import ACCOUNTINGS
from climatesuite.forcing.totals import UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from climatesuite.forcing.scenario import Scenario

COLUMNS = 5
CUMULATIVE = "CO2 cumulative"
SMOOTH = 11
"""Years of the running mean of what is printed of the global mean."""


def summary(scenario: "Scenario") -> str:
    """Its steps, yearly totals and differences to the parent, the expected global mean, and what none of that holds."""
    first, last = scenario.years
    years = np.unique([*np.linspace(first, last, COLUMNS).round(-1).clip(first, last)[:-1], last]).astype(int)
    counted = ACCOUNTINGS.get(scenario.accounting)
    how = f"{counted.name}, CO2 of {counted.co2} since {counted.base_year}" if counted else scenario.accounting
    lines = [f"{scenario!r}", f"emissions counted as {how}", "", f"{'':30s}" + "".join(f"{y:>9d}" for y in years)]
    lines += _rows("", scenario.totals, years)
    if scenario.parent:
        lines += [f"minus {scenario.base.name}", *_rows("  ", scenario.difference(), years)]
    try:
        lines += ["", *_expected(scenario, years)]
    except DataContractError as error:
        lines += ["", f"expected global mean: not known ({error})"]
    return "\n".join(lines)


def _rows(indent: str, table: pd.DataFrame, years: np.ndarray) -> list[str]:
    units = {**UNITS, CUMULATIVE: "Gt"}
    out = []
    for name in table:
        label = f"{indent}{name}" + ("" if units[str(name)] == "1" else f", {units[str(name)]}")
        out.append(f"{label:30s}" + "".join(f"{_short(float(table[name][y])):>9s}" for y in years))
    return out


def _short(value: float) -> str:
    value = 0.0 if abs(value) < 5e-7 else value
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def _expected(scenario: "Scenario", years: np.ndarray) -> list[str]:
    response = scenario.response()
    smooth = response.rolling(year=SMOOTH, center=True, min_periods=SMOOTH // 2 + 1).mean().sel(year=years)
    source = response.attrs["source_id"]
    lines = [f"expected global mean, K above 1850-1900 ({source}'s energy balances, {SMOOTH}-year means)"]
    lines.append(
        f"{'  ' + scenario.name:30s}" + "".join(f"{v:9.2f}" for v in smooth["scenario"].mean("response").values)
    )
    if scenario.parent:
        change = smooth["scenario"] - smooth["parent"]
        lines.append(
            f"{'  minus ' + scenario.base.name:30s}" + "".join(f"{v:+9.2f}" for v in change.mean("response").values)
        )
        for label, edge in (("  lowest", change.min("response")), ("  highest", change.max("response"))):
            lines.append(f"{label:30s}" + "".join(f"{v:+9.2f}" for v in edge.values))
        lines.append("  (ozone of NOx, CO and VOC, N2O, halogenated gases and land use are the parent's)")
    return lines


def plot(scenario: "Scenario") -> list["Axes"]:
    """A panel for each forcing, the parent dashed, and one for the expected global mean where it can be had."""
    import matplotlib.pyplot as plt

    own, base = scenario.totals, scenario.base.totals
    try:
        response = scenario.response() if scenario.parent else None
    except DataContractError:
        response = None
    count = own.shape[1] + (response is not None)
    rows, columns = -(-count // 3), min(count, 3)
    figure, grid = plt.subplots(rows, columns, figsize=(3.6 * columns, 2.5 * rows), layout="constrained", squeeze=False)
    axes: list[Axes] = list(grid.flat[:count])
    for unused in grid.flat[count:]:
        unused.set_visible(False)
    for ax, name in zip(axes, own, strict=False):
        ax.plot(own.index, own[name], color="C3", label=scenario.name)
        if scenario.parent and name in base:
            ax.plot(base.index, base[name], color="0.3", linestyle="--", label=scenario.base.name)
        ax.set_title(f"{name}" if UNITS[str(name)] == "1" else f"{name}, {UNITS[str(name)]}", fontsize="medium")
    if response is not None:
        from_now = response.sel(year=slice(1950, None))
        for name, colour, style in (("parent", "0.3", "--"), ("scenario", "C3", "-")):
            ax, series = axes[-1], from_now[name]
            ax.plot(series["year"], series.mean("response"), color=colour, linestyle=style)
            if name == "scenario":
                ax.fill_between(
                    series["year"], series.min("response"), series.max("response"), color=colour, alpha=0.2, lw=0
                )
        axes[-1].set_title(
            f"expected global mean, K\nabove 1850-1900 ({response.attrs['source_id']})", fontsize="medium"
        )
    axes[0].legend(fontsize="small", frameon=False)
    figure.suptitle("; ".join([scenario.base.name, *scenario.steps]), fontsize="medium", wrap=True)
    return axes
