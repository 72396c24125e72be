"""Canonical datasets made from nothing: a warming sphere with smooth noise, at any timescale, grid and calendar."""

from collections.abc import Sequence

import cftime
import numpy as np
import xarray as xr

from climatesuite.conventions import VARIABLES

SPAN_YEARS = {"month": 1, "year": 1, "decade": 10}
NOISE = {"month": 1.0, "year": 0.5, "decade": 0.2}


def grid_coords(grid: tuple[int, int]) -> dict[str, tuple]:
    """Coordinates lat, lon and their bounds of a regular grid without pole points."""
    lat_edges, lon_edges = np.linspace(-90.0, 90.0, grid[0] + 1), np.linspace(0.0, 360.0, grid[1] + 1)
    return {
        "lat": ("lat", (lat_edges[:-1] + lat_edges[1:]) / 2),
        "lon": ("lon", (lon_edges[:-1] + lon_edges[1:]) / 2),
        "lat_bnds": (("lat", "bnds"), np.stack([lat_edges[:-1], lat_edges[1:]], axis=1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon_edges[:-1], lon_edges[1:]], axis=1)),
    }


def time_coords(timescale: str, years: tuple[int, int], calendar: str) -> dict[str, tuple]:
    """Coordinates time, time_bnds, year, days (and month) of whole periods from the first to the last year."""
    first, last = years
    months = range(1, 13) if timescale == "month" else (1,)
    starts = [(y, m) for y in range(first, last + 2 - SPAN_YEARS[timescale], SPAN_YEARS[timescale]) for m in months]
    ends = [(y + m // 12, m % 12 + 1) if timescale == "month" else (y + SPAN_YEARS[timescale], 1) for y, m in starts]
    bounds = np.array(
        [[cftime.datetime(*ym, 1, calendar=calendar) for ym in pair] for pair in zip(starts, ends, strict=True)]
    )
    length = bounds[:, 1] - bounds[:, 0]
    coords = {
        "time": ("time", bounds[:, 0] + length / 2),
        "time_bnds": (("time", "bnds"), bounds),
        "year": ("time", np.array([y for y, _ in starts], dtype=np.int64)),
        "days": ("time", np.array([d.total_seconds() / 86400.0 for d in length])),
    }
    if timescale == "month":
        coords["month"] = ("time", np.array([m for _, m in starts], dtype=np.int64))
    return coords


def _smooth(noise: np.ndarray, passes: int = 2) -> np.ndarray:
    """Noise averaged with its neighbours, unit variance again."""
    for _ in range(passes):
        noise = noise + np.roll(noise, 1, axis=-1) + np.roll(noise, -1, axis=-1)
        padded = np.pad(noise, [(0, 0)] * (noise.ndim - 2) + [(1, 1), (0, 0)], mode="edge")
        noise = noise + padded[..., :-2, :] + padded[..., 2:, :]
    return noise / noise.std()


def fake_ensemble(
    timescale: str = "year",
    members: Sequence[int | str] = (0, 1, 2),
    years: tuple[int, int] = (2015, 2034),
    grid: tuple[int, int] = (8, 12),
    calendar: str = "noleap",
    seed: int = 0,
    warming: float = 0.04,
    spread: float = 1.0,
    bias: float = 0.0,
) -> xr.Dataset:
    """Canonical Dataset ``(member, time, lat, lon)`` with tas (K) and pr (kg m-2 s-1).

    Args:
        timescale: decade, year or month.
        members: Labels.
        years: First and last year.
        grid: Numbers of latitudes and longitudes.
        calendar: CF calendar.
        seed: Of the noise.
        warming: Global warming in K per year; twice as strong towards the north.
        spread: Factor on the noise.
        bias: Added to tas, K.
    """
    rng = np.random.default_rng(seed)
    coords = {"member": ("member", np.asarray(members)), **time_coords(timescale, years, calendar), **grid_coords(grid)}
    phi, lam = np.radians(coords["lat"][1])[:, None], np.radians(coords["lon"][1])[None, :]
    year = coords["year"][1] + (SPAN_YEARS[timescale] - 1) / 2
    shape = (len(members), year.size, *grid)
    noise = _smooth(rng.standard_normal((2, *shape))) * NOISE[timescale] * spread
    season = np.cos(2 * np.pi * (coords["month"][1] - 7) / 12) if timescale == "month" else np.zeros(year.size)
    mean = 300.0 - 45.0 * np.sin(phi) ** 2 + 3.0 * np.cos(2 * lam) * np.cos(phi) + bias
    tas = mean + (year - 2015)[:, None, None] * warming * (1.0 + 0.6 * np.sin(phi))
    tas = tas + season[:, None, None] * 8.0 * np.sin(phi)
    rain = 0.5 + 5.0 * np.exp(-((phi / 0.35) ** 2)) + 2.0 * np.exp(-(((np.abs(phi) - 0.8) / 0.3) ** 2))
    rain = rain * (1.0 + 0.2 * np.sin(lam)) * (1.0 + (year - 2015)[:, None, None] * warming * 0.02)
    values = {"tas": tas + noise[0], "pr": np.maximum(rain * (1.0 + 0.15 * noise[1]), 0.0) / 86400.0}
    attrs = {
        name: {"units": v.units, "standard_name": v.standard_name, "role": "field"} for name, v in VARIABLES.items()
    }
    dims = ("member", "time", "lat", "lon")
    ds = xr.Dataset({n: (dims, values[n].astype(np.float32), attrs[n]) for n in ("tas", "pr")}, coords)
    return ds.assign_attrs(
        source_id="FAKE-ESM", experiment_id="ssp370", timescale=timescale, calendar=calendar, license="CC0-1.0"
    )


def member_by_member(ds: xr.Dataset):
    """Pairs (number, Dataset of that member), as a sampler yields them."""
    for number in range(ds.sizes["member"]):
        yield number, ds.isel(member=number, drop=True)
