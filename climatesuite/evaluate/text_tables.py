"""Rows of scores, differences and structure as text for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def score_table(rows: Sequence[Row]) -> str:
    """The headline columns of every period, and under them what the rows flag."""
    width = _width(rows, "model")
    head = (
        f"{'model':{width}s} {'variable':8s} {'timescale':9s} {'M':>5s} {'rmse':>8s} {'crps':>8s} {'/ floor':>8s} "
        f"{'95 % interval':>17s} {'skill':>7s} {'spread/skill':>12s}"
    )
    parts = []
    for period, group in _by_period(rows).items():
        lines = [f"{period}: {_span(group)}, {_truth(group)}", head]
        for row in group:
            numbers = [_number(row.get(k)) for k in ("rmse", "crps", "crps_ratio")]
            interval = _interval(row, "crps_ratio") if row.get("crps_ratio_lo") is not None else _interval(row, "crps")
            lines.append(
                f"{row['model']!s:{width}s} {row['variable']!s:8s} {row['timescale']!s:9s} {row.get('M') or '-':>5} "
                f"{' '.join(numbers)} {interval:>17s} {_number(row.get('skill'), 7, 2)} {_number(row.get('spread_skill'), 12)}"
            )
        parts.append("\n".join(lines))
    flags = dict.fromkeys(f"note: {r['model']}, {r['timescale']}: {r['flag']}" for r in rows if r.get("flag"))
    legend = (
        "pr in mm day-1, tas in K. / floor: 1 is a perfect ensemble; the interval is that of the ratio, in the floor's row of the\n"
        "floor itself. skill: 0 is CO2 pattern scaling, 1 the floor. M: members; - is the exact expectation over all residuals of\n"
        "the period; of one member crps is the absolute error."
    )
    return "\n\n".join([*parts, "\n".join([*flags, legend])])


def difference_table(rows: Sequence[Row]) -> str:
    """Differences in CRPS over the floor with their intervals, below 0 is better; every period."""
    width, other = _width(rows, "model"), _width(rows, "against")
    parts = []
    for period, group in _by_period(rows).items():
        lines = [
            f"paired differences, {period}: {_span(group)}",
            f"{'model':{width}s} {'against':{other}s} {'variable':8s} {'timescale':9s} {'CRPS/floor':>10s} "
            f"{'95 % interval':>17s}  better",
        ]
        for row in group:
            lines.append(
                f"{row['model']!s:{width}s} {row['against']!s:{other}s} {row['variable']!s:8s} {row['timescale']!s:9s} "
                f"{_number(row.get('ratio_difference'), 10)} {_interval(row, 'ratio_difference'):>17s}  {row.get('better') or '-'}"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _by_period(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {p: found for p in ("headline", "full") if (found := [r for r in rows if r.get("period") == p])}


def _width(rows: Sequence[Row], column: str) -> int:
    return max([len(str(r[column])) for r in rows] + [len(column)])


def _span(rows: Sequence[Row]) -> str:
    """Years of each timescale: ``year 2017-2099``."""
    spans = dict.fromkeys(f"{r['timescale']} {r['window'][0]}-{r['window'][1]}" for r in rows)
    return ", ".join(spans)


def _truth(rows: Sequence[Row]) -> str:
    first = rows[0]
    return f"{first.get('esm') or 'unnamed model'} {first.get('scenario') or ''}, {first.get('N')} members"


def _interval(row: Row, column: str) -> str:
    low, high = row.get(f"{column}_lo"), row.get(f"{column}_hi")
    return "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def structure_table(rows: Sequence[Row]) -> str:
    """The structure of one ensemble's members beside the real interval."""
    lines = [f"{'':52s} {'':8s} {'members':>9s} {'real':>9s} {'from':>9s} {'to':>9s}"]
    for row in rows:
        shown = " ".join(_number(row.get(k), 9, 4) for k in ("value", "real_mean", "real_lo", "real_hi"))
        mark = "  OUTSIDE" if row["inside"] is False else ""
        lines.append(f"{row['name']!s:52s} {row['variable']!s:8s} {shown}{mark}")
    return "\n".join(lines)


def structures_table(structures: Mapping[str, Sequence[Row]]) -> str:
    """The structure of several ensembles side by side; an asterisk marks what lies outside the real interval."""
    models = list(structures)
    keys = dict.fromkeys((r["name"], r["variable"]) for rows in structures.values() for r in rows)
    found = {m: {(r["name"], r["variable"]): r for r in rows} for m, rows in structures.items()}
    heads = [textwrap.wrap(m, 20) for m in models]
    depth = max((len(head) for head in heads), default=1)
    heads = [[""] * (depth - len(head)) + head for head in heads]
    above = [""] * (depth - 1) + ["real, mean and interval"]
    lines = [f"{'':57s} {above[i]:>28s} " + " ".join(f"{head[i]:>20s} " for head in heads) for i in range(depth)]
    for key in keys:
        rows = [found[m].get(key) for m in models]
        first = next(r for r in rows if r is not None)
        real = (
            f"{_number(first['real_mean'], 8, 4)} [{_number(first['real_lo'], 8, 4)},{_number(first['real_hi'], 8, 4)}]"
        )
        cells = [
            f"{'-':>21s}" if r is None else f"{_number(r['value'], 20, 4)}{' *'[r['inside'] is False]}" for r in rows
        ]
        lines.append(f"{key[0]!s:48s} {key[1]!s:8s} {real:>28s} {' '.join(cells)}")
    return "\n".join(lines)


def _number(value: object, width: int = 8, digits: int = 3) -> str:
    return f"{value:{width}.{digits}f}" if isinstance(value, float) else f"{'-':>{width}s}"
