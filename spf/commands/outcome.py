"""What an experiment found: scores, the quality gate of the synthetic world, the report."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from climatesuite.archive.synthetic import spec_of, true_moments
from climatesuite.baselines.fit import Case, exact_baselines
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate.known_truth import against_moments
from climatesuite.evaluate.memorisation import member_rows
from climatesuite.evaluate.report import write_report, write_scores
from climatesuite.evaluate.report_figures import overview
from climatesuite.evaluate.scoring import Prediction, anomaly_base, score_datasets
from climatesuite.evaluate.structure_table import MIN_YEARS
from climatesuite.export import open_ensemble
from climatesuite.forcing.energy_response import open_patterns
from climatesuite.forcing.response import annual_predictor
from climatesuite.store.open import only, open_run
from spf.commands.steps import hardware
from spf.commands.workspace import Workspace
from spf.config import expand

log = logging.getLogger("spf")
SPREAD_LIMITS = (0.7, 1.3)


@dataclass(frozen=True)
class Check:
    """One line of the quality gate.

    Attributes:
        name: What was measured.
        value: The measurement.
        limits: Smallest and largest value that passes.
    """

    name: str
    value: float
    limits: tuple[float, float]

    @property
    def passed(self) -> bool:
        """Whether the value lies inside the limits."""
        return self.limits[0] <= self.value <= self.limits[1]

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.value:.3f} in [{self.limits[0]:g}, {self.limits[1]:g}]"


def score(
    work: Workspace, seconds: Mapping[str, float], files: Mapping[str, Path] | None = None
) -> list[dict[str, Any]]:
    """Score the ensembles against the test members, which are read here for the first time; kept in ``scores.json``.

    Args:
        work: The experiment.
        seconds: That drawing took, by timescale.
        files: The ensembles by timescale, if they are not those that `sample` draws; their rows are named ``spf`` all the same.
    """
    path = work.folder / "scores.json"
    files = files or {t: work.ensemble(t) for t in work.config.sampling.members}
    newest = max(file.stat().st_mtime for file in files.values())
    if path.exists() and path.stat().st_mtime > newest:
        return json.loads(path.read_text())
    log.info("scoring (predicted %.1f minutes)", 0.2 + sum(f.stat().st_size for f in files.values()) / 200e6)
    data, names = work.config.data, list(work.config.data.variables)
    case, test = open_case(work, list(files))
    predictions = [
        Prediction(
            "spf",
            open_ensemble(file),
            {"seed": work.config.sampling.seed, "runtime_s": round(seconds[t], 1)},
        )
        for t, file in files.items()
    ]
    bar = tqdm(predictions, desc="scoring", unit="ensemble", disable=not work.progress)
    base, references = anomaly_base(case.runs, names), exact_baselines(case)
    rows = score_datasets(bar, test, references, variables=names, decade_start=data.decade_start, anomaly_base=base)
    write_scores(path, rows)
    return rows


def open_case(work: Workspace, timescales: Sequence[str]) -> tuple[Case, xr.Dataset]:
    """What references are fitted on, and the test members' months, in memory."""
    data, scenario, names = work.config.data, work.test_scenario(), list(work.config.data.variables)
    training = {e: work.scenario(e, m).load() for e, m in data.train.items()}
    test = work.scenario(scenario, data.test[scenario]).load()
    predictors = {e: annual_predictor(ds) for e, ds in {**training, scenario: test}.items()}
    patterns = open_patterns(expand(data.patterns), test) if data.patterns else None
    runs = {e: only(ds, names) for e, ds in training.items()}
    return Case(runs, scenario, predictors, names, data.decade_start, timescales, patterns), only(test, names)


