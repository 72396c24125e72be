"""Recipes of data sets: read from YAML and checked, key by key, before anything is looked for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from climatesuite.archive.download import read_yaml
from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError

KNOWN = {"name", "about", "variables", "grid", "forcings", "forcing_files", "target", "parts", "differences", "out"}
KNOWN_PART = {
    "name", "archive", "index", "table_id", "sources", "experiments", "members", "variables", "layout", "rules", "years",
}  # fmt: skip


def content_of(path: Path) -> dict[str, Any]:
    """What a recipe says, or the data of an experiment of ``spf run`` as a recipe; always with ``parts``.

    Raises:
        DataContractError: If it is no recipe, or a key is unknown, missing or holds something of another shape.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise DataContractError(str(path), "no recipe", "a mapping with parts", "see catalogs/climatesuite.yaml")
    if isinstance(content.get("data"), dict):
        content = _of_experiment(content)
    elif "parts" not in content:
        content = {**{k: v for k, v in content.items() if k in KNOWN}, "parts": [
            {"name": content.get("name", path.stem), **{k: v for k, v in content.items() if k not in KNOWN or k == "variables"}}
        ]}  # fmt: skip
    _check(content, path.name)
    unknown = sorted(set(content) - KNOWN) + sorted({k for p in content["parts"] for k in p} - KNOWN_PART)
    if unknown:
        raise DataContractError(
            str(path), f"{', '.join(unknown)} unknown", f"{', '.join(sorted(KNOWN | KNOWN_PART))}", "correct the recipe"
        )
    parts = [{"name": str(n), **part} for n, part in enumerate(content["parts"], start=1)]
    for part in parts:
        _check(part, f"{path.name}, part {part['name']}")
    return {**content, "parts": parts}


def check_part_of_index(about: Mapping[str, Any], where: str) -> None:
    """Refuse a part that is to be looked up in an index and does not say its sources, or the years that an index does not hold.

    Raises:
        DataContractError: With the key.
    """
    _check({key: about.get(key) for key in _OF_INDEX}, where, _OF_INDEX)


def _of_experiment(content: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that the data of an experiment amount to."""
    data = content["data"]
    if data.get("archive") in (None, "synthetic"):
        raise DataContractError(
            f"experiment {content.get('name')}", f"archive {data.get('archive')}", "a folder of CMIP files",
            "nothing is to be planned for a synthetic one",
        )  # fmt: skip
    where = f"experiment {content.get('name')}"
    _check({k: v for k, v in data.items() if v} | {"source_id": data.get("source_id")}, where)
    years = data.get("years") or [2015, 2099]
    own = {data["source_id"]: {**(data.get("train") or {}), **(data.get("test") or {})}, **(data.get("also") or {})}
    parts = [
        {"name": source, "archive": data["archive"], "sources": [source], "members": members, "years": years}
        for source, members in own.items()
    ]  # fmt: skip
    out = {k: data[k] for k in ("variables", "forcings", "grid", "forcing_files") if data.get(k)}
    return {"name": content.get("name"), "parts": parts, "forcings": ["CO2", "CH4", "SO2", "BC"], **out}


# ---- shapes


Shapes = Mapping[str, tuple[str, Callable[[Any], bool]]]


def _check(content: Mapping[str, Any], where: str, shapes: Shapes | None = None) -> None:
    """Refuse a value that is not of the shape that its key asks for."""
    for key, (expected, fits) in (_SHAPES if shapes is None else shapes).items():
        if key in content and not fits(content[key]):
            found = "nothing" if content[key] is None else repr(content[key])
            raise DataContractError(f"{where}: {key}", found, expected, "correct the recipe")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)


def _are_years(value: Any) -> bool:
    return _are_numbers(value) and value[0] <= value[1]


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)


def _is_target(value: Any) -> bool:
    return (
        isinstance(value, dict) and set(value) == {"members", "years"} and all(type(n) is int for n in value.values())
    )


def _by_name(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(_is_text(k) and fits(v) for k, v in value.items())


_TEXT, _NAMES = ("text", _is_text), ("a list of names, e.g. [CESM2]", _are_names)
_MEMBERS = ('members by experiment, numbers in quotes: {ssp126: [r1i1p1f1]}, {GLENS: ["001"]}', _by_name(_are_names))
_LIST = ("a list", lambda v: isinstance(v, list))
_YEARS = ("years by experiment, e.g. {ssp126: [2015, 2100]}", _by_name(_are_years))
_SHAPES: Shapes = {
    **dict.fromkeys(("source_id", "archive", "index", "layout", "forcing_files", "out", "table_id"), _TEXT),
    "sources": _NAMES,
    "forcings": (f"a list of names out of {', '.join(FORCINGS)}", lambda v: _are_names(v) and set(v) <= set(FORCINGS)),
    **dict.fromkeys(("members", "train", "test"), _MEMBERS),
    **dict.fromkeys(("rules", "differences"), _LIST),
    "also": ("members by source and experiment", _by_name(_MEMBERS[1])),
    "variables": ("a list of names, e.g. [tas, pr]", lambda v: _are_names(v) or _by_name(_is_text)(v)),
    "grid": ("rows and columns, e.g. [48, 72]", _are_numbers),
    "years": ("the first and the last year, e.g. [2015, 2099]", _are_years),
    "experiments": (f"a list of names, e.g. [ssp126], or {_YEARS[0]}", lambda v: _are_names(v) or _YEARS[1](v)),
    "target": ("numbers, e.g. {members: 345, years: 33000}", _is_target),
    "parts": ("a list of parts, each with archive or index", _are_parts),
}  # fmt: skip
_OF_INDEX: Shapes = {"sources": (_NAMES[0], lambda v: bool(v) and _are_names(v)), "experiments": _YEARS}
