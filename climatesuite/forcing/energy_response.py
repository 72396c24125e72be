"""The forced response to the global means of an energy balance: which member of it draws which global mean, on which pattern.

For each global mean G_k (six for three parameter sets) one line per cell and calendar month, by least squares as for CO2
(:mod:`climatesuite.forcing.response`, which also owns all averaging over time). Two optional terms, one number each:

- ``common``: what all training scenarios did beside the mean of the six, a cubic in time per cell and calendar month, times
  this number. Held at its ends outside the training years.
- ``kappa``: how other models' warming pattern differs between the scenario and the training scenarios, per kelvin of global
  warming since 2015-2024, times this number. The multi-model mean holds each model itself with the weight of one in thirty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import Calibration, EnergyBalance, calibration_of
from climatesuite.forcing.response import (
    ForcedResponse,
    annual_predictor,
    evaluate_lines,
    fit_response,
    labels_and_years,
)
from climatesuite.harmonise.grids import cos_weights, regrid

Array = NDArray[np.float64]
GLOBAL_MEAN_OF = "tas"
BASE_YEARS = (2015, 2024)
POWERS = 4
"""Of the common departure: 1, t, t^2, t^3."""


@dataclass(frozen=True)
class CommonDeparture:
    """What the training scenarios have in common beside the mean response: a polynomial in time.

    Attributes:
        terms: A line for each power of t; t runs from -1 to 1 over ``years``.
        years: First and last training year; t is held at -1 before and at 1 after.
    """

    terms: tuple[ForcedResponse, ...]
    years: tuple[int, int]

    def powers(self, years: NDArray[np.int64]) -> Array:
        """Powers of t, ``(power, year)``."""
        return _powers(years, self.years)


@dataclass(frozen=True)
class PatternChange:
    """How the warming pattern of other models differs between scenarios.

    Attributes:
        patterns: ``(experiment_id, calendar_month, lat, lon)`` K K-1 on the grid of the runs; see :func:`open_patterns`.
        training: Mean of the training scenarios' patterns ``(calendar_month, lat, lon)``, each with its share in the variance
            of the global mean: what a least-squares pattern of these scenarios shows.
    """

    patterns: xr.DataArray
    training: xr.DataArray

    def scenario_of(self, predictor: xr.DataArray) -> str | None:
        """The predictor's scenario or else the one it departs from, whichever the other models ran; None if neither."""
        known = self.patterns["experiment_id"].values.tolist()
        named = (predictor.attrs.get(n) for n in ("experiment_id", "parent_experiment_id"))
        return next((str(n) for n in named if n in known), None)

    def of(self, scenario: str) -> xr.DataArray:
        """Pattern of a scenario minus that of the training scenarios, K K-1.

        Raises:
            DataContractError: If the other models did not run the scenario.
        """
        _check_patterns(self.patterns, [scenario])
        return self.patterns.sel(experiment_id=scenario, drop=True) - self.training


