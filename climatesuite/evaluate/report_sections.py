"""Sections of a report but its figures: verdict and warnings, scores, differences, structure, diagnostics, how it was made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import xarray as xr

from climatesuite import __version__
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate import plots, tables
from climatesuite.evaluate.known_truth import against_moments
from climatesuite.evaluate.page import Markup, figure, join, number, table, tag, text, unit

_LAST = ("licences", "licenses", "license", "command", "timings")
Section = tuple[str, str, Markup]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    Attributes:
        rows: Rows of ``scores.json``; absent columns are left blank.
        models: Canonical Datasets by model and timescale; may be lazy.
        truth: Canonical Datasets of the held-out members by timescale.
        about: Experiment, command, seed, hardware, licences, timings, created; anything else is listed as given.
        gate: Checks; None for no verdict.
        known: Exact moments of a synthetic world by timescale, of its only model; other values are listed by name.
        differences: Rows of ``rows.DIFFERENCE_FIELDS``.
        structure: Rows of the structure table by model.
        diagnostics: Rows of ``answers.FIELDS`` by title and model; a title whose model has text instead of rows says that.
        images: PNGs of diagnostics by title, with a caption each.
    """

    rows: Rows = ()
    models: Mapping[str, Mapping[str, xr.Dataset]] = field(default_factory=dict)
    truth: Mapping[str, xr.Dataset] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    gate: Sequence[Any] | None = None
    known: Mapping[str, Any] | None = None
    differences: Rows = ()
    structure: Mapping[str, Rows] = field(default_factory=dict)
    diagnostics: Mapping[str, Mapping[str, Rows | str]] = field(default_factory=dict)
    images: Mapping[str, Sequence[tuple[bytes, str]]] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------- lead and verdict


