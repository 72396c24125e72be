"""The forced response: what a scenario does to the mean climate, fitted per calendar month on an annual predictor.

The one owner of the forced mean. Reference ensembles ("pattern scaling") and the emulator's residuals both use it. Years and
decades are the day-weighted means of its months, so that averaging a response over time is the response of the average.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths

PREDICTOR = "CO2"


class Response(Protocol):
    """A forced response, on whatever predictor: cumulative CO2 here, six global means in ``energy_response``."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        ...

    @property
    def calendar(self) -> str:
        """CF calendar whose month lengths weight years and decades."""
        ...

    def evaluate(
        self,
        predictor: xr.DataArray,
        timescale: str,
        years: Sequence[int] | None = None,
        decade_start: int | None = None,
    ) -> xr.Dataset:
        """The fields ``(time, lat, lon)`` of a scenario; years and decades are day-weighted means of the months."""
        ...


@dataclass(frozen=True)
class ForcedResponse:
    """field(year, month) = intercept[month] + slope[month] x predictor(year).

    Attributes:
        intercept: One variable per field, dims (calendar_month, lat, lon), canonical unit, float64.
        slope: The same, canonical unit per unit of the predictor.
        calendar: CF calendar whose month lengths weight years and decades.
        predictor: Name of the annual predictor (annual-mean cumulative CO2, Gt).
        centre: Mean of the predictor in training: there the response is the training mean, whatever the predictor.
    """

    intercept: xr.Dataset
    slope: xr.Dataset
    calendar: str
    predictor: str = PREDICTOR
    centre: float = 0.0

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(str(name) for name in self.intercept.data_vars)

    def evaluate(
        self,
        predictor: xr.DataArray,
        timescale: str,
        years: Sequence[int] | None = None,
        decade_start: int | None = None,
    ) -> xr.Dataset:
        """The response as fields.

        Args:
            predictor: Annual values with dim ``year`` (integer labels).
            timescale: ``month``, ``year`` or ``decade``.
            years: Labels wanted: years for months and years, first years for decades. Default: all that the predictor covers.
            decade_start: First year of a decade, needed for decades when ``years`` is not given (default: the first year).

        Returns:
            Dataset of the fields, dims (time, lat, lon), float64, canonical units, with ``year`` (and ``month``) along time.

        Raises:
            DataContractError: If the predictor lacks a year that is needed.
        """
        return evaluate_lines(
            self.intercept, [self.slope], predictor.expand_dims("line"), self.calendar, timescale, years, decade_start,
            f"forced response, predictor {self.predictor}",
        )  # fmt: skip


def evaluate_lines(
    intercept: xr.Dataset,
    slopes: Sequence[xr.Dataset],
    predictors: xr.DataArray,
    calendar: str,
    timescale: str,
    years: Sequence[int] | None = None,
    decade_start: int | None = None,
    subject: str = "forced response",
) -> xr.Dataset:
    """field(year, month) = intercept[month] + sum over lines of slope_i[month] x predictor_i(year), as one product of matrices.

    Args:
        intercept: One variable per field, dims (calendar_month, lat, lon).
        slopes: The same for each predictor; a field that is absent from one is not changed by it.
        predictors: Annual values ``(line, year)``, integer labels.
        calendar: CF calendar whose month lengths weight years and decades.
        timescale: As for :meth:`ForcedResponse.evaluate`, which see for what is returned.
        years: The same.
        decade_start: The same.
        subject: Names the response in errors.

    Raises:
        DataContractError: If the predictors lack a year that is needed.
    """
    labels, needed = labels_and_years(predictors, timescale, years, decade_start, subject)
    values = predictors.sel(year=needed).values.astype(float)
    days = month_lengths(needed, calendar).astype(float).reshape(labels.size, -1, 12)
    coords = {"year": ("time", labels)}
    if timescale == "month":
        coords = {
            "year": ("time", np.repeat(labels, 12)),
            "month": ("time", np.tile(np.arange(1, 13), labels.size)),
        }
    data = {}
    for name in map(str, intercept.data_vars):
        used = [i for i, slope in enumerate(slopes) if name in slope]
        a, b = intercept[name].values, np.stack([slopes[i][name].values for i in used])
        field = _months(a, b, values[used]) if timescale == "month" else _means(a, b, values[used], days)
        data[name] = xr.Variable(("time", "lat", "lon"), field, dict(intercept[name].attrs))
    return xr.Dataset(data, coords | {"lat": intercept.lat, "lon": intercept.lon})