@dataclass(frozen=True)
class EnergyBalanceResponse:
    """field(year, month) = intercept_k[month] + slope_k[month] x G_k(year) + common x departure + kappa x pattern change.

    Attributes:
        balance: The fitted global means.
        calibration: Of the Earth system model; its own aerosol is what a scenario's forcing is made with.
        lines: One line per cell and calendar month for each of them.
        departure: The common departure, in full.
        pattern_change: Other models' patterns, or None.
        common: Share of the departure that is used; 0 for none.
        kappa: Share of the pattern change that is used; 0 for none.
    """

    balance: EnergyBalance
    calibration: Calibration
    lines: tuple[ForcedResponse, ...]
    departure: CommonDeparture
    pattern_change: PatternChange | None = None
    common: float = 0.5
    kappa: float = 1.0

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return self.lines[0].variables

    @property
    def calendar(self) -> str:
        """CF calendar whose month lengths weight years and decades."""
        return self.lines[0].calendar

    @property
    def size(self) -> int:
        """Number of global means, hence of different responses."""
        return len(self.lines)

    def lines_only(self) -> "EnergyBalanceResponse":
        """The response without its optional terms: what residuals of training runs are taken about.

        The departure follows the training runs, so residuals about it would be too small for any other run.
        """
        return replace(self, common=0.0, kappa=0.0)

    def predictor(self, forcing: xr.Dataset, years: Sequence[int] | None = None) -> xr.DataArray:
        """The global means of a scenario from its forcing: ``(response, year)``, K; see ``EnergyBalance.evaluate``.

        Args:
            forcing: Components from 1850 on.
            years: Keep only these. What the pattern change counts warming from is then kept as coordinate ``base (response)``.

        Raises:
            DataContractError: If the forcing breaks its contract, or does not cover the years.
        """
        whole = self.balance.evaluate(forcing)
        if years is None:
            return whole
        last = int(whole["year"].values[-1])
        if min(years) < whole["year"].values[0] or max(years) > last:
            raise DataContractError(
                f"forcing of {forcing.attrs.get('experiment_id', 'an unnamed scenario')}", f"years to {last}",
                f"every year of {min(years)}-{max(years)}", "extend it or narrow the years",
            )  # fmt: skip
        kept = whole.sel(year=list(years))
        if last < BASE_YEARS[1]:
            return kept
        return kept.assign_coords(base=("response", whole.sel(year=slice(*BASE_YEARS)).mean("year").values))

    def evaluate(
        self,
        predictor: xr.DataArray,
        timescale: str,
        years: Sequence[int] | None = None,
        decade_start: int | None = None,
        member: int | None = None,
        pattern_of: str | None = None,
    ) -> xr.Dataset:
        """The response as fields.

        Args:
            predictor: Global means ``(response, year)`` of :meth:`predictor`.
            timescale: ``month``, ``year`` or ``decade``.
            years: As for :meth:`ForcedResponse.evaluate`; without it all that the predictor covers (from 1850).
            decade_start: The same.
            member: The global mean to use is ``member`` modulo their number; their mean response if None.
            pattern_of: Scenario whose multi-model pattern is taken; by default the predictor's ``experiment_id``, or its
                ``parent_experiment_id`` where the other models did not run that.

        Returns:
            Dataset of the fields, dims (time, lat, lon), float64, canonical units, with ``year`` (and ``month``) along time.

        Raises:
            DataContractError: If the predictor has another number of global means or lacks a year that is needed, or if
                other models have no pattern of the scenario.
        """
        self._check(predictor)
        labels_and_years(predictor, timescale, years, decade_start, "energy-balance response")
        chosen = list(range(self.size)) if member is None else [member % self.size]
        share, all_years = 1.0 / len(chosen), predictor["year"].values.astype(int)
        slopes = [self.lines[k].slope for k in chosen]
        values = [share * predictor.values[chosen]]
        if self.common:
            slopes += [term.slope for term in self.departure.terms]
            values.append(self.common * self.departure.powers(all_years))
        if self.kappa and self.pattern_change is not None and GLOBAL_MEAN_OF in self.variables:
            mean = predictor.isel(response=chosen)
            known = self.pattern_change.scenario_of(predictor)
            slopes.append(self._changed_pattern(pattern_of or known or predictor.attrs.get("experiment_id")))
            values.append(self.kappa * (mean.values.mean(0, keepdims=True) - _base_level(mean)))
        predictors = xr.DataArray(np.concatenate(values), {"year": all_years}, ("line", "year"))
        intercept = _sum([self.lines[k].intercept for k in chosen], share)
        return evaluate_lines(
            intercept, slopes, predictors, self.calendar, timescale, years, decade_start, "energy-balance response"
        )

    def _changed_pattern(self, scenario: str | None) -> xr.Dataset:
        if self.pattern_change is None or scenario is None:
            raise DataContractError(
                "energy-balance response", "a predictor without experiment_id", "a scenario with a pattern",
                "say pattern_of, the SSP that is closest, or set kappa to 0",
            )  # fmt: skip
        return xr.Dataset({GLOBAL_MEAN_OF: self.pattern_change.of(scenario)})

    def _check(self, predictor: xr.DataArray) -> None:
        if predictor.dims != ("response", "year") or predictor.sizes["response"] != self.size:
            raise DataContractError(
                "energy-balance response", f"a predictor {dict(predictor.sizes)}", f"{self.size} global means (response, year)",
                "make it with EnergyBalanceResponse.predictor",
            )  # fmt: skip


