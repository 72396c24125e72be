"""Global mean temperature from radiative forcing: three-layer energy balances and two free numbers fitted to the runs.

An Earth system model's global mean is ``offset + gain x T1``; T1 is the surface layer of an energy balance that runs from
1850 under effective radiative forcing by component. The layers were calibrated on the model's idealised runs, so what a
scenario does is physics, not extrapolation of a line. Three parameter sets, each fitted with the aerosol forcing as it is and
with a scale on it, make six global means: no single one is safe, and their spread is the uncertainty of the response.

    C1 dT1/dt = F - l T1 + q(T1) - k1 (T1 - T2)
    C2 dT2/dt =                    k1 (T1 - T2) - e k2 (T2 - T3)
    C3 dT3/dt =                                     k2 (T2 - T3)

with q(T) = c T |T|, continued by its tangent beyond 6 K: the square alone runs away (for CESM2 above 7.6 K).

Sources: Cummins et al. 2020 (doi 10.1175/JCLI-D-19-0589.1) for the form, with the efficacy e of Geoffroy et al. 2013
(doi 10.1175/JCLI-D-12-00196.1); Meinshausen et al. 2020 (doi 10.5194/gmd-13-3571-2020) for the forcing of CO2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from climatesuite.errors import DataContractError

Array = NDArray[np.float64]
FIRST_YEAR = 1850
COMPONENTS = ("co2", "other", "aerosol", "natural")
"""Variables ``(year)`` of a forcing Dataset, W m-2: anomalies from 1850; natural from its mean of 1850-2014."""
TABLE = "data/ar6_erf_ssp_annual_1850-2100.csv"
_COLUMNS = {
    "co2": ("co2",),
    "other": ("ch4", "n2o", "other_wmghg", "o3", "h2o_stratospheric", "contrails", "bc_on_snow", "land_use"),
    "aerosol": ("aerosol-radiation_interactions", "aerosol-cloud_interactions"),
    "natural": ("volcanic", "solar"),
}
_AEROSOL_YEAR, _NATURAL_YEARS = 2014, slice(1850, 2014)

LINEAR_BEYOND_K = 6.0
SUBSTEPS = 2
"""A year's steps. Exact for linear layers; the quadratic term is held within a step."""

GAIN_SD, AEROSOL_SD = 0.1, 0.3
"""Prior standard deviations of the two scales about 1."""
BLOCK_YEARS = 5
BLOCK_SD_K = float(np.hypot(0.12 * np.sqrt(2 / 15), 0.05))
"""Of a 5-year mean of three members: 0.12 K a year, doubled in variance for persistence, and 0.05 K of the balance itself."""


def co2_forcing(ppm: float, ppm_1850: float = 284.317, n2o_ppb: float = 273.0) -> float:
    """Effective radiative forcing of CO2 in W m-2 relative to ``ppm_1850``: Meinshausen et al. 2020, table 3, times 1.05."""
    a, b, c, d = -2.4785e-7, 7.5906e-4, -2.1492e-3, 5.2488
    above = min(ppm - ppm_1850, -b / (2 * a))  # the coefficient saturates where the parabola has its top
    coefficient = d + (a * above**2 + b * above if above > 0 else 0.0) + c * np.sqrt(n2o_ppb)
    return float(1.05 * coefficient * np.log(ppm / ppm_1850))


