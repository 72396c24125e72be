"""Keep the numbers of a finished run beside the command that made them: ``python experiments/results/collect.py runs/NAME``."""

import json
import subprocess
import sys
from pathlib import Path

from spf import checkpoint

KEPT = (
    "model", "variable", "units", "timescale", "scenario", "window", "period", "M", "N", "target", "seed", "rmse", "crps",
    "crps_floor", "crps_ratio", "crps_ratio_lo", "crps_ratio_hi", "skill", "spread_skill", "bias",
)  # fmt: skip


def main(folder: Path) -> Path:
    """Write ``<name>.json`` beside this file.

    Args:
        folder: Of the run.

    Returns:
        The file.
    """
    content = checkpoint.load(folder / "emulator.pt")
    name, known = content["config"]["name"], content["provenance"]
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
    ).stdout.strip()
    rows = json.loads((folder / "scores.json").read_text())
    result = {
        "command": f"spf run experiments/{name}.yaml",
        "commit": commit,
        "hardware": known["hardware"],
        "training": known["training"],
        "parameters": known["parameters"],
        "seconds_of_sampling": json.loads((folder / "sampling.json").read_text()),
        "config": content["config"],
        "rows": [{k: row.get(k) for k in KEPT} for row in rows],
    }
    out = here / f"{name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    return out


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