def lead(material: Material) -> Markup:
    """What stands above the first section: what this is, failed checks, what to look at, what the spread means."""
    opened, about = [ds for by in material.models.values() for ds in by.values()], material.about
    first = next(iter([*material.truth.values(), *opened]), None)
    esm = str(first.attrs.get("source_id", "")) if first is not None else ""
    scenario = str(first.attrs.get("experiment_id", "")) if first is not None else ""
    sizes = sorted({ds.sizes["member"] for ds in opened})
    size = f"{' or '.join(map(str, sizes))} members" if sizes else ""
    models = f"{len(material.models)} emulators" if len(material.models) > 1 else ""
    made = str(about.get("created") or f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    line = " · ".join(part for part in (str(about.get("experiment", "")), esm, scenario, models, size, made) if part)
    spread = (
        f"The spread of {'these ensembles' if models else 'this ensemble'} is the internal variability of one Earth system "
        f"model{f' ({esm})' if esm else ''} plus the "
        "uncertainty of its forced response. It is not the structural uncertainty between models: another Earth system model "
        "may lie outside every band shown here."
    )
    concerns = tables.warnings_of(material.rows)
    for model, found in material.structure.items():
        concerns += tables.structure_warnings(found, model if models else "")
    boxes = [*_verdict(material.gate), *_warnings(concerns, bool(models))]
    return join([tag("p", line, class_="sub"), *boxes, tag("p", spread)])


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


def _warnings(concerns: Sequence[str], is_folded: bool) -> list[Markup]:
    """Sentences in sight; of several models, as a fold with their number in sight."""
    if not concerns:
        return []
    lines = tag("ul", join(tag("li", sentence) for sentence in concerns))
    if is_folded and len(concerns) > 6:
        fold = tag("details", join([tag("summary", tag("strong", f"{len(concerns)} things to look at")), lines]))
        return [tag("div", fold, class_="box warn")]
    return [tag("div", join([tag("p", tag("strong", "To look at")), lines]), class_="box warn")]


# ----------------------------------------------------------------------------------------------------------- scores


def scores_section(material: Material) -> Section | None:
    """Headline table and charts."""
    rows, charts = material.rows, []
    if not rows:
        return None
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


def detail_section(material: Material) -> Section | None:
    """Every score of every period, published rows apart."""
    rows = material.rows
    if not rows:
        return None
    periods = [p for p in ("headline", "full") if any(tables.period_of(r) == p for r in rows)]
    parts = [join([tag("h3", {"headline": "Years from 2017 on", "full": "Full period"}[p]), tables.detail_table(rows, p)])
             for p in periods]  # fmt: skip
    published = tables.published_table(rows)
    if published is not None:
        parts.append(join([tag("h3", "Published, not scored again"), published]))
    return "all-scores", "All scores", join(parts)


def known_section(material: Material) -> Section | None:
    """The only model against the exact moments of a synthetic world."""
    if not material.known:
        return None
    known, opened = material.known, next(iter(material.models.values()), {})
    body: list[list[Any]] = []
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


def difference_section(material: Material) -> Section | None:
    """Paired differences of the main period, those that are decided first."""
    rows = [r for r in material.differences if r.get("period") == tables.main_period(material.differences)]
    if not rows:
        return None
    rows = sorted(rows, key=lambda r: r.get("better") in (None, "undecided"))
    body = []
    for r in rows:
        low, high = r.get("ratio_difference_lo"), r.get("ratio_difference_hi")
        between = "–" if low is None or high is None else f"{number(low)} to {number(high)}"
        better = r.get("better")
        shown = tag("strong", better) if better and better != "undecided" else better
        what = f"{r['variable']}, {r['timescale']}"
        body.append([what, r["model"], r["against"], number(r["ratio_difference"]), between, shown])
    head = ["", "model", "against", "difference", "95 % interval", "better"]
    caption = (
        "CRPS of the model minus that of the other, over the floor, on the same steps and truth members; below 0 the model is "
        "better. Decades and members are redrawn for both alike, so what they share does not widen the interval."
    )
    table_ = table(head, body, caption=caption, classes={1: "text", 2: "text", 5: "text"})
    return "differences", "Paired differences", table_


def structure_section(material: Material) -> Section | None:
    """Statistics of single members beside real ones, those outside the real interval in red."""
    found = {m: {(r["name"], r["variable"]): r for r in rows} for m, rows in material.structure.items() if rows}
    if not found:
        return None
    body = []
    for key in dict.fromkeys(key for rows in found.values() for key in rows):
        first = next(rows[key] for rows in found.values() if key in rows)
        low, high = first["real_lo"], first["real_hi"]
        between = "–" if low is None else f"{number(low)} to {number(high)}"
        units = "" if first["units"] == "1" else unit(first["units"])
        cells = [_held(rows.get(key)) for rows in found.values()]
        body.append([", ".join(key), units, *cells, number(first["real_mean"]), between])
    names = list(found) if len(found) > 1 else ["members"]
    caption = (
        "Structure that no score of a single cell and step sees. Mean over an ensemble's members beside the mean of real members "
        "and their interval (± 2 standard deviations over members). Departures are from a parabola per cell and calendar month."
    )
    head = ["", "unit", *names, "real members", "real interval"]
    return "structure", "Structure of members", table(head, body, caption=caption)


def _held(row: Mapping[str, Any] | None) -> Markup:
    """A model's value and whether it lies inside the real interval."""
    if row is None or row["inside"] is None:
        return text(None if row is None else number(row["value"]))
    verdict = tag("span", "inside" if row["inside"] else "OUTSIDE", class_="good" if row["inside"] else "bad")
    return join([text(number(row["value"])), tag("small", verdict)], "")


def diagnostics_section(material: Material) -> Section | None:
    """Rows of diagnostics: a fold a title, its models side by side, the truth beside them."""
    if not material.diagnostics:
        return None
    parts = []
    for title, by_model in material.diagnostics.items():
        said = [tag("p", f"{m}: {rows}") for m, rows in by_model.items() if isinstance(rows, str)]
        found = {m: rows for m, rows in by_model.items() if not isinstance(rows, str)}
        off = {m: sum(r.get("agrees") is False for r in rows) for m, rows in found.items()}
        judged = max((sum(r.get("agrees") is not None for r in rows) for rows in found.values()), default=0)
        outside = "; ".join(f"{m} {n}" if len(found) > 1 else str(n) for m, n in off.items()) if judged else ""
        head = f"{title}{f' — outside in {outside} of {judged}' if outside else ''}"
        drawn = [figure(image, title, caption) for image, caption in material.images.get(title, ())]
        content = [*said, *([tag("div", join(drawn), class_="figures")] if drawn else [])]
        if found:
            content.append(_diagnosis(found))
        parts.append(tag("details", join([tag("summary", head), *content])))
    return "diagnostics", "What a climate scientist asks", join(parts)


def _diagnosis(found: Mapping[str, Rows]) -> Markup:
    keys = ("question", "name", "variable", "region", "season", "timescale")
    at = {m: {tuple(r.get(k) for k in keys): r for r in rows} for m, rows in found.items()}
    body: list[list[Any]] = []
    tops: list[int] = []
    question: Any = None
    for key in dict.fromkeys(key for rows in at.values() for key in rows):
        rows = [by.get(key) for by in at.values()]
        first = next(r for r in rows if r is not None)
        if key[0] != question:
            question = key[0]
            tops.append(len(body))
        name = ", ".join(str(part) for part in key[:-1] if part)
        units = "" if first.get("units") in (None, "1") else unit(first["units"])
        truth = join([text(_value(first["reference"])), tag("small", _between(first, "reference_"))], "")
        notes = dict.fromkeys(str(r["note"]) for r in rows if r is not None and r.get("note"))
        body.append([name, units, *[_answer(r) for r in rows], truth, "; ".join(notes)])
    names = list(found) if len(found) > 1 else ["ensemble"]
    caption = "In red: the reference lies outside the ensemble's interval (one in ten does by chance)."
    head = ["", "unit", *names, "reference", "note"]
    return table(head, body, caption=caption, tops=tops, classes={len(head) - 1: "text"})


def _answer(row: Mapping[str, Any] | None) -> Markup:
    if row is None:
        return text(None)
    value = text(_value(row["value"]))
    shown = tag("span", value, class_="bad") if row.get("agrees") is False else value
    return join([shown, tag("small", _between(row, ""))], "")


def _value(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) and abs(value) >= 1000 else number(value)  # years


def _between(row: Mapping[str, Any], prefix: str) -> str:
    low, high = row.get(f"{prefix}lo"), row.get(f"{prefix}hi")
    return "" if low is None and high is None else f"{_value(low)} to {_value(high)}"


# ------------------------------------------------------------------------------------------------------------ about


def about_section(material: Material) -> Section:
    """Provenance: facts, timings, licences, command."""
    about, parts = material.about, []
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


SECTIONS: tuple[tuple[str, Callable[[Material], Section | None]], ...] = (
    ("scores", scores_section),
    ("known truth", known_section),
    ("differences", difference_section),
    ("structure", structure_section),
    ("diagnostics", diagnostics_section),
)
"""Sections before the figures, in their order; one more is one line. None leaves a section out."""
AFTER: tuple[tuple[str, Callable[[Material], Section | None]], ...] = (
    ("all scores", detail_section),
    ("about", about_section),
)
"""Sections after the figures."""
