"""One page about any ensemble files: the function behind ``climatesuite report``."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from climatesuite import __version__
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate.blame import blame_rows
from climatesuite.evaluate.by_region import region_rows, summary
from climatesuite.evaluate.compare import compare, distinct
from climatesuite.evaluate.question_plots import images
from climatesuite.evaluate.questions import Asked, ask, question_rows
from climatesuite.evaluate.report import write_csv, write_json, write_report
from climatesuite.evaluate.score_files import Given, open_given
from climatesuite.evaluate.scoring import Prediction, truth_at

Row = Mapping[str, Any]
DIAGNOSTICS: tuple[tuple[str, Callable[[Asked], Sequence[Row]]], ...] = (
    ("Where an error begins", blame_rows),
    ("Warming, trends, ratios, rain", question_rows),
    ("Calibration by region and season", lambda asked: summary(region_rows(asked))),
)
"""Diagnostics of every model by title; one more is one line: ensemble and truth to rows of ``answers.FIELDS``."""


def report_files(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path],
    reference_files: Sequence[str | Path] = (),
    forcings: str | Path | None = None,
    out: str | Path = "report.html",
    *,
    patterns: str | Path | None = None,
    decade_start: int | None = None,
    bootstrap: int = 1000,
    diagnostics: bool = True,
    title: str | None = None,
    command: str | None = None,
    progress: bool = False,
) -> Path:
    """Score ensembles of one or many emulators on the cases they share; write the page, and its numbers as JSON and CSV beside it.

    Args:
        prediction_files: Ensembles of any tool, each of one timescale; files that state one ``model`` are one emulator.
        truth_files: CMIP files of the scenario, all members.
        reference_files: CMIP files of the training scenarios, for the references.
        forcings: Folder of ``inputs_<experiment_id>.nc``, for pattern scaling on CO2.
        out: HTML file to make; ``<stem>.json`` and ``<stem>_<table>.csv`` stand beside it.
        patterns: Multi-model warming patterns, for the energy balance.
        decade_start: First year of a decade.
        bootstrap: Draws of the block bootstrap; 0 for no intervals.
        diagnostics: Whether to ask what climate scientists ask (`DIAGNOSTICS`), some minutes for months.
        title: Heading; by default model, scenario and variables.
        command: To be written into the page.
        progress: Whether to show a bar on stderr.

    Returns:
        The page.

    Raises:
        DataContractError: As ``score_files.compare_files``.
    """
    begun = time.perf_counter()
    given = open_given(
        prediction_files, truth_files, reference_files, forcings, patterns=patterns, decade_start=decade_start
    )
    predictions = distinct(given.predictions, given.paths)
    found = compare(
        predictions, given.truth, given.references, [given.truth, *given.training.values()],
        decade_start=given.decade_start, bootstrap=bootstrap, anomaly_base=given.base,
    )  # fmt: skip
    scored, models = time.perf_counter(), _by_model(predictions)
    asked = diagnose(models, given.truth) if diagnostics else {}
    page, attrs = Path(out), given.truth.attrs
    timescales = {ts for by in models.values() for ts in by}
    about = _about(given, predictions, command)
    about["timings"] = {"scores": scored - begun, "diagnostics": time.perf_counter() - scored}
    tables = {
        "scores": found.rows, "differences": found.differences, "structure": _flat(found.structure),
        **{_slug(name): _flat(by) for name, by in asked.items()},
    }  # fmt: skip
    write_json(page.with_suffix(".json"), {"software": f"climatesuite {__version__}", "about": about, **tables})
    for name, rows in tables.items():
        if rows:
            write_csv(page.with_name(f"{page.stem}_{name}.csv"), rows)
    names = [v.long_name.lower() for n, v in VARIABLES.items() if any(n in ds for ds in _datasets(models))]
    return write_report(
        page, title=title or f"{attrs.get('source_id')} under {attrs.get('experiment_id')}: {', '.join(names)}",
        rows=found.rows, ensembles=models, truth={ts: truth_at(given.truth, ts, given.decade_start) for ts in timescales},
        about=about, differences=found.differences, structure=found.structure, diagnostics=asked,
        images=images(asked), progress=progress,
    )  # fmt: skip


def _about(given: Given, predictions: Sequence[Prediction], command: str | None) -> dict[str, Any]:
    """Provenance: files, truth, training, licences."""
    attrs, sizes = given.truth.attrs, [p.fields.sizes["member"] for p in predictions]
    files = [f"{p.model}: {path.name}, {n} members" for p, path, n in zip(predictions, given.paths, sizes, strict=True)]
    stated = {ds.attrs.get("license") for ds in (given.truth, *[p.fields for p in predictions])}
    return {
        "ensembles": files,
        "truth": f"{attrs.get('source_id')} {attrs.get('experiment_id')}: {', '.join(map(str, given.truth['member'].values))}",
        "references fitted on": ", ".join(given.training) or None,
        "first year of a decade": given.decade_start,
        "licences": sorted(map(str, stated - {None})) or None,
        "command": command,
    }


def diagnose(
    models: Mapping[str, Mapping[str, xr.Dataset]], truth: xr.Dataset
) -> dict[str, dict[str, Sequence[Row] | str]]:
    """Rows of every diagnostic by title and model; where one cannot be made, the reason as text."""
    out: dict[str, dict[str, Sequence[Row] | str]] = {title: {} for title, _ in DIAGNOSTICS}
    for model, by_timescale in models.items():
        for title, make in DIAGNOSTICS:
            try:
                out[title][model] = make(ask({t: ds for t, ds in by_timescale.items() if t != "decade"}, truth))
            except DataContractError as error:
                out[title][model] = str(error)
    return out


def _by_model(predictions: Sequence[Prediction]) -> dict[str, dict[str, xr.Dataset]]:
    models: dict[str, dict[str, xr.Dataset]] = {}
    for p in predictions:
        models.setdefault(p.model, {})[p.timescale] = p.fields
    return models


def _datasets(models: Mapping[str, Mapping[str, xr.Dataset]]) -> list[xr.Dataset]:
    return [ds for by in models.values() for ds in by.values()]


def _flat(by_model: Mapping[str, Sequence[Row] | str]) -> list[dict[str, Any]]:
    """Rows of all models as one list; a reason instead of rows becomes a note."""
    rows: list[dict[str, Any]] = []
    for model, found in by_model.items():
        rows += [{"model": model, "note": found}] if isinstance(found, str) else [{"model": model, **r} for r in found]
    return rows


def _slug(title: str) -> str:
    return "_".join(title.lower().replace(",", "").split()[:3])
