"""The figures of a report for one timescale: plume, changes, errors, spreads, spectra and ranks of every variable."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import xarray as xr
from PIL import Image
from scipy.stats import t as student_t

from climatesuite.conventions import VARIABLES
from climatesuite.evaluate import diagnostics, plots
from climatesuite.evaluate.page import Markup, figure, join, number, tag
from climatesuite.evaluate.protocol import align
from climatesuite.store.open import only

MAX_VALUES = 40_000_000
"""Values of one variable that enter spectra, ranks and spreads; of longer ensembles every k-th year."""
PLUME_MONTHS = 120
SEASONS = {"December–February": (12, 1, 2), "June–August": (6, 7, 8)}
_CALENDAR = {"decade": "decadal means", "year": "yearly means", "month": "monthly means"}
Section = tuple[str, str, Markup]


class Drawn(NamedTuple):
    """A figure: PNG, text for who cannot see it, caption."""

    image: bytes
    alt: str
    caption: str


def colour_limits(
    models: Mapping[str, Mapping[str, xr.Dataset]], truth: Mapping[str, xr.Dataset]
) -> dict[str, dict[str, float]]:
    """One colour scale a variable for changes and one for errors, whatever the timescale and the model."""
    out: dict[str, dict[str, float]] = {}
    for name in VARIABLES:
        maps = [diagnostics.change_maps(ds, truth[ts], name)
                for opened in models.values() for ts, ds in opened.items()
                if ts in truth and name in ds and name in truth[ts]]  # fmt: skip
        if maps:
            changes = [m[key] for m in maps for key in ("truth_change", "change")]
            out[name] = {"change": plots.nice_limit(*changes), "error": plots.nice_limit(*(m["error"] for m in maps))}
    return out


def figures_section(
    timescale: str,
    models: Mapping[str, xr.Dataset],
    truth: xr.Dataset | None,
    limits: Mapping[str, Mapping[str, float]],
    alone: bool = True,
) -> Section:
    """Figures of one timescale by variable: what stands side by side for all models first, then each model's own folded away.

    Args:
        timescale: Of all.
        models: Canonical ensembles by name.
        truth: Canonical members, or None for plumes alone.
        limits: Of :func:`colour_limits`.
        alone: Whether a single model here is the only one of the page, so that it needs no name.
    """
    parts = []
    for name in (n for n in VARIABLES if any(n in ds for ds in models.values())):
        having = {model: ds for model, ds in models.items() if name in ds}
        beside = truth if truth is not None and name in truth else None
        names = ["emulator"] if alone and len(having) == 1 else list(having)
        drawn = [_plume(ds, beside, name, timescale, who) for who, ds in zip(names, having.values(), strict=True)]
        if beside is None:
            shown = [_grid(drawn)]
        elif len(having) == 1:
            (ds,), (who,) = having.values(), names
            shown = [_grid([*drawn, *_comparisons(ds, beside, name, timescale, limits[name], who)])]
        else:
            shown = _side_by_side(having, beside, name, timescale, limits[name], drawn)
        parts.append(join([tag("h3", f"{VARIABLES[name].long_name} ({name})"), *shown]))
    return f"figures-{timescale}", f"Figures: {_CALENDAR[timescale]}", join(parts)


def _grid(drawn: Iterable[Drawn]) -> Markup:
    return tag("div", join(figure(*each) for each in drawn), class_="figures")


def _side_by_side(
    models: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    name: str,
    timescale: str,
    limits: Mapping[str, float],
    plumes: Sequence[Drawn],
) -> list[Markup]:
    """Plumes and changes of all models in one grid; ranks, spread, errors and spectrum of each in a fold of its own."""
    changes: list[Drawn] = []
    folds = []
    for model, ds in models.items():
        ours, theirs = align(only(ds, [name]), only(truth, [name]))
        of_truth, change = _change_figures(ours, theirs, name, limits["change"], model)
        changes += [change] if changes else [of_truth, change]
        own = _grid(_own(ours, theirs, name, timescale, limits["error"], model))
        folds.append(tag("details", join([tag("summary", model), own])))
    return [_grid([*plumes, *changes]), *folds]


def _own(ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, limit: float, who: str) -> Iterator[Drawn]:
    stride = diagnostics.year_stride(ours, name, MAX_VALUES)
    thin = diagnostics.every_year(ours, stride).load(), diagnostics.every_year(theirs, stride).load()
    note = f" Years used: one in {stride}." if stride > 1 else ""
    yield _ranks(*thin, name, timescale, note)
    yield from _spread_figures(*thin, name, note, who)
    yield from _error_figures(ours, theirs, name, timescale, limit, who)
    if min(part.sizes["member"] for part in thin) > 1 or len(set(thin[1]["year"].values)) > 2:
        yield _spectrum(*thin, name, timescale, note, who)  # else neither members nor a trend to depart from


def overview(ds: xr.Dataset, truth: xr.Dataset, name: str, timescale: str) -> bytes:
    """Plume and map of change side by side, as one PNG: the picture of an ensemble.

    Args:
        ds: Canonical ensemble.
        truth: Canonical members it is compared with.
        name: Variable.
        timescale: Of both.
    """
    ours, theirs = align(only(ds, [name]), only(truth, [name]))
    maps = diagnostics.change_maps(ours, theirs, name)
    limit = plots.nice_limit(maps["truth_change"], maps["change"])
    images = [
        _plume(ours, theirs, name, timescale, "emulator").image,
        list(_change_figures(ours, theirs, name, limit, "emulator"))[1].image,
    ]
    arrays = [np.asarray(Image.open(BytesIO(image)).convert("RGB")) for image in images]
    height = max(a.shape[0] for a in arrays)
    padded = [np.pad(a, ((0, height - a.shape[0]), (0, 0), (0, 0)), constant_values=255) for a in arrays]
    out = BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(out, format="png", optimize=True)
    return out.getvalue()


def _plume(ds: xr.Dataset, truth: xr.Dataset | None, name: str, timescale: str, who: str) -> Drawn:
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
        diagnostics.plume(ours), theirs, title=f"Global mean {name}, {timescale}, {who}", size=size,
        ylabel=f"departure from {span}, {plots.unit_text(units)}",
    )  # fmt: skip
    whose = "the truth's" if truth is not None else "the ensemble's"
    of_month = " of each calendar month" if timescale == "month" else ""
    caption = f"Departure of the global mean from {whose} mean{of_month} in {span}, {size} members.{note}"
    return Drawn(plots.png(axes), f"Plume of global mean {name}, {who}, with truth members", caption)


def _source(ds: xr.Dataset) -> str:
    source = ds.attrs.get("source_id")
    return f", {source}" if source else ""


def _comparisons(
    ds: xr.Dataset, truth: xr.Dataset, name: str, timescale: str, limits: Mapping[str, float], who: str
) -> Iterator[Drawn]:
    """Figures of one model in the order in which two stand side by side."""
    ours, theirs = align(only(ds, [name]), only(truth, [name]))
    ranks, *others = _own(ours, theirs, name, timescale, limits["error"], who)
    yield from (ranks, *_change_figures(ours, theirs, name, limits["change"], who), *others)


def _ranks(ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, note: str) -> Drawn:
    found = diagnostics.ranks(ours, theirs, name)
    chi = ""
    if found.chi2_ratio is not None:
        chi = (
            f" Chi-square over its degrees of freedom, on {found.thinned} thinned values: {number(found.chi2_ratio, 1)} "
            "(near 1 if calibrated)."
        )
    note_in = f"reliability index {found.reliability_index:.3f}"
    axes = plots.rank_histogram(found.shares, title=f"Rank of the truth, {name}, {timescale}", note=note_in)
    caption = (
        "Area-weighted ranks of single truth members among the members; a U is too narrow, a dome too wide."
        + chi
        + note
    )
    return Drawn(plots.png(axes), f"Rank histogram of {name}", caption)


def _change_figures(ours: xr.Dataset, theirs: xr.Dataset, name: str, limit: float, emulator: str) -> Iterator[Drawn]:
    maps = diagnostics.change_maps(ours, theirs, name)
    label = f"{_years(maps, 'last')} minus {_years(maps, 'first')}, {plots.unit_text(VARIABLES[name].score_units)}"
    cmap = plots.DIVERGING.get(name, "RdBu_r")
    for key, who, ds in (("truth_change", "truth", theirs), ("change", emulator, ours)):
        axes = plots.draw_map(
            maps[key],
            f"Change of {name}, {who}{_source(ds) if who == 'truth' else ''}",
            cmap=cmap,
            limits=(-limit, limit),
            label=label,
        )
        size = ds.sizes["member"]
        caption = f"Mean of {size} {who} members." if size > 1 else f"One {who} member."
        yield Drawn(plots.png(axes), f"Map of the change of {name}, {who}", caption)


def _years(maps: xr.Dataset, which: str) -> str:
    return "–".join(map(str, maps.attrs[which]))


def _error_figures(
    ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, limit: float, who: str
) -> Iterator[Drawn]:
    size = max(ours.sizes["member"], theirs.sizes["member"])
    if timescale != "month":
        yield _error_figure(diagnostics.change_maps(ours, theirs, name), name, "", limit, size, who)
        return
    # the mean over all months would be the yearly figure again
    parts = {season: diagnostics.change_maps(ours, theirs, name, months) for season, months in SEASONS.items()}
    common = plots.nice_limit(*(part["error"] for part in parts.values()))
    for season, part in parts.items():
        yield _error_figure(part, name, season, common, size, who)


def _error_figure(part: xr.Dataset, name: str, season: str, limit: float, size: int, who: str) -> Drawn:
    title = ", ".join(filter(None, (f"{who[0].upper()}{who[1:]} minus truth", name, season)))
    beyond = abs(part["error"]) > 2.0 * part["error_noise"]
    axes = plots.draw_map(
        part["error"], title, stipple=beyond,
        cmap=plots.DIVERGING.get(name, "RdBu_r"), limits=(-limit, limit),
        label=f"{_years(part, 'last')}, {plots.unit_text(VARIABLES[name].score_units)}",
    )  # fmt: skip
    caption = "Error of the ensemble mean."
    if size > 1:
        chance = 2.0 * float(student_t.sf(2.0, size - 1))  # the spread behind the noise is itself estimated
        caption += (
            " Dots: more than two standard deviations of what a perfect ensemble of this size would show, "
            f"{100 * diagnostics.area_share(beyond):.0f}\N{NO-BREAK SPACE}% of the area "
            f"({100 * chance:.0f}\N{NO-BREAK SPACE}% by chance)."
        )
    return Drawn(plots.png(axes), f"Map of the error of {name} {season}".strip(), caption)


def _spread_figures(ours: xr.Dataset, theirs: xr.Dataset, name: str, note: str, emulator: str) -> Iterator[Drawn]:
    units = plots.unit_text(VARIABLES[name].score_units)
    pair = {"truth": theirs, emulator: ours}
    maps = {who: diagnostics.spread_map(ds, name) for who, ds in pair.items() if ds.sizes["member"] > 1}
    if not maps:
        return
    limits = (0.0, plots.nice_limit(*maps.values()))
    for who, field in maps.items():
        axes = plots.draw_map(field, f"Spread of {name}, {who}", cmap=plots.SEQUENTIAL, limits=limits, label=units)
        caption = f"Standard deviation over {pair[who].sizes['member']} members, variances averaged over time.{note}"
        yield Drawn(plots.png(axes), f"Map of the spread of {name}, {who}", caption)


def _spectrum(ours: xr.Dataset, theirs: xr.Dataset, name: str, timescale: str, note: str, who: str) -> Drawn:
    kind = "ensemble" if min(ours.sizes["member"], theirs.sizes["member"]) > 1 else "trend"
    x, y = (diagnostics.zonal_spectrum(ds, name, kind) for ds in (ours, theirs))
    size = abs(x["lat"].values)
    bands = {k: ends for k, ends in diagnostics.BANDS.items() if ((size >= ends[0]) & (size < ends[1])).any()}
    ratios = {k: diagnostics.band_mean(x, ends) / diagnostics.band_mean(y, ends) for k, ends in bands.items()}
    whole, exact = diagnostics.band_mean(x), diagnostics.band_mean(y)
    distance = diagnostics.log_spectral_distance(whole, exact)
    units = VARIABLES[name].score_units
    axes = plots.spectrum(whole, exact, ratios, title=f"Zonal spectrum, {name}, {timescale}", units=units)
    what = "departures from the ensemble mean" if kind == "ensemble" else "departures from the trend in time"
    caption = (
        f"Power of {what}, area-weighted over the globe; below, the ratio by band of latitude (grey: within 10 %). "
        f"Log-spectral distance {number(distance, 2)} dB.{note}"
    )
    return Drawn(plots.png(axes), f"Zonal power spectrum of {name}, {who} and truth", caption)
