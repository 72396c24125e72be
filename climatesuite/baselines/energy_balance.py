"""The energy balance as a reference: six global means on one pattern each, members drawing one of the six."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from climatesuite.baselines.names import ENERGY_BALANCE
from climatesuite.baselines.pattern_scaling import residuals_about, response_on
from climatesuite.baselines.reference import ReferenceEnsemble, Runs, field_names, known
from climatesuite.conventions import TIMESCALES
from climatesuite.forcing.energy_balance import Calibration
from climatesuite.forcing.energy_response import EnergyBalanceResponse, fit_energy_balance_response


@dataclass(frozen=True)
class EnergyBalanceScaling:
    """The forced response to the energy balance's global means with the residuals of the training runs about it.

    Attributes:
        response: Lines on the six global means, common departure, multi-model pattern change.
        residuals: ``{timescale: residual_pool(...)}`` about the mean of the six lines.
        predictor: Global means ``(response, year)`` of the scenario to be predicted.
        draws: Whether members draw one of the six; else all have the mean of the six.
        name: Name of the row.
    """

    response: EnergyBalanceResponse
    residuals: Mapping[str, xr.Dataset]
    predictor: xr.DataArray
    draws: bool = True
    name: str = ENERGY_BALANCE

    @classmethod
    def fit(
        cls, runs: Runs, forcings: Mapping[str, xr.Dataset], target: xr.Dataset,
        variables: Sequence[str] | None = None, decade_start: int | None = None, timescales: Sequence[str] = TIMESCALES,
        patterns: xr.DataArray | None = None, calibration: Calibration | None = None,
    ) -> "EnergyBalanceScaling":  # fmt: skip
        """Fit on training runs of months that hold tas.

        Args:
            runs: Canonical Datasets by training scenario.
            forcings: Forcing components from 1850 on, by training scenario (``energy_balance.ar6_forcing``).
            target: The same of the scenario to be predicted.
            variables: Fields; all if None.
            decade_start: First year of a decade.
            timescales: Which to fit.
            patterns: Multi-model warming patterns (``energy_response.open_patterns``); None for no such term.
            calibration: Of the Earth system model; by default that of the runs' ``source_id``.

        Raises:
            DataContractError: If the model has no calibration, or tas or a forcing is missing.
        """
        names = field_names(runs, variables)
        response = fit_energy_balance_response(runs, forcings, names, patterns=patterns, calibration=calibration)
        lines = response.lines_only()

        def mean(scenario: str, timescale: str, like: xr.Dataset) -> xr.Dataset:
            return response_on(lines, lines.predictor(forcings[scenario]), timescale, like, names)

        residuals = residuals_about(mean, runs, names, decade_start, timescales)
        return cls(response, residuals, response.predictor(target))

    def variant(self, name: str, *, common: float, kappa: float, draws: bool) -> "EnergyBalanceScaling":
        """The same fit with other shares of its optional terms."""
        return replace(self, response=replace(self.response, common=common, kappa=kappa), draws=draws, name=name)

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels of ``like``."""
        pool = known(self.residuals, timescale, self.name)
        names = tuple(map(str, pool.data_vars))
        mean = response_on(self.response, self.predictor, timescale, like, names)
        if not self.draws:
            return ReferenceEnsemble(self.name, mean, pool)
        each = [
            response_on(self.response, self.predictor, timescale, like, names, member=k)
            for k in range(self.response.size)
        ]
        offsets = {
            n: (("response", "time", "lat", "lon"), np.stack([e[n].values - mean[n].values for e in each]))
            for n in names
        }
        return ReferenceEnsemble(self.name, mean, pool, xr.Dataset(offsets))