def fit_energy_balance_response(
    runs: Mapping[str, xr.Dataset],
    forcings: Mapping[str, xr.Dataset],
    variables: Sequence[str],
    *,
    patterns: xr.DataArray | None = None,
    common: float = 0.5,
    kappa: float = 1.0,
    calibration: Calibration | None = None,
) -> EnergyBalanceResponse:
    """Fit global means, lines and common departure on training runs; every member and year counts the same in the lines.

    Args:
        runs: Canonical monthly Dataset with members, by scenario; ``tas`` is needed for the global mean.
        forcings: Forcing components from 1850 on, by scenario (``energy_balance.ar6_forcing``).
        variables: Fields to fit.
        patterns: Multi-model warming patterns of :func:`open_patterns`, on the grid of the runs; None for no such term.
        common: Share of the training scenarios' common departure.
        kappa: Share of the multi-model pattern change.
        calibration: Of the Earth system model; by default that of the runs' ``source_id``.

    Raises:
        DataContractError: If there are no runs or no calibration, forcing or tas is missing, or calendars differ.
    """
    if not runs:
        raise DataContractError("energy-balance response", "no training runs", "one or more", "name training scenarios")
    source = calibration or calibration_of(str(next(iter(runs.values())).attrs.get("source_id", "an unnamed model")))
    balance = EnergyBalance.fit({s: annual_global_mean(ds) for s, ds in runs.items()}, forcings, source)
    predictors = {s: balance.evaluate(forcings[s]) for s in runs}
    lines = []
    for k in range(len(balance.members)):
        lines.append(fit_response(runs, {s: p.isel(response=k) for s, p in predictors.items()}, variables))
    departure = _common_departure(runs, predictors, lines)
    change = None
    if patterns is not None:
        shares = _variance_shares(runs, predictors)
        _check_patterns(patterns, shares)
        training = sum(share * patterns.sel(experiment_id=s, drop=True) for s, share in shares.items())
        change = PatternChange(patterns, xr.DataArray(training))
    return EnergyBalanceResponse(balance, source, tuple(lines), departure, change, common, kappa)


def annual_global_mean(ds: xr.Dataset) -> xr.DataArray:
    """Area mean of tas, mean over members, day-weighted years: ``(year)``, K.

    Args:
        ds: Canonical monthly Dataset.

    Raises:
        DataContractError: If tas is absent.
    """
    if GLOBAL_MEAN_OF not in ds:
        raise DataContractError(
            f"energy balance, {ds.attrs.get('experiment_id', 'an unnamed scenario')}",
            f"no {GLOBAL_MEAN_OF}",
            "near-surface air temperature, from which the global mean is made",
            "read it beside the other fields",
        )
    rows = ds[GLOBAL_MEAN_OF].mean("lon", dtype=np.float64).mean("member")
    monthly = rows.weighted(cos_weights(ds["lat"])).mean("lat")
    return annual_predictor(ds[["days"]].assign(global_mean=monthly), "global_mean")


def open_patterns(path: str | Path, like: xr.Dataset) -> xr.DataArray:
    """Multi-model mean warming patterns, on the grid of the runs.

    Args:
        path: NetCDF with ``pattern (experiment_id, month, lat, lon)``, K K-1: local warming per kelvin of global warming.
        like: Dataset with the grid wanted.

    Returns:
        ``(experiment_id, calendar_month, lat, lon)``, float64, conservatively regridded.

    Raises:
        DataContractError: If the file has no such variable.
    """
    with xr.open_dataset(path) as ds:
        if "pattern" not in ds or set(ds["pattern"].dims) != {"experiment_id", "month", "lat", "lon"}:
            raise DataContractError(
                str(path), f"variables {sorted(map(str, ds.data_vars))}", "pattern (experiment_id, month, lat, lon)",
                "name the file of multi-model warming patterns",
            )  # fmt: skip
        field = ds["pattern"].transpose("experiment_id", "month", "lat", "lon").astype(np.float64).load()
    out = regrid(field.rename(month="calendar_month"), like)
    return out.assign_coords(lat=like["lat"].values, lon=like["lon"].values)