def labels_and_years(
    predictor: xr.DataArray, timescale: str, years: Sequence[int] | None, decade_start: int | None, subject: str
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the steps wanted, and all years that they hold, in order.

    Raises:
        DataContractError: If the predictor lacks one of these years.
    """
    have = predictor.year.values.astype(int)
    if years is None:
        first = have[0] if decade_start is None else decade_start
        years = range(first, have[-1] - 8, 10) if timescale == "decade" else have.tolist()
    labels = np.asarray(list(years), dtype=int)
    needed = (labels[:, None] + np.arange(10 if timescale == "decade" else 1)).ravel()
    missing = sorted(set(needed.tolist()) - set(have.tolist()))
    if missing:
        raise DataContractError(
            subject,
            f"no value for {missing[0]}" + (f" and {len(missing) - 1} more years" if missing[1:] else ""),
            f"every year of {needed.min()}-{needed.max()}",
            "extend the forcing file or narrow the period",
        )
    return labels, needed


def _months(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Monthly fields (12 x years, lat, lon) of an intercept (month, lat, lon) and slopes (line, month, lat, lon)."""
    out = np.tensordot(values.T, b, 1)
    out += a
    return np.asarray(out.reshape(-1, *a.shape[1:]))


def _means(a: np.ndarray, b: np.ndarray, values: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Means weighted by ``days`` (label, span, 12) over ``span`` years at a time, without making the months."""
    total = days.sum((1, 2))[:, None]
    weight_b = np.einsum("tsm,its->tim", days, values.reshape(len(values), *days.shape[:2])) / total[..., None]
    return np.asarray(np.tensordot(days.sum(1) / total, a, 1) + np.tensordot(weight_b, b, 2))


def annual_predictor(forcings: xr.Dataset, name: str = PREDICTOR) -> xr.DataArray:
    """Annual means of a scalar forcing, day-weighted: dim ``year``.

    Args:
        forcings: Canonical monthly Dataset (with ``year``, ``days`` along time) holding ``name`` with dim (time).

    Raises:
        DataContractError: If the forcing is absent.
    """
    if name not in forcings:
        raise DataContractError(
            f"forcings of {forcings.attrs.get('experiment_id', 'an unnamed scenario')}",
            f"no {name}, only {sorted(map(str, forcings.data_vars))}",
            f"{name} (time)",
            "add it to the forcing file",
        )
    weighted = (forcings[name] * forcings.days).groupby(forcings.year.compute()).sum()
    return (weighted / forcings.days.groupby(forcings.year.compute()).sum()).rename(name)


def fit_response(
    runs: Mapping[str, xr.Dataset], predictor: Mapping[str, xr.DataArray], variables: Sequence[str]
) -> ForcedResponse:
    """Least squares per cell and calendar month on the annual predictor; every member and year counts the same.

    Args:
        runs: Canonical monthly Dataset with members, by scenario.
        predictor: Annual predictor (dim ``year``), by scenario.
        variables: Fields to fit.

    Raises:
        DataContractError: If there are no runs, calendars differ, or the predictor does not vary.
    """
    if not runs:
        raise DataContractError(
            "forced response", "no training runs", "at least one scenario", "name training scenarios"
        )
    calendars = {str(ds.attrs["calendar"]) for ds in runs.values()}
    if len(calendars) > 1:
        raise DataContractError(
            "forced response", f"calendars {sorted(calendars)}", "one calendar", "fit each source by itself"
        )
    pooled = {e: _covering(predictor[e], np.unique(ds.year.values), e) for e, ds in runs.items()}
    counts = {e: ds.sizes["member"] for e, ds in runs.items()}
    centre = sum(counts[e] * float(p.sum()) for e, p in pooled.items()) / sum(
        counts[e] * p.size for e, p in pooled.items()
    )
    sxx = sum(counts[e] * float(((p - centre) ** 2).sum()) for e, p in pooled.items())
    if not sxx > 0:
        raise DataContractError(
            "forced response", "the predictor is constant", "a predictor that varies", "add scenarios"
        )
    n_years = sum(counts[e] * p.size for e, p in pooled.items())
    slope, intercept = {}, {}
    for name in variables:
        shape = (12, *next(iter(runs.values()))[name].shape[-2:])
        sy, sxy = np.zeros(shape), np.zeros(shape)
        for scenario, ds in runs.items():
            anomaly = pooled[scenario].values - centre
            for member in range(ds.sizes["member"]):
                y = (
                    ds[name]
                    .isel(member=member)
                    .values.astype(np.float64)
                    .reshape(anomaly.size, 12, ds.lat.size, ds.lon.size)
                )
                sy = sy + y.sum(0)
                sxy = sxy + np.tensordot(anomaly, y, 1)
        b = sxy / sxx
        dims, attrs = ("calendar_month", "lat", "lon"), {"units": next(iter(runs.values()))[name].attrs["units"]}
        slope[name] = xr.Variable(dims, b, {"units": f"{attrs['units']} per Gt"})
        intercept[name] = xr.Variable(dims, sy / n_years - b * centre, attrs)
    first = next(iter(runs.values()))
    coords = {"calendar_month": np.arange(1, 13), "lat": first.lat.values, "lon": first.lon.values}
    return ForcedResponse(
        xr.Dataset(intercept, coords), xr.Dataset(slope, coords), calendars.pop(), centre=float(centre)
    )


def _covering(predictor: xr.DataArray, years: np.ndarray, scenario: str) -> xr.DataArray:
    """The predictor over the run's years."""
    missing = sorted(set(years.tolist()) - set(predictor.year.values.tolist()))
    if missing:
        raise DataContractError(
            f"forced response, predictor of {scenario}",
            f"no value for {missing[0]}",
            f"every year of {years[0]}-{years[-1]}",
            "extend the forcing file or narrow the years",
        )
    return predictor.sel(year=years)
