"""What is to be drawn: years, reference and members of an ensemble, and the words for them."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, plots
from climatesuite.evaluate.kernels import Array

Period = int | tuple[int, int] | slice | None
"""A year, the first and the last one, or None for the last ten. A decade goes by its first year."""
Base = tuple[int, int] | Literal["first", "all"] | None
"""Reference years, the first ten, all, or None for the values themselves."""


def pyplot() -> Any:
    """Imported when a figure is made, so that nothing else chooses a backend."""
    from matplotlib import pyplot as plt

    return plt


def period_of(ds: xr.Dataset, years: Period) -> tuple[int, int]:
    """First and last year label.

    Raises:
        DataContractError: If the ensemble has no step in these years.
    """
    labels = np.asarray(ds["year"].values)
    if years is None:
        return diagnostics.end_years(ds)[1]
    if isinstance(years, slice):
        years = (labels[0] if years.start is None else years.start, labels[-1] if years.stop is None else years.stop)
    first, last = (years, years) if isinstance(years, int | np.integer) else years
    if not ((labels >= first) & (labels <= last)).any():
        raise DataContractError(
            "plot", f"no {ds.attrs.get('timescale', 'step')} labelled {first} to {last}",
            f"years from {labels[0]} to {labels[-1]}", "choose years that the ensemble has",
        )  # fmt: skip
    return int(first), int(last)


def base_of(ds: xr.Dataset, base: Base) -> tuple[int, int] | None:
    """First and last year label of the reference."""
    if base is None:
        return None
    if base == "first":
        return diagnostics.end_years(ds)[0]
    return period_of(ds, slice(None) if base == "all" else base)


def one_member(ds: xr.Dataset, member: int | str) -> xr.Dataset:
    """An ensemble of that member alone.

    Raises:
        DataContractError: If there is none of this label.
    """
    labels = list(ds["member"].values)
    if member not in labels:
        shown = ", ".join(str(m) for m in labels[:6]) + (", …" if len(labels) > 6 else "")
        raise DataContractError("plot", f"no member {member}", f"one of {shown}", "choose a member of the ensemble")
    return ds.isel(member=[labels.index(member)])


def field_of(
    ds: xr.Dataset, name: str, period: tuple[int, int], zero: tuple[int, int] | None, member: int | str | None
) -> xr.DataArray:
    """Mean over years and members, minus the whole ensemble's mean over the reference: ``(lat, lon)``, score units.

    Where a period is one month of the year, so is its reference.
    """
    part = ds if member is None else one_member(ds, member)
    values = diagnostics.period_means(part, name, period).mean(axis=0)
    if zero is not None:
        values = values - diagnostics.period_means(ds, name, zero).mean(axis=0)
    return labelled(ds, values, name)


def labelled(ds: xr.Dataset, values: Array, name: str) -> xr.DataArray:
    """Values ``[lat, lon]`` on the ensemble's grid."""
    attrs = {"units": VARIABLES[name].score_units}
    return xr.DataArray(values, {"lat": ds["lat"], "lon": ds["lon"]}, ("lat", "lon"), name, attrs)


def span(ds: xr.Dataset, period: tuple[int, int]) -> str:
    """Years that a period covers, decades whole: ``2015–2024``."""
    last = period[1] + (9 if ds.attrs.get("timescale") == "decade" else 0)
    return str(period[0]) if period[0] == last else f"{period[0]}–{last}"


def scale_label(ds: xr.Dataset, name: str, period: tuple[int, int], zero: tuple[int, int] | None) -> str:
    """Text of a colour bar: years, reference, unit."""
    about = span(ds, period) + ("" if zero is None else f" minus {span(ds, zero)}")
    return f"{about}, {plots.unit_text(VARIABLES[name].score_units)}"


def title_of(ds: xr.Dataset, name: str, *more: str) -> str:
    """Variable, scenario and what else is to be said."""
    return ", ".join(part for part in (name, str(ds.attrs.get("experiment_id", "")), *more) if part)
