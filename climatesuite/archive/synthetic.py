"""The embedded archive: CMOR-like NetCDF of an analytical Earth system, and the true moments of its ensembles.

Real archives are recognised by their ``source_id``; these say SYNTHETIC. See `synthetic_world` for the equations.
"""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm import tqdm

from climatesuite.archive import synthetic_files as files
from climatesuite.archive.synthetic_scenarios import SCENARIO_NAMES, drivers, maps
from climatesuite.archive.synthetic_world import (
    Array,
    SyntheticSpec,
    World,
    area_mean,
    autocorrelation,
    centres,
    draw_noise,
    make_world,
    radiative_forcing,
    warming,
)
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths, time_coords

__all__ = ["SCENARIO_NAMES", "SOURCES", "SyntheticSpec", "member_fields", "spec_of", "true_moments", "write_archive"]
SOURCES = {
    "SYNTHETIC-A": SyntheticSpec("SYNTHETIC-A", "noleap"),
    "SYNTHETIC-B": SyntheticSpec("SYNTHETIC-B", "360_day", feedback=1.25, amplification=1.8, variability=0.8),
    "SYNTHETIC-C": SyntheticSpec("SYNTHETIC-C", "standard", feedback=0.8, amplification=2.6, variability=1.2),
}
SPLIT_YEARS = 30
_UNITS = {"tas": "K", "pr": "kg m-2 s-1"}


def spec_of(source_id: str, grid: tuple[int, int] = (24, 36), seed: int = 0) -> SyntheticSpec:
    """Specification of a synthetic model on a grid.

    Raises:
        DataContractError: If there is no such model.
    """
    if source_id not in SOURCES:
        raise DataContractError(
            f"source {source_id!r}", "not a synthetic model", ", ".join(SOURCES), "choose one of them"
        )
    return replace(SOURCES[source_id], grid=grid, seed=seed)


@lru_cache(maxsize=8)
def _world(spec: SyntheticSpec) -> World:
    return make_world(spec)


def _means(spec: SyntheticSpec, experiment_id: str, years: tuple[int, int]) -> tuple[Array, Array]:
    """True monthly means of tas and pr (month, lat, lon) over some years."""
    world, series = _world(spec), drivers(experiment_id, years)
    level = {name: float(area_mean(m, spec)) for name, m in maps(spec).items()}
    scaled = {**series, **{name: series[name] * level[name] for name in ("SO2", "BC", "AOD")}}
    total, aerosol = radiative_forcing(scaled)
    first = 12 * (years[0] - 1850)
    rise, haze = warming(spec, total)[first:, None, None], aerosol[first:, None, None]
    n_years = years[1] - years[0] + 1
    base, pattern, rain = (np.tile(a, (n_years, 1, 1)) for a in (world.base, world.pattern, world.rain))
    present = warming(spec, total)[12 * (2015 - 1850) : 12 * (2016 - 1850)].mean()
    return base + pattern * (rise - present) + world.aerosol * haze, rain * np.exp(world.rain_change * (rise - present))


