"""What scoring costs: peak memory against the number of members, and time against other libraries.

``python experiments/score_cost.py [monthly]`` writes ``experiments/results/score_cost.json``. Fields are drawn anew from a
fixed seed into a temporary folder, 85 years of 48 x 72 cells, and deleted afterwards. ``monthly`` measures months of 192 x 288
cells alone, whose blocks are drawn when they are read and never lie on disk; their time axis is short, 36 and 12 months, as cost
is linear in it. Every measurement has a process of its own, whose parent imports nothing large, because a child's peak begins at
its parent's.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMBERS = (10, 100, 1000)
RIVAL_MEMBERS = (10, 30, 100, 200, 400)
YEARS, GRID = (2015, 2099), (48, 72)
LIMIT_BYTES, LIMIT_S, ROUNDS = 6_000_000_000, 150, 3
STREAMED, STREAM_MONTHS = (10, 40, 160), 36
"""Members and months of 192 x 288 cells that are scored as they are drawn."""
TRIED = (20, 80, 160)
"""Members of 12 such months tried with other libraries."""
SHAPES = {"yearly": (YEARS[1] - YEARS[0] + 1, GRID), "monthly": (12, (192, 288))}
"""Steps and grid of the plain CRPS."""
RESULT = Path(__file__).parent / "results" / "score_cost.json"


def draw(folder: Path, size: int) -> None:
    """Write ``ensemble.zarr`` of ``size`` members, a step and up to 100 members a chunk, and ``truth.zarr`` of three."""
    import numpy as np
    import xarray as xr

    year = np.arange(YEARS[0], YEARS[1] + 1)
    lat = -90.0 + (np.arange(GRID[0]) + 0.5) * 180.0 / GRID[0]
    coords = {"year": ("time", year), "days": ("time", np.full(year.size, 365.0)), "lat": lat}
    coords["lon"] = np.arange(GRID[1]) * 360.0 / GRID[1]
    forced = 300.0 - 45.0 * np.sin(np.radians(lat)) ** 2 + 0.03 * (year - YEARS[0])[:, None]
    for name, count, seed in (("truth", 3, 1), ("ensemble", size, 2)):
        rng, step = np.random.default_rng(seed), min(count, 100)
        for first in range(0, count, step):
            noise = rng.standard_normal((step, year.size, *GRID), dtype=np.float32)
            values = (forced[:, :, None] + 0.6 * noise).astype(np.float32)
            ds = xr.Dataset({"tas": (("member", "time", "lat", "lon"), values, {"units": "K"})}, coords)
            ds = ds.assign_coords(member=np.arange(first, first + step)).assign_attrs(timescale="year")
            ds["tas"].encoding["chunks"] = (step, 1, *GRID)
            new = first == 0
            ds.to_zarr(folder / f"{name}.zarr", mode="w" if new else "a", append_dim=None if new else "member")


def score(folder: Path) -> dict[str, Any]:
    """Score the ensemble in a folder as the command line does, without intervals; peaks in bytes."""
    import xarray as xr

    from climatesuite.evaluate.scoring import Prediction, score_datasets

    before = peak_bytes()
    start = time.perf_counter()
    ensemble, truth = (xr.open_zarr(folder / f"{name}.zarr") for name in ("ensemble", "truth"))
    rows = score_datasets([Prediction("drawn", ensemble)], truth, variables=["tas"], bootstrap=0)
    seconds = time.perf_counter() - start
    (row,) = (r for r in rows if r["model"] == "drawn" and r["period"] == "full")
    return {
        "members": row["M"], "float32_bytes": int(ensemble["tas"].nbytes), "peak_bytes": peak_bytes(),
        "peak_after_imports_bytes": before, "seconds": round(seconds, 2), "crps": row["crps"], "crps_floor": row["crps_floor"],
        "spread_skill": row["spread_skill"],
    }  # fmt: skip


def streamed(size: int) -> dict[str, Any]:
    """Score months of 192 x 288 cells whose blocks are drawn when they are read, without intervals; peaks in bytes."""
    import dask.array as da
    import numpy as np
    import xarray as xr

    from climatesuite.evaluate.scoring import Prediction, score_datasets

    rows, columns = SHAPES["monthly"][1]
    month = np.arange(STREAM_MONTHS)
    lat = -90.0 + (np.arange(rows) + 0.5) * 180.0 / rows
    forced = (300.0 - 45.0 * np.sin(np.radians(lat)) ** 2)[:, None] + np.zeros(columns)
    drawn = []

    def block(seed: int, block_info: Any = None) -> Any:
        where = block_info[None]
        at, shape = where["chunk-location"], where["chunk-shape"]
        drawn.append(int(np.prod(shape)))
        noise = np.random.default_rng([seed, *at]).standard_normal(shape, dtype=np.float32)
        first, last = where["array-location"][2]
        return (forced[first:last] + 0.6 * noise).astype(np.float32)

    def fields(members: int, seed: int) -> xr.Dataset:
        chunks = ((members,), (1,) * STREAM_MONTHS, (8,) * (rows // 8), (columns,))
        values = da.map_blocks(block, seed, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 4, np.float32))
        coords = {"year": ("time", 2017 + month // 12), "month": ("time", month % 12 + 1), "lat": lat}
        coords |= {"days": ("time", np.full(month.size, 30.4)), "lon": np.arange(columns) * 360.0 / columns}
        coords["member"] = np.arange(members)
        ds = xr.Dataset({"tas": (("member", "time", "lat", "lon"), values, {"units": "K"})}, coords)
        return ds.assign_attrs(timescale="month")

    before, start = peak_bytes(), time.perf_counter()
    rows_ = score_datasets([Prediction("drawn", fields(size, 2))], fields(2, 1).load(), variables=["tas"], bootstrap=0)
    (row,) = (r for r in rows_ if r["model"] == "drawn" and r["period"] == "full")
    return {
        "members": size, "float32_bytes": 4 * size * STREAM_MONTHS * rows * columns, "peak_bytes": peak_bytes(),
        "peak_after_imports_bytes": before, "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time(), 1), "times_drawn": round(sum(drawn) / (size * STREAM_MONTHS * rows * columns), 2),
        "crps": row["crps"], "crps_floor": row["crps_floor"], "spread_skill": row["spread_skill"],
    }  # fmt: skip


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rivals(size: int, kind: str = "yearly") -> tuple[dict[str, Callable[[], float]], Callable[[], float]]:
    """Mean plain CRPS, area-weighted, by library, of the same ensemble in memory, a step a chunk where chunks are understood."""
    import numpy as np
    import scores as other_scores  # type: ignore[import-untyped]
    import scoringrules  # type: ignore[import-untyped]
    import xarray as xr
    import xskillscore  # type: ignore[import-untyped]

    from climatesuite.evaluate import scores

    rng, (n_years, grid) = np.random.default_rng(3), SHAPES[kind]
    lat = -90.0 + (np.arange(grid[0]) + 0.5) * 180.0 / grid[0]
    coords = {"lat": lat, "lon": np.arange(grid[1]) * 360.0 / grid[1]}
    dims = ("member", "time", "lat", "lon")
    x = xr.DataArray(rng.standard_normal((size, n_years, *grid), dtype=np.float32), coords, dims).chunk(time=1)
    y = xr.DataArray(rng.standard_normal((n_years, *grid), dtype=np.float32), coords, dims[1:]).chunk(time=1)
    row = xr.DataArray(np.cos(np.radians(lat)), {"lat": lat}, ("lat",))
    cells = row.broadcast_like(y.isel(time=0)).transpose("lat", "lon").compute()

    def by_scoringrules() -> float:
        steps = [
            scoringrules.crps_ensemble(y[t].values, x[:, t].values, m_axis=0, estimator="qd") for t in range(n_years)
        ]
        return float(np.mean([np.average(s, weights=cells) for s in steps]))

    ours = lambda: float(scores.area_mean(scores.crps_ensemble(x, y, "plain")).mean())  # noqa: E731
    return {
        "xskillscore": lambda: float(xskillscore.crps_ensemble(y, x, dim=["time", "lat", "lon"], weights=cells)),
        "scores": lambda: float(
            other_scores.probability.crps_for_ensemble(x, y, "member", method="ecdf", weights=cells)
        ),
        "scoringrules": by_scoringrules,
    }, ours


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """Seconds and value."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def trial(size: int, name: str, kind: str = "yearly") -> dict[str, Any]:
    """One call of a library within ``LIMIT_BYTES`` of address space."""
    calls, ours = rivals(size, kind)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    cpu = time.process_time()
    seconds, value = timed(ours if name == "climatesuite" else calls[name])
    cpu = round(time.process_time() - cpu, 2)
    return {"seconds": round(seconds, 2), "cpu_seconds": cpu, "crps": value, "peak_bytes": peak_bytes()}


