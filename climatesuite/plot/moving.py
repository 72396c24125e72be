"""Pictures that change: animations, and sliders in a notebook."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.animation import FuncAnimation, PillowWriter

from climatesuite.conventions import VARIABLES
from climatesuite.evaluate import diagnostics, plots
from climatesuite.evaluate.exceedance import reference
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.map_geometry import cells_from_dateline
from climatesuite.plot.choice import Base, base_of, labelled, one_member, pyplot, span, title_of
from climatesuite.plot.maps import SIZE, colours, draw, scale

log = logging.getLogger("climatesuite")


def animate(
    ds: xr.Dataset,
    name: str = "tas",
    to: str | Path | None = None,
    *,
    member: int | str | None = None,
    base: Base = "first",
    every: int = 1,
    frames_per_second: float = 8.0,
) -> FuncAnimation:
    """Map that walks through the steps of one member; the mean of many has no weather to look at.

    Args:
        ds: Ensemble ``(member, time, lat, lon)``.
        name: Variable.
        to: GIF to write; without one the animation is made only (``.save()``, ``.to_jshtml()``).
        member: Label; default the first.
        base: Reference years, see the module.
        every: Keep one step in so many.
        frames_per_second: Speed.

    Returns:
        matplotlib's animation.
    """
    label = ds["member"].values[0] if member is None else member
    part = ds.isel(time=slice(None, None, every))
    zero = base_of(ds, base)
    fields = step_fields(part, name, label, _zero_level(ds, part, name, zero))
    edges, extend = scale(fields, zero is not None)
    axes = plots.map_axes(size=SIZE)
    mesh = plots.draw_field(axes, fields[0], colours(name, edges), edges, extend)
    plots.colour_bar(mesh, axes, _step_scale(ds, name, zero))

    def show(frame: int) -> list[Any]:
        mesh.set_array(cells_from_dateline(fields[frame])[2])
        plots.map_title(axes, title_of(ds, name, f"member {label}", step_name(part, frame)))
        return [mesh]

    moving = FuncAnimation(axes.figure, show, frames=len(fields), interval=1000.0 / frames_per_second)
    if to is not None:
        moving.save(str(to), writer=PillowWriter(fps=round(frames_per_second)), dpi=100)
    return moving


def explore(ds: xr.Dataset, name: str = "tas", *, base: Base = "first") -> Any:
    """Sliders for step and member above a map, in a notebook; without ipywidgets the map of the last step.

    Args:
        ds: Ensemble ``(member, time, lat, lon)``.
        name: Variable.
        base: Reference years, see the module.

    Returns:
        The widget, or the axes where there are none.
    """
    zero, labels = base_of(ds, base), ds["member"].values.tolist()
    level = _zero_level(ds, ds, name, zero)
    ends = [f for i in (0, -1) for f in step_fields(ds.isel(time=[i]), name, labels[0], level[[i]])]
    end = float(scale(ends, zero is not None)[0][-1])

    def show(step: int, member: int | str) -> Any:
        (field,) = step_fields(ds.isel(time=[step]), name, member, level[[step]])
        title = title_of(ds, name, f"member {member}", step_name(ds, step))
        limit = end if zero is not None or field.min() < 0.5 * end else None
        return draw(field, name, _step_scale(ds, name, zero), title, None, is_signed=zero is not None, limit=limit)

    try:
        import ipywidgets
        from IPython.display import display
    except ImportError:
        log.warning("explore: no sliders without ipywidgets (pip install ipywidgets); the last step is drawn")
        return show(ds.sizes["time"] - 1, labels[0])

    def redraw(step: int, member: int | str) -> None:
        figure = show(step, member).figure
        display(
            figure
        )  # shown here and now: whether a widget shows pyplot's figures depends on the name of the backend
        pyplot().close(figure)

    steps = [(step_name(ds, i), i) for i in range(ds.sizes["time"])]
    slider: dict[str, Any] = {"continuous_update": False}
    return ipywidgets.interactive(
        redraw,
        step=ipywidgets.SelectionSlider(
            options=steps, value=steps[-1][1], description=ds.attrs.get("timescale", "step"), **slider
        ),
        member=ipywidgets.SelectionSlider(options=labels, description="member", **slider),
    )


def step_fields(ds: xr.Dataset, name: str, member: int | str, level: Array) -> list[xr.DataArray]:
    """Every step of a member minus its level ``[time, lat, lon]``, score units."""
    (values,) = diagnostics.members(one_member(ds, member), name)
    return [labelled(ds, field, name) for field in values - level]


def step_name(ds: xr.Dataset, step: int) -> str:
    """``2044``, ``2044-03`` or, of a decade, ``2035–2044``."""
    year = int(ds["year"].values[step])
    return f"{year}-{int(ds['month'].values[step]):02d}" if "month" in ds.coords else span(ds, (year, year))


def _zero_level(ds: xr.Dataset, part: xr.Dataset, name: str, zero: tuple[int, int] | None) -> Array:
    shape = tuple(part.sizes[d] for d in ("time", "lat", "lon"))
    return np.zeros(shape) if zero is None else np.broadcast_to(reference(ds, part, name, zero), shape)


def _step_scale(ds: xr.Dataset, name: str, zero: tuple[int, int] | None) -> str:
    unit = plots.unit_text(VARIABLES[name].score_units)
    return unit if zero is None else f"departure from {span(ds, zero)}, {unit}"