@dataclass(frozen=True)
class ThreeLayer:
    """A three-layer energy balance.

    Attributes:
        name: Short name of the parameter set.
        co2_scale: Factor on the forcing of CO2.
        feedback: l, W m-2 K-1.
        curvature: c, W m-2 K-2; positive weakens the damping with warming.
        heat_capacity: C1, C2, C3, W year m-2 K-1.
        exchange: k1, k2, W m-2 K-1.
        efficacy: e of the deep ocean's heat uptake.
        source: Where the numbers come from.
    """

    name: str
    co2_scale: float
    feedback: float
    curvature: float
    heat_capacity: tuple[float, float, float]
    exchange: tuple[float, float]
    efficacy: float
    source: str

    def rates(self) -> Array:
        """The linear part: dT/dt = rates . T + (F + q) / C1 in the first row; ``(3, 3)``, per year."""
        k1, k2 = self.exchange
        flux = np.array(
            [
                [-self.feedback - k1, k1, 0.0],
                [k1, -k1 - self.efficacy * k2, self.efficacy * k2],
                [0.0, k2, -k2],
            ]
        )
        return flux / np.array(self.heat_capacity)[:, None]

    def weakening(self, warming: Array) -> Array:
        """q(T) in W m-2: c T |T|, its tangent beyond 6 K."""
        size = np.abs(warming)
        inner = np.minimum(size, LINEAR_BEYOND_K)
        return self.curvature * np.sign(warming) * inner * (2 * size - inner)

    def warming(self, forcing: Array, substeps: int = SUBSTEPS) -> Array:
        """Annual means of T1 in K from rest.

        Args:
            forcing: ``(..., year)``, W m-2, constant within a year, CO2 already scaled.
            substeps: Steps a year.

        Returns:
            ``(..., year)``.
        """
        series = np.asarray(forcing, dtype=np.float64).reshape(-1, forcing.shape[-1])
        end, mean = self.step(1.0 / substeps)
        layers, out = np.zeros((3, series.shape[0])), np.empty_like(series)
        for year in range(series.shape[1]):
            total: Array = np.zeros(series.shape[0])
            for _ in range(substeps):
                known = np.vstack([layers, series[:, year] + self.weakening(layers[0])])
                total, layers = total + mean @ known, end @ known
            out[:, year] = total / substeps
        return out.reshape(forcing.shape)

    def step(self, years: float) -> tuple[Array, Array]:
        """What turns (T1, T2, T3, forcing) into the layers at the end of a step ``(3, 4)`` and T1's mean over it ``(4,)``."""
        system = np.zeros((5, 5))  # three layers, the constant forcing, the integral of T1
        system[:3, :3] = self.rates()
        system[0, 3] = 1.0 / self.heat_capacity[0]
        system[4, 0] = 1.0
        flow = expm(system * years)
        return flow[:3, :4], flow[4, :4] / years


@dataclass(frozen=True)
class Calibration:
    """What is known of one Earth system model.

    Attributes:
        source_id: The model.
        sets: Its energy balances.
        aerosol_2014: Its own aerosol forcing of 2014 relative to 1850, W m-2; the table's aerosol is scaled to it.
    """

    source_id: str
    sets: tuple[ThreeLayer, ...]
    aerosol_2014: float


_REFITTED = "refitted on CESM2 abrupt-0.5xCO2, -2xCO2, -4xCO2 and 1pctCO2 together (CMIP6 via fair-calibrate)"
CESM2 = Calibration(
    "CESM2",
    (
        ThreeLayer(
            "cummins", 8.17523495 / co2_forcing(4 * 284.317), 0.649446, 0.0, (4.830726, 6.397822, 71.294465),
            (3.876041, 0.900810), 1.678582, "published calibration on CESM2 abrupt-4xCO2, method of Cummins et al. 2020",
        ),
        ThreeLayer(
            "linear", 1.05, 0.744213, 0.0, (4.437539, 7.133951, 75.08828), (4.034240, 0.952282), 1.729845, _REFITTED
        ),
        ThreeLayer(
            "nonlinear", 1.05, 1.677325, 0.109779, (3.945649, 5.500218, 78.893267), (3.005582, 0.808403), 0.781415, _REFITTED
        ),
    ),
    aerosol_2014=-1.37,  # RFMIP piClim-aer
)  # fmt: skip
CALIBRATIONS = {c.source_id: c for c in (CESM2,)}


def calibration_of(source_id: str) -> Calibration:
    """The calibration of an Earth system model.

    Raises:
        DataContractError: If there is none.
    """
    if source_id not in CALIBRATIONS:
        raise DataContractError(
            f"energy balance of {source_id}",
            "no calibration",
            f"one of {', '.join(CALIBRATIONS)}",
            "add its parameter sets to energy_balance.CALIBRATIONS or use CO2 pattern scaling",
        )
    return CALIBRATIONS[source_id]


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    with files("climatesuite.forcing").joinpath(TABLE).open("r") as source:
        return pd.read_csv(source)


def scenarios() -> tuple[str, ...]:
    """Scenarios with a forcing table."""
    return tuple(sorted(set(_table()["scenario"])))


