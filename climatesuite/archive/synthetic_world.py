"""An analytical Earth system: forcings -> energy balance -> patterns + noise with a covariance known in closed form.

    tas(t, x) = base(month, x) + pattern(month, x) T(t) + aerosol(x) F_aer(t) + deviation(month, x) n(t, x)
    pr(t, x)  = rain(month, x) exp(change(x) T(t)) exp(b(x) z(t, x) - b(x)^2 / 2)

T solves the two-layer energy balance of Geoffroy et al. (2013, doi:10.1175/JCLI-D-12-00195.1). n and z are unit-variance
Gaussian fields: a fast and a slow AR(1) part on smooth patterns and a damped oscillation on a tropical Pacific pattern, so
every moment of a period mean follows from the three autocorrelations. Nothing here reads a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.signal import lfilter

from climatesuite.conventions import SECONDS_PER_DAY

Array = NDArray[np.float64]
FIRST_YEAR = 1850  # the energy balance starts here, at rest
FAST, SLOW = 0.5, 0.985  # monthly AR(1) coefficients
WAVE_DAMPING, WAVE_MONTHS = 0.965, 44.0  # of the oscillation, like El Nino's
N_PATTERNS = 24
LAST_YEAR = 2100  # scenarios end here
PREINDUSTRIAL_PPM = 278.0
AIRBORNE = (0.07, 2.3e-6)  # ppm per Gt CO2, and its growth per Gt: sinks weaken as emissions add up


@dataclass(frozen=True)
class SyntheticSpec:
    """One synthetic Earth system model.

    Attributes:
        source_id: Says synthetic.
        calendar: Of its files.
        grid: Rows and columns.
        feedback: W m-2 K-1.
        uptake: Heat exchange with the deep layer, W m-2 K-1.
        amplification: Of Arctic warming over the global mean's.
        variability: Factor on all of tas' internal variability.
        seed: Of patterns and noise.
    """

    source_id: str = "SYNTHETIC-A"
    calendar: str = "noleap"
    grid: tuple[int, int] = (24, 36)
    feedback: float = 0.8
    uptake: float = 0.7
    amplification: float = 2.2
    variability: float = 1.0
    seed: int = 0


def edges(spec: SyntheticSpec) -> tuple[Array, Array]:
    """Latitude and longitude cell edges, degrees."""
    return np.linspace(-90, 90, spec.grid[0] + 1), np.linspace(0, 360, spec.grid[1] + 1)


def centres(spec: SyntheticSpec) -> tuple[Array, Array]:
    """Latitude and longitude of cell centres, degrees."""
    lat, lon = edges(spec)
    return (lat[1:] + lat[:-1]) / 2, (lon[1:] + lon[:-1]) / 2


def area_mean(field: Array, spec: SyntheticSpec) -> Array:
    """Area-weighted mean over the last two axes (lat, lon)."""
    rows = np.diff(np.sin(np.deg2rad(edges(spec)[0])))
    return field.mean(-1) @ (rows / rows.sum())


def land(spec: SyntheticSpec) -> Array:
    """Smooth land fraction of invented continents (lat, lon), 0 to 1."""
    lat, lon = (np.deg2rad(a) for a in centres(spec))
    lat, lon = lat[:, None], lon[None, :]
    shape = np.cos(lon - 0.4) * np.cos(lat) + 0.8 * np.cos(2 * lon + 0.6) * np.cos(lat) + 1.1 * np.sin(lat) - 0.2
    antarctica = 1 / (1 + np.exp((lat + np.deg2rad(72)) * 30))
    return np.clip(1 / (1 + np.exp(-5 * shape)) * (lat > np.deg2rad(-60)) + antarctica, 0, 1)


@dataclass(frozen=True)
class World:
    """All fixed fields of a specification; (lat, lon), or (12, lat, lon) where they change with the season.

    Attributes:
        base: tas without warming, K.
        pattern: Local warming per kelvin of the energy balance.
        aerosol: Local warming per W m-2 of aerosol forcing, on top.
        deviation: Standard deviation of monthly tas, K.
        rain: Precipitation without warming, kg m-2 s-1.
        rain_change: Change of log precipitation per kelvin.
        rain_width: b, the width of log precipitation.
        fast: Patterns of the fast and slow noise of tas (pattern, lat, lon); squares sum to 1 in every cell.
        wet: The same of precipitation.
        wave: Tropical Pacific pattern, at most 1.
        share: Variance shares of (fast, slow, wave) in tas, (3, lat, lon).
        wet_share: The same in log precipitation.
    """

    base: Array
    pattern: Array
    aerosol: Array
    deviation: Array
    rain: Array
    rain_change: Array
    rain_width: Array
    fast: Array
    wet: Array
    wave: Array
    share: Array
    wet_share: Array


def make_world(spec: SyntheticSpec) -> World:
    """The fixed fields of a specification."""
    lat_deg, lon_deg = centres(spec)
    lat, lon, dry = np.deg2rad(lat_deg)[:, None], np.deg2rad(lon_deg)[None, :], land(spec)
    winter = np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None] * np.sign(np.sin(lat))  # +1 in January of the north
    polar = np.abs(np.sin(lat)) ** 3
    north = polar * (lat > 0)
    base = 303 - 45 * np.sin(lat) ** 2 - 8 * north - 4 * dry * polar - winter * np.abs(np.sin(lat)) * (4 + 14 * dry)
    amplify = 1 + (spec.amplification - 1) * 1.3 * north + 0.3 * polar
    pattern = amplify * (1 + 0.5 * dry) * (1 + 0.35 * winter * polar)
    pattern = pattern / area_mean(pattern.mean(0), spec)
    east = np.exp(-((lat - 0.55) ** 2) / 0.08 - 3 * (1 - np.cos(lon - 1.8)))
    aerosol = 0.5 * (east - area_mean(east, spec))
    wave = np.exp(-(lat**2) / 0.02 - 4 * (1 - np.cos(lon - np.deg2rad(215))))
    deviation = spec.variability * (0.55 + 0.5 * dry + 1.3 * polar + 0.5 * wave) * (1 + 0.4 * winter * polar)
    tropics, storm_tracks = np.exp(-(((lat - 0.08) / 0.17) ** 2)), np.exp(-(((np.abs(lat) - 0.75) / 0.25) ** 2))
    rain_day = 1.5 + 6.5 * tropics + 1.6 * storm_tracks
    rain = rain_day * (1 - 0.35 * dry) * (1 - 0.25 * winter * np.exp(-((lat / 0.5) ** 2))) / SECONDS_PER_DAY
    rain_change = 0.03 + 0.12 * polar - 0.12 * np.exp(-(((np.abs(lat) - 0.5) / 0.2) ** 2)) + 0 * lon
    width = 0.2 + 0.25 * np.exp(-(((np.abs(lat) - 0.45) / 0.25) ** 2)) + 0 * lon
    waves, slow = 0.5 * wave**2, np.full(spec.grid, 0.06)
    wet_wave = 0.4 * wave**2
    return World(
        base + np.zeros((12, 1, 1)), pattern + np.zeros((12, *spec.grid)), aerosol, deviation + np.zeros((12, *spec.grid)),
        rain + np.zeros((12, *spec.grid)), rain_change, width, _patterns(spec, 0), _patterns(spec, 1), wave,
        np.stack([1 - slow - waves, slow, waves]), np.stack([0.98 - wet_wave, np.full(spec.grid, 0.02), wet_wave]),
    )  # fmt: skip


def _patterns(spec: SyntheticSpec, stream: int) -> Array:
    """Smooth random patterns (pattern, lat, lon), normalised so that their squares sum to 1 in every cell."""
    rng = np.random.default_rng([spec.seed, stream, 77])
    lat, lon = (np.deg2rad(a) for a in centres(spec))
    out = np.zeros((N_PATTERNS, *spec.grid))
    for wave in range(7):
        for half in range(1, 7):
            size = np.exp(-((wave**2 + half**2) / 30))
            a, b = rng.standard_normal((2, N_PATTERNS, 1, 1)) * size
            rows = (
                np.cos(half * (lat + np.pi / 2) + rng.uniform(0, np.pi))[:, None]
                * (np.cos(lat) ** min(wave, 1))[:, None]
            )
            out += rows * (a * np.cos(wave * lon) + b * np.sin(wave * lon))
    return out / np.sqrt((out**2).sum(0))


def warming(spec: SyntheticSpec, forcing: Array) -> Array:
    """Surface temperature (month) of the two-layer energy balance, from rest; forcing (month), W m-2, constant over a month."""
    surface, deep, month = 8.2, 109.0, 1 / 12  # W year m-2 K-1
    system = np.array(
        [[-(spec.feedback + spec.uptake) / surface, spec.uptake / surface], [spec.uptake / deep, -spec.uptake / deep]]
    )
    step = expm(system * month)
    push = np.linalg.solve(system, (step - np.eye(2)) @ np.array([1 / surface, 0.0]))
    state, out = np.zeros(2), np.empty(len(forcing))
    for i, f in enumerate(forcing):
        state = step @ state + push * f
        out[i] = state[0]
    return out


def radiative_forcing(drivers: Mapping[str, Array]) -> tuple[Array, Array]:
    """Total and aerosol forcing (month), W m-2, from CO2 (cumulative Gt), CH4 (Gt per year), mean SO2, BC (kg m-2 s-1), AOD.

    CO2 follows Myhre et al. (1998, doi:10.1029/98GL01908), from a concentration that is a monotone function of the emissions.
    """
    excess = drivers["CO2"] * (AIRBORNE[0] + AIRBORNE[1] * drivers["CO2"])
    carbon = 5.35 * np.log1p(excess / PREINDUSTRIAL_PPM)
    methane = 0.55 * drivers["CH4"] / 0.37
    aerosol = -0.9 * drivers["SO2"] / 6e-12 + 0.25 * drivers["BC"] / 5e-13
    return carbon + methane + aerosol - 20 * drivers["AOD"], aerosol


def autocorrelation(lags: NDArray[np.int64]) -> Array:
    """Autocorrelations (3, lag) of the fast, slow and wave parts at lags in months."""
    k = np.abs(lags).astype(float)
    return np.stack([FAST**k, SLOW**k, WAVE_DAMPING**k * np.cos(2 * np.pi * k / WAVE_MONTHS)])


def draw_noise(n_months: int, world: World, rng: np.random.Generator) -> tuple[Array, Array]:
    """One member's unit-variance noise n of tas and z of log precipitation, (month, lat, lon)."""
    wave = _oscillation(n_months, rng)
    parts = []
    for patterns, share in ((world.fast, world.share), (world.wet, world.wet_share)):
        fast, slow = (np.tensordot(_red(n_months, c, rng), patterns, 1) for c in (FAST, SLOW))
        parts.append(np.sqrt(share[0]) * fast + np.sqrt(share[1]) * slow + np.sqrt(share[2]) * wave[:, None, None])
    return parts[0], parts[1]


def _red(n: int, coefficient: float, rng: np.random.Generator) -> Array:
    """Stationary AR(1) series of unit variance (month, pattern)."""
    shocks = rng.standard_normal((n, N_PATTERNS)) * np.sqrt(1 - coefficient**2)
    shocks[0] /= np.sqrt(1 - coefficient**2)
    return lfilter([1.0], [1.0, -coefficient], shocks, axis=0)


def _oscillation(n: int, rng: np.random.Generator) -> Array:
    """Real part of a rotating complex AR(1), unit variance (month)."""
    shocks = (rng.standard_normal(n) + 1j * rng.standard_normal(n)) * np.sqrt(1 - WAVE_DAMPING**2)
    shocks[0] /= np.sqrt(1 - WAVE_DAMPING**2)
    return lfilter([1.0], [1.0, -WAVE_DAMPING * np.exp(2j * np.pi / WAVE_MONTHS)], shocks).real
