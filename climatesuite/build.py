"""From an archive of CMIP files to a published store: whole, or nothing; a larger one, or the one that was there."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from climatesuite.archive.read import Key
from climatesuite.archive.repairs import of_records, say
from climatesuite.archive.scan import member_key
from climatesuite.building.commit import Parts, commit, unlike
from climatesuite.building.journal import begin, do_part, finished, forget, has_finished, remove_journal, sweep
from climatesuite.building.request import Request, make_request
from climatesuite.building.units import Done
from climatesuite.building.workers import executor
from climatesuite.errors import DataContractError
from climatesuite.store.lock import PARTIAL, clear_about_room, is_no_room, only_writer
from climatesuite.store.place import BUILDING, NODE, Place, flush_entry
from climatesuite.store.provenance import changed_files, read_provenance, unmatched
from climatesuite.store.publish import finish

NAMED = 10
"""Failed parts that a message names."""


_PART = ("source_id", "experiment_id", "member", "variable_id")  # what a record says it was read for; forcings: a run
_RARE = ("join_parents", "on_overlap")  # settings that are kept only where they are not the default


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        path: The store; a URL where it lies on another machine.
        runs: (source_id, experiment_id) of every run.
        members: The members of every run, in the same order.
        bytes: Size on disk.
        seconds: Wall time.
        was_noop: Whether all that was asked for was there already, of the same input and settings.
        rejected: Files that were seen and not used, with the reason.
        added: Members added to a store that was there.
        kept: Parts that an earlier build, killed or failed, had finished.
    """

    path: Path | str
    runs: tuple[Key, ...]
    members: tuple[tuple[str, ...], ...]
    bytes: int
    seconds: float
    was_noop: bool
    rejected: tuple[str, ...]
    added: int = 0
    kept: int = 0

    def __str__(self) -> str:
        state = "is there already, nothing to do" if self.was_noop else f"built in {self.seconds:.1f} s"
        more = f", {self.added} members added" if self.added else ""
        more += f", {self.kept} parts kept from an earlier build" if self.kept else ""
        runs = ", ".join(f"{s} {e} ({len(m)} members)" for (s, e), m in zip(self.runs, self.members, strict=True))
        aside = "".join(f"\nset aside: {text}" for text in self.rejected)
        return f"{self.path} {state}{more}: {runs}; {self.bytes / 1e6:.0f} MB{aside}"


