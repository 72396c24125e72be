"""Idealised runs of an Earth system model, which its energy balance is calibrated on: abrupt changes of CO2, and 1 % a year."""

import re
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import co2_forcing

Array = NDArray[np.float64]
PPM_1850 = 284.317
MIN_YEARS = 30
LARGEST_K = 25.0
"""Anomalies of idealised runs stay below; absolute temperatures and millikelvin do not."""


@dataclass(frozen=True)
class IdealisedRun:
    """Annual global means of an idealised run, from the first year of its perturbation.

    Attributes:
        experiment_id: Its name, for messages.
        forcing: ``(year)``, W m-2, of CO2 before the model's own ``co2_scale``.
        tas: ``(year)``, K, anomaly from the control.
        toa: ``(year)``, net downward flux at the top of the atmosphere, W m-2, anomaly from the control; None if not known.
    """

    experiment_id: str
    forcing: Array
    tas: Array
    toa: Array | None = None

    def __post_init__(self) -> None:
        """Refuse runs that are short, ragged or have missing values."""
        subject, size = f"idealised run {self.experiment_id}", self.forcing.size
        for name, values in (("forcing", self.forcing), ("tas", self.tas), ("toa", self.toa)):
            if values is None:
                continue
            if values.shape != (size,):
                raise DataContractError(
                    subject, f"{name} of shape {values.shape}", f"({size},) as the forcing", "give the same years"
                )
            if not np.isfinite(values).all():
                missing = int((~np.isfinite(values)).sum())
                raise DataContractError(
                    subject, f"{missing} missing values in {name}", "none", "cut the run before them"
                )
        if size < MIN_YEARS:
            raise DataContractError(subject, f"{size} years", f"{MIN_YEARS} or more", "give a longer run")


def idealised_forcing(experiment_id: str, years: int) -> Array:
    """Forcing of CO2 in an idealised experiment of CMIP6: ``(year)``, W m-2, before a model's ``co2_scale``.

    Args:
        experiment_id: ``abrupt-4xCO2``, ``abrupt-0p5xCO2`` (or ``0.5x``) and the like, ``1pctCO2``, ``piControl``.
        years: Number of years. In ``1pctCO2`` a year has the concentration of its middle, 1.01 to the power of 0.5, 1.5, ...

    Raises:
        DataContractError: If the experiment is none of them.
    """
    abrupt = re.fullmatch(r"abrupt-(\d+(?:[p.]\d+)?)xCO2", experiment_id)
    factor = float(abrupt[1].replace("p", ".")) if abrupt else float(experiment_id == "piControl")
    if factor > 0:
        return np.full(years, co2_forcing(factor * PPM_1850))
    if experiment_id == "1pctCO2":
        return np.array([co2_forcing(PPM_1850 * 1.01 ** (year + 0.5)) for year in range(years)])
    raise DataContractError(
        f"forcing of {experiment_id}", "not an idealised CO2 experiment", "abrupt-<factor>xCO2, 1pctCO2 or piControl",
        "correct the name, or make an IdealisedRun with its forcing",
    )  # fmt: skip


def idealised_run(experiment_id: str, tas: xr.DataArray, toa: xr.DataArray | None = None) -> IdealisedRun:
    """A run of a named experiment.

    Args:
        experiment_id: See :func:`idealised_forcing`.
        tas: Anomaly from the control ``(year)``, K, consecutive years from the first of the perturbation.
        toa: Anomaly of the net downward flux ``(year)``, the same years, W m-2.

    Raises:
        DataContractError: If the name is unknown, a year is missing, there are missing values, or too few years, the temperature
            is no anomaly in K, or the flux has the wrong sign.
    """
    years = tas["year"].values.astype(int)
    for name, field in (("tas", tas), ("toa", toa)):
        if field is None:
            continue
        have = field["year"].values.astype(int)
        if not np.array_equal(have, years[0] + np.arange(years.size)):
            raise DataContractError(
                f"idealised run {experiment_id}", f"{name} of {have.size} years, {have[0]} to {have[-1]}",
                f"every year once, {years[0]} to {years[0] + years.size - 1}", "fill the gap or cut the run before it",
            )  # fmt: skip
    flux = None if toa is None else toa.values.astype(np.float64)
    run = IdealisedRun(experiment_id, idealised_forcing(experiment_id, years.size), tas.values.astype(np.float64), flux)
    _check_signs(run)
    return run


def _check_signs(run: IdealisedRun) -> None:
    """Absolute temperatures, other units and an upward flux would be fitted without complaint."""
    subject, size = f"idealised run {run.experiment_id}", float(np.abs(run.tas).max())
    if size > LARGEST_K:
        raise DataContractError(
            subject,
            f"tas as large as {size:.4g}",
            f"anomalies from the control within {LARGEST_K:g} K",
            "subtract the control",
        )
    pulls = [] if run.toa is None else [float(run.forcing[:20].mean()), float(run.toa[:20].mean())]
    if pulls and pulls[0] * pulls[1] < 0:
        raise DataContractError(
            subject, f"a mean toa of {pulls[1]:.2f} W m-2 under a forcing of {pulls[0]:.2f}", "the same sign in the first 20 years",
            "give the net flux downward",
        )  # fmt: skip
