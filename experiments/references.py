"""Score every reference on CESM2 for three rotations of the test scenario, and hold their members against real ones.

``python experiments/references.py [--only ssp370] [--without-mesmer]`` reads ``CLIMATE_DATA`` (default ``../shared/data``) and
writes ``experiments/results/references.json`` and ``.md``; about ten minutes a rotation on one quiet core. A rotation that is not
asked for keeps the numbers it has. Emulators of one member (``spf unet``) join where their files lie in ``runs/unet-<test>/``.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from climatesuite.archive.read import open_runs
from climatesuite.baselines.ar1 import AutoregressiveScaling
from climatesuite.baselines.fit import Case, fit_baseline
from climatesuite.baselines.mesmer import Mesmer
from climatesuite.baselines.names import AR1, ENERGY_BALANCE, FLOOR, MESMER, PATTERN_SCALING, REFERENCES
from climatesuite.baselines.pattern_scaling import PatternScaling
from climatesuite.baselines.reference import Baseline, Drawn, coarse_runs, draw
from climatesuite.evaluate.report import write_json
from climatesuite.evaluate.score_files import cumulative_co2
from climatesuite.evaluate.scoring import Prediction, score_datasets
from climatesuite.evaluate.structure_table import structure_table
from climatesuite.export import open_ensemble
from climatesuite.forcing.energy_response import annual_global_mean, open_patterns
from climatesuite.store.provenance import code_commit

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "references.json"
LISTED = HERE / "results" / "references_listed.yaml"
DATA = Path(os.environ.get("CLIMATE_DATA", HERE.parent / "../shared/data"))
TIMESCALES = ("decade", "year", "month")
ROTATIONS = ("ssp370", "ssp126", "ssp585")
"""The test scenario; the other two train."""
VARIABLES, DECADE_START, SEED = ("tas", "pr"), 2015, 0
MEMBERS = {"ar1": 50, "mesmer": 20, "structure": 20}
TRUE_MEAN = "true global mean"
FORMS = {
    "energy balance, mean of six": (0.0, 0.0, False),
    "energy balance, mean of six + common": (0.5, 0.0, False),
    "energy balance, one of six + common": (0.5, 0.0, True),
    "energy balance, mean of six + common + half pattern change": (0.5, 0.5, False),
    "energy balance, mean of six + common + pattern change": (0.5, 1.0, False),
}
"""Shares of the common departure and of the multi-model pattern change, and whether members draw one of the six."""
KEPT = (
    "model", "variable", "units", "timescale", "period", "window", "M", "N", "seed", "rmse", "bias", "crps", "crps_kind",
    "crps_floor", "crps_ratio", "crps_ratio_lo", "crps_ratio_hi", "skill", "skill_lo", "skill_hi", "spread_skill",
    "var_ratio", "params", "runtime_s",
)  # fmt: skip
Runs = Mapping[str, xr.Dataset]


def cubic(series: xr.DataArray) -> xr.DataArray:
    """A cubic in time through annual values ``(year)``."""
    t = np.linspace(-1.0, 1.0, series.size)
    return series.copy(data=np.polyval(np.polyfit(t, series.values, 3), t))


def exact(case: Case, smooth: Mapping[str, xr.DataArray]) -> list[Baseline]:
    """References that are scored by exact expectation."""
    fitted: list[Any] = [fit_baseline(n, case) for n in ("climatology", "first-decade", "pattern-scaling")]
    balance: Any = fit_baseline("energy-balance", case)
    fitted += [balance.variant(name, common=c, kappa=k, draws=d) for name, (c, k, d) in FORMS.items()]
    known = PatternScaling.fit(
        case.runs, smooth, smooth[case.scenario], case.variables, case.decade_start, case.timescales
    )
    return [*fitted, balance, replace(known, name=TRUE_MEAN)]


def drawn(
    case: Case, scaling: Any, smooth: Mapping[str, xr.DataArray], mesmer: bool
) -> Iterator[tuple[Drawn, int, tuple[str, ...], dict[str, float]]]:
    """References that have to be drawn, the number of members, their timescales, and what their fit took."""
    yield AutoregressiveScaling(scaling), MEMBERS["ar1"], TIMESCALES, {}
    if not mesmer:
        return
    for name, predictors in ((MESMER, case.co2()), (f"{MESMER}, {TRUE_MEAN}", smooth)):
        start = time.perf_counter()
        fitted = Mesmer.fit(case.runs, predictors, predictors[case.scenario], VARIABLES)
        yield replace(fitted, name=name), MEMBERS["mesmer"], ("decade", "year"), {"fit_s": time.perf_counter() - start}


def unet(test: str) -> Iterator[Prediction]:
    """Fields of the deterministic UNet, where it has been run."""
    for path in sorted((HERE.parent / "runs" / f"unet-{test}").glob("unet_*.nc")):
        ds = open_ensemble(path)
        facts = {k: ds.attrs[k] for k in ("seed", "params", "runtime_s") if k in ds.attrs}
        yield Prediction(str(ds.attrs["model"]), ds, facts)


def rotation(test: str, runs: Runs, mesmer: bool) -> dict[str, Any]:
    """All rows and the structure of one rotation."""
    co2 = cumulative_co2(DATA / "forcings", list(runs))
    patterns = open_patterns(DATA / "patterns" / "cmip6_mean_warming_pattern.nc", runs[test])
    training = {s: ds for s, ds in runs.items() if s != test}
    case = Case(training, test, co2, VARIABLES, DECADE_START, TIMESCALES, patterns)
    smooth = {s: cubic(annual_global_mean(ds)) for s, ds in runs.items()}
    references = exact(case, smooth)
    truths = {t: coarse_runs({test: runs[test]}, DECADE_START, [t])[t][test] for t in TIMESCALES}
    scaling = next(b for b in references if b.name == PATTERN_SCALING)
    predictions, members = list(unet(test)), {}
    for baseline, size, timescales, facts in drawn(case, scaling, smooth, mesmer):
        for t in timescales:
            began = time.perf_counter()
            fields = draw(baseline, t, truths[t], size, SEED)
            seconds = round(time.perf_counter() - began + (facts.get("fit_s", 0.0) if t == "year" else 0.0), 1)
            predictions.append(Prediction(baseline.name, fields, {"seed": SEED, "runtime_s": seconds}))
            if t != "decade" and baseline.name in (AR1, MESMER):
                members.setdefault(baseline.name, {})[t] = fields.isel(member=slice(MEMBERS["structure"]))
        print(f"{test}: drew {baseline.name}", flush=True)
    rows = score_datasets(predictions, truths, references, variables=VARIABLES, decade_start=DECADE_START)
    print(f"{test}: scored", flush=True)
    for baseline in references:
        if baseline.name in (PATTERN_SCALING, ENERGY_BALANCE):
            size, seed = MEMBERS["structure"], SEED
            members[baseline.name] = {t: draw(baseline, t, truths[t], size, seed) for t in ("year", "month")}
    structure = {name: structure_table(by, runs.values(), decade_start=DECADE_START) for name, by in members.items()}
    return {"rows": [{k: row.get(k) for k in KEPT} for row in rows], "structure": structure}


def against_listed(found: Mapping[str, Any], listed: Mapping[str, Any]) -> list[str]:
    """Lines of the table of differences, largest first."""
    lines = []
    for test, groups in listed.items():
        rows = {
            (f"{r['variable']} {r['timescale']}", r["model"], r["period"]): r
            for r in found.get(test, {}).get("rows", [])
        }
        for group, models in groups.items():
            for model, numbers in models.items():
                for period, number in zip(("full", "headline"), numbers, strict=True):
                    row = rows.get((group, model, period))
                    if number is not None and row is not None:
                        gap = row["crps_ratio"] - number
                        lines.append(
                            (
                                abs(gap),
                                f"{gap:+.3f}  {test} {group} {period}: {model} {row['crps_ratio']:.3f}, listed {number:.3f}",
                            )
                        )
    return [text for _, text in sorted(lines, reverse=True)]


def table(rows: list[dict[str, Any]], period: str) -> str:
    """RMSE / CRPS over the floor [95 %] (spread-skill); skill, of one rotation as Markdown; the floor itself in units."""
    groups = list(dict.fromkeys((r["variable"], r["timescale"]) for r in rows))
    models = list(dict.fromkeys(r["model"] for r in rows))
    found = {(r["model"], r["variable"], r["timescale"]): r for r in rows if r["period"] == period}
    lines = ["| | " + " | ".join(f"{v} {t}" for v, t in groups) + " |", "|---" * (1 + len(groups)) + "|"]
    for model in models:
        lines.append(f"| {model} | " + " | ".join(cell(found.get((model, *group))) for group in groups) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any] | None) -> str:
    """One cell of :func:`table`."""
    if row is None:
        return "–"
    if row["model"] == FLOOR:
        return f"{row['crps']:.3f} {row['units']}"
    interval = "" if row["crps_ratio_lo"] is None else f" [{row['crps_ratio_lo']:.2f}, {row['crps_ratio_hi']:.2f}]"
    spread = "" if row["spread_skill"] is None else f" ({row['spread_skill']:.2f})"
    # where pattern scaling is hardly above the floor the skill divides by next to nothing and has no interval
    skill = "" if row["skill_lo"] is None else f"; {row['skill']:+.2f}"
    return f"{row['rmse']:.3f} / {row['crps_ratio']:.3f}{interval}{spread}{skill}"


def structure(tables: Mapping[str, list[dict[str, Any]]]) -> str:
    """Structure of the members of several references beside the real interval as Markdown; bold lies outside."""
    models = [m for m in REFERENCES if m in tables]
    found = {m: {(r["name"], r["variable"]): r for r in tables[m]} for m in models}
    lines = ["| | real | " + " | ".join(models) + " |", "|---" * (2 + len(models)) + "|"]
    for name, variable in dict.fromkeys(key for m in models for key in found[m]):
        rows = [found[m].get((name, variable)) for m in models]
        first = next(r for r in rows if r is not None)
        real = f"{first['real_mean']:.3f} [{first['real_lo']:.3f}, {first['real_hi']:.3f}]"
        cells = [
            "–" if r is None else f"**{r['value']:.3f}**" if r["inside"] is False else f"{r['value']:.3f}" for r in rows
        ]
        lines.append(f"| {name}, {variable} | {real} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(found: Mapping[str, Any]) -> str:
    """Everything that is kept as one Markdown page."""
    parts = [
        "# What references score on CESM2\n\nMade by `python experiments/references.py`; numbers in references.json. Cells: RMSE "
        "of the mean / CRPS over the floor [95 %] (spread-skill); skill against CO2 pattern scaling, where it has an interval."
    ]
    for test, result in found.items():
        for period in ("headline", "full"):
            parts.append(f"## Test {test}, {period} period\n\n{table(result['rows'], period)}")
        parts.append(f"## Structure of members, test {test}\n\nBold lies outside the real members' interval.\n\n"
                     + structure(result["structure"]))  # fmt: skip
    gaps = against_listed(found, yaml.safe_load(LISTED.read_text()))
    about = "CRPS over the floor here minus that of references_listed.yaml, the 25 largest of"
    parts.append(f"## Another implementation\n\n{about} {len(gaps)}:\n\n" + "\n".join(f"- {g}" for g in gaps[:25]))
    return "\n\n".join(parts) + "\n"


def kept() -> dict[str, Any]:
    """Results by test scenario that are already there, in the order of the rotations."""
    found = json.loads(OUT.read_text())["rotations"] if OUT.exists() else {}
    return {test: found[test] for test in ROTATIONS if test in found}


def main() -> None:
    """Score, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TEST", help="rotations to run (default: all)")
    parser.add_argument("--without-mesmer", action="store_true", help="where mesmer-emulator is not installed")
    parser.add_argument("--print", action="store_true", help="only print what is kept")
    args = parser.parse_args()
    found = kept()
    if not args.print:
        opened = open_runs([DATA / "CMIP6" / "CESM2"], variables=VARIABLES)
        runs = {scenario: ds.load() for (_, scenario), ds in opened.items()}
        commit = code_commit()
        for test in args.only or ROTATIONS:
            result = {"commit": commit, **rotation(test, runs, not args.without_mesmer)}
            found = {**kept(), test: result}  # read again: another rotation may have ended meanwhile
            write_json(OUT, {"command": "python experiments/references.py", "rotations": found})
    page = report(found)
    OUT.with_suffix(".md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
