"""What a recipe would build, from what, how big it is and what is missing, before a byte is read or written.

A recipe is a YAML file with parts: each takes runs from an archive on disk, whose headers are read, or from an index, a table of
runs such as the public CMIP6 cloud catalog. The ``data`` of an experiment of ``spf run`` is a recipe of one part.
"""

import csv
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from climatesuite.archive.axes import CELLS, grid_kind
from climatesuite.archive.choose import select
from climatesuite.archive.download import catalog_file
from climatesuite.archive.layouts import read_layout
from climatesuite.archive.opening import open_raw
from climatesuite.archive.scan import Entry, member_key, scan
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import forcing_file
from climatesuite.recipe import check_part_of_index, content_of

BYTES_A_VALUE = 4
ENVIRONMENT = {"CLIMATE_DATA": "../shared/data"}
_MEMBER = ("member_id", "member")


@dataclass(frozen=True)
class Run:
    """One run of one experiment.

    Attributes:
        years: First and last, as its files hold or its protocol says.
        bytes: Of its files, its share of those that hold others too; 0 where they are not here.
        problems: Why it would not be built as it is.
    """

    source_id: str
    experiment_id: str
    member: str
    variables: tuple[str, ...]
    years: tuple[int, int]
    bytes: int = 0
    problems: tuple[str, ...] = ()

    @property
    def n_years(self) -> int:
        """Number of years."""
        return self.years[1] - self.years[0] + 1


