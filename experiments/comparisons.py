"""Train, draw and score the paper's comparisons in the same code, on the same data and budget.

``python experiments/comparisons.py [--test ssp370] [--only spf one-stage ...]`` reads ``CLIMATE_DATA`` (default
``../shared/data``), works in ``runs/comparisons/<name>`` (``<name>-<test>`` where another scenario than the files' is tested) and
writes ``experiments/results/comparisons.json``. 400 steps of training each, whatever the machine; what is done is kept, so the same
command goes on where it stopped. The files in ``experiments/comparisons/`` say what is compared; UNet and ClimaX-like transformer,
which are deterministic, are trained on the years of ``spf.yaml`` for as many steps. Decades of emulators that draw years only are
means of these.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from climatesuite.evaluate.report import write_json
from climatesuite.export import open_ensemble, write_cf
from climatesuite.harmonise.coarsen import to_decade
from climatesuite.store.open import only, open_run
from climatesuite.store.provenance import code_commit
from spf.commands.outcome import score
from spf.commands.steps import hardware, ingest, sample, train, years_of
from spf.commands.unet import CLIMAX, UNET, Architecture, deterministic
from spf.commands.workspace import Workspace, open_workspace
from spf.config import RunConfig, load_config
from spf.cost import CostModel
from spf.learning.learn import learn
from spf.plain import to_dict
from spf.rivals.autoregressive import StepEmulator, train_autoregressive
from spf.sampling.emulator import Emulator

HERE = Path(__file__).resolve().parent
FILES = HERE / "comparisons"
OUT = HERE / "results" / "comparisons.json"
RUNS = HERE.parent / "runs" / "comparisons"
DRAWN = (
    "spf", "untrained", "spf-paper", "pixelflow", "one-stage", "multi-yearly", "multi-monthly", "autoregressive", "cross-attention",
    "co2-line", "spf-months", "level-weighted",
)  # fmt: skip
STEP_BY_STEP = ("autoregressive",)
DETERMINISTIC: Mapping[str, Architecture] = {"unet": UNET, "climax": CLIMAX}
COLUMNS = [(v, t) for t in ("decade", "year", "month") for v in ("tas", "pr")]
KEPT = (
    "variable", "units", "timescale", "period", "M", "N", "rmse", "bias", "crps", "crps_floor", "crps_ratio",
    "crps_ratio_lo", "crps_ratio_hi", "spread_skill",
)  # fmt: skip


def rotated(config: RunConfig, test: str | None) -> RunConfig:
    """The experiment with another of its scenarios tested, and the others trained on.

    Raises:
        ValueError: If it has no such scenario.
    """
    scenarios = {**config.data.train, **config.data.test}
    if test is None or test in config.data.test:
        return config
    if test not in scenarios:
        raise ValueError(f"--test {test}: {config.name} has {', '.join(scenarios)} only; name one of them")
    trained = {s: members for s, members in scenarios.items() if s != test}
    return replace(config, data=replace(config.data, train=trained, test={test: scenarios[test]}))


def experiment(name: str, test: str | None) -> RunConfig:
    """What is trained under a name."""
    file = "spf" if name in DETERMINISTIC else name
    return replace(rotated(load_config(FILES / f"{file}.yaml"), test), name=name)


def opened(config: RunConfig, folder: Path, runs: Path) -> Workspace:
    """The folder of a comparison; all share one store."""
    work = open_workspace(config, folder)
    if not work.store.exists():
        shared = Workspace(config, runs / f"data-{config.data.source_id}")
        shared.folder.mkdir(parents=True, exist_ok=True)
        ingest(shared)
        work.store.symlink_to(shared.store.resolve())
    return work


def compare_drawn(work: Workspace, step_by_step: bool) -> dict[str, Any]:
    """Train, draw and score an emulator of ensembles: what the table and the results hold."""
    config, kind = work.config, StepEmulator if step_by_step else Emulator
    train(work, train_autoregressive if step_by_step else learn)
    seconds = sample(work, kind)
    files = with_decades(work)
    rows = score(work, {t: seconds.get(t, seconds.get("year", 0.0)) for t in files}, files)
    emulator = kind.load(work.checkpoint)
    known = emulator.provenance
    return {
        "hardware": {"training": known["hardware"], "sampling": hardware()},
        "seed": {"training": known["seed"], "sampling": config.sampling.seed},
        "training": known["training"],
        "steps": known["training"]["steps"],
        "parameters": known["parameters"],
        "cost": {t: cost(work, emulator, t) for t in config.sampling.members},
        "seconds_per_member": {t: round(seconds[t] / n, 3) for t, n in config.sampling.members.items()},
        "rows": own_rows(rows),
    }


def with_decades(work: Workspace) -> dict[str, Path]:
    """Ensembles by timescale; where years are drawn but no decades, these are means of the years."""
    files = {t: work.ensemble(t) for t in work.config.sampling.members}
    if "year" not in files or "decade" in files:
        return files
    means = work.folder / "decades_of_years.nc"
    if not means.exists() or means.stat().st_mtime < files["year"].stat().st_mtime:
        years = open_ensemble(files["year"])
        decades = to_decade(years, work.config.data.decade_start).load()
        about = {k: v for k, v in years.attrs.items() if k not in ("sampling_key", "sampling_seconds", "timescale")}
        comment = f"Means of the years of {files['year'].name}. {about.get('comment', '')}"
        members = [(int(m), decades.sel(member=m)) for m in decades.member.values]
        write_cf(means, members, decades, {**about, "comment": comment})
    return {"decade": means, **files}


def cost(work: Workspace, emulator: Emulator, timescale: str) -> dict[str, float]:
    """Network calls of a member that wait for one another, and its operations, counted."""
    config = work.config
    forcings = only(
        open_run(work.store, config.data.source_id, work.test_scenario(), "month"), config.data.forcings
    ).load()
    years = years_of(config, timescale)
    grid = (len(emulator.codec.grid.lat), len(emulator.codec.grid.lon))
    model = CostModel(config.pyramid, config.network, grid, forcing_pooling=config.data.forcing_pooling)
    calls = emulator.calls(forcings, timescale, years, config.sampling)
    return {
        "serial_calls": emulator.serial_calls(forcings, timescale, years, config.sampling),
        "tflop": round(model.drawn((stage, n, shape) for stage, n, shape, _ in calls), 4),
    }


def compare_deterministic(work: Workspace, architecture: Architecture) -> dict[str, Any]:
    """The same of a deterministic network; one call gives all years, and its operations are not counted."""
    how = work.config.training
    steps = how.max_steps if how.max_steps < type(how).max_steps else None
    settings = work.folder / "experiment.yaml"
    deterministic(architecture, settings, work.folder, how.minutes, how.seed, steps)
    files = architecture.files(work.folder)
    about = open_ensemble(files["year"]).attrs
    seconds, facts = float(about["runtime_s"]), about["training"]
    facts = json.loads(facts) if isinstance(facts, str) else facts
    return {
        "hardware": {"training": about["hardware"], "sampling": about["hardware"]},
        "seed": {"training": int(about["seed"])},
        "training": facts,
        "steps": facts["final"]["steps"],
        "parameters": int(about["params"]),
        "cost": {t: {"serial_calls": 1} for t in files},
        "seconds_per_member": dict.fromkeys(files, seconds),
        "rows": own_rows(score(work, dict.fromkeys(files, seconds), files)),
    }


def own_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The emulator's rows, without those of the references scored beside it."""
    return [{k: row.get(k) for k in KEPT} for row in rows if row["model"] == "spf"]


