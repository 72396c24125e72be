"""The embedded archive: CMOR-like NetCDF of an analytical Earth system, and the true moments of its ensembles.

Real archives are recognised by their ``source_id``; these say SYNTHETIC. See `synthetic_world` for the equations.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm import tqdm

from climatesuite.archive import synthetic_files as files
from climatesuite.archive.synthetic_scenarios import PRESENT, SCENARIO_NAMES, SCENARIOS, drivers, maps
from climatesuite.archive.synthetic_world import (
    FIRST_YEAR,
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
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths, time_coords

__all__ = [
    "SCENARIOS",
    "SCENARIO_NAMES",
    "SOURCES",
    "SyntheticSpec",
    "member_fields",
    "spec_of",
    "true_moments",
    "write_archive",
]
SOURCES = {
    "SYNTHETIC-A": SyntheticSpec("SYNTHETIC-A", "noleap"),
    "SYNTHETIC-B": SyntheticSpec("SYNTHETIC-B", "360_day", feedback=1.1, amplification=1.8, variability=0.8),
    "SYNTHETIC-C": SyntheticSpec("SYNTHETIC-C", "standard", feedback=0.68, amplification=2.6, variability=1.2),
}
SPLIT_YEARS = 30
FIELDS = ("tas", "pr")


def spec_of(source_id: str, grid: tuple[int, int] = (24, 36), seed: int = 0) -> SyntheticSpec:
    """Specification of a synthetic model on a grid.

    Args:
        source_id: One of `SOURCES`.
        grid: Rows and columns.
        seed: Of patterns and noise.

    Raises:
        DataContractError: If there is no such model, or the grid has less than two rows or columns.
    """
    if source_id not in SOURCES:
        raise DataContractError(
            f"source {source_id!r}", "not a synthetic model", ", ".join(SOURCES), "choose one of them"
        )
    if len(grid) != 2 or min(grid) < 2:
        raise DataContractError(
            "synthetic grid", f"{tuple(grid)}", "at least 2 rows and 2 columns", "choose a larger grid"
        )
    return replace(SOURCES[source_id], grid=(int(grid[0]), int(grid[1])), seed=seed)


@lru_cache(maxsize=8)
def _world(spec: SyntheticSpec) -> World:
    return make_world(spec)


def _means(spec: SyntheticSpec, experiment_id: str, years: tuple[int, int]) -> tuple[Array, Array]:
    """True monthly means of tas and pr (month, lat, lon) over some years."""
    drivers(experiment_id, years)  # refuses years that are not covered
    world, series = _world(spec), drivers(experiment_id, (years[0], max(years[1], PRESENT)))
    level = {name: float(area_mean(m, spec)) for name, m in maps(spec).items()}
    scaled = {**series, **{name: series[name] * level[name] for name in ("SO2", "BC", "AOD")}}
    total, aerosol = radiative_forcing(scaled)
    surface, now = warming(spec, total), 12 * (PRESENT - FIRST_YEAR)
    chosen = slice(12 * (years[0] - FIRST_YEAR), 12 * (years[1] + 1 - FIRST_YEAR))
    rise, haze = (surface[chosen] - surface[now : now + 12].mean())[:, None, None], aerosol[chosen, None, None]
    n_years = years[1] - years[0] + 1
    base, pattern, rain = (np.tile(a, (n_years, 1, 1)) for a in (world.base, world.pattern, world.rain))
    return base + pattern * rise + world.aerosol * haze, rain * np.exp(world.rain_change * rise)


def member_fields(spec: SyntheticSpec, experiment_id: str, member: int, years: tuple[int, int]) -> dict[str, Array]:
    """One member's monthly tas (K) and pr (kg m-2 s-1), (month, lat, lon) float64.

    Args:
        spec: The model.
        experiment_id: Scenario.
        member: 1, 2, ...; members differ in their noise only.
        years: First and last year.

    Raises:
        DataContractError: If the scenario is unknown or years lie outside 1851-2100.
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
        years: First and last year; decades are the whole ones inside, from ``decade_start`` on, as in ``coarsen.to_decade``.
        decade_start: First year of a decade.

    Returns:
        ``tas_mean``, ``tas_std``, ``pr_mean``, ``pr_std`` (time, lat, lon), canonical units, with the coordinates ``year``, and
        ``month`` for months.

    Raises:
        DataContractError: If scenario or timescale are unknown, years lie outside 1851-2100, or no decade is whole.
    """
    world = _world(spec)
    labels = _labels(timescale, years, decade_start)
    span = {"decade": 120, "year": 12, "month": 1}.get(timescale, 0)
    coords = time_coords(labels, timescale, spec.calendar)
    tas, pr = _means(spec, experiment_id, years)
    days = month_lengths(np.arange(years[0], years[1] + 1), spec.calendar).astype(float).ravel()
    first = 12 * (labels[0] - years[0])
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
        "tas_mean": (w * tas).sum(1),
        "tas_std": np.sqrt(_variance(w * deviation, tas_corr)),
        "pr_mean": (w * pr).sum(1),
        "pr_std": np.sqrt(_variance(w * pr, pr_corr)),
    }
    lat, lon = centres(spec)
    dims = ("time", "lat", "lon")
    data = {name: (dims, values, {"units": VARIABLES[name.split("_")[0]].units}) for name, values in out.items()}
    return xr.Dataset(data, {**coords, "lat": lat, "lon": lon}, {"source_id": spec.source_id, "timescale": timescale})


def _labels(timescale: str, years: tuple[int, int], decade_start: int) -> list[int]:
    """Years, or first years of the whole decades."""
    labels = list(range(years[0], years[1] + 1))
    if timescale != "decade":
        return labels
    whole = [y for y in labels if y >= decade_start and (y - decade_start) % 10 == 0 and y + 9 <= years[1]]
    if not whole:
        raise DataContractError(
            "true moments",
            f"years {years[0]} to {years[1]}",
            f"a whole decade that begins in {decade_start} plus a multiple of ten",
            "choose another decade_start or more years",
        )
    return whole


def _variance(weighted: Array, correlation: Array) -> Array:
    """Sum over pairs of steps of w[i] w[j] correlation[|i - j|]; (n, step, lat, lon), (lag, lat, lon) -> (n, lat, lon)."""
    total = (weighted**2).sum(1) * correlation[0]
    for lag in range(1, weighted.shape[1]):
        total = total + 2 * (weighted[:, :-lag] * weighted[:, lag:]).sum(1) * correlation[lag]
    return total


def _check_years(out: Path, years: tuple[int, int]) -> None:
    """Refuse to mix files of other years into an archive: scanned together they would look like overlapping records."""
    span = f"_{years[0]}01-{years[1]}12.nc"
    others = sorted(p for p in (out / "CMIP6").rglob("*.nc") if not p.name.endswith(span))
    if others:
        raise DataContractError(
            str(out), f"an archive of other years ({others[0].name})", f"years {years[0]}-{years[1]}, or an empty folder",
            "delete it, or name another folder",
        )  # fmt: skip


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

    All sources are driven by the same forcings, which are written once, in the calendar of the first source.

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
        DataContractError: If a source, scenario or variable is unknown or none is given, members are below 1, the grid is too
            small, years lie outside 1851-2100, or the folder holds an archive of other years.
    """
    counts = dict(experiments) if isinstance(experiments, Mapping) else dict.fromkeys(experiments, members)
    _check_request(sources, counts, variables)
    _check_years(Path(out), years)
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