@dataclass(frozen=True)
class Part:
    """Runs of one part of a recipe, where they were looked for, and what else there is to say."""

    name: str
    origin: str
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """What would be built.

    Attributes:
        recipe: Its content.
        parts: By part of the recipe.
        missing: What the recipe as a whole lacks.
    """

    recipe: Mapping[str, Any]
    parts: tuple[Part, ...]
    missing: tuple[str, ...] = ()

    @property
    def members(self) -> int:
        """Runs that are whole."""
        return sum(not r.problems for p in self.parts for r in p.runs)

    @property
    def years(self) -> int:
        """Simulation-years of the runs that are whole."""
        return sum(r.n_years for p in self.parts for r in p.runs if not r.problems)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for by name is there and whole."""
        return not self.missing and not any(p.missing or any(r.problems for r in p.runs) for p in self.parts)

    def __str__(self) -> str:
        from climatesuite.plan_text import text

        return text(self)


def plan(recipe: str | Path, archive: str | Path | None = None, index: str | Path | None = None) -> Plan:
    """Read a recipe and look at what is there for it.

    Args:
        recipe: YAML file, or the name of one that comes with the project (``climatesuite``).
        archive: Look into these CMIP files instead of where its parts say; parts of another layout stay.
        index: Look into this table of CMIP runs instead.

    Raises:
        DataContractError: If the recipe, an archive or an index cannot be read.
    """
    path = catalog_file(str(recipe), key="parts")
    content = content_of(path)
    parts = []
    for about in content["parts"]:
        about = {"variables": content.get("variables", ["tas", "pr"]), **about}
        is_cmip = "layout" not in about
        if (archive is not None and is_cmip) or "archive" in about:
            parts.append(
                _from_archive(
                    about,
                    Path(archive) if archive and is_cmip else _expanded(about["archive"], path),
                    bool(content.get("grid")),
                )
            )
        elif (index is not None and is_cmip) or "index" in about:
            check_part_of_index(about, f"{path.name}, part {about['name']}")
            parts.append(_from_index(about, Path(index if index and is_cmip else _expanded(about["index"], path))))
        else:
            raise DataContractError(
                f"{path.name}, part {about['name']}", "neither archive nor index", "one of them", "add it"
            )
    missing = _absent_forcings(content, parts, path)
    return Plan(content, tuple(parts), tuple(missing))


def _expanded(text: str, recipe: Path) -> Path:
    """A path of a recipe: variables of the environment replaced, relative to the recipe unless it is there from here."""
    filled = Template(text).safe_substitute({**ENVIRONMENT, **os.environ})
    if "$" in filled:
        raise DataContractError(
            f"{recipe.name}: {text}", "a variable that is not set", "a path", "set it, or give --archive"
        )
    out = Path(filled)
    return out if out.is_absolute() or out.exists() else recipe.parent / out


def _absent_forcings(content: Mapping[str, Any], parts: Sequence[Part], path: Path) -> list[str]:
    if "forcing_files" not in content:
        return []
    folder, absent = _expanded(content["forcing_files"], path), []
    for scenario in sorted({r.experiment_id for p in parts for r in p.runs}):
        try:
            forcing_file(folder, scenario)
        except DataContractError as error:
            absent.append(str(error))
    return absent


# ---- archives


def _from_archive(about: Mapping[str, Any], folder: Path, on_grid: bool) -> Part:
    layout = read_layout(about["layout"]) if about.get("layout") else None
    found = scan(folder, layout)
    variables, wanted = list(about["variables"]), about.get("members")
    sources, experiments = about.get("sources"), list(about.get("experiments") or wanted or [])
    groups: dict[tuple[str, str, str], dict[str, list[Entry]]] = {}
    for e in found.entries:
        is_asked = (
            (not sources or e.source_id in sources)
            and (not experiments or e.experiment_id in experiments)
            and (wanted is None or e.member in wanted.get(e.experiment_id, []))
            and e.variable_id in variables
        )
        if is_asked:
            groups.setdefault((e.source_id, e.experiment_id, e.member), {}).setdefault(e.variable_id, []).append(e)
    shares = Counter(e.path for e in found.entries)
    runs = [_run_of(key, files, variables, about, shares) for key, files in groups.items()]
    runs.sort(key=lambda r: (r.source_id, r.experiment_id, member_key(r.member)))
    runs = _alike(runs)
    missing = _absent(groups, variables, sources, experiments, wanted or {})
    if not missing and not any(r.problems for r in runs):
        try:
            select(found, variables, experiments, wanted, sources)
        except DataContractError as error:  # what a build would say
            missing.append(str(error))
    missing += [] if on_grid else _of_cells(groups)
    aside = tuple(f"{r.path.name}: {r.reason}" for r in found.rejected)
    shape = _shape(next(iter(next(iter(groups.values())).values()))[0]) if groups else None
    return Part(str(about["name"]), str(folder), tuple(runs), tuple(missing), aside, _notes(about), shape)


def _absent(
    groups: Collection[tuple[str, str, str]], variables: Sequence[str], sources: Sequence[str] | None,
    experiments: Sequence[str], wanted: Mapping[str, Sequence[str]],
) -> list[str]:  # fmt: skip
    """A sentence for everything that was asked for by name and is not there."""
    missing = []
    for e in experiments or [""]:
        there = {source for source, experiment, _ in groups if e in ("", experiment)}
        for s in sources or sorted(there) or [""]:
            absent = [m for m in wanted.get(e, []) if (s, e, m) not in groups]
            missing += [f"{f'{s} {e} {m}'.strip()}: no file of {', '.join(variables)}" for m in absent]
            if s not in there and not absent:
                missing.append(f"{f'{s} {e}'.strip() or ', '.join(variables)}: no run")
    return missing


def _alike(runs: Sequence[Run]) -> list[Run]:
    """Runs, where a member of other years than the first whole one of its experiment has a problem."""
    firsts: dict[tuple[str, str], Run] = {}
    out = []
    for run in runs:
        first = run if run.problems else firsts.setdefault((run.source_id, run.experiment_id), run)
        other = f"years {run.years[0]}-{run.years[1]}, {first.member} has {first.years[0]}-{first.years[1]}: set years"
        out.append(run if run.years == first.years else replace(run, problems=(other,)))
    return out


def _run_of(
    key: tuple[str, str, str],
    files: Mapping[str, Sequence[Entry]],
    variables: Sequence[str],
    about: Mapping[str, Any],
    shares: Mapping[Path, int],
) -> Run:
    problems = [f"no {v}" for v in variables if v not in files]
    spans = dict[str, tuple[int, int]]()
    for name, entries in files.items():
        ordered = sorted(entries, key=lambda e: (e.stored, e.start, e.stop))
        grids = {e.grid_label for e in entries}
        problems += [f"{name} on grids {', '.join(sorted(grids))}"] if len(grids) > 1 else []
        for a, b in ((a, b) for a, b in zip(ordered, ordered[1:], strict=False) if a.stored == b.stored):
            step = _month(b.start) - _month(a.stop)
            problems += [f"{name} has no {_next(a.stop)} to {_before(b.start)}"] if step > 1 else []
            problems += [f"{name} twice in {b.start}-{min(a.stop, b.stop)}"] if step < 1 else []
        for stored in sorted({e.stored for e in entries}):
            own = [e for e in entries if e.stored == stored]
            first, last = min(_month(e.start) for e in own), max(_month(e.stop) for e in own)
            spans[stored or name] = -(-first // 12), (last + 1) // 12 - 1
    years = max(s[0] for s in spans.values()), min(s[1] for s in spans.values())
    asked = about.get("years") or (
        about["experiments"].get(key[1]) if isinstance(about.get("experiments"), dict) else None
    )
    if asked:
        if asked[0] < years[0] or asked[1] > years[1]:
            problems.append(f"years {years[0]}-{years[1]}, asked for {asked[0]}-{asked[1]}")
        years = (max(years[0], asked[0]), min(years[1], asked[1]))
    elif len(set(spans.values())) > 1:
        problems.append(", ".join(f"{name} has {a}-{b}" for name, (a, b) in spans.items()) + ": set years")
    size = sum(e.path.stat().st_size // shares[e.path] for part in files.values() for e in part if e.path.is_file())
    if years[1] < years[0]:
        problems, years = [*problems, "no whole year that all variables share"], (years[0], years[0])
    return Run(*key, tuple(sorted(files)), years, size, tuple(problems))


def _month(text: str) -> int:
    return 12 * int(text[:4]) + int(text[4:6]) - 1


def _label(month: int) -> str:
    return f"{month // 12:04d}{month % 12 + 1:02d}"


def _next(text: str) -> str:
    return _label(_month(text) + 1)


def _before(text: str) -> str:
    return _label(_month(text) - 1)


def _of_cells(groups: Mapping[tuple[str, str, str], Mapping[str, Sequence[Entry]]]) -> list[str]:
    """A sentence for every source whose files need a target grid, by the first of them."""
    firsts = {key[0]: next(iter(files.values()))[0] for key, files in reversed(list(groups.items()))}
    said = []
    for source, entry in sorted(firsts.items()):
        with open_raw(entry.path, entry.group) as ds:
            kind = grid_kind(ds, entry.stored or entry.variable_id)
        said += [f"{source}: a target grid (grid in the recipe), as its files have {kind}"] if kind in CELLS else []
    return said


def _shape(entry: Entry) -> tuple[int, int] | None:
    with open_raw(entry.path, entry.group) as ds:
        shape = ds[entry.stored or entry.variable_id].shape
    return (int(shape[-2]), int(shape[-1])) if len(shape) >= 3 else None


def _versions(runs: Sequence[Run]) -> list[str]:
    """Models whose members differ in physics or forcing index: these are other versions of a model, not more of its members."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        version = re.search(r"p\d+f\d+$", run.member)
        counts = found.setdefault(run.source_id, {})
        counts[version[0] if version else ""] = counts.get(version[0] if version else "", 0) + 1
    said = {s: ", ".join(f"{n} of {v}" for v, n in sorted(c.items())) for s, c in found.items() if len(c) > 1}
    return [
        f"{source}: {counts}; other physics or forcings are another version of the model"
        for source, counts in said.items()
    ]