def ar6_forcing(scenario: str, calibration: Calibration) -> xr.Dataset:
    """Effective radiative forcing of a scenario by component, the aerosol as strong as the Earth system model's own.

    Args:
        scenario: One of :func:`scenarios`.
        calibration: Of the Earth system model.

    Returns:
        ``COMPONENTS`` with dim ``year`` (1850-2100), W m-2; the attribute ``experiment_id`` names the scenario.

    Raises:
        DataContractError: If the scenario is not in the table.
    """
    if scenario not in scenarios():
        raise DataContractError(
            f"forcing of {scenario}",
            "not in the table of AR6",
            f"one of {', '.join(scenarios())}",
            "name one of them, or give the components of a custom scenario",
        )
    rows = _table()[_table()["scenario"] == scenario].set_index("year")
    sums = {name: rows[list(columns)].sum(axis=1) for name, columns in _COLUMNS.items()}
    parts = {name: total - total.loc[FIRST_YEAR] for name, total in sums.items()}
    parts["aerosol"] *= calibration.aerosol_2014 / parts["aerosol"].loc[_AEROSOL_YEAR]
    parts["natural"] -= parts["natural"].loc[_NATURAL_YEARS].mean()
    fields = {n: ("year", v.to_numpy(np.float64), {"units": "W m-2"}) for n, v in parts.items()}
    attrs = {"experiment_id": scenario, "source": "IPCC AR6 WG1 chapter 7 (IPCC-WG1/Chapter-7, MIT)"}
    return xr.Dataset(fields, {"year": rows.index.to_numpy(np.int64)}, attrs)


def _components(forcing: xr.Dataset) -> dict[str, Array]:
    """The components as arrays ``(year)``, once they are whole and begin in 1850."""
    subject = f"forcing of {forcing.attrs.get('experiment_id', 'an unnamed scenario')}"
    absent = [name for name in COMPONENTS if name not in forcing]
    if absent:
        raise DataContractError(
            subject, f"no {', '.join(absent)}", f"{', '.join(COMPONENTS)} (year), W m-2", "add them, zero if there is none"
        )  # fmt: skip
    years = forcing["year"].values
    if not np.array_equal(years, np.arange(FIRST_YEAR, FIRST_YEAR + years.size)):
        raise DataContractError(
            subject, f"years {years[0]} to {years[-1]}, {years.size} of them", f"every year from {FIRST_YEAR}",
            "put the historical forcing before the scenario's: the ocean remembers it",
        )  # fmt: skip
    parts = {name: np.asarray(forcing[name].values, dtype=np.float64) for name in COMPONENTS}
    if not all(np.isfinite(part).all() for part in parts.values()):
        raise DataContractError(subject, "missing values", "finite W m-2", "fill them")
    return parts


@dataclass(frozen=True)
class GlobalMean:
    """One global mean: ``offset + gain x T1(forcing)`` with the aerosol forcing times ``aerosol_scale``; offset in K."""

    layers: ThreeLayer
    offset: float
    gain: float = 1.0
    aerosol_scale: float = 1.0

    def evaluate(self, forcing: xr.Dataset) -> xr.DataArray:
        """Annual global means in K, dim ``year``, of a forcing Dataset from 1850 (see ``COMPONENTS``)."""
        warming = _warmings(self.layers, [_components(forcing)], self.aerosol_scale)[0]
        return xr.DataArray(self.offset + self.gain * warming, {"year": forcing["year"].values}, ("year",))


def _warmings(layers: ThreeLayer, parts: list[dict[str, Array]], aerosol_scale: float) -> list[Array]:
    """T1 of several scenarios, ``(year)`` each."""
    length = max(p["co2"].size for p in parts)
    total = np.zeros((len(parts), length))
    for row, p in zip(total, parts, strict=True):
        row[: p["co2"].size] = layers.co2_scale * p["co2"] + p["other"] + aerosol_scale * p["aerosol"] + p["natural"]
    return [t[: p["co2"].size] for t, p in zip(layers.warming(total), parts, strict=True)]


