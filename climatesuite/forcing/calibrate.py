"""Calibrate the energy balance of a further Earth system model on its idealised runs, or, where it has none, on scenarios.

The recipe, with idealised runs:

1. Runs: ``abrupt-4xCO2``, and as many of ``1pctCO2``, ``abrupt-2xCO2``, ``abrupt-0.5xCO2`` as there are; one alone says little of
   the curvature. Annual global means from the first year of the perturbation on (year 1 of ``1pctCO2`` is the first that grows).
2. Anomalies: tas (K) and net downward flux at the top of the atmosphere, rsdt - rsut - rlut (W m-2), each minus the mean of
   ``piControl``, or minus its straight line over the same years where the control drifts. The flux separates forcing from
   feedback; without it the prior has to.
3. ``aerosol_2014``: net flux of RFMIP ``piClim-aer`` minus ``piClim-control``, whole runs (30 years), both with 1850's sea
   surface. Where it is not known, leave it out: the table of AR6 stands in, and ``EnergyBalance.fit`` also fits a scale on it.
4. ``calibration_from(source_id, [idealised_run(...), ...], aerosol_2014=...)``, and give the result to ``EnergyBalance.fit`` or
   ``fit_energy_balance_response`` as their ``calibration``.

Without idealised runs: ``calibration_from_scenarios(source_id, {"historical": ..., "ssp126": ...})`` with annual global means of
the historical run and of *training* scenarios, all on one base (absolute, or anomalies from the same years). They determine
the feedback, the deep ocean and the aerosol, not how the upper ocean works; that stays as in a typical CMIP6 model. For
CESM2, the one model tried both ways, idealised runs predict held-out scenarios better (decadal error 0.08 K, not 0.12-0.19 K);
over ten models the historical run helps in 16 of 39 cases only (``python experiments/ten_models.py``): try without it.

Both are penalised least squares on the logarithms of the parameters, with a weak log-normal prior, so that a short record gives
a sane energy balance. The heat uptake of the layers is their flux at the top of the atmosphere (Geoffroy et al. 2013, doi
10.1175/JCLI-D-12-00196.1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import (
    BLOCK_SD_K,
    COMPONENTS,
    LINEAR_BEYOND_K,
    SUBSTEPS,
    Calibration,
    Target,
    ThreeLayer,
    ar6_forcing,
    co2_forcing,
    scenarios,
)
from climatesuite.forcing.idealised import PPM_1850, IdealisedRun

Array = NDArray[np.float64]
Prior = Mapping[str, tuple[float, float]]
"""Median and standard deviation of the logarithm, by parameter."""

LAYERS = (
    "co2_scale", "feedback", "heat_capacity_1", "heat_capacity_2", "heat_capacity_3", "exchange_1", "exchange_2", "efficacy",
)  # fmt: skip
WEAKENING, AEROSOL = "feedback_ratio", "aerosol_scale"
"""Damping beyond 6 K over damping at 0 K (1 is linear, above 0 never runs away); aerosol forcing over the table's."""

CMIP6_TYPICAL: Prior = {
    "co2_scale": (0.92, 0.13),
    "feedback": (1.08, 0.45),
    "heat_capacity_1": (4.1, 0.25),
    "heat_capacity_2": (10.3, 0.45),
    "heat_capacity_3": (89.0, 0.5),
    "exchange_1": (2.4, 0.45),
    "exchange_2": (0.72, 0.4),
    "efficacy": (1.2, 0.5),
    WEAKENING: (1.0, 0.7),
    AEROSOL: (1.0, 0.3),
}
"""Layers: medians and rounded robust spread of 28 CMIP6 models, one run each, abrupt-4xCO2, method of Cummins et al. 2020
(fair-calibrate, data/calibration/4xCO2_cummins.csv, MIT); forcing relative to ``co2_forcing``. Aerosol relative to AR6. The
ratio is a judgement."""

