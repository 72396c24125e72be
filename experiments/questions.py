"""Ask real CESM2 members and two reference ensembles of ssp370 what a climate scientist asks first.

``python experiments/questions.py [--members 20] [--folder runs/questions] [--sensitivity emulator.pt]`` reads ``CLIMATE_DATA``
(default ``../shared/data``), draws months and years of the energy balance and of CO2 pattern scaling, trained on ssp126 and ssp585,
into the folder unless they are there, and writes ``experiments/results/questions.json``; some minutes.

Warming levels are asked twice: with the observed offset of 2015-2024, and with that of CESM2's own historical runs.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from climatesuite.evaluate.answers import Row, answer_table, disagreeing
from climatesuite.evaluate.blame import blame_rows
from climatesuite.evaluate.by_region import region_rows, summary
from climatesuite.evaluate.question_files import ask_files
from climatesuite.evaluate.questions import BASE, OFFSET, question_rows
from climatesuite.evaluate.report import write_json
from climatesuite.evaluate.score_files import write_baseline
from climatesuite.store.provenance import code_commit

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CLIMATE_DATA", HERE.parent / "../shared/data"))
ENSEMBLES, TIMESCALES, TEST, SEED = ("energy-balance", "pattern-scaling"), ("year", "month"), "ssp370", 0
KEPT = ("name", "variable", "region", "season", "value", "lo", "hi", "reference", "reference_lo", "reference_hi", "agrees", "units",
        "note", "status", "cause")  # fmt: skip


def files(scenarios: Sequence[str]) -> list[Path]:
    """CMIP files of CESM2."""
    return sorted(p for s in scenarios for p in (DATA / "CMIP6" / "CESM2").glob(f"*_{s}_*.nc"))


def drawn(name: str, folder: Path, members: int) -> list[Path]:
    """Years and months of a baseline, drawn where they are not there yet."""
    out = []
    for timescale in TIMESCALES:
        out.append(folder / f"{name}-{timescale}-{members}.nc")
        if not out[-1].exists():
            write_baseline(
                name, files(["ssp126", "ssp585"]), TEST, timescale, out[-1], DATA / "forcings", members=members, seed=SEED,
                patterns=DATA / "patterns" / "cmip6_mean_warming_pattern.nc",
            )  # fmt: skip
    return out


def own_offset() -> float:
    """K by which CESM2's 2015-2024 lies above its 1850-1900: historical members, and those of the four scenarios together."""
    table = pd.read_csv(DATA / "global_mean" / "gsat_annual_ten_models.csv")
    table = table[table["source_id"] == "CESM2"]
    past = table["experiment_id"] == "historical"
    before = table[past & table["year"].between(1850, 1900)]["tas"].mean()
    return float(table[~past & table["year"].between(*BASE)]["tas"].mean() - before)


def short(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Rows by question, without what is empty, numbers of five digits."""
    out: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        kept = {k: float(f"{v:.5g}") if isinstance(v := r.get(k), float) else v for k in KEPT}
        out.setdefault(r["question"], []).append({k: v for k, v in kept.items() if v not in (None, [])})
    return out


def asked_of(name: str, folder: Path, members: int) -> dict[str, Any]:
    """Everything asked of one ensemble."""
    begun, truth = time.perf_counter(), files([TEST])
    paths, offset = drawn(name, folder, members), own_offset()
    asked = ask_files(paths, truth)
    answers, regions, blame = question_rows(asked), region_rows(asked, seed=SEED), blame_rows(asked)
    own = question_rows(ask_files(paths, truth, offset=offset), ["warming levels"])
    judged = [r for r in answers if r["agrees"] is not None]
    print(answer_table([*answers, *summary(regions), *blame]), "\n")
    return {
        "members": members, "seconds": round(time.perf_counter() - begun),
        "outside": f"{len(disagreeing(answers))} of {len(judged)} answers",
        "warming levels, CESM2's own offset": short(own)["warming levels"],
        "answers": short(answers), "calibration by region, % outside": short(summary(regions)), "blame": short(blame)["blame"],
    }  # fmt: skip


def main() -> None:
    """Ask, print and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--members", type=int, default=20)
    options.add_argument("--folder", type=Path, default=Path("runs/questions"))
    options.add_argument("--sensitivity", type=Path, help="JSON of spf sensitivity, to be kept beside")
    options.add_argument("--of", default="", help="which emulator that was")
    args = options.parse_args()
    found: dict[str, Any] = {
        "command": f"python experiments/questions.py --members {args.members}", "commit": code_commit(), "seed": SEED,
        "test": TEST, "truth": "CESM2 r4i1p1f1, r10i1p1f1", "training": "ssp126, ssp585",
        "offset": {"observed 2015-2024, Forster et al. 2025": OFFSET, "CESM2's own": round(own_offset(), 3)},
        "ensembles": {name: asked_of(name, args.folder, args.members) for name in ENSEMBLES},
    }  # fmt: skip
    if args.sensitivity is not None:
        rows = short(json.loads(args.sensitivity.read_text()))
        found["spf sensitivity"] = {"emulator": args.of, **rows}
    print(write_json(HERE / "results" / "questions.json", found))


if __name__ == "__main__":
    main()
