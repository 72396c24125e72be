"""A table of yearly global emissions as people have it: text or a spreadsheet's CSV, read right or refused with line and column.

One row a year, a column for each forcing that differs from the reference, whose head says the unit: ``CO2 (GtCO2/yr)``,
``SO2_Mt_yr``, ``BC [kt/yr]``. A byte-order mark, semicolons, tabs, decimal commas, thousands separators, comments after ``#`` and
trailing commas are understood. Nothing is guessed: where a number can be read in two ways, or a unit is not there, it is refused.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from climatesuite.errors import DataContractError
from climatesuite.forcing.custom import CREDIBLE
from climatesuite.forcing.totals import MAY_BE_NEGATIVE, ROUNDING, UNITS

SPECIES = {"CO2": ("CO2", "C"), "CH4": ("CH4",), "SO2": ("SO2", "S"), "BC": ("BC", "C")}
"""Forcings, and what a mass of them can be a mass of."""
_TONNES = {"t": 1.0, "kt": 1e3, "Gg": 1e3, "Mt": 1e6, "Tg": 1e6, "Gt": 1e9, "Pg": 1e9}
_ELEMENT_OR_GAS = ("sulfur", "sulphur")
_PER_YEAR = ("/yr", "/year", "/a", " yr-1", " year-1", " a-1", " per year", "_yr", "")
_OF_ONE = {("CO2", "C"): 44.009 / 12.011, ("SO2", "S"): 64.064 / 32.06}
_CANONICAL = {"CO2": 1e9, "CH4": 1e6, "SO2": 1e6, "BC": 1e6}
_ALIASES = {
    "co2": "CO2",
    "ch4": "CH4",
    "so2": "SO2",
    "sulfur": "SO2",
    "sulphur": "SO2",
    "bc": "BC",
    "black carbon": "BC",
}
_YEAR = ("year", "jahr", "annee", "año")
_MISSING = ("", "nan", "na", "n/a", "#n/a", "null", "none", "-", "--", "#value!", "#ref!", "#div/0!")
_ENCODINGS = ("utf-8-sig", "cp1252")
_SPACES = re.compile(r"[\s'’\u00a0\u202f]")


def accepted_units(name: str) -> dict[str, float]:
    """Spellings of a unit of yearly emissions, lower case without blanks -> factor to ``totals.UNITS``."""
    out = {}
    for (mass, tonnes), of, per in product(_TONNES.items(), ("", *SPECIES[name]), _PER_YEAR):
        factor = tonnes * _OF_ONE.get((name, of), 1.0) / _CANONICAL[name]
        for spelling in (f"{mass}{of}{per}", f"{mass} {of}{per}", f"{mass}_{of}{per}"):
            out[_squeezed(spelling)] = factor
    return out


def _without_species(name: str) -> set[str]:
    bare = {_squeezed(f"{mass}{per}") for mass, per in product(_TONNES, _PER_YEAR)}
    return bare & set(accepted_units(name))


@dataclass(frozen=True)
class Table:
    """Yearly global emissions.

    Attributes:
        yearly: A column a forcing in ``totals.UNITS``, indexed by year, consecutive years.
        source: Where they come from, for messages and provenance.
        notes: What had to be understood: separators, converted units, filled years.
    """

    yearly: pd.DataFrame
    source: str
    notes: tuple[str, ...] = ()


def read_table(
    table: str | Path | pd.DataFrame, units: Mapping[str, str] | None = None, interpolate: bool = False
) -> Table:
    """Read a table of yearly global emissions.

    Args:
        table: CSV file, or a DataFrame with the years as index or as column ``year``.
        units: Of columns whose name says none, e.g. ``{"CO2": "GtCO2/yr"}``.
        interpolate: Fill the years between those that are there linearly, for tables of anchor years.

    Raises:
        DataContractError: If the file cannot be read; a column or unit is unknown; a year is missing, doubled or no year; a
            value is missing, no number, ambiguous, not credible in its unit, or negative where it cannot be.
    """
    if isinstance(table, pd.DataFrame):
        return _checked(_Rows.of_frame(table), units or {}, interpolate)
    path = Path(table)
    if not path.is_file():
        raise DataContractError(str(path), "no such file", "a CSV table of yearly emissions", "correct the path")
    return _checked(_Rows.of_text(_decoded(path), path.name), units or {}, interpolate)


@dataclass(frozen=True)
class _Rows:
    """Heads and cells as text, with the line each row stands in."""

    heads: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    source: str
    notes: tuple[str, ...]
    word: str = "line"

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> "_Rows":
        frame = frame if any(_is_year(str(c)) for c in frame.columns) else frame.rename_axis("year").reset_index()
        cells = tuple(tuple("" if pd.isna(v) else repr(v) if isinstance(v, float) else str(v) for v in row)
                      for row in frame.astype(object).itertuples(index=False, name=None))  # fmt: skip
        lines = tuple(range(len(cells)))
        return cls(tuple(map(str, frame.columns)), cells, lines, "the DataFrame", (), "row")

    @classmethod
    def of_text(cls, text: str, source: str) -> "_Rows":
        delimiter = _delimiter(next((line for line in text.splitlines() if _counts(line)), ""))
        reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True)
        found = [(reader.line_num, [" ".join(cell.split()) for cell in row]) for row in reader]
        kept = [(line, row) for line, row in found if any(row) and not row[0].startswith("#")]
        if len(kept) < 2:
            raise DataContractError(source, f"{len(kept)} lines", "a line of heads and one for every year", "fill it")
        rows = [row for _, row in kept]
        heads, body = rows[0], rows[1:]
        while heads and not heads[-1] and not any(len(r) >= len(heads) and r[len(heads) - 1] for r in body):
            heads = heads[:-1]
        for (line, _), row in zip(kept[1:], body, strict=True):
            extra = [c for c in row[len(heads) :] if c]
            if extra or len(row) < len(heads):
                raise DataContractError(
                    f"{source}, line {line}", f"{len(row) - row.count('')} values",
                    f"{len(heads)}, one under each of {', '.join(heads)}",
                    "quote numbers that hold the separator, e.g. \"1,234.5\", or write them without",
                )  # fmt: skip
        named = {",": "commas", ";": "semicolons", "\t": "tabs"}[delimiter]
        notes = () if delimiter == "," else (f"columns separated by {named}",)
        cells = tuple(tuple(row[: len(heads)]) for row in body)
        return cls(tuple(heads), cells, tuple(line for line, _ in kept[1:]), source, notes)

    def column(self, head: str) -> list[str]:
        at = self.heads.index(head)
        return [row[at] for row in self.cells]

    def where(self, row: int, head: str) -> str:
        return f"{self.source}, {self.word} {self.lines[row]}, column {head}"


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16")
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise DataContractError(path.name, "a spreadsheet's own format", "text", "save it as CSV (UTF-8)")
    for encoding in _ENCODINGS:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataContractError(path.name, "bytes that are no text", "a CSV table", "save it as CSV (UTF-8)")


def _delimiter(head: str) -> str:
    return max("\t;,", key=lambda d: (head.count(d), d == ";"))


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _checked(rows: _Rows, units: Mapping[str, str], interpolate: bool) -> Table:
    year_heads = [h for h in rows.heads if _is_year(h)]
    if len(year_heads) != 1:
        raise DataContractError(
            rows.source, f"columns {', '.join(rows.heads)}", "one column year", "name the column of years year"
        )
    columns, notes = {}, list(rows.notes)
    comma = _decimal_comma(rows, [h for h in rows.heads if not _is_year(h)])
    notes += ["decimal commas"] if comma else []
    for head in rows.heads:
        if _is_year(head):
            continue
        name, factor, note = _unit_of(head, units, rows.source)
        if name in columns:
            raise DataContractError(f"{rows.source}, column {head}", f"a second column of {name}", "one", "delete one")
        columns[name] = _numbers(rows, head, comma) * factor
        notes += [note] if note else []
        _check_values(columns[name], name, rows, head)
    if not columns:
        raise DataContractError(rows.source, "a column of years alone", f"one of {', '.join(SPECIES)}", "add emissions")
    years = _years(rows, year_heads[0], interpolate)
    yearly = pd.DataFrame(columns, index=pd.Index(years, name="year"))
    whole = np.arange(years[0], years[-1] + 1)
    if whole.size > years.size:
        notes.append(f"{whole.size - years.size} years filled linearly between the {years.size} that are there")
        yearly = pd.DataFrame({n: np.interp(whole, years, v) for n, v in columns.items()}, pd.Index(whole, name="year"))
    return Table(yearly, rows.source, tuple(notes))


def _unit_of(head: str, units: Mapping[str, str], source: str) -> tuple[str, float, str]:
    """Forcing, factor to its canonical unit, and what was converted."""
    found = re.match(r"^\s*(black carbon|[A-Za-z]+[0-9]?)\s*(.*)$", head, re.I)
    name = _ALIASES.get(found[1].lower()) if found else None
    where = f"{source}, column {head}"
    if found is None or name is None:
        raise DataContractError(
            where, "no emissions that are known", f"year, {', '.join(SPECIES)}", "delete or rename it"
        )
    said = units.get(head) or units.get(name) or found[2].strip().strip("_,:").strip("()[]").strip()
    if not said:
        raise DataContractError(
            where, "no unit", f"e.g. {name} ({UNITS[name].replace(' year-1', '/yr')})",
            f'write it into the head of the column, or say units={{"{name}": ...}}',
        )  # fmt: skip
    if re.search(r"cum|ppm|ppb|ppt", head, re.I):
        raise DataContractError(where, f"{said!r}, no emissions of a year", f"{UNITS[name]}", "give yearly emissions")
    table = accepted_units(name)
    if _squeezed(said) not in table:
        choices = ", ".join(f"{m}{SPECIES[name][0]}/yr" for m in ("kt", "Mt", "Gt", "Tg"))
        raise DataContractError(where, f"unit {said!r} is unknown", f"e.g. {choices}", "correct the unit")
    if found[1].lower() in _ELEMENT_OR_GAS and _squeezed(said) in _without_species(name):
        raise DataContractError(
            where, f"unit {said!r}, of S or of SO2", "e.g. MtS/yr or MtSO2/yr", "say which, a factor of two"
        )
    factor = table[_squeezed(said)]
    return name, factor, f"{head} times {factor:g} to {UNITS[name]}" if not np.isclose(factor, 1.0) else ""


def _numbers(rows: _Rows, head: str, comma: bool) -> np.ndarray:
    out = np.empty(len(rows.cells))
    for i, said in enumerate(rows.column(head)):
        text = _plain(said)
        if text.lower() in _MISSING:
            raise DataContractError(rows.where(i, head), f"{said!r}, no value", "a number", "fill it (zero is a value)")
        try:
            out[i] = float(text.replace(".", "").replace(",", ".") if comma else text.replace(",", ""))
        except ValueError:
            raise DataContractError(rows.where(i, head), repr(said), "a number", "correct it") from None
        if not np.isfinite(out[i]):
            raise DataContractError(rows.where(i, head), repr(said), "a finite number", "correct it")
    return out


def _plain(text: str) -> str:
    return _SPACES.sub("", text).replace("\u2212", "-")


def _decimal_comma(rows: _Rows, heads: list[str]) -> bool:
    """Whether commas are decimal signs in this file; refused where nothing in it tells, or it says both."""
    first: dict[bool | None, tuple[int, str]] = {}
    for head in heads:
        for i, said in enumerate(rows.column(head)):
            if "," in said:
                first.setdefault(_is_decimal(_plain(said)), (i, head))
    if True in first and False in first:
        (i, head), (j, other) = first[True], first[False]
        raise DataContractError(
            rows.where(i, head), f"a decimal comma, and a comma between thousands in {rows.word} {rows.lines[j]}, column {other}",
            "one use of the comma in a file", "write numbers without separators",
        )  # fmt: skip
    if None in first and len(first) == 1:
        i, head = first[None]
        text = _plain(rows.column(head)[i])
        raise DataContractError(
            rows.where(i, head), f"{text!r}, which is {text.replace(',', '.')} or {text.replace(',', '')}", "one reading",
            "write it without a comma",
        )  # fmt: skip
    return True in first


def _is_decimal(text: str) -> bool | None:
    """Whether the comma of a number is its decimal sign; None where both are possible."""
    if "." in text:
        return text.rindex(",") > text.rindex(".")
    if text.count(",") > 1:
        return False
    return None if re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", text) else True


def _check_values(values: np.ndarray, name: str, rows: _Rows, head: str) -> None:
    if name not in MAY_BE_NEGATIVE:
        low = values < -ROUNDING * np.abs(values).max()
        if low.any():
            i = int(low.argmax())
            raise DataContractError(
                rows.where(i, head),
                f"{values[i]:.4g} {UNITS[name]}",
                "zero or more: only CO2 can be removed",
                "correct it",
            )
        values[values < 0] = 0.0
    least, most, _ = CREDIBLE[next(c for c in CREDIBLE if c.startswith(f"{name}_"))]
    wrong = (values < least) | (values > most)
    if wrong.any():
        i = int(wrong.argmax())
        raise DataContractError(
            rows.where(i, head), f"{values[i]:.4g} {UNITS[name]}", f"{least:g} to {most:g}", "is the unit right?"
        )


def _years(rows: _Rows, head: str, interpolate: bool) -> np.ndarray:
    """Years in order, each once, without a gap unless gaps are to be filled."""
    texts = rows.column(head)
    years = []
    for i, text in enumerate(texts):
        if not re.fullmatch(r"\d{4}(\.0+)?", text):
            raise DataContractError(rows.where(i, head), f"{text!r}", "a year such as 2030", "correct it")
        years.append(int(text[:4]))
        if years[-1] in years[:-1]:
            first = rows.lines[years.index(years[-1])]
            raise DataContractError(
                rows.where(i, head),
                f"{years[-1]}, which stands in {rows.word} {first} already",
                "every year once",
                "delete one",
            )
        if i and years[-1] < years[-2]:
            raise DataContractError(
                rows.where(i, head), f"{years[-1]} after {years[-2]}", "years in order", "sort the rows"
            )
        if i and years[-1] > years[-2] + 1 and not interpolate:
            raise DataContractError(
                rows.where(i, head), f"{years[-1]} after {years[-2]}", f"{years[-2] + 1}",
                "add the years between, or say interpolate=True (--interpolate) to have them filled linearly",
            )  # fmt: skip
    return np.array(years, dtype=np.int64)


def _is_year(head: str) -> bool:
    return head.strip().lower() in _YEAR


def _squeezed(text: str) -> str:
    return re.sub(r"[\s_]+", "", text).lower()
