"""How fast training windows come from a store, beside the same windows from plain arrays in memory.

``python experiments/train_read.py`` builds a store of CESM2 (``CLIMATE_DATA``) in a temporary folder and writes
``experiments/results/train_read.json``. Monthly windows (12 months and two on either side, tas and pr, 48 x 72) are read at random
places of random members in several ways:

- the trainer: batches of `spf.learning.data.WindowStream`, whose fields it holds in memory, beside slicing the same arrays;
- the store: one zarr read a variable and window, and `open_run`, beside slices of a numpy array of the same values on disk
  (memory-mapped, warm: nothing to decode), and beside zarr without codecs.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from climatesuite.build import build
from climatesuite.store.open import open_root, open_run
from climatesuite.store.place import Place
from climatesuite.store.provenance import code_commit

RESULT = Path(__file__).parent / "results" / "train_read.json"
DATA = Path(os.environ.get("CLIMATE_DATA", Path(__file__).parents[2] / "shared/data"))
MEMBERS = {"ssp126": ["r4i1p1f1"], "ssp585": ["r4i1p1f1"]}
CORE, HALO, FIELDS = 12, 2, ("tas", "pr")


def rate(read: Callable[[int], object], windows: int, rounds: int) -> list[float]:
    """Windows a second in every round."""
    out = []
    for number in range(rounds):
        begin = time.perf_counter()
        for i in range(windows):
            read(number * windows + i)
        out.append(windows / (time.perf_counter() - begin))
    return out


def places(count: int, members: int, steps: int) -> list[tuple[int, int]]:
    """Member and first month of windows, from a fixed seed."""
    rng = np.random.default_rng(0)
    return [(int(rng.integers(members)), 12 * int(rng.integers(1, steps // 12 - 1)) - HALO) for _ in range(count)]


def from_store(store: Path, folder: Path, windows: int, rounds: int) -> dict[str, Any]:
    """Direct reads of one run."""
    root, group = open_root(store), "CESM2/ssp585/month"
    arrays = [root[f"{group}/{f}"] for f in FIELDS]
    plain = []
    for name, array in zip(FIELDS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array[:])  # type: ignore[index]
        plain.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    n_members, n_steps = plain[0].shape[:2]
    where, length = places(windows * rounds, n_members, n_steps), CORE + 2 * HALO
    lazy = open_run(store, "CESM2", "ssp585", "month")

    def zarr_read(i: int) -> object:
        m, t = where[i]
        return [a[m, t : t + length] for a in arrays]  # type: ignore[index]

    def xarray_read(i: int) -> object:
        m, t = where[i]
        return lazy[list(FIELDS)].isel(member=m, time=slice(t, t + length)).load(scheduler="synchronous")

    def plain_read(i: int) -> object:
        m, t = where[i]
        return [np.array(a[m, t : t + length]) for a in plain]

    raw = zarr.create_group(str(folder / "raw.zarr"), zarr_format=3)
    bare = [
        raw.create_array(f, data=p[:], chunks=(1, 12, *p.shape[2:]), compressors=None)
        for f, p in zip(FIELDS, plain, strict=True)
    ]

    def bare_read(i: int) -> object:
        m, t = where[i]
        return [a[m, t : t + length] for a in bare]

    found = {
        "store, zarr": zarr_read, "store, xarray": xarray_read, "plain array on disk": plain_read,
        "zarr without codecs, a file a chunk": bare_read,
    }  # fmt: skip
    rates = {name: rate(read, windows, rounds) for name, read in found.items()}
    touched = len({(t + k) // 12 for t in [where[0][1]] for k in range(length)})
    sizes = [n for k, n in Place(str(store)).sizes().items() if k.startswith(f"{group}/tas/c/")]
    return {
        "windows_per_s": {n: [round(r) for r in of] for n, of in rates.items()},
        "store_over_plain": round(statistics.median(rates["store, zarr"]) / statistics.median(rates["plain array on disk"]), 3),
        "store_over_zarr_without_codecs": round(
            statistics.median(rates["store, zarr"]) / statistics.median(rates["zarr without codecs, a file a chunk"]), 3
        ),
        "objects_a_window_and_variable": 1, "chunks_a_window_and_variable": touched, "shard_MB": round(max(sizes) / 1e6, 2),
    }  # fmt: skip


def from_trainer(store: Path, windows: int, rounds: int) -> dict[str, Any]:
    """What the trainer does: departures of all members in memory, windows cut from them."""
    from spf.codec import FieldCodec
    from spf.learning.data import open_training_runs

    names = ("CO2", "CH4", "SO2", "BC")
    scenarios = {e: open_run(store, "CESM2", e, "month") for e in MEMBERS}
    begin = time.perf_counter()
    codec = FieldCodec.fit(scenarios, FIELDS, names, 4)
    runs = open_training_runs(scenarios, codec)
    seconds = time.perf_counter() - begin
    arrays = [run.fields("month", 12 * run.first_year, 12 * len(run.forcing.years)).numpy().copy() for run in runs]
    where, length = places(windows * rounds, len(runs), arrays[0].shape[1]), CORE + 2 * HALO

    def trainer(i: int) -> object:
        m, t = where[i]
        return runs[m].fields("month", 12 * runs[m].first_year + t, length).clone()

    def plain(i: int) -> object:
        m, t = where[i]
        return arrays[m][:, t : t + length].copy()

    rates = {"trainer": rate(trainer, windows, rounds), "plain array in memory": rate(plain, windows, rounds)}
    return {
        "seconds_to_open_and_encode": round(seconds, 1), "windows_per_s": {n: [round(r) for r in of] for n, of in rates.items()},
        "trainer_over_plain": round(statistics.median(rates["trainer"]) / statistics.median(rates["plain array in memory"]), 3),
    }  # fmt: skip


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "s.zarr"
        build(DATA / "CMIP6/CESM2", store, members=MEMBERS, forcings=DATA / "forcings", progress=False)
        found = {
            "direct": from_store(store, folder, args.windows, args.rounds),
            "trainer": from_trainer(store, args.windows, args.rounds),
        }
    about = {"command": "python experiments/train_read.py", "commit": code_commit(), "cores": os.cpu_count(),
             "load": round(os.getloadavg()[0], 1)}  # fmt: skip
    args.out.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
