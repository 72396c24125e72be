"""Maps of an ensemble: years, members side by side, chances."""

from collections.abc import Sequence
from typing import Literal

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import plots
from climatesuite.evaluate.exceedance import exceedance as share_beyond
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.map_geometry import levels
from climatesuite.plot.choice import Base, Period, base_of, field_of, period_of, pyplot, scale_label, span, title_of

SEQUENTIAL = {"tas": "RdYlBu_r", "pr": "YlGnBu"}
"""Colours of values, light enough for coastlines; those of departures are `plots.DIVERGING`."""
SIZE = (5.2, 3.0)
"""Inches, wider than a map needs: matplotlib keeps room for a title only where the height is what limits."""


def map(
    data: xr.Dataset | xr.DataArray,
    name: str = "tas",
    *,
    years: Period = None,
    member: int | str | None = None,
    base: Base = "first",
    limit: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> GeoAxes:
    """Map of some years of an ensemble, cell by cell, in Robinson projection.

    Args:
        data: Ensemble ``(member, time, lat, lon)``; or any field ``(lat, lon)``, drawn as it is.
        name: Variable.
        years: A year, or the first and the last one; default the last ten. Decades go by their first year.
        member: Label of one member; default the mean of all.
        base: Reference years, see the module.
        limit: Where the colours end, in the unit of the colour bar; default a round number beyond which 2 % of the cells lie.
        title: Default says what is drawn.
        ax: Axes of any cartopy projection; default new ones.

    Raises:
        DataContractError: If there is no such variable, member or year, or ``ax`` has no projection.
    """
    if isinstance(data, xr.DataArray):
        field, known = data.squeeze(drop=True), "" if data.name is None else str(data.name)
        label, signed = plots.unit_text(str(data.attrs.get("units", ""))), bool((field < 0.0).any())
        return draw(field, known, label, known if title is None else title, ax, is_signed=signed, limit=limit)
    period, zero = period_of(data, years), base_of(data, base)
    whose = f"mean of {data.sizes['member']} members" if member is None else f"member {member}"
    field = field_of(data, name, period, zero, member)
    shown = title_of(data, name, whose) if title is None else title
    label = scale_label(data, name, period, zero)
    return draw(field, name, label, shown, ax, is_signed=zero is not None, limit=limit)


def members(
    ds: xr.Dataset,
    name: str = "tas",
    *,
    chosen: Sequence[int | str] | None = None,
    years: Period = None,
    base: Base = "first",
    columns: int = 2,
) -> np.ndarray:
    """Members side by side on one colour scale: what the mean of an ensemble hides.

    Args:
        ds: Ensemble ``(member, time, lat, lon)``.
        name: Variable.
        chosen: Labels of members; default the first four.
        years: As in `map`.
        base: Reference years, see the module.
        columns: Maps in a row.

    Returns:
        The axes, one a member.
    """
    names = list(ds["member"].values[:4]) if chosen is None else list(chosen)
    period, zero = period_of(ds, years), base_of(ds, base)
    fields = [field_of(ds, name, period, zero, member) for member in names]
    rows, (edges, extend) = -(-len(names) // columns), scale(fields, zero is not None)
    figure = pyplot().figure(figsize=(3.4 * columns, 2.1 * rows + 0.7), dpi=plots.DPI, layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1, projection=ccrs.Robinson()) for i in range(len(names))]
    for panel, member, field in zip(axes, names, fields, strict=True):
        plots.frame_map(panel, f"member {member}")
        mesh = plots.draw_field(panel, field, colours(name, edges), edges, extend)
    plots.colour_bar(mesh, axes, f"{title_of(ds, name)}: {scale_label(ds, name, period, zero)}")
    return np.array(axes)


def exceedance(
    ds: xr.Dataset,
    name: str = "tas",
    threshold: float = 2.0,
    *,
    years: Period = None,
    base: Base = "first",
    is_below: bool = False,
    title: str | None = None,
    ax: Axes | None = None,
) -> GeoAxes:
    """Map of the chance that a cell lies beyond a threshold: the share of members and steps of some years.

    Args:
        ds: Ensemble ``(member, time, lat, lon)``.
        name: Variable.
        threshold: K or mm day-1; of the departure, with ``base=None`` of the value.
        years: As in `map`.
        base: Reference years, see the module.
        is_below: Chance of lying below it instead.
        title: Default says what is drawn.
        ax: Axes of any cartopy projection; default new ones.
    """
    period, zero = period_of(ds, years), base_of(ds, base)
    share = 100.0 * share_beyond(ds, name, threshold, period, zero, is_below=is_below)
    axes = framed(title_of(ds, name, f"{ds.sizes['member']} members") if title is None else title, ax)
    mesh = plots.draw_field(axes, share, "YlOrRd", np.linspace(0.0, 100.0, 11), "neither")
    unit = plots.unit_text(VARIABLES[name].score_units)
    beyond = f"{'below' if is_below else 'above'} {threshold:g} {unit}" + (
        "" if zero is None else f" since {span(ds, zero)}"
    )
    plots.colour_bar(mesh, axes, f"% of {ds.attrs.get('timescale', 'step')}s {span(ds, period)} {beyond}")
    return axes


def draw(
    field: xr.DataArray, name: str, label: str, title: str, ax: Axes | None, *, is_signed: bool, limit: float | None
) -> GeoAxes:
    """One field with its colour bar."""
    if set(field.dims) != {"lat", "lon"}:
        raise DataContractError("map", f"a field with dims {field.dims}", "(lat, lon)", "choose a time and a member")
    edges, extend = scale([field], is_signed, limit)
    axes = framed(title, ax)
    plots.colour_bar(plots.draw_field(axes, field, colours(name, edges), edges, extend), axes, label)
    return axes


def framed(title: str, ax: Axes | None) -> GeoAxes:
    """Axes with coastlines, new Robinson ones unless some are given.

    Raises:
        DataContractError: If these have no projection.
    """
    if ax is None:
        figure = pyplot().figure(figsize=SIZE, dpi=plots.DPI, layout="constrained")
        ax = figure.add_subplot(projection=ccrs.Robinson())
    if not isinstance(ax, GeoAxes):
        raise DataContractError(
            "map", "axes without a projection", "cartopy's GeoAxes",
            "make them with plt.subplots(subplot_kw={'projection': cartopy.crs.Robinson()})",
        )  # fmt: skip
    plots.frame_map(ax, title)
    return ax


def scale(
    fields: Sequence[xr.DataArray], is_signed: bool, limit: float | None = None
) -> tuple[Array, Literal["both", "max"]]:
    """Edges of the colours for all fields together: symmetric about zero, from zero, or round about the values."""
    if is_signed:
        end = plots.nice_limit(*fields) if limit is None else limit
        return levels(-end, end), "both"
    low, high = np.nanquantile(np.concatenate([np.ravel(f.values) for f in fields]), [0.02, 0.98])
    if low > 0.5 * high > 0.0 and limit is None:  # temperature in K: zero is far away
        return np.asarray(MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)), "both"
    return levels(0.0, plots.nice_limit(*fields) if limit is None else limit), "max"


def colours(name: str, edges: Array) -> str:
    """Name of the colour map: diverging about zero, otherwise sequential."""
    return plots.DIVERGING.get(name, "RdBu_r") if edges[0] < 0.0 else SEQUENTIAL.get(name, "viridis")
