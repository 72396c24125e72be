"""A forecast and its truth made ready for scoring: checked, cut to blocks, masked alike, in float64, with the result's labels."""

from collections.abc import Hashable
from dataclasses import dataclass

import xarray as xr

from climatesuite.evaluate.checks import TARGET, check_comparable, checked, in_blocks, row_weights

Weights = xr.DataArray | None
"""Area weights ``(lat)``; None for the cosine of latitude."""


@dataclass(frozen=True)
class Fields:
    """Checked float64 forecast and truth, masked alike; what their scores have in common.

    Attributes:
        x: Forecast, dims end with ``member_dim``; no coordinates, so that the truth's are kept.
        y: Truth, dims in the order of x and end with ``target``, of length 1 for a truth without members.
        valid: Where every member of both is valid; None without ``skipna``.
        attrs: units, if known; masked_fraction, if computed.
        is_lazy: Whether an input was dask-backed, so that results are.
        has_target: Whether the truth had members.
    """

    x: xr.DataArray
    y: xr.DataArray
    member_dim: str
    valid: xr.DataArray | None
    attrs: dict[Hashable, object]
    is_lazy: bool
    has_target: bool

    @property
    def size(self) -> int:
        """Number of the forecast's members."""
        return int(self.x.sizes[self.member_dim])

    @property
    def mean_error(self) -> xr.DataArray:
        """Mean of the forecast's members minus mean of the truth's."""
        return self.x.mean(self.member_dim, skipna=False) - self.y.mean(TARGET, skipna=False)

    @property
    def errors(self) -> xr.DataArray:
        """Mean of the forecast's members minus each of the truth's."""
        return self.x.mean(self.member_dim, skipna=False) - self.y

    def area(self, values: xr.DataArray, weights: Weights) -> xr.DataArray:
        """Mean over lat and lon."""
        return area_average(values, row_weights(self.y, weights), self.valid is not None)

    def pooled(self, values: xr.DataArray, weights: Weights) -> xr.DataArray:
        """Area mean, then mean over all that is left."""
        return self.area(values, weights).mean(skipna=self.valid is not None)

    def result(self, values: xr.DataArray, name: str, units: str | None = None) -> xr.DataArray:
        """A result with name and units, computed unless the input was lazy."""
        out = values.rename(name)
        out.attrs = {**self.attrs} if units is None else {**self.attrs, "units": units}
        out = out if out.dims else out.reset_coords(drop=True)
        return out if self.is_lazy else out.compute()

    def field(self, values: xr.DataArray, name: str) -> xr.DataArray:
        """A field-valued result: the truth's members first, or no such dim if the truth has none."""
        ordered = values.transpose(TARGET, ...)
        return self.result(ordered if self.has_target else ordered.isel({TARGET: 0}, drop=True), name)


def prepare(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    member_dim: str,
    skipna: bool,
    whole: bool = False,
    at_least: float | xr.DataArray | None = None,
) -> Fields:
    """Check a pair and make it ready.

    Args:
        forecast: With or without ``member_dim``.
        truth: With or without ``target`` or ``member_dim``.
        member_dim: Name of the ensemble's dim.
        skipna: Whether NaN is masked in both rather than an error.
        whole: Whether a block must hold all members of a cell.
        at_least: Values below are raised to this, once they are checked.

    Raises:
        DataContractError: See :func:`checks.check_comparable` and, when a block is computed, :func:`checks.checked`.
    """
    check_comparable(forecast, truth, member_dim)
    present = next((d for d in (TARGET, member_dim) if d in truth.dims), None)
    named = (
        truth.expand_dims(TARGET) if present is None else truth.rename({present: TARGET} if present != TARGET else {})
    )
    x = forecast if member_dim in forecast.dims else forecast.expand_dims(member_dim)
    order = [d for d in x.dims if d != member_dim]
    x = checked(in_blocks(x.drop_vars(list(x.coords)), member_dim if whole else None), skipna)
    y = checked(in_blocks(named, TARGET if whole else None), skipna)
    if at_least is not None:
        x, y = x.clip(at_least), y.clip(at_least)
    x, y = x.transpose(*order, member_dim), y.transpose(*order, TARGET)
    is_lazy = forecast.chunks is not None or truth.chunks is not None
    valid, attrs = None, {k: v for f in (truth, forecast) for k, v in f.attrs.items() if k == "units"}
    if skipna:
        valid = y.notnull().all(TARGET) & x.notnull().all(member_dim)
        x, y = x.where(valid), y.where(valid)
        if not is_lazy:
            attrs["masked_fraction"] = 1.0 - float(valid.mean())
    return Fields(x, y, member_dim, valid, attrs, is_lazy, present is not None)


def prepare_alone(field: xr.DataArray, member_dim: str, skipna: bool, whole: bool = False) -> Fields:
    """The same for an ensemble without a truth: one of its members is in the truth's place, so that the mask is its own."""
    return prepare(field, field.isel({member_dim: 0}, drop=True), member_dim, skipna, whole)


def area_average(values: xr.DataArray, weights: xr.DataArray, skipna: bool) -> xr.DataArray:
    """Mean over lat and lon with weights of rows, renormalised over the cells that are not NaN if ``skipna``."""
    if skipna:
        return values.weighted(weights).mean(("lat", "lon"))
    return xr.dot(values.mean("lon", skipna=False), weights, dim="lat")