def judge(work: Workspace, rows: Sequence[dict[str, Any]]) -> list[Check]:
    """The quality gate: better than climatology at every timescale, and a spread near the synthetic world's true one."""
    checks = []
    for timescale in work.config.sampling.members:
        ensemble = open_ensemble(work.ensemble(timescale))
        law = true_law(work, ensemble, timescale)
        for variable in work.config.data.variables:
            found = {
                r["model"]: r["crps"]
                for r in rows
                if (r["timescale"], r["variable"], r["period"]) == (timescale, variable, "full")
            }
            checks.append(
                Check(
                    f"CRPS over climatology's, {variable} {timescale}",
                    found["spf"] / found["climatology"],
                    (0.0, 0.9999),
                )
            )
            spread = against_moments(ensemble, law, variable)["spread_ratio"]
            checks.append(Check(f"spread over the true one, {variable} {timescale}", spread, SPREAD_LIMITS))
    return checks


def true_law(work: Workspace, ensemble: xr.Dataset, timescale: str) -> xr.Dataset:
    """True mean and standard deviation of the synthetic world on the ensemble's steps."""
    data = work.config.data
    spec = spec_of(data.source_id, (ensemble.sizes["lat"], ensemble.sizes["lon"]))
    years = (int(ensemble.year.values[0]), int(ensemble.year.values[-1]) + (9 if timescale == "decade" else 0))
    return true_moments(spec, work.test_scenario(), timescale, years, decade_start=data.decade_start)


def report(
    work: Workspace, rows: Sequence[dict[str, Any]], checks: Sequence[Check], seconds: dict[str, float], command: str
) -> Path:
    """The page with tables and figures; one that is newer than the scores stays."""
    page, scores = work.folder / "report.html", work.folder / "scores.json"
    if page.exists() and page.stat().st_mtime > scores.stat().st_mtime:
        return page
    log.info("writing the report (predicted 0.5 minutes)")
    data, test = work.config.data, work.test_scenario()
    ensembles = {t: open_ensemble(work.ensemble(t)) for t in work.config.sampling.members}
    members = list(data.test[test])
    truth = {t: open_run(work.store, data.source_id, test, t).sel(member=members) for t in ensembles}
    about = {
        "experiment": work.config.name,
        "command": command,
        "trained on": ", ".join(f"{e} ({len(m)} members)" for e, m in data.train.items()),
        "tested on": f"{test}: {', '.join(members)}",
        "seed": work.config.sampling.seed,
        "hardware": hardware(),
        "seconds of sampling": {t: round(s, 1) for t, s in seconds.items()},
        "licence of the data": next(iter(ensembles.values())).attrs.get("license", "not stated"),
    }
    known = None
    if data.archive == "synthetic":
        known = {t: true_law(work, ensemble, t) for t, ensemble in ensembles.items()}
    if "year" in ensembles:
        (work.folder / "picture.png").write_bytes(overview(ensembles["year"], truth["year"], data.variables[0], "year"))
    title = f"{data.source_id} under {test}: {', '.join(VARIABLES[v].long_name.lower() for v in data.variables)}"
    return write_report(
        page, title=title, rows=rows, ensembles={"spf": ensembles}, truth=truth, about=about,
        gate=list(checks) or None, known=known, structure={"spf": structure(work, ensembles)}, progress=work.progress,
    )  # fmt: skip


def structure(work: Workspace, ensembles: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Members held against all real ones, kept in ``structure.json``; nothing where the records are too short for it."""
    data, names = work.config.data, list(work.config.data.variables)
    ensembles = {t: ds for t, ds in ensembles.items() if t != "decade"}
    if not any(np.unique(ds.year).size >= MIN_YEARS for ds in ensembles.values()):
        log.info("no structure table: it needs %d sampled years or more", MIN_YEARS)
        return []
    training = [only(work.scenario(e, m), names).load() for e, m in data.train.items()]
    held_out = [only(work.scenario(e, m), names).load() for e, m in data.test.items()]
    rows = member_rows(ensembles, training, held_out, decade_start=data.decade_start)
    write_scores(work.folder / "structure.json", rows)
    return rows
