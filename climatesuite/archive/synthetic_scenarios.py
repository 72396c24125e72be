"""Invented scenarios with the names and roughly the numbers of the SSPs: monthly drivers of the synthetic Earth system."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from climatesuite.archive.synthetic_world import FIRST_YEAR, LAST_YEAR, SyntheticSpec, area_mean, centres
from climatesuite.errors import DataContractError

Array = NDArray[np.float64]
Rules = Mapping[str, Callable[[Array], Array]]
PRESENT = 2015


def _ramp(*points: tuple[float, float]) -> Callable[[Array], Array]:
    return lambda year: np.interp(year, [p[0] for p in points], [p[1] for p in points])


PATHWAYS: Mapping[str, Rules] = {
    "ssp126": {
        "emissions": _ramp((2015, 40), (2020, 40), (2075, 0), (2100, -9)),
        "CH4": _ramp((2015, 0.37), (2060, 0.18), (2100, 0.12)),
        "SO2": _ramp((2015, 1.0), (2050, 0.3), (2100, 0.12)),
        "BC": _ramp((2015, 1.0), (2050, 0.35), (2100, 0.22)),
        "AOD": _ramp((2015, 0.0)),
    },
    "ssp245": {
        "emissions": _ramp((2015, 40), (2045, 44), (2100, 10)),
        "CH4": _ramp((2015, 0.37), (2050, 0.37), (2100, 0.29)),
        "SO2": _ramp((2015, 1.0), (2060, 0.55), (2100, 0.3)),
        "BC": _ramp((2015, 1.0), (2060, 0.6), (2100, 0.4)),
        "AOD": _ramp((2015, 0.0)),
    },
    "ssp370": {
        "emissions": _ramp((2015, 40), (2050, 60), (2100, 83)),
        "CH4": _ramp((2015, 0.37), (2050, 0.58), (2100, 0.75)),
        "SO2": _ramp((2015, 1.0), (2050, 0.95), (2100, 0.75)),
        "BC": _ramp((2015, 1.0), (2050, 1.05), (2100, 0.85)),
        "AOD": _ramp((2015, 0.0)),
    },
    "ssp585": {
        "emissions": _ramp((2015, 40), (2050, 85), (2080, 128), (2100, 126)),
        "CH4": _ramp((2015, 0.37), (2050, 0.56), (2100, 0.4)),
        "SO2": _ramp((2015, 1.0), (2050, 0.5), (2100, 0.25)),
        "BC": _ramp((2015, 1.0), (2050, 0.6), (2100, 0.35)),
        "AOD": _ramp((2015, 0.0)),
    },
}
SCENARIOS: Mapping[str, Rules] = {
    **PATHWAYS,
    "ssp585-sai": {**PATHWAYS["ssp585"], "AOD": _ramp((2035, 0.0), (2100, 0.22))},  # injection from 2035
}
"""From 2015 on: emissions (Gt CO2 per year), CH4 (Gt per year), SO2 and BC (factors of 2015), AOD (global mean), by year."""
SCENARIO_NAMES = tuple(SCENARIOS)


def _rules(experiment_id: str) -> Rules:
    if experiment_id not in SCENARIOS:
        raise DataContractError(
            f"scenario {experiment_id!r}",
            "not one that the synthetic archive knows",
            ", ".join(SCENARIO_NAMES),
            "choose one of them",
        )
    return SCENARIOS[experiment_id]


def maps(spec: SyntheticSpec) -> dict[str, Array]:
    """Shape of each gridded forcing (lat, lon): SO2 and BC kg m-2 s-1 of the present, AOD of unit global mean."""
    lat, lon = (np.deg2rad(a) for a in centres(spec))
    lat, lon = lat[:, None], lon[None, :]
    hot = sum(
        size * np.exp(-((lat - north) ** 2) / 0.02 - 12 * (1 - np.cos(lon - east)))
        for size, north, east in ((1.0, 0.55, 1.95), (0.8, 0.42, 1.35), (0.5, 0.85, 0.2), (0.5, 0.66, 4.9))
    )
    veil = np.cos(lat) ** 0.5 + 0 * lon
    shapes = {"SO2": (hot, 6e-12), "BC": (hot * (lat < 0.75) + 0.02 * hot, 5e-13), "AOD": (veil, 1.0)}
    return {name: shape / area_mean(shape, spec) * size for name, (shape, size) in shapes.items()}


def drivers(experiment_id: str, years: tuple[int, int]) -> dict[str, Array]:
    """Monthly drivers from 1850 to the last year: CO2 (cumulative Gt), CH4 (Gt per year), factors of SO2, BC, and mean AOD.

    Args:
        experiment_id: Scenario.
        years: First and last year that are asked for.

    Returns:
        Series (month) by name, and ``year`` (month), fractional.

    Raises:
        DataContractError: If the scenario is unknown or years lie outside what scenarios cover.
    """
    rules = _rules(experiment_id)
    if not FIRST_YEAR < years[0] <= years[1] <= LAST_YEAR:
        raise DataContractError(
            f"synthetic {experiment_id}",
            f"years {years[0]}-{years[1]}",
            f"years in {FIRST_YEAR + 1}-{LAST_YEAR}, the first one first",
            "correct the years",
        )
    year = FIRST_YEAR + (np.arange(12 * (years[1] - FIRST_YEAR + 1)) + 0.5) / 12
    past = year < PRESENT
    grown = np.where(past, np.exp((year - PRESENT) / 42.0), 0.0)  # emissions of the past, as a share of today's
    emitted = np.where(past, 36.6 * grown, rules["emissions"](year))
    series = {"year": year, "CO2": np.cumsum(emitted) / 12, "CH4": np.where(past, 0.37 * grown, rules["CH4"](year))}
    for name in ("SO2", "BC"):
        series[name] = np.where(past, grown, rules[name](year))
    series["AOD"] = np.where(past, 0.0, rules["AOD"](year))
    return series
