"""The whole path on a small scale: the experiment behind the session's one trained model."""

from pathlib import Path

import yaml

CONTENT = {
    "name": "small",
    "data": {
        "archive": "synthetic",
        "source_id": "SYNTHETIC-A",
        "train": {"ssp126": ["r1i1p1f1", "r2i1p1f1"], "ssp585": ["r1i1p1f1", "r2i1p1f1"]},
        "test": {"ssp370": ["r1i1p1f1", "r2i1p1f1"]},
        "years": [2015, 2044],
    },
    "network": {"width": 48, "depth": 2, "heads": 2, "patch": 3, "forcing_patch": 3},
    "training": {"minutes": 0.5, "max_steps": 40, "tokens_per_step": 1152, "precision": "32-true"},
    "sampling": {"members": {"decade": 4, "year": 4, "month": 3}, "month_years": [2043, 2044], "n_steps": 2},
}


def write_experiment(folder: Path) -> Path:
    """The experiment as a YAML file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    return path
