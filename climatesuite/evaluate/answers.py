"""Rows of diagnostics: a value of an ensemble beside the same of the truth's members, as flat dicts that JSON can hold."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import plain_value

Row = dict[str, Any]
FIELDS = (
    "question", "name", "variable", "region", "season", "timescale", "value", "lo", "hi", "interval", "reference",
    "reference_lo", "reference_hi", "reference_kind", "agrees", "units", "M", "N", "window", "note",
)  # fmt: skip
MEMBERS = "5–95 % of members"
INNER = (5.0, 95.0)


def row(**given: Any) -> Row:
    """All fields in order, absent ones None, every number one that JSON can hold.

    Raises:
        ValueError: On a field that is not known.
    """
    unknown = set(given) - set(FIELDS)
    if unknown:
        raise ValueError(f"unknown fields of a row: {sorted(unknown)}")
    return {name: _plain(given.get(name)) for name in FIELDS}


def _plain(value: Any) -> Any:
    value = plain_value(value)
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def beside(sides: Iterable[Array], *, centre: str = "mean", **about: Any) -> Row:
    """A row of one number a member: of the ensemble, and of the truth.

    Args:
        sides: ``[M]`` of the ensemble and ``[N]`` of the truth; NaN where a member has none, infinity for "not by the end".
        centre: ``mean``, or ``median`` for years, which may be infinite.
        about: Other fields.

    Returns:
        ``value`` with ``lo, hi``: centre and 5–95 % of the members (None for one); ``reference`` with ``reference_lo,
        reference_hi``: centre, least and greatest of the truth's members. ``agrees``: whether the truth's centre lies in lo..hi,
        i.e. would be unremarkable as one more member. Infinity becomes None, and ``note`` says how many members it is.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in sides)
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    out = {
        **about,
        "M": x.size,
        "N": y.size,
        "interval": MEMBERS,
        "reference_kind": "truth members, least and greatest",
    }
    if not x.size or not y.size:
        return row(**out | {"note": _joined(out.get("note"), "too little warming to divide by")})
    middle = np.median if centre == "median" else np.mean
    value, known = (float(_at_a_value(v, 50.0)) if centre == "median" else float(middle(v)) for v in (x, y))
    lo, hi = (float(_at_a_value(x, q)) for q in INNER) if x.size > 1 else (None, None)
    never = [f"{int(np.isinf(v).sum())} of {v.size} {who}" for v, who in ((x, "members"), (y, "of the truth"))
             if np.isinf(v).any()]  # fmt: skip
    note = f"not by the end: {', '.join(never)}" if never else None
    return row(**out | {
        "value": value, "lo": lo, "hi": hi, "reference": known, "reference_lo": y.min(), "reference_hi": y.max(),
        "agrees": None if lo is None or hi is None else bool(lo <= known <= hi), "note": _joined(out.get("note"), note),
    })  # fmt: skip


def _at_a_value(x: Array, percent: float) -> np.floating:
    """A percentile between the two values around it, or the upper one where that is infinite."""
    low, high = (np.percentile(x, percent, method=m) for m in ("lower", "higher"))
    return high if np.isinf(high) else np.percentile(np.where(np.isinf(x), high, x), percent)


def _joined(*notes: Any) -> str | None:
    return "; ".join(str(n) for n in notes if n) or None


def disagreeing(rows: Sequence[Row]) -> list[Row]:
    """Rows whose reference lies outside the interval. About one in ten does by chance."""
    return [r for r in rows if r["agrees"] is False]


def answer_table(rows: Sequence[Row]) -> str:
    """Rows as text for a terminal, by question; * where the reference is outside the interval."""
    head = f"{'':48s} {'value':>9s} {'interval':>21s} {'reference':>10s} {'from to':>21s}  unit"
    lines, question = [], None
    for r in rows:
        if r["question"] != question:
            question = r["question"]
            lines += ["", f"{question}  ({r['interval'] or r['reference_kind']})", head]
        name = ", ".join(str(r[k]) for k in ("name", "variable", "region", "season") if r[k])
        lines.append(
            f"{name:48s} {_text(r['value'])} {_span(r, 'lo', 'hi')} {_text(r['reference'], 10)} "
            f"{_span(r, 'reference_lo', 'reference_hi')}{' *'[r['agrees'] is False]} {r['units'] or '':s}"
            + (f"  [{r['note']}]" if r["note"] else "")
        )
    return "\n".join(lines).strip()


def _text(value: Any, width: int = 9) -> str:
    if value is None:
        return f"{'–':>{width}s}"
    return f"{value:{width}.0f}" if abs(value) >= 1000 else f"{value:{width}.3f}"


def _span(r: Row, low: str, high: str) -> str:
    if r[low] is None and r[high] is None:
        return " " * 21
    return f"[{_text(r[low])},{_text(r[high])}]"