def _check_request(sources: Sequence[str], counts: Mapping[str, int], variables: Sequence[str]) -> None:
    if not sources:
        raise DataContractError("synthetic archive", "no source", f"some of {', '.join(SOURCES)}", "name a source")
    unknown = [v for v in variables if v not in FIELDS]
    if unknown or not variables:
        raise DataContractError(
            "synthetic archive", f"variables {unknown or 'none'}", ", ".join(FIELDS), "choose among them"
        )
    few = [e for e, n in counts.items() if n < 1]
    if few or not counts:
        raise DataContractError(
            "synthetic archive", f"no members for {few or 'any scenario'}", "at least 1", "raise members"
        )


def _write_member(
    out: Path, spec: SyntheticSpec, experiment_id: str, member: int, name: str, field: Array, years: tuple[int, int]
) -> Iterator[Path]:
    for first in range(years[0], years[1] + 1, SPLIT_YEARS):
        last = min(first + SPLIT_YEARS - 1, years[1])
        part = field[12 * (first - years[0]) : 12 * (last + 1 - years[0])].astype(np.float32)
        yield files.write_field(out, spec, experiment_id, f"r{member}i1p1f1", name, part, (first, last))


def _write_forcings(out: Path, spec: SyntheticSpec, experiment_id: str, years: tuple[int, int]) -> Path:
    series, first = drivers(experiment_id, years), 12 * (years[0] - FIRST_YEAR)
    gridded = {n: series[n][first:, None, None] * m for n, m in maps(spec).items()}
    scalars = {n: series[n][first:] for n in ("CO2", "CH4")}
    path = out / "forcings" / f"inputs_{experiment_id}.nc"
    return files.write_forcings(path, spec, experiment_id, scalars, gridded, years)
