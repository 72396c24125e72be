"""Rows of ``scores.json`` as the tables of a report. Columns that a row lacks are left blank."""

from collections.abc import Mapping, Sequence
from typing import Any

from climatesuite.baselines.names import FLOOR, REFERENCES
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.evaluate.page import MISSING, Markup, join, number, table, tag, text, unit

Row = Mapping[str, Any]
Group = tuple[str, str, str, str]
SPREAD_SKILL_RANGE = (0.8, 1.25)
"""Outside of it a row is named among the warnings."""
_COLUMNS = {
    "M": "M", "N": "N", "crps": "CRPS", "crps_floor": "floor", "crps_ratio": "CRPS ÷ floor", "skill": "skill", "rmse": "RMSE",
    "mae": "MAE", "bias": "bias", "spread_skill": "spread–skill", "var_ratio": "sd ratio", "reliability_index": "reliability",
    "rank_chi2": "rank χ²/M", "nrmse_t": "NRMSE", "runtime_s": "seconds", "seed": "seed",
}  # fmt: skip


def period_of(row: Row) -> str:
    """``full`` or ``headline``."""
    window = row.get("window")
    return str(row.get("period") or (window if isinstance(window, str) else "full"))


def main_period(rows: Sequence[Row]) -> str:
    """The period of the headline table: ``headline`` where any row has it."""
    return "headline" if any(period_of(row) == "headline" for row in rows) else "full"


def kind_of(row: Row) -> str:
    """``published``, ``floor``, ``reference`` or ``emulator``."""
    if row.get("source") == "published":
        return "published"
    model = row.get("model")
    return "floor" if model == FLOOR else "reference" if model in REFERENCES else "emulator"


def ratio_of(row: Row) -> float | None:
    """CRPS over the floor's, from the row or its two parts."""
    if row.get("crps_ratio") is not None:
        return float(row["crps_ratio"])
    crps, floor = row.get("crps"), row.get("crps_floor")
    return float(crps) / float(floor) if crps is not None and floor else None


def _standard_error(row: Row, column: str) -> float | None:
    value = (row.get("stderr") or {}).get(column)
    return None if value is None else float(value)


def group_of(row: Row) -> Group:
    """Model of the Earth, scenario, variable, timescale."""
    return (
        str(row.get("esm") or ""),
        str(row.get("scenario") or ""),
        str(row.get("variable")),
        str(row.get("timescale")),
    )


