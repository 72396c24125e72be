"""Pattern scaling on cumulative CO2: the reference that every emulator has to beat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.baselines.names import PATTERN_SCALING
from climatesuite.baselines.reference import (
    ReferenceEnsemble,
    Runs,
    coarse_runs,
    field_names,
    known,
    on_steps,
    residual_pool,
)
from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.forcing.response import ForcedResponse, Response, fit_response


@dataclass(frozen=True)
class PatternScaling:
    """The forced response to annual-mean cumulative CO2 with the residuals of the training runs about it.

    Attributes:
        response: Least squares per cell and calendar month; its years and decades are days-weighted means of its months.
        residuals: ``{timescale: residual_pool(...)}``.
        predictor: Annual predictor ``(year)`` of the scenario to be predicted.
    """

    response: ForcedResponse
    residuals: Mapping[str, xr.Dataset]
    predictor: xr.DataArray
    name: str = PATTERN_SCALING

    @classmethod
    def fit(
        cls, runs: Runs, predictors: Mapping[str, xr.DataArray], target: xr.DataArray,
        variables: Sequence[str] | None = None, decade_start: int | None = None, timescales: Sequence[str] = TIMESCALES,
    ) -> "PatternScaling":  # fmt: skip
        """Fit on training runs of months; ``predictors`` by scenario, ``target`` of the test scenario, all ``(year)``."""
        names = field_names(runs, variables)
        response = fit_response(runs, predictors, names)

        def mean(scenario: str, timescale: str, like: xr.Dataset) -> xr.Dataset:
            return response_on(response, predictors[scenario], timescale, like, names)

        return cls(response, residuals_about(mean, runs, names, decade_start, timescales), target)

    def ensemble(self, timescale: str, like: xr.Dataset) -> ReferenceEnsemble:
        """Its ensemble on the labels of ``like``, driven by ``predictor``."""
        pool = known(self.residuals, timescale, self.name)
        names = tuple(map(str, pool.data_vars))
        mean = response_on(self.response, self.predictor, timescale, like, names)
        return ReferenceEnsemble(self.name, mean, pool)


def residuals_about(
    mean: Callable[[str, str, xr.Dataset], xr.Dataset], runs: Runs, names: Sequence[str], decade_start: int | None,
    timescales: Sequence[str],
) -> dict[str, xr.Dataset]:  # fmt: skip
    """Residual pools by timescale about ``mean(scenario, timescale, run)``."""
    pools = {}
    for t, coarse in coarse_runs(runs, decade_start, timescales).items():
        pools[t] = residual_pool(coarse, {s: mean(s, t, ds) for s, ds in coarse.items()}, names)
    return pools


def response_on(
    response: Response,
    predictor: xr.DataArray,
    timescale: str,
    like: xr.Dataset,
    names: Sequence[str],
    **options: Any,
) -> xr.Dataset:
    """The response on exactly the labels of ``like``; ForcedResponse raises where the predictor does not reach."""
    wanted = np.unique(np.asarray(like["year"].values, dtype=np.int64))
    out = response.evaluate(predictor, timescale, years=wanted.tolist(), **options)
    if timescale == "month":
        out = out.isel(time=np.isin(protocol.labels(out), protocol.labels(like)))
    if not np.array_equal(protocol.labels(out), protocol.labels(like)):
        raise DataContractError(
            "forced response", "other time labels than the run", "the run's labels", "use sorted, whole months"
        )
    fields = {n: np.asarray(out[n].transpose("time", "lat", "lon").values, dtype=np.float64) for n in names}
    return on_steps(fields, like, {n: like[n].attrs if n in like else out[n].attrs for n in names})
