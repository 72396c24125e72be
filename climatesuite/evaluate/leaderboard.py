"""The ClimateBench leaderboard: submissions of any tool and the published baselines, scored alike, beside published rows.

Where tables differ in data, scenario or window they are not the same leaderboard; published rows then stand apart and say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from climatesuite import __version__
from climatesuite.baselines.emission_regression import fit_gaussian_process, fit_random_forest
from climatesuite.errors import DataContractError
from climatesuite.evaluate import climatebench_published as published
from climatesuite.evaluate.climatebench import TRAINING, LinearPatternScaling, open_outputs, open_pair, score
from climatesuite.evaluate.climatebench_files import MEASURED_LIKE, open_inputs, open_prediction
from climatesuite.evaluate.page import MISSING, Markup, join, number, page, table, tag, text, unit
from climatesuite.evaluate.protocol import LATE_WINDOW

Row = dict[str, Any]
Pairs = Mapping[str, tuple[xr.Dataset, xr.Dataset]]
Fit = Callable[[Pairs, Sequence[str]], Any]
NO_CHANGE, NOISE = "no change", "noise of the target"
HERE = "computed here"
BASELINES: dict[str, tuple[str, tuple[str, ...], Fit]] = {
    "pattern-scaling": ("linear pattern scaling", TRAINING, LinearPatternScaling.fit),
    "gaussian-process": ("Gaussian process", TRAINING, fit_gaussian_process),
    "random-forest": ("random forest", ("historical", "ssp126", "ssp370", "ssp585"), fit_random_forest),
}
"""By name on the command line: name of the row, experiments it was published with, and what fits it."""
SHOWN = ("nrmse_t", "nrmse_s", "nrmse_g", "rmse_s", "rmse_g", "rmse_by_step")
HEADS = ("NRMSE total", "spatial", "global", "RMSE spatial", "global", "yearly")


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Attributes:
        rows: Computed here: by variable the noise of the target, then models by total NRMSE.
        published: Rows of others, see ``climatebench_published``.
        comparable: Whether both were made on the same target: Earth system model, scenario, window.
        about: Data, scenario, window, members, training of each baseline, software.
    """

    rows: list[Row]
    published: list[Row]
    comparable: bool
    about: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        return {
            "about": self.about, "rows": self.rows, "published": self.published, "comparable": self.comparable
        }  # fmt: skip


def leaderboard(
    folder: str | Path,
    submissions: Sequence[str | Path] = (),
    *,
    scenario: str = published.SCENARIO,
    window: tuple[int, int] = LATE_WINDOW,
    baselines: Sequence[str] = tuple(BASELINES),
    training: Sequence[str] | None = None,
    variables: Sequence[str] | None = None,
) -> Board:
    """Score submissions and baselines against the member mean of a scenario.

    Args:
        folder: ClimateBench's layout, ``inputs_<experiment>.nc`` and ``outputs_<experiment>.nc``.
        submissions: NetCDF of anomalies, of any tool; see ``climatebench_files.open_prediction``.
        scenario: Experiment to be predicted.
        window: First and last year scored.
        baselines: Among `BASELINES`.
        training: Experiments that baselines are fitted on; default those they were published with, as far as they are there.
        variables: Default all of the target.

    Raises:
        DataContractError: If files, variables, grids, units or years do not fit, nothing is there to train on, or the scenario is
            among the training.
    """
    target = open_outputs(folder, scenario, variables)
    names = [str(n) for n in target.data_vars]
    if training is not None and scenario in training:
        raise DataContractError("training", f"{scenario}, the scored scenario", "others", "leave it out")
    rows = [_noise(row) for row in score(xr.zeros_like(target), target, window, names)]
    trained: dict[str, list[str]] = {}
    inputs = open_inputs(folder, scenario) if baselines else None
    for key in baselines:
        model, usual, fit = _known(key)
        pairs = _pairs(folder, usual if training is None else training, names, scenario)
        trained[model] = list(pairs)
        rows += score(fit(pairs, names).predict(inputs), target, window, model=model)
    rows += score(xr.zeros_like(target.isel(member=0, drop=True)), target, window, names, NO_CHANGE)
    for path in map(Path, submissions):
        prediction = open_prediction(path, None)
        shared = [n for n in names if n in prediction]
        name = str(prediction.attrs.get("model") or path.stem)
        _check_scenario(prediction, scenario, path.name)
        rows += score(prediction[shared], target, window, shared, name)
    about = {
        "data": str(target.attrs.get("source_id", "not stated")), "scenario": scenario, "window": list(window),
        "members": target.sizes["member"], "anomaly base": target.attrs.get("anomaly_base"),
        "comment": target.attrs.get("comment"), "trained on": trained, "software": f"climatesuite {__version__}",
    }  # fmt: skip
    source = target.attrs.get("source_id", published.SOURCE_ID)  # the official files name none
    same = (source, scenario, tuple(window)) == (published.SOURCE_ID, published.SCENARIO, published.WINDOW)
    return Board(_ordered([{"source": HERE, **row} for row in rows]), published.published_rows(), same, about)


def _known(key: str) -> tuple[str, tuple[str, ...], Fit]:
    if key not in BASELINES:
        raise DataContractError("baseline", repr(key), f"some of {', '.join(BASELINES)}", "correct the name")
    return BASELINES[key]


def _pairs(folder: str | Path, experiments: Sequence[str], names: Sequence[str], scenario: str) -> Pairs:
    """Inputs and outputs of the experiments that are there; members with holes are kept for their other years."""
    root = Path(folder)
    there = [
        e
        for e in experiments
        if e != scenario and all((root / f"{kind}_{e}.nc").is_file() for kind in ("inputs", "outputs"))
    ]
    if not there:
        raise DataContractError(
            str(root), f"none of {', '.join(experiments)}", "inputs_ and outputs_ of one or more", "add training files"
        )
    return {e: open_pair(root, e, names, allow_missing=True) for e in there}