MAX_YEARS = 150
"""Of a run. Years beyond are left out: a long run would outweigh the others, and centuries near balance say little of scenarios."""
TAS_SD_K, TOA_SD = 0.2, 0.4
"""Of a year, its persistence counted in: CESM2's piControl has 0.12 K, like 0.19-0.26 K of independent years, and 0.3-0.5 W m-2."""
AR6_AEROSOL_2014 = -1.115
"""The table's own, W m-2 from 1850."""
LARGEST_LOG = 4.0
STEP_LOG = 1e-5
_LAST_HISTORICAL = 2014


def equilibrium(layers: ThreeLayer, forcing: float) -> float:
    """Warming in balance with a constant positive forcing (W m-2, CO2 scaled), K; infinite if the layers run away below 6 K.

    At 6 K the damping ``l T - c T^2`` goes over into its tangent, as in :meth:`ThreeLayer.weakening`.
    """
    edge, c, damping = LINEAR_BEYOND_K, layers.curvature, layers.feedback
    root = damping**2 - 4 * c * forcing
    inner = 2 * forcing / (damping + np.sqrt(root)) if root >= 0 else np.inf
    if inner <= edge:
        return float(inner)
    slope = damping - 2 * c * edge
    return float((forcing - c * edge**2) / slope) if slope > 0 else float("inf")


def sensitivity(layers: ThreeLayer) -> float:
    """Equilibrium warming for doubled CO2, K."""
    return equilibrium(layers, layers.co2_scale * co2_forcing(2 * PPM_1850))


def calibrate(
    name: str, runs: Sequence[IdealisedRun], *, nonlinear: bool = False, prior: Prior = CMIP6_TYPICAL
) -> ThreeLayer:
    """A three-layer energy balance of idealised runs, all together.

    Args:
        name: Of the parameter set.
        runs: One or more; every year of the first 150 counts, of tas and of the flux where there is one.
        nonlinear: Fit the curvature too; needs runs of different strength.
        prior: By parameter; see ``CMIP6_TYPICAL``.

    Raises:
        DataContractError: If there are no runs, the prior lacks a parameter, or the search does not come to an end.
    """
    if not runs:
        raise DataContractError(
            f"calibration {name}", "no runs", "one or more idealised runs", "give abrupt-4xCO2 at least"
        )
    length = min(max(run.forcing.size for run in runs), MAX_YEARS)
    forcing = _padded([run.forcing for run in runs], length, 0.0)
    tas = _padded([run.tas for run in runs], length)
    toa = _padded([np.full(1, np.nan) if run.toa is None else run.toa for run in runs], length)
    has_tas, has_toa = np.isfinite(tas), np.isfinite(toa)

    def misfit(tries: Sequence[Mapping[str, float]]) -> Array:
        sets = [_layers(name, values) for values in tries]
        scales = np.array([s.co2_scale for s in sets])
        warming, uptake = simulate(sets, scales[:, None, None] * forcing)
        return np.hstack([(warming - tas)[:, has_tas] / TAS_SD_K, (uptake - toa)[:, has_toa] / TOA_SD])

    free = (*LAYERS, WEAKENING) if nonlinear else LAYERS
    source = f"calibrated on {', '.join(run.experiment_id for run in runs)}"
    return replace(_layers(name, _search(name, free, prior, misfit)), source=source)


def calibration_from(
    source_id: str, runs: Sequence[IdealisedRun], *, aerosol_2014: float | None = None, prior: Prior = CMIP6_TYPICAL
) -> Calibration:
    """All that ``EnergyBalance.fit`` needs of a model, from its idealised runs.

    Args:
        source_id: The model.
        runs: Of one or more experiments. One gives a linear set; more also a nonlinear one, and with abrupt-4xCO2 among them
            a linear one of that alone: their difference is the uncertainty of the response.
        aerosol_2014: Aerosol forcing of 2014 relative to 1850, W m-2 (piClim-aer); AR6's if None.
        prior: By parameter.

    Raises:
        DataContractError: As for :func:`calibrate`, or if the aerosol warms.
    """
    sets = [calibrate("linear", runs, prior=prior)]
    if len({run.experiment_id for run in runs}) > 1:
        sets.append(calibrate("nonlinear", runs, nonlinear=True, prior=prior))
        quadrupled = [run for run in runs if run.experiment_id == "abrupt-4xCO2"]
        if quadrupled:
            sets.append(calibrate("abrupt-4xCO2", quadrupled, prior=prior))
    return Calibration(source_id, tuple(sets), _aerosol(source_id, aerosol_2014))