def member_fields(spec: SyntheticSpec, experiment_id: str, member: int, years: tuple[int, int]) -> dict[str, Array]:
    """One member's monthly tas (K) and pr (kg m-2 s-1), (month, lat, lon) float64.

    Args:
        spec: The model.
        experiment_id: Scenario.
        member: 1, 2, ...; members differ in their noise only.
        years: First and last year.

    Raises:
        DataContractError: If the scenario is unknown.
    """
    world = _world(spec)
    tas, pr = _means(spec, experiment_id, years)
    n_months = len(tas)
    stream = uuid.uuid5(uuid.NAMESPACE_URL, f"{spec.source_id}/{experiment_id}/{member}/{spec.seed}").int
    n, z = draw_noise(n_months, world, np.random.default_rng(stream))
    deviation, width = np.tile(world.deviation, (n_months // 12, 1, 1)), world.rain_width
    return {"tas": tas + deviation * n, "pr": pr * np.exp(width * z - width**2 / 2)}


def true_moments(
    spec: SyntheticSpec, experiment_id: str, timescale: str, years: tuple[int, int], decade_start: int = 2015
) -> xr.Dataset:
    """Exact mean and standard deviation over members of every period mean.

    tas is Gaussian, pr log-normal: with w the days, m the means and rho the autocorrelation of log pr, the variance of a mean
    is the sum over pairs of months of w w' m m' (exp(b^2 rho) - 1).

    Args:
        spec: The model.
        experiment_id: Scenario.
        timescale: ``decade``, ``year`` or ``month``.
        years: First and last year; decades are those wholly inside, counted from ``decade_start``.
        decade_start: First year of a decade.

    Returns:
        ``tas_mean``, ``tas_std``, ``pr_mean``, ``pr_std`` (time, lat, lon), canonical units, with the coordinates ``year``, and
        ``month`` for months.

    Raises:
        DataContractError: If scenario or timescale are unknown.
    """
    world = _world(spec)
    labels = list(range(years[0], years[1] + 1))
    if timescale == "decade":
        labels = [y for y in labels if (y - decade_start) % 10 == 0 and y + 9 <= years[1]]
    span = {"decade": 120, "year": 12, "month": 1}.get(timescale, 0)
    coords = time_coords(labels, timescale, spec.calendar)
    tas, pr = _means(spec, experiment_id, years)
    days = month_lengths(np.arange(years[0], years[1] + 1), spec.calendar).astype(float).ravel()
    first = 12 * (labels[0] - years[0]) if labels else 0
    n = len(coords["year"])
    keep = slice(first, first + n * span)
    weights = days[keep].reshape(n, span)
    weights = weights / weights.sum(1, keepdims=True)
    shape = (n, span, *spec.grid)
    tas, pr = tas[keep].reshape(shape), pr[keep].reshape(shape)
    deviation = np.tile(world.deviation, (len(days) // 12, 1, 1))[keep].reshape(shape)
    lags = autocorrelation(np.arange(span))
    tas_corr = np.tensordot(lags.T, world.share, 1)
    pr_corr = np.expm1(world.rain_width**2 * np.tensordot(lags.T, world.wet_share, 1))
    w = weights[:, :, None, None]
    out = {
        "tas_mean": ((w * tas).sum(1), "K"),
        "tas_std": (np.sqrt(_variance(w * deviation, tas_corr)), "K"),
        "pr_mean": ((w * pr).sum(1), "kg m-2 s-1"),
        "pr_std": (np.sqrt(_variance(w * pr, pr_corr)), "kg m-2 s-1"),
    }
    lat, lon = centres(spec)
    data = {name: (("time", "lat", "lon"), values, {"units": units}) for name, (values, units) in out.items()}
    return xr.Dataset(data, {**coords, "lat": lat, "lon": lon}, {"source_id": spec.source_id, "timescale": timescale})


def _variance(weighted: Array, correlation: Array) -> Array:
    """Sum over pairs of steps of w[i] w[j] correlation[|i - j|]; (n, step, lat, lon), (lag, lat, lon) -> (n, lat, lon)."""
    total = (weighted**2).sum(1) * correlation[0]
    for lag in range(1, weighted.shape[1]):
        total = total + 2 * (weighted[:, :-lag] * weighted[:, lag:]).sum(1) * correlation[lag]
    return total


def write_archive(
    out: str | Path,
    sources: Sequence[str] = ("SYNTHETIC-A",),
    experiments: Sequence[str] | Mapping[str, int] = ("ssp126", "ssp370", "ssp585"),
    members: int = 3,
    years: tuple[int, int] = (2015, 2099),
    grid: tuple[int, int] = (24, 36),
    seed: int = 0,
    progress: bool = False,
    variables: Sequence[str] = ("tas", "pr"),
) -> list[Path]:
    """Write an archive: ``CMIP6/...`` in the DRS tree, ``forcings/inputs_<experiment_id>.nc`` in ClimateBench's layout.

    Args:
        out: Folder.
        sources: Names of `SOURCES`; they differ in calendar, sensitivity and variability.
        experiments: Scenarios, or members of each.
        members: Members of each scenario where ``experiments`` is a list.
        years: First and last year.
        grid: Rows and columns.
        seed: Of patterns and noise; the same seed writes the same numbers.
        progress: Whether to show a bar on stderr.
        variables: Among tas and pr.

    Returns:
        All files, written whole or not at all.

    Raises:
        DataContractError: If a source, scenario or variable is unknown, or members are below 1.
    """
    counts = dict(experiments) if isinstance(experiments, Mapping) else dict.fromkeys(experiments, members)
    _check_request(counts, years, variables)
    specs = [spec_of(s, grid, seed) for s in sources]
    for name in counts:
        drivers(name, years)
    jobs = [(spec, e, m) for spec in specs for e, n in counts.items() for m in range(1, n + 1)]
    written = [_write_forcings(Path(out), specs[0], e, years) for e in counts]
    for spec, experiment_id, member in tqdm(jobs, desc="writing members", disable=not progress):
        fields = member_fields(spec, experiment_id, member, years)
        for name in variables:
            written += list(_write_member(Path(out), spec, experiment_id, member, name, fields[name], years))
    return written


def _check_request(counts: Mapping[str, int], years: tuple[int, int], variables: Sequence[str]) -> None:
    unknown = [v for v in variables if v not in _UNITS]
    if unknown:
        raise DataContractError("synthetic archive", f"variables {unknown}", ", ".join(_UNITS), "choose among them")
    few = [e for e, n in counts.items() if n < 1]
    if few or not counts:
        raise DataContractError(
            "synthetic archive", f"no members for {few or 'any scenario'}", "at least 1", "raise members"
        )
    if not 1850 < years[0] <= years[1] <= 2100:
        raise DataContractError(
            "synthetic archive", f"years {years[0]}-{years[1]}", "years in 1851-2100", "narrow them"
        )


def _write_member(
    out: Path, spec: SyntheticSpec, experiment_id: str, member: int, name: str, field: Array, years: tuple[int, int]
) -> Iterator[Path]:
    for first in range(years[0], years[1] + 1, SPLIT_YEARS):
        last = min(first + SPLIT_YEARS - 1, years[1])
        part = field[12 * (first - years[0]) : 12 * (last + 1 - years[0])].astype(np.float32)
        yield files.write_field(out, spec, experiment_id, f"r{member}i1p1f1", name, part, (first, last))


def _write_forcings(out: Path, spec: SyntheticSpec, experiment_id: str, years: tuple[int, int]) -> Path:
    series, first = drivers(experiment_id, years), 12 * (years[0] - 1850)
    gridded = {n: series[n][first:, None, None] * m for n, m in maps(spec).items()}
    scalars = {n: series[n][first:] for n in ("CO2", "CH4")}
    path = out / "forcings" / f"inputs_{experiment_id}.nc"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    files.write_forcings(part, spec, experiment_id, scalars, gridded, years)
    part.replace(path)
    return path
