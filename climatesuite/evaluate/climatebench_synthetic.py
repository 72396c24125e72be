"""A set in ClimateBench's layout from the synthetic Earth system: all four variables, to try things without the official data.

tas and pr are yearly means of the synthetic archive's members. Nothing daily exists there, so diurnal temperature range and the
90th percentile of rain follow two invented laws with noise of their own; every file says so.
"""

import uuid
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.synthetic import member_fields, spec_of
from climatesuite.archive.synthetic_scenarios import drivers, maps
from climatesuite.archive.synthetic_world import FIRST_YEAR, SyntheticSpec, centres, land
from climatesuite.evaluate.climatebench_files import write_whole
from climatesuite.harmonise.calendars import month_lengths

Array = NDArray[np.float64]
PAST, FUTURE, BASE_YEARS = (1851, 2014), (2015, 2100), 30
EXPERIMENTS = {
    "historical": ("ssp245", PAST), "ssp126": ("ssp126", FUTURE), "ssp245": ("ssp245", FUTURE),
    "ssp370": ("ssp370", FUTURE), "ssp585": ("ssp585", FUTURE),
}  # fmt: skip
"""Scenario of the synthetic archive and years by experiment; the past is that of all scenarios."""
COMMENT = (
    "Synthetic. diurnal_temperature_range: -0.08 K per K of local warming over land, half of it over sea, noise 0.2 K; "
    "pr90: 2.3 times pr with noise of 10 % of its level."
)


def write_synthetic(
    folder: str | Path,
    members: int = 3,
    grid: tuple[int, int] = (24, 36),
    source_id: str = "SYNTHETIC-A",
    seed: int = 0,
) -> list[Path]:
    """Write ``inputs_*`` and ``outputs_*`` of historical, ssp126, ssp245, ssp370 and ssp585.

    Args:
        folder: Made if absent; files of equal name are replaced.
        members: Of each experiment.
        grid: Rows and columns.
        source_id: Synthetic model, see ``archive.synthetic``.
        seed: Of its patterns and noise.

    Returns:
        The files. Anomalies are from the mean of the first 30 years of all historical members, per cell.
    """
    out, spec, made = Path(folder), spec_of(source_id, grid, seed), []
    out.mkdir(parents=True, exist_ok=True)
    lat, lon = centres(spec)
    base: dict[str, Array] = {}
    for experiment, (scenario, years) in EXPERIMENTS.items():
        runs = [_yearly(spec, experiment, scenario, m, years) for m in range(1, members + 1)]
        fields = {name: np.stack([run[name] for run in runs]) for name in ("tas", "pr")}
        base = base or {name: x[:, :BASE_YEARS].mean(axis=(0, 1)) for name, x in fields.items()}
        level = fields["pr"].mean(axis=(0, 1))
        fields = {name: x - base[name] for name, x in fields.items()}
        fields |= _daily(spec, experiment, fields, level)
        units = {"tas": "K", "diurnal_temperature_range": "K", "pr": "kg m-2 s-1", "pr90": "kg m-2 s-1"}
        dims = ("member", "time", "lat", "lon")
        about = {
            "source_id": source_id, "experiment_id": experiment, "comment": COMMENT, "license": "CC0-1.0",
            "anomaly_base": f"mean {PAST[0]}-{PAST[0] + BASE_YEARS - 1} of historical, all members",
        }  # fmt: skip
        coords = {
            "member": np.arange(1, members + 1),
            "time": np.arange(years[0], years[1] + 1),
            "lat": lat,
            "lon": lon,
        }
        data = {n: (dims, x.astype(np.float32), {"units": units[n]}) for n, x in fields.items()}
        made.append(write_whole(xr.Dataset(data, coords, about), out / f"outputs_{experiment}.nc"))
        made.append(write_whole(_inputs(spec, experiment, scenario, years), out / f"inputs_{experiment}.nc"))
    return made


def _yearly(
    spec: SyntheticSpec, experiment: str, scenario: str, member: int, years: tuple[int, int]
) -> dict[str, Array]:
    """Day-weighted yearly means of one member (year, lat, lon)."""
    shift = 100 if experiment == "historical" else 0  # members of a scenario have its noise from their first month on
    monthly = member_fields(spec, scenario, member + shift, years)
    days = month_lengths(np.arange(years[0], years[1] + 1), spec.calendar).astype(np.float64)
    weights = days / days.sum(axis=1, keepdims=True)
    return {n: np.einsum("tm,tmij->tij", weights, x.reshape(-1, 12, *x.shape[1:])) for n, x in monthly.items()}


def _daily(spec: SyntheticSpec, experiment: str, fields: dict[str, Array], level: Array) -> dict[str, Array]:
    """What only days would show, by the laws of `COMMENT`: ``[member, year, lat, lon]`` each."""
    stream = uuid.uuid5(uuid.NAMESPACE_URL, f"{spec.source_id}/{experiment}/daily/{spec.seed}").int
    rng, shape = np.random.default_rng(stream), fields["tas"].shape
    narrowing = -0.04 * (1.0 + land(spec))
    return {
        "diurnal_temperature_range": narrowing * fields["tas"] + 0.2 * rng.standard_normal(shape),
        "pr90": 2.3 * fields["pr"] + 0.1 * level * rng.standard_normal(shape),
    }


def _inputs(spec: SyntheticSpec, experiment: str, scenario: str, years: tuple[int, int]) -> xr.Dataset:
    """Yearly means of the drivers, as maps where ClimateBench has maps."""
    monthly = drivers(scenario, (years[0], max(years[1], FUTURE[0])))
    chosen = slice(12 * (years[0] - FIRST_YEAR), 12 * (years[1] + 1 - FIRST_YEAR))
    series = {n: monthly[n][chosen].reshape(-1, 12).mean(axis=1) for n in ("CO2", "CH4", "SO2", "BC")}
    shapes, (lat, lon) = maps(spec), centres(spec)
    data = {
        "CO2": ("time", series["CO2"], {"units": "Gt"}),
        "CH4": ("time", series["CH4"], {"units": "Gt year-1"}),
        **{
            n: (("time", "latitude", "longitude"), series[n][:, None, None] * shapes[n], {"units": "kg m-2 s-1"})
            for n in ("SO2", "BC")
        },
    }
    coords = {"time": np.arange(years[0], years[1] + 1), "latitude": lat, "longitude": lon}
    return xr.Dataset(data, coords, {"experiment_id": experiment, "license": "CC0-1.0", "comment": "Synthetic."})