def grouped(rows: Sequence[Row], period: str) -> dict[Group, list[Row]]:
    """Our own rows of a period by group: groups by variable and timescale, floor first, then references, then emulators."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        if period_of(row) == period and kind_of(row) != "published":
            found.setdefault(group_of(row), []).append(row)
    rank = {"floor": 0, "reference": 1, "emulator": 2}
    names, scales = list(VARIABLES), list(TIMESCALES)

    def place(group: Group) -> tuple[Any, ...]:
        esm, scenario, variable, timescale = group
        at = names.index(variable) if variable in names else len(names)
        return esm, scenario, at, scales.index(timescale) if timescale in scales else len(scales)

    return {group: sorted(found[group], key=lambda r: rank[kind_of(r)]) for group in sorted(found, key=place)}


def group_names(groups: Sequence[Group]) -> dict[Group, str]:
    """``tas, decade``, with scenario and Earth system model where there are several."""
    several = [len({group[i] for group in groups}) > 1 for i in (0, 1)]
    return {g: ", ".join([g[2], g[3], *[g[i] for i in (1, 0) if several[i] and g[i]]]) for g in groups}


def _interval(row: Row, column: str, digits: int) -> str:
    low, high = row.get(f"{column}_lo"), row.get(f"{column}_hi")
    return "" if low is None or high is None else f" [{number(low, digits)}, {number(high, digits)}]"


def _best(rows: Sequence[Row]) -> set[int]:
    """Rows (by id) within two standard errors of the smallest ratio; without errors the smallest alone."""
    ratios = {id(row): (ratio_of(row), row) for row in rows if kind_of(row) != "floor"}
    known = {key: (value, row) for key, (value, row) in ratios.items() if value is not None}
    if len(known) < 2:
        return set()
    least = min(value for value, _ in known.values())
    return {key for key, (v, row) in known.items() if v - least <= 2.0 * (_standard_error(row, "crps_ratio") or 0.0)}


def headline_table(rows: Sequence[Row]) -> Markup:
    """One row for each variable and timescale: the floor, and CRPS over the floor of every reference and emulator."""
    period = main_period(rows)
    groups, others = grouped(rows, period), grouped(rows, "full") if period != "full" else {}
    models = _models(groups)
    names, body = group_names(list(groups)), []
    for group, members in groups.items():
        units = next((str(r["units"]) for r in members if r.get("units")), "")
        floor = next((r.get("crps_floor") for r in members if r.get("crps_floor") is not None), None)
        best, by_model = _best(members), {str(r.get("model")): r for r in members}
        full = {str(r.get("model")): r for r in others.get(group, [])}
        cells = [_headline_cell(by_model.get(m), full.get(m), id(by_model.get(m)) in best) for m in models]
        body.append([names[group], _floor_cell(floor, units), *cells])
    caption = (
        "CRPS divided by the floor: 1 is a perfect ensemble. Below it the root mean square error of the ensemble mean (RMSE) and "
        "spread–skill (1 is calibrated, below 1 too narrow). Brackets: 95 % interval of a block bootstrap. "
        "Bold: within two standard errors of the best."
    )
    if period == "headline":
        caption += " Years from 2017 on; below them CRPS ÷ floor of the full period."
    return table(["", "floor (CRPS)", *models], body, caption=caption)


def _floor_cell(floor: float | None, units: str) -> Markup:
    return Markup(MISSING) if floor is None else join([text(number(floor)), tag("small", unit(units))], "")


def _models(groups: Mapping[Group, Sequence[Row]]) -> list[str]:
    order = {"emulator": 0, "reference": 1}  # beside the floor: the first thing seen on a narrow screen
    kinds = {str(r.get("model")): kind_of(r) for rows in groups.values() for r in rows if kind_of(r) != "floor"}
    return sorted(kinds, key=lambda model: order[kinds[model]])  # sorted keeps the order of making within a kind


def _headline_cell(row: Row | None, full: Row | None, is_best: bool) -> Markup:
    if row is None:
        return Markup(MISSING)
    main = f"{number(ratio_of(row), 2)}{_interval(row, 'crps_ratio', 2)}"
    parts = [tag("strong", main) if is_best else text(main)]
    parts.append(tag("small", f"RMSE {number(row.get('rmse'))}"))
    parts.append(tag("small", f"spread–skill {number(row.get('spread_skill'), 2)}"))
    if full is not None and ratio_of(full) is not None:
        parts.append(tag("small", f"full period {number(ratio_of(full), 2)}"))
    return join(parts, "")


def detail_table(rows: Sequence[Row], period: str) -> Markup:
    """Every score of a period, one row a model, grouped by variable and timescale."""
    groups = grouped(rows, period)
    names, tops = group_names(list(groups)), []
    body: list[list[Any]] = []
    shown = {c: h for c, h in _COLUMNS.items() if any(r.get(c) is not None for rows_ in groups.values() for r in rows_)}
    for group, members in groups.items():
        tops.append(len(body))
        for row in members:
            body.append(
                [names[group], text(row.get("model")), unit(row.get("units")), *[_score(row, c) for c in shown]]
            )
    return table(["", "model", "unit", *shown.values()], body, classes={1: "text"}, tops=tops)


def _score(row: Row, column: str) -> str:
    if column == "M" and row.get("M") is None and kind_of(row) == "reference":
        return "all"  # scored by the expectation over the whole residual pool
    if column == "crps_ratio":
        return number(ratio_of(row)) + _interval(row, column, 2)
    value = row.get(column)
    shown = number(value, 1 if column == "runtime_s" else 3)
    return (
        f"+{shown}"
        if column == "bias" and isinstance(value, float) and value > 0
        else shown + _interval(row, column, 2)
    )


def published_table(rows: Sequence[Row]) -> Markup | None:
    """Published rows, not scored by this code; None where there are none."""
    ours = [row for row in rows if kind_of(row) == "published"]
    if not ours:
        return None
    body = [[r.get("model"), *[r.get(k) for k in ("variable", "timescale", "target")], number(r.get("crps")),
             number(r.get("rmse")), number(r.get("bias")), r.get("ref")] for r in ours]  # fmt: skip
    head = ["model", "variable", "timescale", "target", "CRPS", "RMSE", "bias", "source"]
    return table(head, body, caption="Published numbers, not scored again: targets and definitions may differ.")


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """Sentences on emulator rows of the main period that deserve a second look."""
    period = main_period(rows)
    groups = grouped(rows, period)
    names, out = group_names(list(groups)), []
    low, high = SPREAD_SKILL_RANGE
    for group, members in groups.items():
        for row in (r for r in members if kind_of(r) == "emulator"):
            who = f"{row.get('model')}, {names[group]}"
            ratio, error, ss = ratio_of(row), _standard_error(row, "crps_ratio"), row.get("spread_skill")
            if ratio is not None and error is not None and ratio + 2.0 * error < 1.0:
                out.append(f"{who}: CRPS ÷ floor {number(ratio)} lies below 1 by more than two standard errors; look for "
                           "leakage or a wrong target.")  # fmt: skip
            skill = row.get("skill_hi")  # without an interval nothing is said: the denominator may be near zero
            if skill is not None and skill < 0:
                out.append(f"{who}: worse than CO2 pattern scaling (skill {number(row.get('skill'), 2)}).")
            if ss is not None and not low <= ss <= high:
                word = "too narrow" if ss < low else "too wide"
                out.append(f"{who}: ensemble {word} (spread–skill {number(ss, 2)}, expected {low} to {high}).")
            if row.get("flag"):
                out.append(f"{who}: {row['flag']}.")
    return out


def structure_warnings(rows: Sequence[Row], model: str = "") -> list[str]:
    """One sentence that names every statistic of members outside the real members' interval; nothing if all lie inside."""
    whose = f"{model}: members" if model else "Members"
    judged = [r for r in rows if r.get("inside") is not None]
    outside = [r for r in judged if r["inside"] is False]
    if not outside:
        return []
    said = []
    for r in outside:
        low, high = (number(r.get(k), 2) for k in ("real_lo", "real_hi"))
        said.append(f"{r['name']}, {r['variable']}: {number(r['value'], 2)} (real {low} to {high})")
    return [
        f"{whose} differ from real members in {len(outside)} of {len(judged)} statistics of structure: {'; '.join(said)}."
    ]


def chart_values(rows: Sequence[Row], column: str) -> dict[str, dict[str, tuple[float, float | None, float | None]]]:
    """Scores of the main period by group and model with their intervals, for ``plots.score_chart``."""
    groups = grouped(rows, main_period(rows))
    names = group_names(list(groups))
    out: dict[str, dict[str, tuple[float, float | None, float | None]]] = {}
    for group, members in groups.items():
        for row in (r for r in members if kind_of(r) != "floor"):
            value = ratio_of(row) if column == "crps_ratio" else row.get(column)
            if value is not None:
                ends = (row.get(f"{column}_lo"), row.get(f"{column}_hi"))
                out.setdefault(names[group], {})[str(row.get("model"))] = (float(value), *ends)
    return out
