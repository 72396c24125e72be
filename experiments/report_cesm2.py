"""Reports on CESM2 from ensembles that exist: ``python experiments/report_cesm2.py [ssp370 ...]``.

One page a rotation of the test scenario, under ``runs/report-<test>/``: the ensembles ``runs/cesm2-<test>/ensemble_*.nc`` where
SPF has been run, and those of drawn baselines, which are made here if they are absent (``--without-mesmer`` where mesmer-emulator
is not installed). Nothing is trained. ``CLIMATE_DATA`` (default ``../shared/data``) holds the data, ``SPF_RUNS`` (default
``runs``) the runs. The headline rows go to ``experiments/results/report_<test>.json``.
"""

import argparse
import json
import os
from pathlib import Path

from climatesuite.evaluate.report import write_json
from climatesuite.evaluate.report_files import report_files
from climatesuite.evaluate.score_files import write_baseline
from climatesuite.store.provenance import code_commit

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS, DEFAULT = ("ssp126", "ssp370", "ssp585"), ("ssp370", "ssp126")
DRAWN = {"energy-balance": {"decade": 20, "year": 20, "month": 8}, "mesmer": {"decade": 20, "year": 20}}
"""Baselines that are drawn, beside the exact rows of all references: members by timescale."""
KEPT = (
    "model", "variable", "units", "timescale", "window", "M", "N", "rmse", "bias", "crps", "crps_floor", "crps_ratio",
    "crps_ratio_lo", "crps_ratio_hi", "skill", "spread_skill", "seed", "flag",
)  # fmt: skip


def report(test: str, data: Path, runs: Path, baselines: list[str], timescales: list[str]) -> Path:
    """Draw what is absent, write the page, keep the headline rows."""
    cmip = {s: sorted((data / "CMIP6" / "CESM2").glob(f"*_{s}_*.nc")) for s in SCENARIOS}
    training = [f for s in SCENARIOS if s != test for f in cmip[s]]
    patterns, forcings = data / "patterns" / "cmip6_mean_warming_pattern.nc", data / "forcings"
    folder = runs / f"report-{test}"
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        f for f in sorted((runs / f"cesm2-{test}").glob("ensemble_*.nc")) if any(t[:3] in f.stem for t in timescales)
    ]
    for name in baselines:
        for timescale, members in DRAWN[name].items():
            file = folder / f"{name}_{timescale}.nc"
            if timescale not in timescales:
                continue
            if not file.exists():
                write_baseline(
                    name,
                    training,
                    test,
                    timescale,
                    file,
                    forcings,
                    patterns=patterns,
                    decade_start=2015,
                    members=members,
                )
            files.append(file)
    page = report_files(
        files, cmip[test], training, forcings, folder / "report.html", patterns=patterns, decade_start=2015,
        command=f"python experiments/report_cesm2.py {test}", progress=True,
    )  # fmt: skip
    rows = json.loads(page.with_suffix(".json").read_text())["scores"]
    kept = [{k: r[k] for k in KEPT} for r in rows if r["period"] == "headline"]
    out = ROOT / "experiments" / "results" / f"report_{test}.json"
    write_json(out, {"command": f"python experiments/report_cesm2.py {test}", "commit": code_commit(), "rows": kept})
    return page


def main() -> None:
    """A page for every rotation that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", default=DEFAULT, help="test scenarios (default: ssp370 and ssp126)")
    parser.add_argument("--without-mesmer", action="store_true")
    parser.add_argument("--timescales", nargs="+", default=["decade", "year", "month"])
    args = parser.parse_args()
    data = ROOT / os.environ.get("CLIMATE_DATA", "../shared/data")
    runs = Path(os.environ.get("SPF_RUNS", ROOT / "runs"))
    baselines = [b for b in DRAWN if not (args.without_mesmer and b == "mesmer")]
    for test in args.tests:
        print(report(test, data, runs, baselines, args.timescales))


if __name__ == "__main__":
    main()