def build(
    archive: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    sources: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | None = None,
    variables: Sequence[str] = ("tas", "pr"),
    forcings: str | Path | None = None,
    forcing_names: Sequence[str] = ("CO2", "CH4", "SO2", "BC"),
    years: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    decade_start: int | None = None,
    join_parents: bool = False,
    on_overlap: str = "refuse",
    layout: str | Path | None = None,
    scheduler: str | Executor = "threads",
    workers: int | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build a store, or add members, scenarios and models to one: months, years, decades, forcings, statistics, provenance.

    Every field of every member is a part of its own: it fails alone, and a build that failed or was killed goes on with what
    is missing. Nothing of it is visible before all is there. A worker holds one shard (256 MB at most) and a block of months.

    Args:
        archive: CMIP files, folders or URLs.
        out: Store to make or to add to: a path, or a URL that fsspec knows.
        sources: Earth system models; default all.
        experiments: Scenarios; default all.
        members: Members by scenario; default all.
        variables: Fields.
        forcings: Folder of ``inputs_<experiment_id>.nc``, or one file; default none.
        forcing_names: Which forcings.
        years: First and last year; default the whole years of each run.
        grid: Rows and columns to regrid to, conservatively; default as it is.
        decade_start: First year of a decade; default each run's first year.
        join_parents: Whether scenarios begin with the runs that they branch off, by their parent attributes.
        on_overlap: ``refuse``, ``first`` or ``last``: which file holds where two give differing values of a month.
        layout: Take files of a layout of their own too: a name such as ``cesm``, or a YAML file (`archive.layouts`).
        scheduler: ``threads``, ``processes``, ``dask``, the address of a dask scheduler, or an executor: the result is the same.
        workers: Threads or processes; default the cores this process may use.
        progress: Whether to show a bar on stderr.

    Returns:
        What was done. The same input and settings again do nothing.

    Raises:
        DataContractError: If anything asked for is missing, a part cannot be made (all such parts are named, the others are
            kept for the next build), ``out`` is a store of other settings or a damaged one, another process is building it, or
            there is no room.
    """
    started, target = time.monotonic(), Place(str(out))
    request = make_request(
        archive, sources, experiments, members, variables, forcings, forcing_names, years, grid, decade_start,
        join_parents, on_overlap, layout,
    )  # fmt: skip
    was_there, added, kept = target.exists(NODE), 0, 0
    new = _missing(target, request)
    was_noop = not new and not target.is_unfinished
    if not was_noop:
        with clear_about_room(target), only_writer(target) as still_alone:
            added, kept = _add(target, request, _Crew(scheduler, workers, progress), still_alone)
    return BuildReport(
        path=target.url if not target.is_local else target.path if "://" in target.url else Path(out),
        runs=tuple(request.files),
        members=tuple(request.labels(key) for key in request.files),
        bytes=sum(target.sizes().values()),
        seconds=time.monotonic() - started,
        was_noop=was_noop,
        rejected=tuple(f"{r.path.name}: {r.reason}" for r in request.rejected),
        added=added if was_there else 0,
        kept=kept,
    )


@dataclass(frozen=True)
class _Crew:
    """Who works, and whether it is shown."""

    scheduler: str | Executor
    workers: int | None
    progress: bool

    def do(self, parts: Parts, place: Place) -> tuple[dict[str, Done], dict[str, str]]:
        """Lines of the parts that were done and reasons of those that failed, by name.

        Raises:
            OSError: If there is no room; parts that are done stay in the journal.
        """
        if place.is_in_memory and self.scheduler != "threads":
            raise DataContractError(place.url, "a store in this process's memory", "threads", "leave --scheduler out")
        done, failed = dict[str, Done](), dict[str, str]()
        with executor(self.scheduler, self.workers) as pool:
            futures: dict[Future[Done], str] = {pool.submit(do_part, p, place.url): str(p) for p in parts}
            try:
                for future in tqdm(
                    as_completed(futures), "ingesting", len(parts), unit="part", disable=not self.progress
                ):
                    name, error = futures[future], future.exception()
                    if error is None:
                        done[name] = future.result()
                    elif is_no_room(error) or not isinstance(error, Exception):
                        raise error
                    else:
                        known = isinstance(error, DataContractError)
                        failed[name] = str(error) if known else f"{name}: {type(error).__name__}: {error}"
            finally:
                for future in futures:
                    future.cancel()
        return done, failed


def _add(target: Place, request: Request, crew: _Crew, still_alone: Callable[[], None]) -> tuple[int, int]:
    """Make what is missing and publish it; members added and parts kept from an earlier build."""
    is_first = target.is_local and not target.exists()
    place = Place(f"{target.path}{PARTIAL}") if is_first else target
    if place.exists(NODE):
        finish(place)  # an earlier build was killed after it had published
    new = _missing(place, request)
    rows = {key: _rows(place, request, key) for key in request.files}
    parts = request.parts(rows, new)
    kept = finished(place, parts)
    published = read_provenance(place.url)["files"] if place.exists(NODE) else ()
    begin(place)
    sweep(place, parts, kept, published)
    if parts:
        with _nothing_useless(place, target, published, still_alone):
            made, failed = crew.do([p for p in parts if str(p) not in kept], place)
            done = {**kept, **made}
            for name, reason in unlike(place, parts, done).items():
                failed[name] = reason
                forget(place, next(p for p in parts if str(p) == name))
            if failed:
                raise _failure(place, target, len(parts), failed)
        commit(place, request, rows, parts, done, still_alone)
        say(of_records(r for line in done.values() for r in line["sources"]), stacklevel=4)
        finish(place)
    remove_journal(place)
    if is_first:
        shutil.rmtree(place.path / BUILDING, ignore_errors=True)
        place.flush()
        os.rename(place.path, target.path)
        flush_entry(target.path.parent)
    return sum(len(labels) for labels in new.values()), len(kept)


@contextmanager
def _nothing_useless(
    place: Place, target: Place, published: Iterable[str], still_alone: Callable[[], None]
) -> Iterator[None]:
    """Where a build fails before a part is finished, nothing is left of it."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if not has_finished(place):
            still_alone()
            sweep(place, (), {}, published)
            remove_journal(place)
            if place != target and not published:
                shutil.rmtree(place.path, ignore_errors=True)
        raise


def _failure(place: Place, target: Place, total: int, failed: Mapping[str, str]) -> DataContractError:
    """What failed, and what is kept."""
    finished_parts = total - len(failed)
    reasons = list(failed.values())
    rest = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    stay = f"{finished_parts} finished parts are kept in {place.url}" if finished_parts else "nothing is kept"
    return DataContractError(
        target.url, f"{len(failed)} of {total} parts failed: {'; '.join(reasons[:NAMED])}{rest}", "every part that is asked for",
        f"mend them or leave them out and build again ({stay})",
    )  # fmt: skip


def _rows(place: Place, request: Request, key: Key) -> list[str]:
    """All members of a run: those in the store, in its order, and then the new ones."""
    known = read_provenance(place.url)["settings"]["runs"] if place.exists(NODE) else {}
    there = list(known.get("/".join(key), []))
    return [*there, *(m for m in request.labels(key) if m not in there)]


def _missing(place: Place, request: Request) -> dict[Key, list[str]]:
    """Members asked for that the store does not hold, by run.

    Raises:
        DataContractError: If it is a store of other settings or input, or one that is not whole; size and time stamp stand for
            content.
    """
    if not place.exists(NODE):
        if place.sizes() and not place.is_unfinished and not place.url.endswith(PARTIAL):
            read_provenance(place.url)  # says that this is no store
        return {key: list(request.labels(key)) for key in request.files}
    known, wanted = read_provenance(place.url), request.settings
    keys = [k for k in {*wanted, *_RARE} if k != "runs" and known["settings"].get(k) != wanted.get(k)]
    changed = sorted(k for k in keys if not _is_reordered(k, known, wanted))
    if changed:
        told = "; ".join(
            f"{k}: {_said(known['settings'].get(k))} in it, {_said(wanted.get(k))} asked for" for k in changed
        )
        raise DataContractError(
            place.url, f"a store of other settings ({told})", "the same settings",
            "repeat the options that it was built with, or choose another name",
        )  # fmt: skip
    runs = {key: known["settings"]["runs"].get("/".join(key), []) for key in request.files}
    _check_input(place, request, {k: [m for m in request.labels(k) if m in runs[k]] for k in request.files}, known)
    changed_since = {} if place.is_unfinished else changed_files(place.url, deep=False)
    damage = [(name, what) for name, what in changed_since.items() if name in known["files"]]  # strays do no harm
    if damage:
        name, what = damage[0]
        raise DataContractError(
            place.url, f"damaged, {name}: {what}", "what was published", "delete the store to build it again"
        )
    new = {k: sorted((m for m in request.labels(k) if m not in runs[k]), key=member_key) for k in request.files}
    return {k: labels for k, labels in new.items() if labels}


def _check_input(place: Place, request: Request, there: Mapping[Key, Sequence[str]], known: Mapping[str, Any]) -> None:
    """Refuse other files for what is in the store."""
    records: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for r in known["sources"]:
        records.setdefault(tuple(r.get(facet, "") for facet in _PART), []).append(r)
    differing = []
    for key, labels in there.items():
        for label in labels:
            for variable, entries in request.files[key][label].items():
                names = unmatched(records.get((*key, label, variable), []), [e.path for e in entries])
                differing += [f"{n} for {variable} of {' '.join(key)} {label}" for n in names]
        if labels and key[1] in request.forcings:
            path = request.forcings[key[1]]
            older = [r for r in records.get(("", "", "", ""), []) if r["name"] == path.name]  # that name no run
            differing += unmatched(records.get((*key, "", ""), older), [path])
    if differing:
        raise DataContractError(
            place.url, f"built from other files ({', '.join(differing[:3])}{' ...' if differing[3:] else ''})", "the same input",
            "choose another name, or delete the store to build it again",
        )  # fmt: skip


def _said(setting: Any) -> str:
    return " ".join(map(str, setting)) if isinstance(setting, list) and setting else str(setting or "none")


def _is_reordered(key: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return key in ("variables", "forcings") and sorted(known["settings"].get(key) or []) == sorted(wanted[key])