@dataclass(frozen=True)
class EnergyBalance:
    """The fitted global means of one Earth system model, six for three parameter sets.

    Attributes:
        members: The global means.
    """

    members: tuple[GlobalMean, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every global mean, in order."""
        return tuple(f"{m.layers.name}{'' if m.aerosol_scale == 1.0 else ', aerosol fitted'}" for m in self.members)

    def evaluate(self, forcing: xr.Dataset) -> xr.DataArray:
        """All global means of a scenario.

        Args:
            forcing: ``COMPONENTS`` with dim ``year`` from 1850, W m-2: :func:`ar6_forcing`, or one of your own.

        Returns:
            ``(response, year)``, K; keeps the attributes ``experiment_id`` and ``parent_experiment_id``.

        Raises:
            DataContractError: If a component is absent or has gaps, or the years do not begin in 1850.
        """
        values = np.stack([m.evaluate(forcing).values for m in self.members])
        coords = {"response": list(self.names), "year": forcing["year"].values}
        kept = ("experiment_id", "parent_experiment_id")
        attrs = {"units": "K", **{k: v for k, v in forcing.attrs.items() if k in kept}}
        return xr.DataArray(values, coords, ("response", "year"), "global_mean", attrs)

    @classmethod
    def fit(
        cls, observed: Mapping[str, xr.DataArray], forcings: Mapping[str, xr.Dataset], calibration: Calibration
    ) -> "EnergyBalance":
        """Fit offset and gain, and offset, gain and aerosol scale, of every parameter set on 5-year means.

        Args:
            observed: Annual global means of the training scenarios ``(year)``, consecutive years, K; mean over members.
            forcings: Their forcing from 1850 on.
            calibration: Of the Earth system model.

        Raises:
            DataContractError: If there is no scenario, one has fewer than five years, or the forcing does not cover it.
        """
        if not observed:
            raise DataContractError("energy balance", "no training scenarios", "one or more", "name training scenarios")
        targets = [Target.of(name, series, forcings) for name, series in observed.items()]
        members = []
        for layers in calibration.sets:
            for has_aerosol in (False, True):
                members.append(_fit_one(layers, targets, has_aerosol))
        return cls(tuple(members))


@dataclass(frozen=True)
class Target:
    """A training scenario: 5-year means of its global mean, where they lie in the forcing, and the forcing."""

    blocks: Array
    first: int
    parts: dict[str, Array]

    @classmethod
    def of(cls, scenario: str, series: xr.DataArray, forcings: Mapping[str, xr.Dataset]) -> "Target":
        years, subject = series["year"].values.astype(int), f"energy balance, {scenario}"
        if scenario not in forcings:
            raise DataContractError(subject, "no forcing", "its components from 1850", "give it with the others")
        size = years.size // BLOCK_YEARS * BLOCK_YEARS
        if size == 0 or not np.array_equal(years, np.arange(years[0], years[0] + years.size)):
            raise DataContractError(
                subject, f"{years.size} years", "five or more consecutive years", "give longer training runs"
            )
        end = int(forcings[scenario]["year"].values[-1])
        if years[0] < FIRST_YEAR or years[-1] > end:
            raise DataContractError(
                subject, f"years {years[0]}-{years[-1]}", f"within {FIRST_YEAR}-{end}, the years of its forcing",
                "narrow the years or extend the forcing",
            )  # fmt: skip
        values = np.asarray(series.values, dtype=np.float64)[:size]
        return cls(_block_means(values), int(years[0]) - FIRST_YEAR, _components(forcings[scenario]))

    def cut(self, warming: Array) -> Array:
        """5-year means of a series from 1850 on."""
        return _block_means(warming[self.first : self.first + BLOCK_YEARS * self.blocks.size])


def _block_means(values: Array) -> Array:
    return values.reshape(-1, BLOCK_YEARS).mean(axis=1)


def _fit_one(layers: ThreeLayer, targets: list[Target], has_aerosol: bool) -> GlobalMean:
    """Penalised least squares: offset and gain are linear given the aerosol scale, which is searched where it is free."""
    observed = np.concatenate([t.blocks for t in targets])

    def line(aerosol_scale: float) -> tuple[float, float, float]:
        warming = _warmings(layers, [t.parts for t in targets], aerosol_scale)
        x = np.concatenate([t.cut(w) for t, w in zip(targets, warming, strict=True)])
        dx, dy = x - x.mean(), observed - observed.mean()
        weight = (BLOCK_SD_K / GAIN_SD) ** 2  # of the prior: gain 1 +- GAIN_SD
        gain = (dx @ dy + weight) / (dx @ dx + weight)
        misfit = ((dy - gain * dx) ** 2).sum() / BLOCK_SD_K**2 + ((gain - 1) / GAIN_SD) ** 2
        return float(observed.mean() - gain * x.mean()), float(gain), float(misfit)

    scale = 1.0
    if has_aerosol:
        found = minimize_scalar(
            lambda s: line(s)[2] + ((s - 1) / AEROSOL_SD) ** 2, bounds=(0.0, 2.5), method="bounded", options={"xatol": 1e-4}
        )  # fmt: skip
        scale = float(found.x)
    offset, gain, _ = line(scale)
    return GlobalMean(layers, offset, gain, scale)
