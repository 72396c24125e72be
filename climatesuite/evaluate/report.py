"""One HTML file that says how good an ensemble is: what failed, scores beside floor and references, figures, provenance."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

from climatesuite import __version__
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import plots, tables
from climatesuite.evaluate.known_truth import against_moments
from climatesuite.evaluate.page import Markup, figure, join, number, page, table, tag, text, unit
from climatesuite.evaluate.protocol import plain_value
from climatesuite.evaluate.report_figures import Section, colour_limits, figures_section
from climatesuite.export import open_ensemble

_LAST = ("licences", "licenses", "license", "command", "timings")


def write_scores(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a JSON list, whole or not at all; NaN becomes null.

    Args:
        path: File to make, e.g. ``scores.json``; missing folders are made.
        rows: Rows of ``score_files.score``.

    Returns:
        The path.
    """
    return write_json(path, rows)


def write_json(path: str | Path, content: Any) -> Path:
    """Write nested lists and mappings as JSON, whole or not at all; NaN becomes null."""
    return write_text(Path(path), json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return plain_value(value)


def write_text(path: Path, content: str) -> Path:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_report(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    ensembles: Mapping[str, xr.Dataset | str | Path],
    truth: Mapping[str, xr.Dataset],
    about: Mapping[str, Any],
    gate: Sequence[Any] | None = None,
    known_truth: Mapping[str, Any] | None = None,
    structure: Sequence[Mapping[str, Any]] = (),
    progress: bool = False,
) -> Path:
    """Write a self-contained HTML page: no script, no network, figures inside the file.

    Args:
        path: File to make; it appears whole or not at all.
        title: Heading.
        rows: Rows of ``scores.json``; absent columns are left blank.
        ensembles: By timescale: canonical Dataset or an ensemble file. They may be lazy; of long ones every k-th year enters
            some figures, whose captions say so.
        truth: By timescale: canonical Dataset of the held-out members. A timescale without truth gets its plume only.
        about: experiment, command, seed, hardware, licences (text or list), timings (seconds by name), created; anything
            else is listed as given.
        gate: Checks as mappings or objects with name, value, limits (text, number or pair, None open) and passed.
        known_truth: For a synthetic world: by timescale the exact moments (``synthetic.true_moments``); values that are no
            Datasets are listed by name.
        structure: Rows of ``memorisation.member_rows``.
        progress: Whether to show a bar on stderr.

    Returns:
        The path.

    Raises:
        DataContractError: If a timescale is unknown, or an ensemble does not fit its truth.
        FileNotFoundError: If an ensemble file is missing.
    """
    unknown = sorted(set(ensembles) - set(TIMESCALES))
    if unknown:
        raise DataContractError(
            "report", f"timescales {unknown}", f"some of {', '.join(TIMESCALES)}", "rename the keys"
        )
    opened = {ts: _opened(ensembles[ts]) for ts in TIMESCALES if ts in ensembles}
    sections = [_scores_section(rows)] if rows else []
    if known_truth:
        sections.append(_known_section(opened, known_truth))
    if structure:
        sections.append(_structure_section(structure))
    common = colour_limits(opened, truth)
    for timescale, ds in tqdm(opened.items(), desc="drawing", unit="timescale", disable=not progress):
        sections.append(figures_section(timescale, ds, truth.get(timescale), common))
    sections += _detail_sections(rows)
    sections.append(_about_section(about))
    concerns = tables.warnings_of(rows) + tables.structure_warnings(structure)
    return write_text(Path(path), page(title, sections, _lead(concerns, opened, truth, about, gate)))


def _opened(source: xr.Dataset | str | Path) -> xr.Dataset:
    return source if isinstance(source, xr.Dataset) else open_ensemble(source)


# ------------------------------------------------------------------------------------------------- lead and verdict


def _lead(
    concerns: Sequence[str],
    opened: Mapping[str, xr.Dataset],
    truth: Mapping[str, xr.Dataset],
    about: Mapping[str, Any],
    gate: Sequence[Any] | None,
) -> Markup:
    first = next(iter([*truth.values(), *opened.values()]), None)
    esm = str(first.attrs.get("source_id", "")) if first is not None else ""
    scenario = str(first.attrs.get("experiment_id", "")) if first is not None else ""
    sizes = sorted({ds.sizes["member"] for ds in opened.values()})
    size = f"{' or '.join(map(str, sizes))} members" if sizes else ""
    made = str(about.get("created") or f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    line = " · ".join(part for part in (str(about.get("experiment", "")), esm, scenario, size, made) if part)
    spread = (
        f"The spread of this ensemble is the internal variability of one Earth system model{f' ({esm})' if esm else ''} plus the "
        "uncertainty of its forced response. It is not the structural uncertainty between models: another Earth system model "
        "may lie outside every band shown here."
    )
    return join([tag("p", line, class_="sub"), *_verdict(gate), *_warnings(concerns), tag("p", spread)])


def _check(item: Any) -> tuple[str, Any, Any, bool]:
    def read(key: str) -> Any:
        return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)

    return str(read("name")), read("value"), read("limits"), bool(read("passed"))


def _compact(value: Any) -> str:
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def _limits_text(limits: Any) -> str:
    if limits is None:
        return "–"
    if not isinstance(limits, (list, tuple)) or len(limits) != 2:
        return _compact(limits)
    low, high = limits
    if low is None or high is None:
        return f"at most {_compact(high)}" if low is None else f"at least {_compact(low)}"
    return f"{_compact(low)} to {_compact(high)}"


def _verdict(gate: Sequence[Any] | None) -> list[Markup]:
    """Failed checks first and in sight, passed ones folded away."""
    if gate is None:
        return []
    checks = [_check(item) for item in gate]
    head = ("check", "result", "value", "limits")
    lines = {ok: [[name, tag("span", "passed" if ok else "FAILED", class_="good" if ok else "bad"),
                   number(value) if isinstance(value, (int, float)) else value, _limits_text(limits)]
                  for name, value, limits, passed in checks if passed is ok] for ok in (False, True)}  # fmt: skip
    failed, out = len(lines[False]), []
    if failed:
        heading = tag("p", tag("span", f"{failed} of {len(checks)} checks failed", class_="bad"))
        out.append(tag("div", join([heading, table(head, lines[False])]), class_="box fail"))
    if lines[True]:
        word = f"{'All ' if not failed else ''}{len(lines[True])} checks passed"
        folded = join([tag("summary", tag("span", word, class_="good")), table(head, lines[True])])
        out.append(tag("div", tag("details", folded), class_="box pass"))
    return out


def _warnings(concerns: Sequence[str]) -> list[Markup]:
    if not concerns:
        return []
    lines = tag("ul", join(tag("li", sentence) for sentence in concerns))
    return [tag("div", join([tag("p", tag("strong", "To look at")), lines]), class_="box warn")]


# ----------------------------------------------------------------------------------------------------------- scores


def _scores_section(rows: Sequence[Mapping[str, Any]]) -> Section:
    charts = []
    ratios, calibration = (tables.chart_values(rows, column) for column in ("crps_ratio", "spread_skill"))
    if ratios:
        axes = plots.score_chart(
            ratios, title="CRPS over the floor", xlabel="CRPS ÷ floor, logarithmic", target=1.0, target_name="floor"
        )
        caption = (
            "CRPS divided by the CRPS that a perfect ensemble would have. Bars: 95 % intervals. Further left is better."
        )
        charts.append(figure(plots.png(axes), "Chart of CRPS over floor by model, variable and timescale", caption))
    if calibration:
        axes = plots.score_chart(
            calibration,
            title="Spread–skill",
            xlabel="spread ÷ skill, logarithmic",
            target=1.0,
            target_name="calibrated",
        )
        caption = (
            "Spread over the error of the ensemble mean, each pooled first. Left of 1: too narrow; right: too wide."
        )
        charts.append(figure(plots.png(axes), "Chart of spread-skill by model, variable and timescale", caption))
    parts = [tables.headline_table(rows), tag("div", join(charts), class_="figures")]
    return "scores", "Scores beside floor and references", join(parts)


def _detail_sections(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not rows:
        return []
    periods = [p for p in ("headline", "full") if any(tables.period_of(r) == p for r in rows)]
    parts = [join([tag("h3", {"headline": "Years from 2017 on", "full": "Full period"}[p]), tables.detail_table(rows, p)])
             for p in periods]  # fmt: skip
    published = tables.published_table(rows)
    if published is not None:
        parts.append(join([tag("h3", "Published, not scored again"), published]))
    return [("all-scores", "All scores", join(parts))]


def _known_section(opened: Mapping[str, xr.Dataset], known: Mapping[str, Any]) -> Section:
    body = []
    for timescale, moments in known.items():
        if isinstance(moments, xr.Dataset) and timescale in opened:
            for name in (n for n in VARIABLES if n in opened[timescale] and f"{n}_mean" in moments):
                got = against_moments(opened[timescale], moments, name)
                body.append([f"{name}, {timescale}", unit(VARIABLES[name].score_units), number(got["rmse"]),
                             number(got["rmse_expected"]), number(got["bias"]), number(got["spread_ratio"], 2)])  # fmt: skip
    head = ["", "unit", "RMSE of the mean", "expected of perfect members", "bias", "spread ÷ true spread"]
    caption = "The truth is a synthetic world whose mean and standard deviation are known exactly."
    parts = [table(head, body, caption=caption)] if body else []
    plain = [
        [key, number(v) if isinstance(v, (int, float)) else v]
        for key, v in known.items()
        if not isinstance(v, xr.Dataset)
    ]
    parts += [table(["", "value"], plain)] if plain else []
    return "known-truth", "Against the known truth", join(parts)


def _structure_section(rows: Sequence[Mapping[str, Any]]) -> Section:
    """Statistics of single members beside real ones, those outside the real interval in red."""
    body = []
    for row in rows:
        low, high, inside = row["real_lo"], row["real_hi"], row["inside"]
        between = "–" if low is None else f"{number(low)} to {number(high)}"
        verdict = (
            "–"
            if inside is None
            else tag("span", "inside" if inside else "OUTSIDE", class_="good" if inside else "bad")
        )
        units = "" if row["units"] == "1" else unit(row["units"])
        body.append([f"{row['name']}, {row['variable']}", units, number(row["value"]), number(row["real_mean"]), between,
                     verdict, row["M"], row["N"]])  # fmt: skip
    head = ["", "unit", "members", "real members", "real interval", "", "M", "N"]
    caption = (
        "Structure that no score of a single cell and step sees. Mean over the ensemble's members beside the mean of real members "
        "and their interval (± 2 standard deviations over members). Departures are from a parabola per cell and calendar month."
    )
    return "structure", "Structure of members", table(head, body, caption=caption)


# ------------------------------------------------------------------------------------------------------------ about


def _about_section(about: Mapping[str, Any]) -> Section:
    parts = []
    facts = [
        [key, value] for key, value in about.items() if key not in _LAST and key != "created" and value is not None
    ]
    facts.append(["software", f"climatesuite {__version__}"])
    parts.append(table(["", ""], [[key, _listed(value)] for key, value in facts], classes={1: "text"}))
    if about.get("timings"):
        seconds = [
            [key, number(v, 1) if isinstance(v, (int, float)) else v] for key, v in dict(about["timings"]).items()
        ]
        parts.append(join([tag("h3", "Timings"), table(["step", "seconds"], seconds)]))
    licences = next((about[k] for k in _LAST[:3] if about.get(k)), None)
    if licences is not None:
        parts.append(join([tag("h3", "Licences"), tag("p", _listed(licences))]))
    if about.get("command"):
        parts.append(join([tag("h3", "Command"), tag("pre", about["command"])]))
    return "about", "How this was made", join(parts)


def _listed(value: Any) -> Markup:
    if isinstance(value, Mapping):
        return join((text(f"{key}: {item}") for key, item in value.items()), "<br>")
    if isinstance(value, (list, tuple)):
        return join((text(item) for item in value), "<br>")
    return text(value)