# ---- indices


def _from_index(about: Mapping[str, Any], file: Path) -> Part:
    rows, header = _rows(file)
    experiments: Mapping[str, Sequence[int]] = about["experiments"]
    named = about["variables"]
    own = {str(v): str(k) for k, v in named.items()} if isinstance(named, dict) else {str(v): str(v) for v in named}
    listed: set[str] = set()
    groups: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        member = next((row[k] for k in _MEMBER if row.get(k)), "")
        key = (row["source_id"], row["experiment_id"], member)
        if (
            key[0] not in about["sources"]
            or key[1] not in experiments
            or row.get("table_id", about.get("table_id")) != about.get("table_id")
        ):
            continue
        if row.get("dcpp_init_year") or row["variable_id"] not in own:
            continue
        listed.add(own[row["variable_id"]])
        groups.setdefault(key, set()).add(own[row["variable_id"]])
    runs = [
        Run(*key, tuple(sorted(v)), (int(experiments[key[1]][0]), int(experiments[key[1]][1])),
            problems=tuple(f"no {n}" for n in sorted(listed - v)))
        for key, v in groups.items()
    ]  # fmt: skip
    runs.sort(key=lambda r: (r.source_id, r.experiment_id, member_key(r.member)))
    unlisted = [n for n in own.values() if n not in listed]
    missing = [f"{n}: not in this index, so whether the runs have it is open" for n in unlisted]
    missing += [f"{s}: no run" for s in about["sources"] if all(r.source_id != s for r in runs)]
    missing += [f"{e}: no run" for e in experiments if all(r.experiment_id != e for r in runs)]
    notes = (*_versions(runs), *_notes(about))
    return Part(str(about["name"]), f"{file.name}{header}", tuple(runs), tuple(missing), (), notes)


def _rows(file: Path) -> tuple[list[dict[str, str]], str]:
    """Rows of an index and what its comments say of its date."""
    if not file.is_file():
        raise DataContractError(str(file), "no such index", "a table of runs", "correct the path, or fetch it")
    with file.open(newline="") as source:
        lines = list(source)
    comments = [line for line in lines if line.startswith("#")]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    absent = [c for c in ("source_id", "experiment_id", "variable_id") if not rows or c not in rows[0]]
    if absent or not any(c in rows[0] for c in _MEMBER):
        raise DataContractError(
            str(file), f"no {', '.join(absent) or 'member_id'}", "source_id, experiment_id, member_id, variable_id",
            "give an index of runs, such as pangeo-cmip6.csv",
        )  # fmt: skip
    dated = re.search(r"date:\s*(\d{4}-\d{2}-\d{2})", "".join(comments))
    return rows, f", of {dated[1]}" if dated else ""


def _notes(about: Mapping[str, Any]) -> tuple[str, ...]:
    layout = [f"layout {about['layout']}: {read_layout(about['layout']).about}"] if about.get("layout") else []
    facets = {"project": "CMIP6", "source_id": about.get("sources"), "experiment_id": list(about.get("experiments") or ()),
              "variable_id": list(about["variables"]), "table_id": about.get("table_id")}  # fmt: skip
    search = (
        [] if layout or "index" not in about else [f"search (intake-esgf, ESGFCatalog().search(**facets)): {facets}"]
    )
    return (*layout, *search, *map(str, about.get("rules") or ()))


def free_bytes(folder: Path) -> int:
    """Free space where a folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
