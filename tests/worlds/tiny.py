"""A tiny canonical world in memory: 8 x 12 cells, two scenarios, 30 years; enough to train on in seconds."""

import numpy as np
import xarray as xr

from climatesuite.harmonise.calendars import time_coords
from spf.codec import FieldCodec
from spf.config import RunConfig
from spf.learning.data import TrainingRun, open_training_runs
from spf.plain import from_dict

YEARS = (2015, 2044)


def scenario(experiment_id: str, members: int = 2, years: tuple[int, int] = YEARS, seed: int = 0) -> xr.Dataset:
    """Canonical monthly Dataset with tas, pr and forcings CO2, SO2 (member, time, lat, lon)."""
    rng = np.random.default_rng([seed, len(experiment_id), sum(map(ord, experiment_id))])
    coords = time_coords(range(years[0], years[1] + 1), "month", "noleap")
    n_time, n_lat, n_lon = coords["time"].size, 8, 12
    lat_edge, lon_edge = np.linspace(-90, 90, n_lat + 1), np.linspace(0, 360, n_lon + 1)
    rate = {"low": 10.0, "mid": 30.0, "high": 60.0}[experiment_id]
    elapsed = np.arange(n_time) / 12
    co2 = 1500 + rate * elapsed
    warming = 0.001 * (co2 - 1500)[None, :, None, None] * (1 + np.abs(np.linspace(-1, 1, n_lat)))[None, None, :, None]
    yearly = np.repeat(rng.standard_normal((members, n_time // 12, 2, 3)), 12, 1).repeat(4, 2).repeat(4, 3)
    noise = 0.6 * yearly + 0.8 * rng.standard_normal((members, n_time, n_lat, n_lon))
    season = np.cos(2 * np.pi * (coords["month"].values - 7) / 12)[None, :, None, None]
    tas = 285 + warming + 5 * season + noise
    pr = 3e-5 * np.exp(0.3 * noise + 0.05 * warming)
    dims = ("member", "time", "lat", "lon")
    so2 = 1e-11 * (1 + 0.1 * rate) * np.ones((n_time, n_lat, n_lon))
    data = {
        "tas": (dims, tas.astype("float32"), {"units": "K", "role": "field"}),
        "pr": (dims, pr.astype("float32"), {"units": "kg m-2 s-1", "role": "field"}),
        "CO2": ("time", co2, {"units": "Gt", "role": "forcing"}),
        "SO2": (dims[1:], so2, {"units": "kg m-2 s-1", "role": "forcing"}),
    }
    space = {
        "member": [f"r{i + 1}i1p1f1" for i in range(members)],
        "lat": (lat_edge[1:] + lat_edge[:-1]) / 2,
        "lon": (lon_edge[1:] + lon_edge[:-1]) / 2,
        "lat_bnds": (("lat", "bnds"), np.stack([lat_edge[:-1], lat_edge[1:]], 1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon_edge[:-1], lon_edge[1:]], 1)),
    }
    attrs = {
        "source_id": "TINY", "experiment_id": experiment_id, "calendar": "noleap", "timescale": "month", "license": "CC0"
    }  # fmt: skip
    return xr.Dataset(data, {**coords, **space}, attrs)


def learned() -> tuple[FieldCodec, tuple[TrainingRun, ...]]:
    """What trainings on it start from: codec and runs of the scenarios low and high."""
    scenarios = {e: scenario(e) for e in ("low", "high")}
    codec = FieldCodec.fit(scenarios, ("tas", "pr"), ("CO2", "SO2"), 4)
    return codec, open_training_runs(scenarios, codec)


def forcings() -> xr.Dataset:
    """Forcings of the scenario between them."""
    return scenario("mid", members=1)[["CO2", "SO2"]]


def config(max_steps: int = 4, **training: object) -> RunConfig:
    """An experiment on the tiny world: trains on low and high, tests on mid."""
    return from_dict(
        RunConfig,
        {
            "name": "tiny",
            "data": {
                "archive": "unused",
                "source_id": "TINY",
                "train": {"low": ["r1i1p1f1", "r2i1p1f1"], "high": ["r1i1p1f1", "r2i1p1f1"]},
                "test": {"mid": ["r1i1p1f1"]},
                "forcings": ["CO2", "SO2"],
                "years": list(YEARS),
            },
            "network": {"width": 32, "depth": 1, "heads": 2, "patch": 1, "forcing_patch": 1},
            "training": {
                "max_steps": max_steps, "tokens_per_step": 512, "minutes": 1.0, "precision": "32-true", **training
            },
        },
    )  # fmt: skip
