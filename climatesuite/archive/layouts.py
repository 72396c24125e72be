"""Files that are named and written in a way of their own, such as history files of CESM: a table says what is what.

A layout is a YAML file: a pattern of file names, the stored variables (with their units) that make a variable, and the runs by
case. ``catalogs/layouts`` holds those that come with the project.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from climatesuite.archive.download import catalog_file, read_yaml
from climatesuite.archive.entry import Entry, Rejected
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.units import conversion

_KEYS = {"name", "about", "file", "attribute", "variables", "runs"}
_GROUPS = {"case", "member", "stored", "start", "stop"}


@dataclass(frozen=True)
class Layout:
    """How files of one kind are to be understood.

    Attributes:
        name: Short name.
        about: One sentence for people.
        file: Pattern of a whole file name, with the groups case, member, stored, start and stop.
        variables: By variable of `conventions.VARIABLES` the ways to get it: stored variables, which are added, and their units.
        runs: source_id and experiment_id by case.
        attribute: Global attribute that holds ``<case>.<member>``; "" is none.
    """

    name: str
    about: str
    file: re.Pattern[str]
    variables: Mapping[str, tuple[Mapping[str, str], ...]]
    runs: Mapping[str, tuple[str, str]]
    attribute: str = ""

    def facets(self, file: str) -> dict[str, Any] | None:
        """What a file name says, as fields of `Entry`; None where it is no name of this layout, or of nothing that is used."""
        named = self.file.fullmatch(file)
        if named is None or named["case"] not in self.runs:
            return None
        name, terms = self._way(named["stored"])
        source, experiment = self.runs[named["case"]]
        if not name:
            return None
        return {
            "source_id": source, "experiment_id": experiment, "member": named["member"], "variable_id": name,
            "start": named["start"], "stop": named["stop"], "grid_label": "gn", "stored": named["stored"], "terms": terms,
        }  # fmt: skip

    def problem(self, file: str, ds: xr.Dataset) -> str:
        """Why a file of this layout is of no use; "" where it is."""
        named, about = self.file.fullmatch(file), self.facets(file)
        if named is None:
            return f"no file name of the layout {self.name}"
        if named["case"] not in self.runs:
            return f"case {named['case']} is not among the runs of the layout {self.name}"
        if about is None:
            stored = ", ".join(t for ways in self.variables.values() for way in ways for t in way)
            return f"{named['stored']} is not among the variables of the layout {self.name} ({stored})"
        run = f"{named['case']}.{named['member']}"
        said = str(ds.attrs.get(self.attribute, run)) if self.attribute else run
        if said != run:
            return f"attribute {self.attribute} is {said!r}, the file name says {run!r}"
        if about["stored"] not in ds.variables:
            return f"no variable {about['stored']} in it"
        return self._wrong_unit(about, str(ds[about["stored"]].attrs.get("units", "")))

    def _way(self, stored: str) -> tuple[str, tuple[str, ...]]:
        """The variable that a stored one makes, and with which others."""
        found = [(name, tuple(way)) for name, ways in self.variables.items() for way in ways if stored in way]
        return found[0] if found else ("", ())

    def _wrong_unit(self, about: Mapping[str, Any], units: str) -> str:
        name, stored = about["variable_id"], about["stored"]
        told = next(way[stored] for way in self.variables[name] if stored in way)
        try:
            is_same = conversion(units, VARIABLES[name].units, stored) == conversion(
                told, VARIABLES[name].units, stored
            )
        except DataContractError:
            is_same = False
        return "" if is_same else f"{stored} in {units or 'no unit'}, the layout {self.name} says {told}"


def read_layout(name: str | Path) -> Layout:
    """A layout by name, e.g. ``cesm``, or by path.

    Raises:
        DataContractError: If there is none, or it does not say what a layout has to.
    """
    path = catalog_file(str(name), "layouts")
    content = read_yaml(path)
    keys = set(content) if isinstance(content, dict) else set()
    if not _KEYS - {"about", "attribute"} <= keys <= _KEYS:
        raise DataContractError(
            f"layout {path.name}", f"keys {', '.join(sorted(map(str, keys))) or 'none'}", ", ".join(sorted(_KEYS)),
            "see catalogs/layouts/cesm.yaml",
        )  # fmt: skip
    try:
        pattern = re.compile(content["file"])
        absent = sorted(_GROUPS - set(pattern.groupindex))
        if absent:
            raise ValueError(f"file has no group {', '.join(absent)}")
        runs = {str(case): (run["source_id"], run["experiment_id"]) for case, run in content["runs"].items()}
        for run in set(runs.values()):
            cases = [case for case, other in runs.items() if other == run]
            if len(cases) > 1:
                raise ValueError(f"cases {', '.join(cases)} are all {' '.join(run)}: their members would be mixed")
        variables = {n: tuple({str(s): str(u) for s, u in way.items()} for way in ways)
                     for n, ways in content["variables"].items()}  # fmt: skip
        if unknown := sorted(set(variables) - set(VARIABLES)):
            raise ValueError(f"{', '.join(unknown)} unknown, known are {', '.join(VARIABLES)}")
        for name_, ways in variables.items():
            for stored, units in (pair for way in ways for pair in way.items()):
                conversion(units, VARIABLES[name_].units, f"{stored} of the layout")
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise DataContractError(
            f"layout {path.name}", f"not understood ({error})", "a pattern, variables and runs",
            "see catalogs/layouts/cesm.yaml",
        ) from error  # fmt: skip
    return Layout(
        str(content["name"]),
        str(content.get("about", "")),
        pattern,
        variables,
        runs,
        str(content.get("attribute") or ""),
    )


def one_way(entries: Iterable[Entry]) -> tuple[list[Entry], list[Rejected], list[Rejected]]:
    """Of several ways to a variable of a run the one of most months that all its terms hold, then of fewest stored variables.

    Returns:
        Entries to use; those of which a term lacks, where there is no whole way; those for which another way stands.
    """
    kept, broken, other = [], list[Rejected](), list[Rejected]()
    runs: dict[tuple[str, ...], dict[tuple[str, ...], list[Entry]]] = {}
    for e in entries:
        if e.terms:
            run = (e.source_id, e.experiment_id, e.member, e.variable_id)
            runs.setdefault(run, {}).setdefault(e.terms, []).append(e)
        else:
            kept.append(e)
    for ways in runs.values():
        lacking = {terms: [t for t in terms if all(e.stored != t for e in found)] for terms, found in ways.items()}
        months = {terms: _months(terms, found) for terms, found in ways.items() if not lacking[terms]}
        best = min(months, key=lambda terms: (-months[terms], len(terms)), default=())
        for terms, found in ways.items():
            if terms == best:
                kept += found
            elif best:
                held = f", of {months[best]} months, this one of {months[terms]}" if terms in months else ""
                other += [Rejected(e.path, f"{' + '.join(best)} is there{held}") for e in found]
            else:
                broken += [Rejected(e.path, f"{e.stored} without {', '.join(lacking[terms])}") for e in found]
    return kept, broken, other


def _months(terms: Iterable[str], found: Iterable[Entry]) -> int:
    """How many months all terms hold."""
    held: dict[str, set[int]] = {term: set() for term in terms}
    for e in found:
        first, last = (12 * int(m[:4]) + int(m[4:]) for m in (e.start, e.stop))
        held[e.stored].update(range(first, last + 1))
    return len(set.intersection(*held.values()))
