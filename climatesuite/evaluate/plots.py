"""Figures of ensembles: maps, plumes, spectra, rank histograms, score charts.

Everything is drawn through matplotlib's objects on the Agg canvas: no pyplot, no global settings, no network. Colours are
those of Okabe and Ito, the colour maps blue-red and brown-green: readable with any common colour blindness. Sizes suit a
column of about 12 cm, so that a figure can still be read on a telephone.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Literal, cast

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from climatesuite.evaluate.kernels import Array
from climatesuite.harmonise.grids import infer_bounds

EMULATOR, TRUTH, REFERENCE = "#0072B2", "#222222", "#767676"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DIVERGING = {"tas": "RdBu_r", "pr": "BrBG"}
SEQUENTIAL = "YlGnBu"
SIZE = (4.8, 3.1)
DPI = 150
_INK, _FAINT, _FONT = "#222222", "#d9d9d9", 8.5
_COLOURS = {1.0: 10, 1.2: 12, 1.5: 12, 2.0: 16, 2.5: 10, 3.0: 12, 4.0: 16, 5.0: 10, 6.0: 12, 8.0: 16, 10.0: 10}
"""Round limits of a colour scale and the number of colours that gives round edges."""


def new_axes(size: tuple[float, float] = SIZE, projection: ccrs.Projection | None = None) -> Axes:
    """Axes alone on a new figure (inches); ``axes.figure`` is the figure."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure.add_subplot(projection=projection)


def png(axes: Axes) -> bytes:
    """The figure of some axes as a PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    cast(Figure, axes.figure).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
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


def _legend_below(axes: Axes) -> None:
    options: dict[str, Any] = {"ncols": 2, "fontsize": _FONT - 0.5, "frameon": False, "labelcolor": _INK}
    cast(Figure, axes.figure).legend(*axes.get_legend_handles_labels(), loc="outside lower center", **options)


def unit_text(units: str) -> str:
    """A unit as it is set in print: ``mm day-1`` becomes mm day with a raised -1."""
    return " ".join(
        f"{p[:-2]}$^{{{p[-2:]}}}$" if p[-2:-1] == "-" and p[-1].isdigit() and len(p) > 2 else p for p in units.split()
    )


@lru_cache(maxsize=1)
def coastline() -> Array:
    """Natural Earth's 1:110m land outline (public domain): ``[point, (lon, lat)]`` degrees, NaN between lines."""
    with files("climatesuite.evaluate").joinpath("coastline_110m.npz").open("rb") as source, np.load(source) as stored:
        return np.asarray(stored["xy"], dtype=np.float64)


@lru_cache(maxsize=1)
def _projected_coastline() -> Array:
    lon, lat = coastline().T.copy()  # cartopy writes into what it is given
    points = np.asarray(ccrs.Robinson().transform_points(ccrs.PlateCarree(), lon, lat))
    return np.where(np.isnan(coastline()[:, :1]), np.nan, points)


def nice_limit(*fields: xr.DataArray, share: float = 0.98) -> float:
    """A round number that ``share`` of the absolute values stay below; fields drawn on one scale go in together."""
    values = np.concatenate([np.abs(np.asarray(f.values, dtype=np.float64)).ravel() for f in fields])
    values = values[np.isfinite(values)]
    top = float(np.quantile(values, share)) if values.size else 0.0
    if top <= 0.0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(power * next(step for step in _COLOURS if step * power >= 0.9999 * top))


def _edges(field: xr.DataArray, axis: str) -> Array:
    bounds = (
        field.coords[f"{axis}_bnds"].values
        if f"{axis}_bnds" in field.coords
        else infer_bounds(field[axis].values, axis)
    )
    return np.append(bounds[:, 0], bounds[-1, 1]).astype(np.float64)


def _cells_from_dateline(field: xr.DataArray) -> tuple[Array, Array, Array]:
    """Edges of longitude from -180 to 180, of latitude, and values; a cell across the date line is cut in two."""
    lon, lat = _edges(field, "lon"), _edges(field, "lat")
    values = np.asarray(field.transpose("lat", "lon").values, dtype=np.float64)
    twice = np.concatenate([values, values], axis=1)
    line = np.concatenate([lon[:-1] - 360.0, lon])
    first = int(np.searchsorted(line, -180.0, side="right")) - 1
    last = int(np.searchsorted(line, 180.0, side="left"))
    edges = line[first : last + 1].copy()
    edges[0], edges[-1] = -180.0, 180.0
    return edges, lat, twice[:, first:last]


def _levels(low: float, high: float) -> Array:
    """Edges of the colours: about ten, round where the limits are those of :func:`nice_limit`."""
    mantissa = round(high / 10.0 ** np.floor(np.log10(high)), 6)
    return np.linspace(low, high, _COLOURS.get(mantissa, 10) + 1)


