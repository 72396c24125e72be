"""Figures of ensembles: maps, plumes, spectra, rank histograms, score charts.

Everything is drawn through matplotlib's objects on the Agg canvas: no pyplot, no global settings, no network. Colours are
those of Okabe and Ito, the colour maps blue-red and brown-green: readable with any common colour blindness. Sizes suit a
column of about 12 cm, so that a figure can still be read on a telephone.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal, cast

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.map_geometry import cells_from_dateline, levels, projected_coastline
from climatesuite.evaluate.map_geometry import nice_limit as nice_limit  # beside the maps that it is for

EMULATOR, TRUTH, REFERENCE = "#0072B2", "#222222", "#767676"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DIVERGING = {"tas": "RdBu_r", "pr": "BrBG"}
SEQUENTIAL = "YlGnBu"
SIZE = (4.8, 3.1)
DPI = 150
LONG, SHORT = 200, 20
"""Steps beyond which lines are thin, and below which steps are marked."""
_INK, _FAINT, _FONT = "#222222", "#d9d9d9", 8.5


def new_axes(size: tuple[float, float] = SIZE, projection: ccrs.Projection | None = None) -> Axes:
    """Axes alone on a new figure (inches); ``axes.figure`` is the figure."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure.add_subplot(projection=projection)


