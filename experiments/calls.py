"""How few network calls a stage needs: spread and CRPS of one emulator by the calls of each stage, on a *training* scenario.

``python experiments/calls.py runs/cesm2-ssp370`` draws the same members (same noise) with other step counts and writes
``experiments/results/calls.json``. Everything is measured beside an ensemble with 24 calls at every stage; CRPS is against the
training members, which all settings have seen alike.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import xarray as xr

from climatesuite.evaluate.scores import crps_ensemble
from climatesuite.harmonise.grids import cos_weights
from climatesuite.store.open import only, open_run
from climatesuite.store.provenance import code_commit
from spf.commands.steps import hardware
from spf.config import SamplingConfig
from spf.sampling.emulator import Emulator
from spf.sampling.solvers import CALLS_PER_STEP

OUT = Path(__file__).resolve().parent / "results" / "calls.json"
REFERENCE = ("midpoint", (12, 12, 12))
SETTINGS = (
    ("midpoint", (4, 4, 4)), ("midpoint", (4, 4, 2)), ("midpoint", (4, 4, 1)), ("midpoint", (2, 2, 2)),
    ("midpoint", (8, 8, 2)), ("midpoint", (4, 8, 2)), ("midpoint", (8, 4, 2)), ("midpoint", (8, 8, 4)),
    ("adams_bashforth", (8, 8, 8)), ("adams_bashforth", (16, 16, 4)), ("heun", (4, 4, 4)), ("euler", (8, 8, 8)),
)  # fmt: skip
"""Solver and steps of each stage, coarse to fine."""


def main() -> None:
    """Draw and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished experiment")
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--timescale", default="year")
    args = parser.parse_args()
    emulator = Emulator.load(args.run / "emulator.pt")
    known = emulator.provenance
    scenario, members = sorted(known["training_members"].items())[-1]
    truth = open_run(args.run / "store.zarr", known["source_id"], scenario, args.timescale)
    truth = only(truth, emulator.codec.variables).sel(member=list(members)).load()
    month = open_run(args.run / "store.zarr", known["source_id"], scenario, "month")
    forcings = only(month, emulator.codec.forcings).load()
    rows = []
    whole = drawn(emulator, forcings, args, *REFERENCE)[0]
    for solver, steps in SETTINGS:
        ensemble, seconds = drawn(emulator, forcings, args, solver, steps)
        rows.append(row(ensemble, whole, truth, solver, steps, seconds))
        print(json.dumps(rows[-1]), flush=True)
    about = {
        "command": f"python experiments/calls.py runs/{args.run.name}", "commit": code_commit(), "hardware": hardware(),
        "scenario": f"{scenario}, a training scenario", "members": args.members, "seed": 0, "timescale": args.timescale,
        "reference": f"midpoint, {CALLS_PER_STEP['midpoint'] * 12} calls a stage", "rows": rows,
    }  # fmt: skip
    OUT.write_text(json.dumps(about, indent=1) + "\n")


def drawn(
    emulator: Emulator, forcings: xr.Dataset, args: argparse.Namespace, solver: str, steps: tuple[int, ...]
) -> tuple[xr.Dataset, float]:
    """An ensemble and the seconds it took."""
    begin = time.monotonic()
    how = SamplingConfig(solver=solver, n_steps=steps)
    return emulator.sample(forcings, args.timescale, args.members, sampling=how), time.monotonic() - begin


def row(
    ensemble: xr.Dataset, whole: xr.Dataset, truth: xr.Dataset, solver: str, steps: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    """Spread and CRPS over those of the reference ensemble, and how far members moved in units of its spread."""
    out: dict[str, Any] = {
        "solver": solver, "calls": [n * CALLS_PER_STEP[solver] for n in steps], "seconds": round(seconds, 1),
    }  # fmt: skip
    weights = cos_weights(truth.lat)
    for name in ("tas", "pr"):
        spread = [float(x[name].var("member", ddof=1).weighted(weights).mean()) for x in (ensemble, whole)]
        score = [float(crps_ensemble(x[name], truth[name]).weighted(weights).mean()) for x in (ensemble, whole)]
        moved = float(((ensemble[name] - whole[name]) ** 2).weighted(weights).mean())
        out[name] = {
            "variance_ratio": round(spread[0] / spread[1], 4), "crps_ratio": round(score[0] / score[1], 4),
            "moved": round((moved / spread[1]) ** 0.5, 4),
        }  # fmt: skip
    return out


if __name__ == "__main__":
    main()
