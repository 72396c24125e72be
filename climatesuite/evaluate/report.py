"""One HTML file that says how good an ensemble is: what failed, scores beside floor and references, figures, provenance."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from climatesuite import __version__
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, plots, tables
from climatesuite.evaluate.known_truth import against_moments
from climatesuite.evaluate.page import Markup, figure, join, number, page, table, tag, text
from climatesuite.evaluate.protocol import align, plain_value
from climatesuite.export import open_ensemble

MAX_VALUES = 40_000_000
"""Values of one variable that enter spectra, ranks and spreads; of longer ensembles every k-th year."""
PLUME_MONTHS = 120
SEASONS = {"December–February": (12, 1, 2), "June–August": (6, 7, 8)}
_CALENDAR = {"decade": "decadal means", "year": "yearly means", "month": "monthly means"}
_LAST = ("licences", "licenses", "license", "command", "timings")
Section = tuple[str, str, Markup]


class Drawn(NamedTuple):
    """A figure: PNG, text for who cannot see it, caption."""

    image: bytes
    alt: str
    caption: str


def write_scores(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a JSON list, whole or not at all; NaN becomes null.

    Args:
        path: File to make, e.g. ``scores.json``; missing folders are made.
        rows: Rows of ``scoring.score``.

    Returns:
        The path.
    """
    return _publish(Path(path), json.dumps([_plain(row) for row in rows], indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return plain_value(value)


def _publish(path: Path, content: str) -> Path:
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
    common = _error_limits(opened, truth)
    for timescale, ds in opened.items():
        sections.append(_figures_section(timescale, ds, truth.get(timescale), common))
    sections += _detail_sections(rows)
    sections.append(_about_section(about))
    return _publish(Path(path), page(title, sections, _lead(rows, opened, truth, about, gate)))


def _opened(source: xr.Dataset | str | Path) -> xr.Dataset:
    return source if isinstance(source, xr.Dataset) else open_ensemble(source)


# ------------------------------------------------------------------------------------------------- lead and verdict


def _lead(
    rows: Sequence[Mapping[str, Any]],
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
    return join([tag("p", line, class_="sub"), *_verdict(gate), *_warnings(rows), tag("p", spread)])


def _check(item: Any) -> tuple[str, Any, Any, bool]:
    def read(key: str) -> Any:
        return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)

    return str(read("name")), read("value"), read("limits"), bool(read("passed"))


def _limits_text(limits: Any) -> str:
    if isinstance(limits, (list, tuple)) and len(limits) == 2:
        low, high = limits
        if low is None or high is None:
            return f"at most {number(high)}" if low is None else f"at least {number(low)}"
        return f"{number(low)} to {number(high)}"
    return number(limits) if isinstance(limits, (int, float)) else str(limits if limits is not None else "–")


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
        word = f"All {len(checks)} checks passed" if not failed else f"{len(lines[True])} checks passed"
        folded = join([tag("summary", tag("span", word, class_="good")), table(head, lines[True])])
        out.append(tag("div", tag("details", folded), class_="box pass"))
    return out


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    found = tables.warnings_of(rows)
    if not found:
        return []
    lines = tag("ul", join(tag("li", sentence) for sentence in found))
    return [tag("div", join([tag("p", tag("strong", "To look at in the scores")), lines]), class_="box warn")]


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
                body.append([f"{name}, {timescale}", VARIABLES[name].score_units, number(got["rmse"]),
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


# ---------------------------------------------------------------------------------------------------------- figures


def _error_limits(opened: Mapping[str, xr.Dataset], truth: Mapping[str, xr.Dataset]) -> dict[str, dict[str, float]]:
    """One colour scale a variable for changes and one for errors, whatever the timescale."""
    out: dict[str, dict[str, float]] = {}
    for name in VARIABLES:
        maps = [diagnostics.change_maps(ds, truth[ts], name)
                for ts, ds in opened.items() if ts in truth and name in ds and name in truth[ts]]  # fmt: skip
        if maps:
            changes = [m[key] for m in maps for key in ("truth_change", "change")]
            out[name] = {"change": plots.nice_limit(*changes), "error": plots.nice_limit(*(m["error"] for m in maps))}
    return out


def _figures_section(
    timescale: str, ds: xr.Dataset, truth: xr.Dataset | None, limits: Mapping[str, Mapping[str, float]]
) -> Section:
    parts = []
    for name in (n for n in VARIABLES if n in ds):
        beside = truth if truth is not None and name in truth else None
        drawn = [_plume(ds, beside, name, timescale)]
        if beside is not None:
            drawn += _comparisons(ds, beside, name, timescale, limits[name])
        shown = join(figure(*each) for each in drawn)
        parts.append(join([tag("h3", f"{VARIABLES[name].long_name} ({name})"), tag("div", shown, class_="figures")]))
    return f"figures-{timescale}", f"Figures: {_CALENDAR[timescale]}", join(parts)


def _plume(ds: xr.Dataset, truth: xr.Dataset | None, name: str, timescale: str) -> Drawn:
    units, size = VARIABLES[name].score_units, ds.sizes["member"]
    ours = diagnostics.global_mean(ds, name)
    theirs = diagnostics.global_mean(truth, name) if truth is not None else None
    level = theirs if theirs is not None else ours
    start = int(level["year"].values[0])
    base = (start, start if timescale == "decade" else min(start + 9, int(level["year"].values[-1])))
    zero = diagnostics.base_level(level, base)
    ours, theirs = diagnostics.anomaly(ours, zero), diagnostics.anomaly(theirs, zero) if theirs is not None else None
    note = ""
    if timescale == "month" and ours.sizes["time"] > PLUME_MONTHS:
        first = int(ours["year"].values[-PLUME_MONTHS])
        ours = ours.isel(time=ours["year"].values >= first)
        theirs = theirs.isel(time=theirs["year"].values >= first) if theirs is not None else None
        note = f" Months from {first} on are drawn."
    span = f"{base[0]}–{base[1] + (9 if timescale == 'decade' else 0)}"
    axes = plots.plume(
        diagnostics.plume(ours), theirs, title=f"Global mean {name}, {timescale}", size=size,
        ylabel=f"{plots.unit_text(units)}, from {span}",
    )  # fmt: skip
    whose = "the truth's" if truth is not None else "the ensemble's"
    of_month = " of each calendar month" if timescale == "month" else ""
    caption = f"Departure of the global mean from {whose} mean{of_month} in {span}, {size} members.{note}"
    return Drawn(plots.png(axes), f"Plume of global mean {name} with truth members", caption)


def _comparisons(
    ds: xr.Dataset, truth: xr.Dataset, name: str, timescale: str, limits: Mapping[str, float]
) -> Iterator[Drawn]:
    ours, theirs = align(_only(ds, name), _only(truth, name))
    yield from _change_figures(ours, theirs, name, timescale, limits)
    stride = diagnostics.year_stride(ours, name, MAX_VALUES)
    ours, theirs = (diagnostics.every_year(part, stride).load() for part in (ours, theirs))
    note = f" Every {stride}th year was used." if stride > 1 else ""
    yield from _spread_figures(ours, theirs, name, note)
    yield _spectrum(ours, theirs, name, timescale, note)
    found = diagnostics.ranks(ours, theirs, name)
    chi = "" if found.chi2_ratio is None else (
        f" Chi-square over its degrees of freedom, on {found.thinned} thinned values: {number(found.chi2_ratio, 1)} "
        "(near 1 if calibrated)."
    )  # fmt: skip
    axes = plots.rank_histogram(
        found.shares,
        title=f"Rank of the truth, {name}, {timescale}",
        note=f"reliability index {found.reliability_index:.3f}",
    )
    caption = (
        f"Area-weighted ranks of single truth members among the members; a U is too narrow, a dome too wide.{chi}{note}"
    )
    yield Drawn(plots.png(axes), f"Rank histogram of {name}", caption)


def _only(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The Dataset with one field; its coordinates, bounds among them, stay."""
    return ds.drop_vars([other for other in ds.data_vars if other != name and not str(other).endswith("_bnds")])


def _change_figures(
    ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, limits: Mapping[str, float]
) -> Iterator[Drawn]:
    units, cmap = VARIABLES[name].score_units, plots.DIVERGING.get(name, "RdBu_r")
    maps = diagnostics.change_maps(ours, theirs, name)
    first, last = ("–".join(map(str, maps.attrs[key])) for key in ("first", "last"))
    ends = (-limits["change"], limits["change"])
    for key, who in (("truth_change", "truth"), ("change", "emulator")):
        axes = plots.draw_map(
            maps[key],
            f"Change of {name}, {who}",
            cmap=cmap,
            limits=ends,
            label=f"{last} minus {first}, {plots.unit_text(units)}",
        )
        members = (theirs if who == "truth" else ours).sizes["member"]
        yield Drawn(plots.png(axes), f"Map of the change of {name}, {who}", f"Mean of {members} {who} members.")
    seasons: dict[str, tuple[int, ...] | None] = dict(SEASONS) if timescale == "month" else {"": None}
    for season, months in seasons.items():
        part = diagnostics.change_maps(ours, theirs, name, months) if months else maps
        beyond = abs(part["error"]) > 2.0 * part["error_noise"]
        axes = plots.draw_map(
            part["error"], f"Emulator minus truth, {name}" + (f", {season}" if season else ""), cmap=cmap, stipple=beyond,
            limits=(-limits["error"], limits["error"]), label=f"{last}, {plots.unit_text(units)}",
        )  # fmt: skip
        caption = (
            "Error of the ensemble mean. Dots: more than two standard deviations of what a perfect ensemble of this size would "
            f"show ({100 * diagnostics.area_share(beyond):.0f} % of the area; about 5 % by chance)."
        )
        yield Drawn(plots.png(axes), f"Map of the error of {name} {season}", caption)


def _spread_figures(ours: xr.Dataset, theirs: xr.Dataset, name: str, note: str) -> Iterator[Drawn]:
    units = plots.unit_text(VARIABLES[name].score_units)
    maps = {
        who: diagnostics.spread_map(ds, name)
        for who, ds in (("emulator", ours), ("truth", theirs))
        if ds.sizes["member"] > 1
    }
    if not maps:
        return
    limits = (0.0, plots.nice_limit(*maps.values()))
    for who, field in maps.items():
        axes = plots.draw_map(field, f"Spread of {name}, {who}", cmap=plots.SEQUENTIAL, limits=limits, label=units)
        members = (ours if who == "emulator" else theirs).sizes["member"]
        caption = f"Standard deviation over {members} members, variances averaged over time.{note}"
        yield Drawn(plots.png(axes), f"Map of the spread of {name}, {who}", caption)


def _spectrum(ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, note: str) -> Drawn:
    kind = "ensemble" if min(ours.sizes["member"], theirs.sizes["member"]) > 1 else "trend"
    x, y = (diagnostics.zonal_spectrum(ds, name, kind) for ds in (ours, theirs))
    ratios = {
        band: diagnostics.band_mean(x, ends) / diagnostics.band_mean(y, ends)
        for band, ends in diagnostics.BANDS.items()
    }
    whole, exact = diagnostics.band_mean(x), diagnostics.band_mean(y)
    distance = diagnostics.log_spectral_distance(whole, exact)
    units = VARIABLES[name].score_units
    axes = plots.spectrum(whole, exact, ratios, title=f"Zonal spectrum, {name}, {timescale}", units=units)
    what = "departures from the ensemble mean" if kind == "ensemble" else "departures from the trend in time"
    caption = (
        f"Power of {what}, area-weighted over the globe; below, the ratio by band of latitude (grey: within 10 %). "
        f"Log-spectral distance {number(distance, 2)} dB.{note}"
    )
    return Drawn(plots.png(axes), f"Zonal power spectrum of {name}, emulator and truth", caption)


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