def png(axes: Axes) -> bytes:
    """The figure of some axes as a PNG, the same bytes for the same figure."""
    drawn, buffer = BytesIO(), BytesIO()
    cast(Figure, axes.figure).savefig(drawn, format="png", metadata={"Software": None})
    # a palette of 256 colours takes a third of the space: reports of many emulators are read on telephones
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels, ticks, spines and grid as all charts here have them."""
    axes.set_title(title, fontsize=_FONT + 1, color=_INK, loc="left", fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=_FONT, color=_INK)
    axes.set_ylabel(ylabel, fontsize=_FONT, color=_INK)
    axes.tick_params(labelsize=_FONT - 0.5, colors=_INK, length=3, width=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8a8a8a")
        axes.spines[side].set_linewidth(0.7)
    axes.grid(True, color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def _legend(axes: Axes, **options: Any) -> None:
    axes.legend(fontsize=_FONT - 0.5, frameon=False, labelcolor=_INK, handlelength=1.6, borderaxespad=0.3, **options)


def legend_below(axes: Axes) -> None:
    """Legend under the only axes of a figure."""
    options: dict[str, Any] = {"ncols": 2, "fontsize": _FONT - 0.5, "frameon": False, "labelcolor": _INK}
    cast(Figure, axes.figure).legend(*axes.get_legend_handles_labels(), loc="outside lower center", **options)


def unit_text(units: str) -> str:
    """A unit as it is set in print: ``mm day-1`` becomes mm day with a raised -1.

    >>> print(unit_text("mm day-1"))
    mm day$^{-1}$
    """
    return " ".join(
        f"{p[:-2]}$^{{{p[-2:]}}}$" if p[-2:-1] == "-" and p[-1].isdigit() and len(p) > 2 else p for p in units.split()
    )


def map_axes(title: str = "", size: tuple[float, float] = (4.8, 2.95)) -> GeoAxes:
    """Robinson axes of the whole globe with coastlines."""
    axes = cast(GeoAxes, new_axes(size, ccrs.Robinson()))
    frame_map(axes, title)
    return axes


def frame_map(axes: GeoAxes, title: str) -> None:
    """Globe, coastlines, outline and title on axes of any projection."""
    axes.set_global()
    line = projected_coastline(axes.projection)
    axes.plot(line[:, 0], line[:, 1], color="#333333", linewidth=0.45, zorder=3)
    axes.spines["geo"].set_linewidth(0.6)
    axes.spines["geo"].set_edgecolor("#555555")
    map_title(axes, title)


def map_title(axes: GeoAxes, title: str) -> None:
    """Title of a map, at its left."""
    axes.set_title(title, fontsize=_FONT + 1, color=_INK, loc="left", fontweight="bold")


def draw_map(
    field: xr.DataArray,
    title: str,
    *,
    cmap: str | Colormap,
    limits: tuple[float, float],
    label: str,
    stipple: xr.DataArray | None = None,
) -> GeoAxes:
    """Map of one field, cell by cell without interpolation, in Robinson projection.

    Args:
        field: ``(lat, lon)``; cell bounds are taken from ``lat_bnds`` and ``lon_bnds``, else inferred.
        title: Above the map.
        cmap: Colour map; diverging ones need symmetric limits.
        limits: Values of the first and last colour edge; values beyond get the arrows' colours.
        label: Quantity and unit under the colour bar.
        stipple: ``(lat, lon)`` mask; a dot marks cells where it holds.

    Returns:
        The axes; ``axes.figure`` is the figure.
    """
    axes = map_axes(title)
    mesh = draw_field(axes, field, cmap, levels(*limits), "both" if limits[0] < 0 else "max")
    if stipple is not None:
        _stipple(axes, stipple)
    colour_bar(mesh, axes, label)
    return axes


def draw_field(
    axes: GeoAxes, field: xr.DataArray, cmap: str | Colormap, edges: Array, extend: Literal["neither", "both", "max"]
) -> QuadMesh:
    """The cells of a field ``(lat, lon)`` on framed axes, in colours with these edges."""
    lon, lat, values = cells_from_dateline(field)
    colours = colormaps[cmap] if isinstance(cmap, str) else cmap
    norm = BoundaryNorm(edges, colours.N, extend=extend)
    style: dict[str, Any] = {"cmap": colours, "norm": norm, "rasterized": True}
    if axes.projection != ccrs.Robinson():
        return cast(QuadMesh, axes.pcolormesh(lon, lat, values, transform=ccrs.PlateCarree(), **style))
    corners = axes.projection.transform_points(ccrs.PlateCarree(), *np.meshgrid(lon, lat))
    return Axes.pcolormesh(axes, corners[..., 0], corners[..., 1], values, **style)


def colour_bar(mesh: QuadMesh, axes: Axes | Sequence[Axes], label: str) -> None:
    """Bar under the axes, a number at every second edge, zero among them."""
    several = list(axes) if isinstance(axes, Sequence) else [axes]
    edges = cast(BoundaryNorm, mesh.norm).boundaries
    first = (len(edges) - 1) // 2 % 2 if edges[0] < 0 < edges[-1] else 0
    bar = cast(Figure, several[0].figure).colorbar(
        mesh, ax=several, orientation="horizontal", fraction=0.06, pad=0.03, aspect=32, ticks=edges[first::2]
    )
    bar.ax.tick_params(labelsize=_FONT - 0.5, colors=_INK, length=2.5, width=0.6)
    bar.outline.set_linewidth(0.5)
    bar.set_label(label, fontsize=_FONT, color=_INK)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}".replace("-", "−")))


def _stipple(axes: GeoAxes, mask: xr.DataArray) -> None:
    """One dot in a cell, on a grid thinned to about 5 degrees and towards the poles so that dots stay apart."""
    lat, lon = mask["lat"].values, mask["lon"].values
    rows = slice(None, None, max(1, round(5.0 / abs(float(np.diff(lat).mean())))))
    chosen = mask.transpose("lat", "lon").isel(lat=rows)
    for row, at in zip(chosen.values, chosen["lat"].values, strict=True):
        step = max(1, round(5.0 / max(float(np.cos(np.deg2rad(at))), 0.15) / (360.0 / lon.size)))
        where = np.flatnonzero(row[::step]) * step
        if where.size:
            points = axes.projection.transform_points(ccrs.PlateCarree(), lon[where], np.full(where.size, at))
            axes.plot(points[:, 0], points[:, 1], ".", color="#222222", markersize=1.5, markeredgewidth=0, zorder=2.5)


def _when(series: xr.DataArray) -> Array:
    """Decimal years in the middle of the periods."""
    year = np.asarray(series["year"].values, dtype=np.float64)
    if "month" in series.coords:
        return year + (np.asarray(series["month"].values) - 0.5) / 12.0
    span = float(series["days"].values[0]) / 365.0 if "days" in series.coords else 1.0
    return year + round(span) / 2.0


def edges_of_time(series: xr.DataArray) -> Array:
    """Decimal years where the periods of a gapless series begin and end."""
    when = _when(series)
    half = float(np.diff(when).min()) / 2.0 if when.size > 1 else 0.5
    return np.append(when - half, when[-1] + half)


def plume(quantiles: xr.DataArray, truth: xr.DataArray | None, *, title: str, ylabel: str, size: int) -> Axes:
    """Ensemble quantiles as bands, truth members as lines.

    Args:
        quantiles: ``(quantile, time)``, an odd number, the middle one the median; see ``diagnostics.plume``.
        truth: ``(member, time)``, or None.
        title: Above the figure.
        ylabel: Quantity and unit.
        size: Ensemble size, for the legend.
    """
    axes = new_axes()
    draw_bands(axes, quantiles, size=size)
    if truth is not None:
        draw_members(axes, truth)
    style(axes, title, "", ylabel)
    axes.margins(x=0.01)
    legend_below(axes)
    return axes


def draw_bands(axes: Axes, quantiles: xr.DataArray, *, size: int, colour: str = EMULATOR, name: str = "") -> None:
    """Quantiles ``(quantile, time)`` as bands and a median; with a name that is the only one in the legend."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))  # there is no year 2022.5
    when, shares = _when(quantiles), quantiles["quantile"].values
    half, steps = shares.size // 2, quantiles.sizes["time"]
    for i in range(half):
        low, high = quantiles.isel(quantile=i).values, quantiles.isel(quantile=shares.size - 1 - i).values
        label = None if name else f"{100 * shares[i]:g}–{100 * shares[-1 - i]:g} % of {size} members"
        axes.fill_between(when, low, high, color=colour, alpha=0.20 + 0.16 * i, linewidth=0, label=label)
    axes.plot(
        when, quantiles.isel(quantile=half).values, color=colour, linewidth=0.7 if steps > LONG else 1.6,
        label=name or "median", marker="o" if steps < SHORT else "", markersize=3,
    )  # fmt: skip


