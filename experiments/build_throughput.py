"""How fast `climatesuite build` is beside the same reads and writes without anything between, and beside xarray alone.

``python experiments/build_throughput.py`` writes ``experiments/results/build_throughput.json``. Files of 192 x 288 cells (a smooth
field and noise, zlib 1, a month a chunk) are made from a fixed seed in a temporary folder. Everything has the same two threads and
alternates in rounds; rates are bytes of decoded source by second of wall time and of processor time (of all threads: what a busy
machine does not distort), files warm in the page cache. What a build does beside the limit:
hashes of source and shards, calendars, units, ranges, missing values, regridding, years, decades, statistics, metadata,
a flush to disk.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import netCDF4
import numpy as np
import xarray as xr
import zarr

from climatesuite import build as build_module
from climatesuite.build import build
from climatesuite.building import units
from climatesuite.harmonise import grids
from climatesuite.store import place, provenance
from climatesuite.store.place import Overlay, Place
from climatesuite.store.provenance import code_commit
from climatesuite.store.write import Shards

SOURCE_GRID, TARGET_GRID, FIRST_YEAR = (192, 288), (96, 144), 1
BLOCK, WORKERS = 120, 2
RESULT = Path(__file__).parent / "results" / "build_throughput.json"


def write_files(folder: Path, members: int, years: int, grid: tuple[int, int] = SOURCE_GRID) -> list[Path]:
    """One file of tas a member."""
    rows, columns = grid
    lat, lon = grids.target_grid(grid)["lat"].values, grids.target_grid(grid)["lon"].values
    rng, paths = np.random.default_rng(0), []
    pattern = 300 - 45 * np.sin(np.radians(lat)) ** 2
    for member in range(1, members + 1):
        span = f"{FIRST_YEAR:04d}01-{FIRST_YEAR + years - 1:04d}12"
        path = folder / f"tas_Amon_TEST-ESM_ssp585_r{member}i1p1f1_gn_{span}.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.setncatts({"variable_id": "tas", "table_id": "Amon", "source_id": "TEST-ESM", "experiment_id": "ssp585",
                            "variant_label": f"r{member}i1p1f1", "grid_label": "gn", "frequency": "mon"})  # fmt: skip
            for name, size in (("time", None), ("lat", rows), ("lon", columns), ("bnds", 2)):
                file.createDimension(name, size)
            for name, values in (("lat", lat), ("lon", lon)):
                file.createVariable(name, "f8", (name,))[:] = values
            time_axis = file.createVariable("time", "f8", ("time",))
            time_axis.setncatts({"units": f"days since {FIRST_YEAR}-01-01", "calendar": "noleap"})
            lengths = np.tile([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], years)
            time_axis[:] = np.cumsum(lengths) - lengths / 2
            field = file.createVariable("tas", "f4", ("time", "lat", "lon"), zlib=True, complevel=1, shuffle=True,
                                        chunksizes=(1, rows, columns), fill_value=np.float32(1e20))  # fmt: skip
            field.units = "K"
            for start in range(0, 12 * years, BLOCK):
                steps = min(BLOCK, 12 * years - start)
                coarse = rng.standard_normal((steps, rows // 8, columns // 8)).repeat(8, 1).repeat(8, 2)
                noise = 2 * coarse + 0.3 * rng.standard_normal((steps, rows, columns))
                field[start : start + steps] = (pattern[:, None] + noise).astype("f4")
        paths.append(path)
    return paths


def limit(paths: list[Path], out: Path, fields: dict[str, np.ndarray]) -> None:
    """The reads of a build with netCDF4, one thread at a time, and its writes with zarr, of values that are there already."""
    reading = threading.Lock()

    def one(row: int) -> None:
        overlay = Overlay(Place(str(out)).store(read_only=False), {})
        overlay_set = overlay._store.set
        overlay.set = lambda key, value: (  # type: ignore[method-assign]
            Overlay.set(overlay, key, value) if key.endswith("zarr.json") else overlay_set(key, value)
        )
        sinks = {t: Shards(overlay, f"{t}/tas", row, v.shape[1:], t) for t, v in fields.items()}  # type: ignore[arg-type]
        with reading:
            file = netCDF4.Dataset(paths[row])
            file.set_auto_mask(False)
        steps = fields["month"].shape[1]
        for start in range(0, steps, BLOCK):
            with reading:
                file["tas"][start : start + BLOCK]
            sinks["month"].add(fields["month"][row, start : start + BLOCK])
        for timescale in set(sinks) - {"month"}:
            sinks[timescale].add(fields[timescale][row])
        with reading:
            file.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, range(len(paths))))


def rival(paths: list[Path], out: Path, steps: int) -> None:
    """xarray alone: months on the source grid, no checks, no hashes, no means; a dask chunk is a shard of 12-month chunks."""
    with dask.config.set(scheduler="threads", num_workers=WORKERS):
        ds = xr.open_mfdataset(
            paths, combine="nested", concat_dim="member", chunks={"time": steps}, decode_times=False, data_vars="all",
            coords="minimal", compat="override", join="override", combine_attrs="override", engine="netcdf4",
        )  # fmt: skip
        ds["tas"].encoding.clear()
        codecs = [zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")]
        shape = {"chunks": (1, 12, *SOURCE_GRID), "shards": (1, steps, *SOURCE_GRID), "compressors": codecs}
        ds[["tas"]].chunk({"member": 1, "time": steps}).to_zarr(
            out, encoding={"tas": shape}, zarr_format=3, consolidated=False
        )


@contextmanager
def without_hashing() -> Iterator[None]:
    """No sha256 of sources and shards."""
    kept = place.sha256, provenance.digest
    place.sha256, provenance.digest = lambda _: "", lambda _: ""
    try:
        yield
    finally:
        place.sha256, provenance.digest = kept


STAGES = {
    "hash sources": (units, "source_record"), "read, decode, check": (units, "read_variable"), "regrid": (units, "put_on_grid"),
    "years and decades": (units, "weighted_means"), "statistics": (units, "month_statistics"),
    "compress, hash, write shards": (Shards, "add"), "write statistics": (units, "write_statistics"),
    "flush a part": (Place, "flush"), "scan": (build_module, "make_request"), "publish": (build_module, "commit"),
    "other readers' metadata": (build_module, "finish"),
}  # fmt: skip


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Wall seconds in each stage, summed over threads; waiting for the reading lock is in none."""
    kept = {name: getattr(*where) for name, where in STAGES.items()}

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin

        return call

    for name, (owner, attribute) in STAGES.items():
        setattr(owner, attribute, wrapped(name, kept[name]))
    try:
        yield
    finally:
        for name, (owner, attribute) in STAGES.items():
            setattr(owner, attribute, kept[name])


