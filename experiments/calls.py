"""How few network calls a stage needs: spread and CRPS of one emulator by the calls of each stage, on a *training* scenario.

``python experiments/calls.py runs/cesm2-ssp370`` draws the same members (same noise) of years, and of months of a few years, with
other step counts and time shifts, and writes ``experiments/results/calls.json``. Everything is measured beside an ensemble with 24
calls at the first stages and 48 at the last; CRPS is against the training members, which all settings have seen alike.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from climatesuite.evaluate.scores import crps_ensemble
from climatesuite.harmonise.grids import cos_weights
from climatesuite.store.open import only, open_run
from climatesuite.store.provenance import code_commit
from spf.commands.steps import hardware
from spf.config import SamplingConfig
from spf.sampling.conditions import calls_of
from spf.sampling.emulator import Emulator

OUT = Path(__file__).resolve().parent / "results" / "calls.json"
YEARS = {"year": (2031, 2080), "month": (2061, 2065)}


class Setting(NamedTuple):
    """Solver, steps of each stage, coarse to fine, and time shift of the last one (1.5 before)."""

    solver: str
    steps: tuple[int, int, int]
    shift: float = 1.5

    @property
    def sampling(self) -> SamplingConfig:
        """For the emulator."""
        return SamplingConfig(solver=self.solver, n_steps=self.steps, shift=(1.5, 1.5, self.shift))


REFERENCE = Setting("midpoint", (12, 12, 24))
SETTINGS = (
    Setting("midpoint", (4, 4, 4)), Setting("midpoint", (8, 8, 2)), Setting("midpoint", (8, 8, 4)),
    Setting("midpoint", (8, 8, 4), 4.0), Setting("midpoint", (8, 8, 5), 4.0), Setting("midpoint", (8, 8, 8)),
    Setting("adams_bashforth", (16, 16, 10), 4.0), Setting("heun", (8, 8, 5), 4.0), Setting("euler", (16, 16, 10), 4.0),
)  # fmt: skip


def main() -> None:
    """Draw and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished experiment")
    parser.add_argument("--members", type=int, default=3)
    args = parser.parse_args()
    emulator = Emulator.load(args.run / "emulator.pt")
    known = emulator.provenance
    scenario, members = sorted(known["training_members"].items())[-1]
    month = open_run(args.run / "store.zarr", known["source_id"], scenario, "month")
    forcings = only(month, emulator.codec.forcings).load()
    rows = []
    for timescale, years in YEARS.items():
        truth = open_run(args.run / "store.zarr", known["source_id"], scenario, timescale)
        truth = only(truth, emulator.codec.variables).sel(member=list(members))
        truth = truth.isel(time=(truth.year >= years[0]) & (truth.year <= years[1])).load()
        whole = drawn(emulator, forcings, timescale, args.members, REFERENCE)[0]
        for setting in SETTINGS:
            ensemble, seconds = drawn(emulator, forcings, timescale, args.members, setting)
            rows.append({"timescale": timescale, **row(ensemble, whole, truth, setting), "seconds": round(seconds, 1)})
            print(json.dumps(rows[-1]), flush=True)
    about = {
        "command": f"python experiments/calls.py runs/{args.run.name}", "commit": code_commit(), "hardware": hardware(),
        "scenario": f"{scenario}, a training scenario", "years": YEARS, "members": args.members, "seed": 0,
        "reference": {"solver": REFERENCE.solver, "calls": calls_of(REFERENCE.sampling, 3)}, "rows": rows,
    }  # fmt: skip
    OUT.write_text(json.dumps(about, indent=1) + "\n")


def drawn(
    emulator: Emulator, forcings: xr.Dataset, timescale: str, members: int, setting: Setting
) -> tuple[xr.Dataset, float]:
    """An ensemble and the seconds it took."""
    begin = time.monotonic()
    ensemble = emulator.sample(forcings, timescale, members, years=YEARS[timescale], sampling=setting.sampling)
    return ensemble, time.monotonic() - begin


def row(ensemble: xr.Dataset, whole: xr.Dataset, truth: xr.Dataset, setting: Setting) -> dict[str, Any]:
    """Variance and CRPS over those of the reference ensemble, and how far members moved in units of its spread."""
    out: dict[str, Any] = {"solver": setting.solver, "calls": calls_of(setting.sampling, 3), "shift": setting.shift}
    weights = cos_weights(truth.lat)
    for name in truth.data_vars:
        spread = [float(x[name].var("member", ddof=1).weighted(weights).mean()) for x in (ensemble, whole)]
        score = [float(crps_ensemble(x[name], truth[name]).weighted(weights).mean()) for x in (ensemble, whole)]
        moved = float(((ensemble[name] - whole[name]) ** 2).weighted(weights).mean())
        out[str(name)] = {
            "variance_ratio": round(spread[0] / spread[1], 4), "crps_ratio": round(score[0] / score[1], 4),
            "moved": round((moved / spread[1]) ** 0.5, 4),
        }  # fmt: skip
    return out


if __name__ == "__main__":
    main()
