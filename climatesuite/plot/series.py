"""Area means of an ensemble over time: plumes and stripes."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, plots
from climatesuite.evaluate.map_geometry import levels
from climatesuite.plot.choice import Base, base_of, period_of, pyplot, span, title_of


def plume(
    ensembles: xr.Dataset | Mapping[str, xr.Dataset],
    name: str = "tas",
    *,
    truth: xr.Dataset | None = None,
    base: Base = "first",
    quantiles: Sequence[float] = diagnostics.QUANTILES,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Area mean over time: the median of the members, and bands of their quantiles.

    Cut an ensemble in latitude or longitude first for the mean of a region: ``plume(years.sel(lat=slice(30, 60)))``.

    Args:
        ensembles: Ensemble ``(member, time, lat, lon)``, or several by name (scenarios; years and decades), a colour each.
        name: Variable.
        truth: Members to draw as lines.
        base: Reference years, see the module. Each ensemble has its own level, or the first one's where it lacks these years;
            beside a truth all have the truth's, so that a bias shows.
        quantiles: An odd number of shares, symmetric about 0.5.
        title: Default says what is drawn.
        ax: Axes; default new ones.

    Raises:
        DataContractError: If months are to be drawn beside years or decades, or there is no such variable.
    """
    named = {"": ensembles} if isinstance(ensembles, xr.Dataset) else dict(ensembles)
    drawn = {key: diagnostics.global_mean(ds, name) for key, ds in named.items()}
    exact = None if truth is None else diagnostics.global_mean(truth, name)
    _check_months(drawn if exact is None else drawn | {"truth": exact})
    leader = next(iter(named.values())) if truth is None else truth
    zero, ylabel = base_of(leader, base), plots.unit_text(VARIABLES[name].score_units)
    if zero is not None:
        first = next(iter(drawn.values())) if exact is None else exact
        drawn = {
            key: _departure(series, first if exact is not None else series, first, zero)
            for key, series in drawn.items()
        }
        exact = None if exact is None else _departure(exact, exact, exact, zero)
        ylabel = f"departure from {span(leader, zero)}, {ylabel}"
    axes = ax or pyplot().figure(figsize=plots.SIZE, dpi=plots.DPI, layout="constrained").add_subplot()
    for i, (key, series) in enumerate(drawn.items()):
        colour = plots.PALETTE[i % len(plots.PALETTE)]
        shares = diagnostics.plume(series, quantiles)
        plots.draw_bands(axes, shares, size=series.sizes["member"], colour=colour, name=key)
    if exact is not None:
        plots.draw_members(axes, exact)
    shown = title_of(leader, name) if len(named) == 1 else f"{name}: {_bands(quantiles)} of members"
    plots.style(axes, shown if title is None else title, "", ylabel)
    axes.margins(x=0.01)
    if ax is None:
        plots.legend_below(axes)
    return axes


def _departure(series: xr.DataArray, own: xr.DataArray, first: xr.DataArray, zero: tuple[int, int]) -> xr.DataArray:
    years = own["year"].values
    leader = own if ((years >= zero[0]) & (years <= zero[1])).any() else first
    return diagnostics.anomaly(series, diagnostics.base_level(leader, zero))


def _bands(quantiles: Sequence[float]) -> str:
    pairs = zip(quantiles, reversed(quantiles), strict=True)
    return "median, " + ", ".join(f"{100 * low:g}–{100 * high:g} %" for low, high in pairs if low < high)


def _check_months(series: Mapping[str, xr.DataArray]) -> None:
    monthly = {key: "month" in s.coords for key, s in series.items()}
    if len(set(monthly.values())) > 1:
        which = ", ".join(repr(key) for key, has in monthly.items() if has)
        raise DataContractError(
            "plume", f"months in {which} beside longer steps", "either months, or years and decades", "draw two plumes"
        )


def stripes(
    ds: xr.Dataset, name: str = "tas", *, base: Base = "all", title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Stripes of the area mean: a column a step, a row a member.

    Args:
        ds: Ensemble ``(member, time, lat, lon)``.
        name: Variable.
        base: Reference years, here all of them unless named.
        title: Default says what is drawn.
        ax: Axes; default new ones.
    """
    series = diagnostics.global_mean(ds, name)
    period = base_of(ds, base) or period_of(ds, slice(None))
    departure = diagnostics.anomaly(series, diagnostics.base_level(series, period))
    end, size = plots.nice_limit(departure, share=0.995), series.sizes["member"]
    cmap = colormaps[plots.DIVERGING.get(name, "RdBu_r")]
    norm = BoundaryNorm(levels(-end, end), cmap.N, extend="both")
    axes = ax or pyplot().figure(figsize=(4.8, 2.2), dpi=plots.DPI, layout="constrained").add_subplot()
    mesh = axes.pcolormesh(plots.edges_of_time(series), np.arange(size + 1), departure.values, cmap=cmap, norm=norm)
    rows = f"{size} members, one a row" if size > 1 else ""
    plots.style(axes, title_of(ds, name, rows) if title is None else title, "", "")
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    plots.colour_bar(mesh, axes, f"departure from {span(ds, period)}, {plots.unit_text(VARIABLES[name].score_units)}")
    return axes