def map_axes(title: str = "", size: tuple[float, float] = (4.8, 2.95)) -> GeoAxes:
    """Robinson axes of the whole globe with coastlines."""
    projection = ccrs.Robinson()
    axes = cast(GeoAxes, new_axes(size, projection))
    axes.set_global()
    line = _projected_coastline()
    axes.plot(line[:, 0], line[:, 1], color="#333333", linewidth=0.45, zorder=3)
    axes.spines["geo"].set_linewidth(0.6)
    axes.spines["geo"].set_edgecolor("#555555")
    axes.set_title(title, fontsize=_FONT + 1, color=_INK, loc="left", fontweight="bold")
    return axes


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
    lon, lat, values = _cells_from_dateline(field)
    x, y = np.meshgrid(lon, lat)
    corners = axes.projection.transform_points(ccrs.PlateCarree(), x, y)
    levels = _levels(*limits)
    extend: Literal["both", "max"] = "both" if limits[0] < 0 else "max"
    colours = colormaps[cmap] if isinstance(cmap, str) else cmap
    norm = BoundaryNorm(levels, colours.N, extend=extend)
    mesh = Axes.pcolormesh(axes, corners[..., 0], corners[..., 1], values, cmap=colours, norm=norm, rasterized=True)
    if stipple is not None:
        _stipple(axes, stipple)
    figure = cast(Figure, axes.figure)
    bar = figure.colorbar(
        mesh,
        ax=axes,
        orientation="horizontal",
        fraction=0.06,
        pad=0.03,
        aspect=32,
        ticks=levels[(len(levels) - 1) // 2 % 2 if limits[0] < 0 else 0 :: 2],
    )
    bar.ax.tick_params(labelsize=_FONT - 0.5, colors=_INK, length=2.5, width=0.6)
    bar.outline.set_linewidth(0.5)
    bar.set_label(label, fontsize=_FONT, color=_INK)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}".replace("-", "−")))
    return axes


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


def plume(quantiles: xr.DataArray, truth: xr.DataArray | None, *, title: str, ylabel: str, size: int) -> Axes:
    """Ensemble quantiles as bands, truth members as lines.

    Args:
        quantiles: ``(quantile, time)``, an odd number, the middle one the median; see ``diagnostics.plume``.
        truth: ``(member, time)``, or None.
        title: Above the figure.
        ylabel: Quantity and unit.
        size: Ensemble size, for the legend.
    """
    axes, when, levels = new_axes(), _when(quantiles), quantiles["quantile"].values
    half, is_long = levels.size // 2, quantiles.sizes["time"] > 200
    marker = "o" if quantiles.sizes["time"] < 20 else ""
    for i in range(half):
        low, high = quantiles.isel(quantile=i).values, quantiles.isel(quantile=levels.size - 1 - i).values
        name = f"{100 * levels[i]:g}–{100 * levels[-1 - i]:g} % of {size} members"
        axes.fill_between(when, low, high, color=EMULATOR, alpha=0.20 + 0.16 * i, linewidth=0, label=name)
    middle = quantiles.isel(quantile=half).values
    axes.plot(
        when, middle, color=EMULATOR, linewidth=0.7 if is_long else 1.6, label="median", marker=marker, markersize=3
    )
    if truth is not None:
        for i, member in enumerate(truth.values):
            label = f"truth, {len(truth)} member{'s' * (len(truth) > 1)}" if i == 0 else None
            width = 0.35 if is_long else 0.8
            axes.plot(
                _when(truth), member, color=TRUTH, linewidth=width, alpha=0.75, label=label, marker=marker, markersize=2
            )
    _style(axes, title, "", ylabel)
    axes.margins(x=0.01)
    _legend_below(axes)
    return axes


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
    _style(upper, title, "" if lower is not None else "zonal wavenumber", f"power, {text}$^2$")
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
    _style(axes, "", "zonal wavenumber", "emulator / truth")
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
    _style(axes, title, "number of members below the truth", "share of values")
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
            style = {"color": colours[model], "marker": markers[model], "markersize": 4.5, "linestyle": "none"}
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colours[model], linewidth=1.3)
            axes.plot(value, place, label=label, markeredgecolor="white", markeredgewidth=0.5, **style)  # type: ignore[arg-type]
            place += 1.0
        axes.axhline(place - 0.05, color=_FAINT, linewidth=0.6)
        place += 0.9
    axes.axvline(target, color=TRUTH, linewidth=1.2, linestyle=(0, (4, 2)), label=target_name, zorder=0)
    _style(axes, title, xlabel, "")
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
    _legend_below(axes)
    return axes
