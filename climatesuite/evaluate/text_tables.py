"""Rows of scores, differences and structure as text for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def score_table(rows: Sequence[Row], period: str = "full") -> str:
    """The headline columns of a period."""
    lines = [
        f"{'model':27s} {'variable':8s} {'timescale':9s} {'rmse':>8s} {'crps':>8s} {'/ floor':>8s} {'spread/skill':>12s}"
    ]
    for row in rows:
        if row.get("period") == period:
            shown = [_number(row.get(k)) for k in ("rmse", "crps", "crps_ratio", "spread_skill")]
            shown[3] = f"{shown[3]:>12s}"
            lines.append(f"{row['model']!s:27s} {row['variable']!s:8s} {row['timescale']!s:9s} {' '.join(shown)}")
    return "\n".join(lines)


def difference_table(rows: Sequence[Row], period: str = "full") -> str:
    """Differences in CRPS over the floor with their intervals."""
    lines = [
        f"{'model':27s} {'against':27s} {'variable':8s} {'timescale':9s} {'CRPS/floor':>10s}  95 % interval    better"
    ]
    for row in rows:
        if row.get("period") == period:
            low, high = _number(row.get("ratio_difference_lo")), _number(row.get("ratio_difference_hi"))
            lines.append(
                f"{row['model']!s:27s} {row['against']!s:27s} {row['variable']!s:8s} {row['timescale']!s:9s} "
                f"{_number(row.get('ratio_difference'), 10)} [{low},{high}]  {row.get('better') or '-'}"
            )
    return "\n".join(lines)


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