def draw_members(axes: Axes, series: xr.DataArray, name: str = "truth") -> None:
    """Members ``(member, time)`` as thin dark lines."""
    steps, size = series.sizes["time"], series.sizes["member"]
    for i, member in enumerate(series.transpose("member", "time").values):
        axes.plot(
            _when(series), member, color=TRUTH, linewidth=0.35 if steps > LONG else 0.8, alpha=0.75,
            label=f"{name}, {size} member{'s' * (size > 1)}" if i == 0 else None,
            marker="o" if steps < SHORT else "", markersize=2,
        )  # fmt: skip


def spectrum(
    ensemble: xr.DataArray,
    truth: xr.DataArray | None,
    ratios: Mapping[str, xr.DataArray],
    *,
    title: str,
    units: str,
) -> Axes:
    """Zonal power spectra of the globe, and below them the ensemble's over the truth's by band of latitude.

    Args:
        ensemble: ``(wavenumber)`` of the globe.
        truth: The same, or None.
        ratios: Power over the truth's power ``(wavenumber)`` by name of the band.
        title: Above the figure.
        units: Of the field, e.g. ``mm day-1``.

    Returns:
        The upper axes.
    """
    figure = Figure(figsize=(SIZE[0], 4.1), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if ratios:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1.0])
    else:
        upper, lower = figure.add_subplot(), None
    k = ensemble["wavenumber"].values[1:-1]  # the last is one half of a pair
    if truth is not None:
        upper.loglog(k, truth.values[1:-1], color=TRUTH, linewidth=1.8, label="truth")
    upper.loglog(k, ensemble.values[1:-1], color=EMULATOR, linewidth=1.4, linestyle=(0, (4, 1.5)), label="emulator")
    text = f"({unit_text(units)})" if " " in units else unit_text(units)
    style(upper, title, "" if lower is not None else "zonal wavenumber", f"power, {text}$^2$")
    _legend(upper, loc="lower left")
    if lower is not None:
        _ratio_panel(lower, k, ratios)
    axis = upper if lower is None else lower
    axis.set_xlim(1, k[-1])
    _plain_log_ticks(axis, "x", tuple(float(v) for v in (1, 2, 3, 5, 10, 20, 36, 72, 144, 288) if v <= k[-1]))
    return cast(Axes, upper)


