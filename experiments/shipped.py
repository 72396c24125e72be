"""Does half precision matter? The same members from a run's checkpoint and from what ``spf ship`` makes of it, scored in pairs.

``python experiments/shipped.py RUN`` writes ``experiments/results/shipped.json``: how far fields move, and the difference of the
CRPS against held-out members with its 95 % interval (block bootstrap over decades). Needs what the run was made with.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import spf
from climatesuite.evaluate.compare import compare
from climatesuite.evaluate.scoring import Prediction
from climatesuite.store.open import open_run
from climatesuite.store.provenance import code_commit
from spf import checkpoint
from spf.commands.ship import ship
from spf.commands.steps import hardware
from spf.commands.workspace import Workspace
from spf.config import RunConfig
from spf.plain import from_dict
from spf.sampling.emulator import Emulator

RESULT = Path(__file__).parent / "results" / "shipped.json"
DRAWN = {"decade": (20, (2015, 2094)), "year": (10, (2015, 2099)), "month": (2, (2015, 2034))}
"""Members and years, the same for both."""
SEED, BOOTSTRAP = 0, 1000
KEPT = ("model", "variable", "period", "units", "crps", "crps_floor", "crps_ratio", "spread_skill")


def moved(one: xr.Dataset, other: xr.Dataset, name: str) -> dict[str, float]:
    """How far fields are apart, beside what members differ by."""
    apart = (other[name] - one[name]).values
    between = float(one[name].std("member", ddof=1).mean())
    return {
        "rms": float(np.sqrt((apart**2).mean())),
        "largest": float(np.abs(apart).max()),
        "spread_of_members": between,
    }


def pair(
    whole: Emulator, small: Emulator, timescale: str, truth: dict[str, xr.Dataset], scenario: str
) -> dict[str, Any]:
    """Both ensembles of a timescale, and what differs."""
    members, years = DRAWN[timescale]
    forcings = small.forcings(scenario)  # as carried, so that only the emulators differ; the file's are compared below
    drawn = {
        name: e.sample(forcings, timescale, members, years, SEED).reset_coords(list(e.codec.forcings), drop=True)
        for name, e in (("whole", whole), ("shipped", small))
    }
    given = [Prediction(name, ds) for name, ds in drawn.items()]
    found = compare(given, truth[timescale], decade_start=whole.decade_start, bootstrap=BOOTSTRAP)
    return {
        "members": members, "years": list(years),
        "moved": {v: moved(drawn["whole"], drawn["shipped"], v) for v in whole.codec.variables},
        "rows": [{k: r.get(k) for k in KEPT} for r in found.rows],
        "differences": found.differences,
    }  # fmt: skip


def main() -> None:
    """Measure every timescale and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run that can be shipped")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    content = checkpoint.load(args.run / "emulator.pt")
    work = Workspace(from_dict(RunConfig, content["config"]), args.run)
    scenario, data = work.test_scenario(), work.config.data
    truth = {t: open_run(work.store, data.source_id, scenario, t).sel(member=list(data.test[scenario])) for t in DRAWN}
    with tempfile.TemporaryDirectory() as folder:
        file, _ = ship(args.run, Path(folder))
        whole, small = spf.load(args.run / "emulator.pt"), spf.load(file)
        sizes = {"whole": (args.run / "emulator.pt").stat().st_size, "shipped": file.stat().st_size}
    file = work.forcing_files() / f"inputs_{scenario}.nc"
    seen = [whole.codec.encode_forcings(f).months for f in (whole.forcings(file), small.forcings(scenario))]
    result = {
        "command": f"python experiments/shipped.py runs/{work.config.name}", "commit": code_commit(),
        "hardware": hardware(), "seed": SEED,
        "scenario": scenario, "bytes": sizes, "largest_shift_of_encoded_forcings": float((seen[0] - seen[1]).abs().max()),
        "timescales": {t: pair(whole, small, t, truth, scenario) for t in DRAWN},
    }  # fmt: skip
    args.result.write_text(json.dumps(result, indent=1) + "\n")
    for timescale, found in result["timescales"].items():
        for v, m in found["moved"].items():
            print(f"{v} {timescale}: moved by {m['rms'] / m['spread_of_members']:.2%} of the spread of members (rms)")
    print(args.result)


if __name__ == "__main__":
    main()