def compare(name: str, config: RunConfig, folder: Path, runs: Path) -> dict[str, Any]:
    """One comparison from archive to scores; steps that are done are kept."""
    work = opened(config, folder, runs)
    if name in DETERMINISTIC:
        found = compare_deterministic(work, DETERMINISTIC[name])
    else:
        found = compare_drawn(work, name in STEP_BY_STEP)
    return {**found, "config": to_dict(config)}


def table(found: Mapping[str, Mapping[str, Any]], period: str = "headline") -> str:
    """CRPS over the floor of each comparison, its size and what a member costs at the timescale named, as Markdown."""
    heads = ["", *(f"{v} {t}" for v, t in COLUMNS), "parameters", "steps", "of", "serial calls", "TFLOP", "s / member"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, result in found.items():
        rows = {(r["variable"], r["timescale"]): r["crps_ratio"] for r in result["rows"] if r["period"] == period}
        cells = [f"{rows[c]:.3f}" if rows.get(c) is not None else "–" for c in COLUMNS]
        scale = "year" if "year" in result["cost"] else next(iter(result["cost"]))
        spent = result["cost"][scale]
        tflop = f"{spent['tflop']:.2f}" if "tflop" in spent else "–"
        size = [
            f"{result['parameters'] / 1e6:.2f}M",
            str(result["steps"]),
            f"{scale}s",
            str(spent["serial_calls"]),
            tflop,
        ]
        lines.append("| " + " | ".join([name, *cells, *size, f"{result['seconds_per_member'][scale]:.2f}"]) + " |")
    return "\n".join(lines)


def kept(out: Path = OUT) -> dict[str, dict[str, Any]]:
    """Results that are there, by test scenario and name."""
    return json.loads(out.read_text())["comparisons"] if out.exists() else {}


def keep(test: str, name: str, result: Mapping[str, Any], out: Path = OUT) -> None:
    """Add one result, read again: another process may have ended meanwhile."""
    command = f"python experiments/comparisons.py --test {test} --only {name}"
    found = kept(out)
    found.setdefault(test, {})[name] = {"command": command, "commit": code_commit(), **result}
    write_json(out, {"command": "python experiments/comparisons.py", "comparisons": found})


def main() -> None:
    """Compare, write, print."""
    names = (*DRAWN, *DETERMINISTIC)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", help="scenario to test; the others train (default: that of the files)")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument(
        "--again", action="store_true", help="also what results hold already, from the folders as they are"
    )
    parser.add_argument("--print", action="store_true", help="only print what is kept")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    default = next(iter(load_config(FILES / "spf.yaml").data.test))
    test = args.test or default
    for name in () if args.print else args.only:
        if name in kept().get(test, {}) and not args.again:
            continue
        config = experiment(name, test)
        folder = RUNS / (name if test == default else f"{name}-{test}")
        keep(test, name, compare(name, config, folder, RUNS))
        print(f"{test}: {name} done", flush=True)
    found = kept().get(test, {})
    for period in ("headline", "full"):
        print(
            f"\nCRPS over the floor, test {test}, {period} period\n\n{table({n: found[n] for n in names if n in found}, period)}"
        )


if __name__ == "__main__":
    main()