def calibration_from_scenarios(
    source_id: str,
    observed: Mapping[str, xr.DataArray],
    *,
    aerosol_2014: float | None = None,
    prior: Prior = CMIP6_TYPICAL,
) -> Calibration:
    """A calibration without idealised runs: feedback, deep ocean and aerosol from 5-year means under AR6's forcing.

    Args:
        source_id: The model.
        observed: Annual global means ``(year)``, K, consecutive years, by scenario of AR6's table, and ``historical``; on one
            base, which is fitted. Training scenarios only.
        aerosol_2014: As for :func:`calibration_from`; fitted (in the linear set, kept in the nonlinear one) if None.
        prior: By parameter. What is not fitted keeps its median.

    Raises:
        DataContractError: If there is no scenario, a forcing is not in the table, or a series is too short, has gaps or missing
            values.
    """
    if not observed:
        raise DataContractError(f"calibration of {source_id}", "no scenarios", "one or more", "name training scenarios")
    targets = [_target(source_id, scenario, series) for scenario, series in observed.items()]
    length = max(t.parts["co2"].size for t in targets)
    parts = {n: _padded([t.parts[n] for t in targets], length, 0.0) for n in COMPONENTS}
    blocks = np.concatenate([t.blocks for t in targets])

    def misfit(tries: Sequence[Mapping[str, float]]) -> Array:
        sets = [_layers("scenarios", values) for values in tries]
        as_is = parts["other"] + parts["natural"]
        total = [as_is + v["co2_scale"] * parts["co2"] + v[AEROSOL] * parts["aerosol"] for v in tries]
        warming = simulate(sets, np.stack(total))[0]
        departure = [np.concatenate([t.cut(w) for t, w in zip(targets, of, strict=True)]) - blocks for of in warming]
        return np.stack([(d - d.mean()) / BLOCK_SD_K for d in departure])

    fixed = dict(prior)
    if aerosol_2014 is not None:
        fixed[AEROSOL] = (_aerosol(source_id, aerosol_2014) / AR6_AEROSOL_2014, 1.0)
    sets: list[ThreeLayer] = []
    for name, extra in (("linear", ()), ("nonlinear", (WEAKENING,))):
        aerosol = () if aerosol_2014 is not None or sets else (AEROSOL,)
        free = ("feedback", "heat_capacity_3", "exchange_2", *extra, *aerosol)
        values = _search(f"{source_id} {name}", free, fixed, misfit)
        fixed[AEROSOL] = (values[AEROSOL], 1.0)
        sets.append(replace(_layers(name, values), source=f"calibrated on {', '.join(observed)}"))
    return Calibration(source_id, tuple(sets), fixed[AEROSOL][0] * AR6_AEROSOL_2014)


def simulate(sets: Sequence[ThreeLayer], forcing: Array) -> tuple[Array, Array]:
    """Many parameter sets at once: what :meth:`ThreeLayer.warming` gives for each, and the heat uptake.

    Args:
        sets: The parameter sets.
        forcing: ``(set, run, year)``, W m-2, constant within a year, CO2 already scaled.

    Returns:
        Annual means of T1 in K, and of the flux at the top of the atmosphere in W m-2: ``(set, run, year)`` each.
    """
    curvature = np.array([s.curvature for s in sets])[:, None]
    substeps = SUBSTEPS if curvature.any() else 1  # a step is exact for linear layers, whatever its length
    unit = replace(sets[0], curvature=1.0)
    flow = np.stack([np.vstack(s.step(1.0 / substeps)) for s in sets])
    capacity = np.array([s.heat_capacity for s in sets])[:, None, :]
    state = np.zeros((len(sets), 4, forcing.shape[1]))  # T1, T2, T3 and the flux into the surface
    warming, content = np.empty_like(forcing), np.zeros((*forcing.shape[:2], forcing.shape[2] + 1))
    for year in range(forcing.shape[2]):
        total: Array = np.zeros(forcing.shape[:2])
        for _ in range(substeps):
            state[:, 3] = forcing[:, :, year]
            if substeps > 1:
                state[:, 3] += curvature * unit.weakening(state[:, 0])
            state = flow @ state
            total = total + state[:, 3]
        warming[:, :, year] = total / substeps
        content[:, :, year + 1] = (capacity @ state[:, :3])[:, 0]
    return warming, np.diff(content, axis=2)


