"""All baselines by name, fitted on the same training runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from climatesuite.baselines.ar1 import AutoregressiveScaling
from climatesuite.baselines.climatology import Climatology, first_decade
from climatesuite.baselines.energy_balance import EnergyBalanceScaling
from climatesuite.baselines.pattern_scaling import PatternScaling
from climatesuite.baselines.reference import Baseline, Drawn, Runs, field_names
from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import CALIBRATIONS, Calibration, ar6_forcing, calibration_of, scenarios
from climatesuite.forcing.energy_response import GLOBAL_MEAN_OF


@dataclass(frozen=True)
class Case:
    """What a baseline is fitted on, and which scenario it is to predict.

    Attributes:
        runs: Canonical Datasets of months by training scenario (years, for baselines without a forced response).
        scenario: experiment_id to be predicted.
        predictors: Annual-mean cumulative CO2 ``(year)`` by scenario, training and predicted; None if unknown.
        variables: Fields; all if None.
        decade_start: First year of a decade; the runs' first year if None.
        timescales: Which to fit.
        patterns: Multi-model warming patterns for the energy balance; None for no such term.
        calibration: Energy balance of the Earth system model (``forcing.calibrate``); by default the one that is shipped.
        forcing: Forcing components of the scenario to be predicted (``forcing.custom``); by default those of AR6's table.
    """

    runs: Runs
    scenario: str
    predictors: Mapping[str, xr.DataArray] | None = None
    variables: Sequence[str] | None = None
    decade_start: int | None = None
    timescales: Sequence[str] = TIMESCALES
    patterns: xr.DataArray | None = None
    calibration: Calibration | None = None
    forcing: xr.Dataset | None = None

    def co2(self) -> Mapping[str, xr.DataArray]:
        """The predictors.

        Raises:
            DataContractError: If there are none.
        """
        if self.predictors is None:
            raise DataContractError(
                f"baseline for {self.scenario}", "no forcings", "cumulative CO2 of training and predicted scenario",
                "give --forcings, the folder of inputs_<experiment_id>.nc",
            )  # fmt: skip
        return self.predictors

    def has_balance(self) -> bool:
        """Whether the energy balance can be fitted: calibration, forcing tables, months of tas."""
        first = next(iter(self.runs.values()))
        known = {*self.runs, *([] if self.forcing is not None else [self.scenario])} <= set(scenarios())
        calibrated = self.calibration is not None or first.attrs.get("source_id") in CALIBRATIONS
        return calibrated and known and GLOBAL_MEAN_OF in first and "month" in first.coords


def _climatology(case: Case) -> Climatology:
    return Climatology.fit(case.runs, case.variables, case.decade_start, case.timescales)


def _first_decade(case: Case) -> Climatology:
    return first_decade(case.runs, case.variables, case.decade_start, case.timescales)


def _pattern_scaling(case: Case) -> PatternScaling:
    co2 = case.co2()
    return PatternScaling.fit(case.runs, co2, co2[case.scenario], case.variables, case.decade_start, case.timescales)


def _ar1(case: Case) -> AutoregressiveScaling:
    return AutoregressiveScaling(_pattern_scaling(case))


def _energy_balance(case: Case) -> EnergyBalanceScaling:
    source_id = str(next(iter(case.runs.values())).attrs.get("source_id", "an unnamed model"))
    source = case.calibration or calibration_of(source_id)
    forcings = {s: ar6_forcing(s, source) for s in case.runs}
    target = ar6_forcing(case.scenario, source) if case.forcing is None else case.forcing
    return EnergyBalanceScaling.fit(
        case.runs, forcings, target, case.variables, case.decade_start, case.timescales, case.patterns, source
    )  # fmt: skip


def _mesmer(case: Case) -> Drawn:
    from climatesuite.baselines.mesmer import Mesmer

    co2 = case.co2()
    return Mesmer.fit(case.runs, co2, co2[case.scenario], field_names(case.runs, case.variables))


BASELINES: dict[str, Callable[[Case], Baseline | Drawn]] = {
    "climatology": _climatology,
    "first-decade": _first_decade,
    "pattern-scaling": _pattern_scaling,
    "ar1": _ar1,
    "energy-balance": _energy_balance,
    "mesmer": _mesmer,
}
"""Every baseline by the name that the command line uses."""


def fit_baseline(name: str, case: Case) -> Baseline | Drawn:
    """One baseline.

    Raises:
        DataContractError: If the name is unknown, or the case lacks what it needs.
    """
    if name not in BASELINES:
        raise DataContractError("baseline", repr(name), f"one of {', '.join(BASELINES)}", "correct the name")
    return BASELINES[name](case)


def exact_baselines(case: Case) -> list[Baseline]:
    """All baselines that are scored by exact expectation and that the case allows, weakest first."""
    out: list[Baseline] = [_climatology(case)]
    if sum(ds.sizes["member"] for ds in case.runs.values()) > 1:
        out.append(_first_decade(case))
    if case.predictors is not None:
        out.append(_pattern_scaling(case))
    if case.has_balance():
        out.append(_energy_balance(case))
    return out