def _ratio_panel(axes: Axes, k: Array, ratios: Mapping[str, xr.DataArray]) -> None:
    axes.axhspan(0.9, 1.1, color="#ececec", linewidth=0, zorder=0)
    axes.axhline(1.0, color=TRUTH, linewidth=0.8)
    values = [np.asarray(ratio.values[1:-1]) for ratio in ratios.values()]
    dashes: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
    for name, ratio, colour, dash in zip(ratios, values, PALETTE[1:], dashes, strict=False):
        axes.semilogx(k, ratio, color=colour, linewidth=1.3, linestyle=dash, label=name)
    axes.set_yscale("log", base=2)
    low, high = float(min(0.8, np.min(values))), float(max(1.25, np.max(values)))
    axes.set_ylim(max(low * 0.95, 1 / 16), min(high * 1.3, 16.0))
    _plain_log_ticks(axes, "y", (0.0625, 0.125, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 8.0, 16.0))
    style(axes, "", "zonal wavenumber", "emulator / truth")
    _legend(axes, loc="upper left", ncols=3, columnspacing=1.2)


def _plain_log_ticks(axes: Axes, axis: str, ticks: Sequence[float]) -> None:
    """Ticks at round numbers, written as such, within the limits of a logarithmic axis."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(FixedLocator(ticks))
    chosen.set_minor_locator(NullLocator())
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def rank_histogram(shares: xr.DataArray, *, title: str, note: str = "") -> Axes:
    """Shares of the truth in each rank among the members, against a flat line.

    Args:
        shares: ``(rank)``, sum 1.
        title: Above the figure.
        note: Short text in the upper right corner.
    """
    axes, size = new_axes(), shares.size
    level = 1.0 / size
    axes.bar(np.arange(size), shares.values, width=0.92, color=EMULATOR, alpha=0.85, linewidth=0)
    axes.axhline(level, color=TRUTH, linewidth=1.2, linestyle=(0, (4, 2)), label="calibrated")
    style(axes, title, "number of members below the truth", "share of values")
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, size - 0.4)
    axes.set_ylim(0, max(2.0 * level, 1.18 * float(shares.max())))
    step = max(1, size // 10)
    axes.set_xticks(np.arange(0, size, step))
    _legend(axes, loc="upper left")
    if note:
        axes.text(0.99, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=_FONT - 0.5, color=_INK)
    return axes


def score_chart(
    values: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]],
    *,
    title: str,
    xlabel: str,
    target: float,
    target_name: str,
    is_log: bool = True,
) -> Axes:
    """Scores of several models as dots with intervals, one row a model, grouped.

    Args:
        values: By group (e.g. ``tas, decade``), by model: value and the ends of its interval or None.
        title: Above the figure.
        xlabel: Name of the score.
        target: Perfect value, drawn as a line.
        target_name: Name of that line.
        is_log: Whether the axis is logarithmic.
    """
    models = list(dict.fromkeys(model for group in values.values() for model in group))
    colours = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(models)}
    markers = dict(zip(models, "osD^vP" * len(models), strict=False))
    height = 1.2 + sum(0.17 * len(group) + 0.16 for group in values.values()) + 0.16 * len(models)
    axes = new_axes((SIZE[0], height))
    place, ticks, used = 0.0, [], set()
    for group in values.values():
        ticks.append(place + (len(group) - 1) / 2)
        for model, (value, low, high) in group.items():
            label = None if model in used else model
            used.add(model)
            look = {"color": colours[model], "marker": markers[model], "markersize": 4.5, "linestyle": "none"}
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colours[model], linewidth=1.3)
            axes.plot(value, place, label=label, markeredgecolor="white", markeredgewidth=0.5, **look)  # type: ignore[arg-type]
            place += 1.0
        axes.axhline(place - 0.05, color=_FAINT, linewidth=0.6)
        place += 0.9
    axes.axvline(target, color=TRUTH, linewidth=1.2, linestyle=(0, (4, 2)), label=target_name, zorder=0)
    style(axes, title, xlabel, "")
    axes.set_yticks(ticks, list(values))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_ylim(place - 0.7, -0.8)
    if is_log:
        ends = [x for group in values.values() for triple in group.values() for x in triple if x is not None and x > 0]
        axes.set_xscale("log")
        axes.set_xlim(min(*ends, target) / 1.06, max(*ends, target) * 1.06)
        wide = max(*ends, target) / min(*ends, target) > 3.0
        fine = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0)
        _plain_log_ticks(
            axes, "x", (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0) if wide else fine
        )
    legend_below(axes)
    return axes