def _layers(name: str, values: Mapping[str, float]) -> ThreeLayer:
    co2_scale, feedback, c1, c2, c3, k1, k2, efficacy = (values[n] for n in LAYERS)
    curvature = feedback * (1 - values[WEAKENING]) / (2 * LINEAR_BEYOND_K)
    return ThreeLayer(name, co2_scale, feedback, curvature, (c1, c2, c3), (k1, k2), efficacy, "")


def _search(
    subject: str, free: Sequence[str], prior: Prior, misfit: Callable[[Sequence[Mapping[str, float]]], Array]
) -> dict[str, float]:
    """Penalised least squares over the free parameters; the others at the median, the feedback ratio at 1.

    Args:
        subject: For messages.
        free: Names of parameters.
        prior: Of all parameters.
        misfit: Of many parameter sets at once: ``(set, datum)`` in standard deviations.
    """
    wanted = [n for n in CMIP6_TYPICAL if n not in prior]
    if wanted:
        lacks = f"a prior without {', '.join(wanted)}"
        raise DataContractError(f"calibration {subject}", lacks, "all of CMIP6_TYPICAL", "change a copy of it")
    fixed = {n: median for n, (median, _) in prior.items()} | ({} if WEAKENING in free else {WEAKENING: 1.0})
    medians, sds = np.array([prior[n] for n in free]).T

    def values(log: Array) -> dict[str, float]:
        return fixed | dict(zip(free, (medians * np.exp(log)).tolist(), strict=True))

    def residuals(log: Array) -> Array:
        return np.concatenate([misfit([values(log)])[0], log / sds])

    def jacobian(log: Array) -> Array:
        moved = misfit([values(log), *(values(log + step) for step in STEP_LOG * np.eye(log.size))])
        return np.vstack([(moved[1:] - moved[0]).T / STEP_LOG, np.diag(1 / sds)])

    found = least_squares(residuals, np.zeros(len(free)), jacobian, bounds=(-LARGEST_LOG, LARGEST_LOG), x_scale="jac")
    if not found.success:
        reason = f"no end of the search ({found.message})"
        raise DataContractError(f"calibration {subject}", reason, "a minimum", "check the units of the runs")
    return values(found.x)


def _target(source_id: str, scenario: str, series: xr.DataArray) -> Target:
    """The 5-year means of a scenario beside AR6's forcing, the aerosol as in the table."""
    own = Calibration(source_id, (), AR6_AEROSOL_2014)
    if scenario == "historical":  # the same in every scenario
        forcing = ar6_forcing(scenarios()[0], own).sel(year=slice(None, _LAST_HISTORICAL))
    else:
        forcing = ar6_forcing(scenario, own)
    if not np.isfinite(series.values).all():
        raise DataContractError(
            f"calibration of {source_id}, {scenario}", "missing values", "finite K", "cut the series"
        )
    return Target.of(scenario, series, {scenario: forcing})


def _aerosol(source_id: str, aerosol_2014: float | None) -> float:
    if aerosol_2014 is not None and not aerosol_2014 < 0:
        raise DataContractError(
            f"calibration of {source_id}", f"aerosol_2014 {aerosol_2014:g}", "a negative forcing, W m-2",
            "take piClim-aer minus piClim-control, or leave it out",
        )  # fmt: skip
    return AR6_AEROSOL_2014 if aerosol_2014 is None else float(aerosol_2014)


def _padded(series: Sequence[Array], length: int, fill: float = np.nan) -> Array:
    """Rows of one length, cut or filled."""
    return np.stack([np.pad(x[:length], (0, max(length - x.size, 0)), constant_values=fill) for x in series])