def race(size: int, names: list[str]) -> dict[str, Any]:
    """Smallest of ``ROUNDS`` times of each, in turn, every second round backwards, on one thread."""
    import dask

    calls, ours = rivals(size)
    turn = {"climatesuite": ours, **{n: calls[n] for n in names}}
    best, values = dict.fromkeys(turn, float("inf")), {}
    with dask.config.set(scheduler="synchronous"):
        for number in range(ROUNDS):
            for name in list(turn)[:: 1 if number % 2 == 0 else -1]:
                seconds, values[name] = timed(turn[name])
                best[name] = min(best[name], seconds)
    return {
        "seconds": {n: round(s, 3) for n, s in best.items()}, "crps": values,
        "ratio_to_climatesuite": {n: round(s / best["climatesuite"], 2) for n, s in best.items()},
    }  # fmt: skip


def apart(*arguments: str, limit_s: float | None = None) -> dict[str, Any] | None:
    """This script with other arguments in a process of its own; None if it failed or took too long."""
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    here = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    try:
        done = subprocess.run(
            [sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=limit_s,
            env={**os.environ, **single, **here},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout) if done.returncode == 0 else None


def memory() -> list[dict[str, Any]]:
    """Cost of scoring ensembles of every size."""
    out = []
    for size in MEMBERS:
        with tempfile.TemporaryDirectory() as folder:
            if apart("draw", folder, str(size)) is None:
                raise RuntimeError(f"{size} members could not be written")
            found = apart("score", folder)
            if found is None:
                raise RuntimeError(f"{size} members could not be scored")
            out.append(found)
    return out


def comparison() -> dict[str, Any]:
    """The largest size that xskillscore and this package both score within the limits, and the times there."""
    trials: dict[str, dict[str, Any]] = {}
    largest = 0
    for size in RIVAL_MEMBERS:
        names = ("climatesuite", "xskillscore", "scores", "scoringrules")
        trials[str(size)] = {n: apart("trial", str(size), n, limit_s=LIMIT_S) for n in names}
        if trials[str(size)]["xskillscore"] is None:
            break
        largest = size
    able = [n for n in ("xskillscore", "scores", "scoringrules") if trials[str(largest)][n] is not None]
    raced = apart("race", str(largest), *able)
    return {"limit_bytes": LIMIT_BYTES, "limit_s": LIMIT_S, "one_call": trials, "members": largest, "race": raced}


def monthly() -> dict[str, Any]:
    """Months of 192 x 288 cells: what scoring costs as they are drawn, and one plain CRPS of each library within the limits."""
    found = [apart("streamed", str(size)) for size in STREAMED]
    tried: dict[str, Any] = {}
    for size in TRIED:
        tried[str(size)] = {
            n: apart("trial", str(size), n, "monthly", limit_s=4 * LIMIT_S) for n in ("climatesuite", "xskillscore")
        }
        if tried[str(size)]["xskillscore"] is None:
            break
    both = [int(size) for size, by in tried.items() if by["xskillscore"] is not None]
    largest = tried[str(max(both))] if both else None
    ratios = None
    if largest is not None:
        ratios = {
            k: round(largest["xskillscore"][k] / largest["climatesuite"][k], 2) for k in ("cpu_seconds", "peak_bytes")
        }
    ends = [found[0], found[-1]]
    slope = None
    if all(ends):
        slope = round((ends[1]["peak_bytes"] - ends[0]["peak_bytes"]) / (ends[1]["members"] - ends[0]["members"]))
    return {
        "cells": [192, 288], "months_streamed": STREAM_MONTHS, "streamed": found, "peak_bytes_per_member": slope,
        "months_tried": SHAPES["monthly"][0], "limit_bytes": LIMIT_BYTES, "one_call": tried,
        "largest_both": max(both) if both else None, "xskillscore_over_climatesuite": ratios,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of the libraries measured."""
    from importlib.metadata import version

    return {n: version(n) for n in ("numpy", "xarray", "dask", "zarr", "xskillscore", "scores", "scoringrules")}


def main() -> None:
    """Measure everything, or one thing in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", help="nothing for all; monthly; else draw, score, trial, streamed or race with arguments"
    )
    what, *rest = parser.parse_args().what or ["all"]
    if what == "draw":
        draw(Path(rest[0]), int(rest[1]))
        sys.stdout.write("{}")
    elif what == "score":
        sys.stdout.write(json.dumps(score(Path(rest[0]))))
    elif what == "trial":
        sys.stdout.write(json.dumps(trial(int(rest[0]), *rest[1:])))
    elif what == "streamed":
        sys.stdout.write(json.dumps(streamed(int(rest[0]))))
    elif what == "monthly":
        kept = json.loads(RESULT.read_text())
        RESULT.write_text(json.dumps({**kept, "monthly": monthly()}, indent=1) + "\n")
    elif what == "race":
        sys.stdout.write(json.dumps(race(int(rest[0]), rest[1:])))
    else:
        result = {
            "command": "python experiments/score_cost.py", "fields": [YEARS[1] - YEARS[0] + 1, *GRID],
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}, one thread for arithmetic", "versions": versions(),
            "score_datasets": memory(), "plain_crps": comparison(), "monthly": monthly(),
        }  # fmt: skip
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