def _check_patterns(patterns: xr.DataArray, wanted: Sequence[str] | Mapping[str, float]) -> None:
    known = [str(s) for s in patterns["experiment_id"].values]
    absent = [s for s in wanted if s not in known]
    if absent:
        raise DataContractError(
            "multi-model warming patterns", f"no pattern of {', '.join(absent)}", f"one of {', '.join(known)}",
            "say pattern_of, the SSP that is closest, or set kappa to 0 and fit without patterns",
        )  # fmt: skip


def _base_level(mean: xr.DataArray) -> float:
    if "base" in mean.coords:
        return float(mean["base"].mean())
    first, last = BASE_YEARS
    base = mean.sel(year=slice(first, last))
    if base.sizes["year"] != last - first + 1:
        raise DataContractError(
            "energy-balance response", f"{base.sizes['year']} years of {first}-{last} in the predictor", "all ten",
            "give global means from 1850 on",
        )  # fmt: skip
    return float(base.mean())


def _variance_shares(runs: Mapping[str, xr.Dataset], predictors: Mapping[str, xr.DataArray]) -> dict[str, float]:
    """Share of each training scenario in sum (G - mean G)^2, G the mean of the global means; they add up to 1."""
    series = {s: predictors[s].mean("response").sel(year=np.unique(ds["year"].values)).values for s, ds in runs.items()}
    counts = {s: ds.sizes["member"] for s, ds in runs.items()}
    centre = sum(counts[s] * x.sum() for s, x in series.items()) / sum(counts[s] * x.size for s, x in series.items())
    squares = {s: counts[s] * float(((x - centre) ** 2).sum()) for s, x in series.items()}
    return {s: value / sum(squares.values()) for s, value in squares.items()}


def _common_departure(
    runs: Mapping[str, xr.Dataset], predictors: Mapping[str, xr.DataArray], lines: Sequence[ForcedResponse]
) -> CommonDeparture:
    """Cubic in time, by least squares per cell and calendar month, through what the runs are beside the mean of the lines.

    Every scenario counts the same, however many members it has: what is sought is common to scenarios, not to members.
    """
    labels = {s: np.unique(ds["year"].values).astype(np.int64) for s, ds in runs.items()}
    span = min(int(y[0]) for y in labels.values()), max(int(y[-1]) for y in labels.values())
    powers = {s: _powers(y, span) for s, y in labels.items()}
    gram = np.sum([x @ x.T for x in powers.values()], axis=0)
    inverse = np.linalg.pinv(gram)
    coefficients: dict[str, Array] = {}
    for name in lines[0].variables:
        moment: Array | float = 0.0
        for s, ds in runs.items():
            mean = np.mean([line.intercept[name].values for line in lines], axis=0)
            slopes = np.stack([line.slope[name].values for line in lines])
            levels = predictors[s].sel(year=labels[s]).values
            shape = (labels[s].size, *mean.shape)
            fitted = mean + np.tensordot(levels.T, slopes, 1) / len(lines)
            departure = ds[name].mean("member", dtype=np.float64).values.reshape(shape) - fitted
            moment = moment + np.tensordot(powers[s], departure, 1)
        coefficients[name] = np.tensordot(inverse, moment, 1)
    return CommonDeparture(tuple(_term(lines[0], coefficients, p) for p in range(POWERS)), span)


def _term(line: ForcedResponse, coefficients: Mapping[str, Array], power: int) -> ForcedResponse:
    slope = line.intercept.copy(data={n: c[power] for n, c in coefficients.items()})
    return ForcedResponse(xr.zeros_like(slope), slope, line.calendar, f"t^{power}")


def _powers(years: NDArray[np.int64], span: tuple[int, int]) -> Array:
    first, last = span
    t = (2.0 * np.clip(years, first, last) - first - last) / max(last - first, 1)
    return t ** np.arange(POWERS)[:, None]


def _sum(parts: Sequence[xr.Dataset], factor: float = 1.0) -> xr.Dataset:
    """Sum of Datasets on the same labels, times a factor; attributes of the first."""
    return parts[0].copy(data={n: factor * sum(p[n].values for p in parts) for n in map(str, parts[0].data_vars)})
