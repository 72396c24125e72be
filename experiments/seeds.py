"""How much scores hang on the seed: ``python experiments/seeds.py [ssp370]`` trains, draws and scores CESM2 with other seeds.

``experiments/cesm2-<test>.yaml`` with seeds 1 and 2 of weights, batches and members; decades and years, no months. Works in
``runs/seeds/<test>-<seed>`` and writes ``experiments/results/seeds.json``: CRPS over the floor beside that of seed 0, from
``cesm2-<test>.json``. What is done is kept.
"""

import argparse
import json
import logging
from dataclasses import replace
from typing import Any

from comparisons import HERE, RUNS, compare_drawn, opened

from climatesuite.evaluate.report import write_json
from climatesuite.store.provenance import code_commit
from spf.config import RunConfig, load_config

OUT = HERE / "results" / "seeds.json"
SEEDS, MEMBERS = (1, 2), {"decade": 20, "year": 20}


def with_seed(test: str, seed: int) -> RunConfig:
    """The experiment with another seed everywhere."""
    config = load_config(HERE / f"cesm2-{test}.yaml")
    return replace(
        config, name=f"{config.name}-seed{seed}", training=replace(config.training, seed=seed),
        sampling=replace(config.sampling, seed=seed, members=MEMBERS),
    )  # fmt: skip


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """CRPS over the floor of the headline period, by variable and timescale."""
    return {f"{r['variable']} {r['timescale']}": r["crps_ratio"] for r in rows if r["period"] == "headline"}


def first(test: str) -> dict[str, float]:
    """Those of seed 0."""
    rows = json.loads((HERE / "results" / f"cesm2-{test}.json").read_text())["rows"]
    found = ratios([r for r in rows if r["model"] == "spf"])
    return {name: value for name, value in found.items() if name.split()[1] in MEMBERS}


def main() -> None:
    """Train and score what is not there yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", nargs="?", default="ssp370", choices=("ssp126", "ssp370"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    found = json.loads(OUT.read_text())["tests"] if OUT.exists() else {}
    own = found.setdefault(args.test, {})
    for seed in (s for s in SEEDS if str(s) not in own):
        runs = RUNS.parent / "seeds"
        work = opened(with_seed(args.test, seed), runs / f"{args.test}-{seed}", runs)
        own[str(seed)] = {"commit": code_commit(), **compare_drawn(work, step_by_step=False)}
        write_json(OUT, {"command": f"python experiments/seeds.py {args.test}", "tests": found})
    table = {"0": first(args.test), **{seed: ratios(result["rows"]) for seed, result in own.items()}}
    for name in table["0"]:
        print(f"{name:12s}" + "  ".join(f"{seed}: {values[name]:.3f}" for seed, values in table.items()))


if __name__ == "__main__":
    main()
