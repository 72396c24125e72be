"""Keep the numbers of a finished run beside the command that made them: ``python experiments/results/collect.py runs/NAME``."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from climatesuite.store.provenance import code_commit
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
    rows = json.loads((folder / "scores.json").read_text())
    result = {
        "command": f"spf run experiments/{name}.yaml",
        "commit": code_commit(),
        "hardware": known["hardware"],
        "training": known["training"],
        "parameters": known["parameters"],
        "seconds_of_sampling": json.loads((folder / "sampling.json").read_text()),
        "config": yaml.safe_load((folder / "experiment.yaml").read_text()),
        "rows": [{k: row.get(k) for k in KEPT} for row in rows],
    }
    structure = folder / "structure.json"
    if structure.exists():
        result["structure"] = json.loads(structure.read_text())
    out = here / f"{name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    return out


MODELS = {
    "climatology": "climatology", "pattern scaling (CO2)": "pattern scaling (CO2)", "energy balance": "energy balance",
    "spf": "SPF",
}  # fmt: skip


def table(rows: list[dict[str, Any]], period: str = "headline") -> str:
    """The README's table: RMSE / CRPS over the floor [95 %] (spread-skill)."""
    found = {(r["model"], r["variable"], r["timescale"]): r for r in rows if r["period"] == period}
    models = {model: name for model, name in MODELS.items() if any(key[0] == model for key in found)}
    lines = ["| | floor | " + " | ".join(models.values()) + " |", "|---" * (2 + len(models)) + "|"]
    for variable in sorted({r["variable"] for r in rows}, reverse=True):
        for timescale in ("decade", "year", "month"):
            cells = []
            for model in models:
                r = found[model, variable, timescale]
                interval = f"[{r['crps_ratio_lo']:.2f}, {r['crps_ratio_hi']:.2f}]"
                cells.append(f"{r['rmse']:.3f} / {r['crps_ratio']:.3f} {interval} ({r['spread_skill']:.2f})")
            floor = found["spf", variable, timescale]
            lines.append(
                f"| {variable} {timescale}, {floor['units']} | {floor['crps_floor']:.3f} | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    made = main(Path(sys.argv[1]))
    print(made, table(json.loads(made.read_text())["rows"]), sep="\n")