def measure(folder: Path, members: int, years: int, rounds: int) -> dict[str, Any]:
    """Seconds of everything in every round."""
    archive = folder / "CMIP6"
    archive.mkdir()
    paths = write_files(archive, members, years)
    how = {"variables": ("tas",), "progress": False, "workers": WORKERS}
    outputs = {}
    for name, grid in (("regridded", TARGET_GRID), ("as it is", None)):
        build(archive, folder / "first.zarr", grid=grid, **how)  # type: ignore[arg-type]
        scales = [t for t in ("month", "year", "decade") if (folder / f"first.zarr/TEST-ESM/ssp585/{t}").exists()]
        stores = {t: zarr.open_array(str(folder / f"first.zarr/TEST-ESM/ssp585/{t}/tas")) for t in scales}
        outputs[name] = {t: np.asarray(a[:]) for t, a in stores.items()}
        shutil.rmtree(folder / "first.zarr")
    out, spent = folder / "out.zarr", dict[str, float]()

    def hashless() -> None:
        with without_hashing():
            build(archive, out, grid=TARGET_GRID, **how)  # type: ignore[arg-type]

    def profiled() -> None:
        with timed(spent):
            build(archive, out, grid=TARGET_GRID, **how)  # type: ignore[arg-type]

    runs: dict[str, Callable[[], object]] = {
        "limit, regridded": lambda: limit(paths, out, outputs["regridded"]),
        "build, regridded": lambda: build(archive, out, grid=TARGET_GRID, **how),  # type: ignore[arg-type]
        "build, regridded, without hashing": hashless,
        "limit, as it is": lambda: limit(paths, out, outputs["as it is"]),
        "build, as it is": lambda: build(archive, out, **how),  # type: ignore[arg-type]
        "xarray to_zarr, shards of 120 months": lambda: rival(paths, out, 120),
        "xarray to_zarr, shards of a member": lambda: rival(paths, out, 12 * years),
        "build, regridded, profiled": profiled,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    busy: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(time.perf_counter() - begin[0])
            busy[name].append(time.process_time() - begin[1])
            shutil.rmtree(out)
            print(f"{name:40s} {seconds[name][-1]:6.1f} s, processor {busy[name][-1]:6.1f} s", flush=True)
    source = 4 * members * years * 12 * SOURCE_GRID[0] * SOURCE_GRID[1]
    return {
        "source_MB": source / 1e6, "files_MB": sum(p.stat().st_size for p in paths) / 1e6,
        "by_wall_time": _rates(seconds, source), "by_processor_time": _rates(busy, source),
        "profile_seconds": {n: round(s / rounds, 2) for n, s in sorted(spent.items(), key=lambda x: -x[1])},
        "profile_wall_seconds": round(statistics.mean(seconds["build, regridded, profiled"]), 2),
    }  # fmt: skip


def _rates(seconds: dict[str, list[float]], source: int) -> dict[str, Any]:
    builds = [n for n in seconds if n.startswith("build")]
    return {
        "MB_per_s": {n: [round(source / 1e6 / s, 1) for s in of] for n, of in seconds.items()},
        "share_of_limit": {n: _shares(seconds[f"limit, {n.split(', ')[1]}"], seconds[n]) for n in builds},
        "build_as_it_is_over_best_xarray": _shares(_best(seconds, "xarray"), seconds["build, as it is"]),
    }


def _shares(limits: list[float], taken: list[float]) -> dict[str, Any]:
    by_round = [round(a / b, 3) for a, b in zip(limits, taken, strict=True)]
    return {"median": statistics.median(by_round), "rounds": by_round}


def _best(seconds: dict[str, list[float]], word: str) -> list[float]:
    return [min(of) for of in zip(*(s for n, s in seconds.items() if n.startswith(word)), strict=True)]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--years", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0]
        found = measure(Path(folder), args.members, args.years, args.rounds)
    asked = f"--members {args.members} --years {args.years} --rounds {args.rounds}"
    about = {
        "command": f"python experiments/build_throughput.py {asked}", "commit": code_commit(), "workers": WORKERS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": {"before": round(load, 1), "after": round(os.getloadavg()[0], 1)},
        "versions": {m.__name__: m.__version__ for m in (zarr, xr, netCDF4, dask)},
    }  # fmt: skip
    args.out.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