def _check_scenario(prediction: xr.Dataset, scenario: str, subject: str) -> None:
    stated = prediction.attrs.get("experiment_id") or prediction.attrs.get("scenario")
    if stated and stated != scenario:
        raise DataContractError(subject, f"experiment_id {stated}", scenario, "score it with --scenario")


def _noise(row: Row) -> Row:
    """The row of a perfect forced response: nothing but the sampling noise of the target's few members."""
    s, g = row["floor_s"], row["floor_g"]
    kept = (
        "variable",
        "units",
        "timescale",
        "window",
        "esm",
        "scenario",
        "anomaly_base",
        "target",
        "N",
        "weights",
        "D",
    )
    known = s is not None and g is not None
    return {
        "model": NOISE, **{k: row[k] for k in kept}, "M": None, "nrmse_s": s, "nrmse_g": g,
        "nrmse_t": s + 5.0 * g if known else None, "rmse_s": s * row["D"] if known else None,
        "rmse_g": g * row["D"] if known else None,
    }  # fmt: skip


def _ordered(rows: list[Row]) -> list[Row]:
    """By variable; the noise first, then by total NRMSE."""
    place = list(MEASURED_LIKE)
    return sorted(rows, key=lambda r: (place.index(r["variable"]), r["model"] != NOISE, r["nrmse_t"] or 0.0))


# ---- to be read


def as_text(board: Board) -> str:
    """The leaderboard for a terminal."""
    lines = []
    for name, ours, theirs in _by_variable(board):
        first = ours[0]
        lines += [
            f"{name}, {first['units']}: {board.about['data']}, {board.about['scenario']}, "
            f"{first['window'][0]}-{first['window'][1]}, mean of {first['N']} members; normalised by {first['D']:.4g}",
            f"{'':34s}" + "".join(f"{head:>14s}" for head in HEADS),
        ]
        lines += [f"{r['model']:34s}" + _cells(r) + (f"  {r['flag']}" if r.get("flag") else "") for r in ours]
        if theirs and board.comparable:
            lines += ["published:", *[f"{r['model']:34s}" + _cells(r) + f"  {r['ref']}" for r in theirs]]
        lines.append("")
    if not board.comparable:
        lines.append(
            f"Published rows are of {published.SOURCE_ID}, {published.SCENARIO}, 2080-2100: no part of this table."
        )
    return "\n".join(lines)


def _cells(row: Row) -> str:
    return "".join(f"{row[k]:14.4f}" if row.get(k) is not None else f"{'-':>14s}" for k in SHOWN)


def _by_variable(board: Board) -> list[tuple[str, list[Row], list[Row]]]:
    names = dict.fromkeys(r["variable"] for r in board.rows)
    return [
        (n, *([r for r in rows if r["variable"] == n] for rows in (board.rows, board.published))) for n in names
    ]  # fmt: skip


def as_html(board: Board) -> str:
    """The leaderboard as one page that needs nothing else."""
    sections = []
    for name, ours, theirs in _by_variable(board):
        first, best = ours[0], _best(ours)
        note = (
            f"Error of the mean of {first['window'][0]}–{first['window'][1]} against the mean of {first['N']} members, over "
            f"{number(first['D'], 4)} {first['units']}. Total = spatial + 5 × global. RMSE in {first['units']}; yearly: mean of "
            f"the years' RMSE. {NOISE.capitalize()}: what a perfect forced response would score, as few members are averaged."
        )
        body = [[_model(r), HERE, *_numbers(r, r["model"] == best)] for r in ours]
        parts = [table(["", "", *HEADS], body, caption=note, classes={1: "text"})]
        if theirs:
            rows = [[text(r["model"]), join([text("published: "), text(r["ref"])], ""), *_numbers(r)] for r in theirs]
            caption = f"Published, not scored again: {published.SOURCE_ID}, {published.SCENARIO}, 2080–2100."
            if not board.comparable:
                caption += " Another Earth system, scenario or window than above: not comparable with it."
            parts.append(table(["", "source", *HEADS], rows, caption=caption, classes={1: "text"}))
        sections.append((name, join([text(name), unit(first["units"])], ", "), join(parts)))
    facts = [[key, _fact(value)] for key, value in board.about.items() if value]
    sections.append(("about", Markup("How this was made"), table(["", ""], facts, classes={1: "text"})))
    lead = tag(
        "p", f"{board.about['data']}, {board.about['scenario']}. Lower is better; bold is the lowest computed here."
    )
    return page("ClimateBench leaderboard", sections, lead)


def _fact(value: Any) -> Markup:
    if isinstance(value, Mapping):
        return join((text(f"{k}: {', '.join(v)}") for k, v in value.items()), "<br>")
    return text("–".join(map(str, value)) if isinstance(value, list) else value)


def _model(row: Row) -> Markup:
    return join([text(row["model"]), tag("small", row["flag"])], "") if row.get("flag") else text(row["model"])


def _best(rows: Sequence[Row]) -> str | None:
    scored = {r["model"]: r["nrmse_t"] for r in rows if r["model"] != NOISE and r["nrmse_t"] is not None}
    return min(scored, key=lambda m: scored[m]) if scored else None


def _numbers(row: Row, is_best: bool = False) -> list[Any]:
    shown: list[Any] = [number(row.get(k), 3) if row.get(k) is not None else MISSING for k in SHOWN]
    return [tag("strong", shown[0]), *shown[1:]] if is_best else shown
