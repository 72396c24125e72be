"""Finished parts become a store, or a larger one, by the writing of a single object: its root."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr

from climatesuite.archive.read import Key, check_alike
from climatesuite.building.request import Request
from climatesuite.building.units import Done, FieldPart, ForcingPart, template_of
from climatesuite.errors import DataContractError
from climatesuite.harmonise.coarsen import all_timescales
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import STATISTICS, group_name, timescales
from climatesuite.store.metadata import Nodes, root_nodes, with_members
from climatesuite.store.open import open_run
from climatesuite.store.place import NODE, Overlay, Place
from climatesuite.store.provenance import (
    read_provenance,
    settings_digest,
    software,
)
from climatesuite.store.publish import publish
from climatesuite.store.write import declare_run, declare_statistics

Parts = Sequence[FieldPart | ForcingPart]


def unlike(place: Place, parts: Parts, done: Mapping[str, Done]) -> dict[str, str]:
    """Parts that differ from the others of their run in calendar, months or grid, with what differs.

    Compared with what is published of the run, otherwise with its first part.
    """
    firsts: dict[Key, tuple[xr.Dataset, str]] = {}
    out = {}
    known = read_provenance(place.url)["settings"]["runs"] if place.exists(NODE) else {}
    for part in parts:
        if str(part) not in done:
            continue
        key, template = (part.source, part.scenario), template_of(done[str(part)])
        label = part.member if isinstance(part, FieldPart) else "forcings"
        if key not in firsts:
            in_store = "/".join(key) in known
            firsts[key] = (open_run(place.url, *key, "month"), "the store") if in_store else (template, label)
        first, first_label = firsts[key]
        try:
            check_alike(template, first, f"{part.source} {part.scenario} {label}", first_label)
        except DataContractError as error:
            out[str(part)] = str(error)
    return out


def commit(
    place: Place, request: Request, rows: Mapping[Key, Sequence[str]], parts: Parts, done: Mapping[str, Done],
    still_alone: Callable[[], None],
) -> None:  # fmt: skip
    """Publish finished parts together with what is published already.

    All data is on disk before the root names it; see `store.publish`.

    Args:
        place: The store.
        request: What was asked for.
        rows: All members of each run in the order of the store.
        parts: The new parts.
        done: Their lines, by name.
        still_alone: Raises if another process writes the store by now.

    Raises:
        DataContractError: If one does.
    """
    is_there = place.exists(NODE)
    known: dict[str, Any] = (
        read_provenance(place.url)
        if is_there
        else {"settings": {"runs": {}}, "sources": [], "files": {}, "licenses": []}
    )
    nodes: Nodes = root_nodes(json.loads(place.read(NODE))) if is_there else {}
    overlay = Overlay(place.store(read_only=False), nodes)
    new: dict[Key, list[FieldPart | ForcingPart]] = {}
    for part in parts:
        new.setdefault((part.source, part.scenario), []).append(part)
    for key, of_run in new.items():
        lines = [done[str(p)] for p in of_run]
        if "/".join(key) in known["settings"]["runs"]:
            groups = [g for g in (group_name(*key, t) for t in (*timescales(), STATISTICS)) if g in overlay.nodes]
            overlay.nodes = with_members(overlay.nodes, groups, rows[key])
        else:
            _declare(overlay, key, list(rows[key]), of_run, lines, request.settings["variables"])
        _state_origin(overlay.nodes, key, lines, known)
    content = _provenance(known, request, rows, overlay, [done[str(p)] for p in parts])
    place.flush(overlay.written)
    still_alone()
    publish(place, overlay.nodes, content)


def _declare(
    overlay: Overlay, key: Key, members: list[str], parts: Parts, lines: Sequence[Done], variables: Sequence[str]
) -> None:
    """Groups, coordinates and arrays of a new run."""
    by_variable = {p.variable: d for p, d in zip(parts, lines, strict=True) if isinstance(p, FieldPart)}
    first = by_variable[variables[0]]
    attrs = {"source_id": key[0], "experiment_id": key[1], "timescale": "month"}
    month = template_of(first).assign_attrs(attrs)
    fields = {v: by_variable[v]["field"] for v in variables}
    for timescale, template in all_timescales(month, first["spec"]["decade_start"]).items():
        declare_run(overlay, group_name(*key, timescale), template, fields, members)
    about = {n: a for v in variables for n, a in by_variable[v]["statistics"].items()}
    declare_statistics(overlay, group_name(*key, STATISTICS), month_statistics(month, []), about, members)
    for line in (d for p, d in zip(parts, lines, strict=True) if isinstance(p, ForcingPart)):
        overlay.nodes |= line["arrays"]
        for timescale in timescales():
            group = overlay.nodes.get(group_name(*key, timescale))
            if group is not None:
                group["attributes"]["forcings"] = line["spec"]["forcings"]


def _state_origin(nodes: Nodes, key: Key, lines: Sequence[Done], known: Mapping[str, Any]) -> None:
    """Licence of a run's groups, and on every field how many files it comes from and their digest."""
    records = [r for d in lines for r in d["sources"]] + list(known["sources"])
    mine = [r for r in records if (r.get("source_id"), r.get("experiment_id")) == key]
    fields = {str(t) for d in lines if "field" in d for t in d["licences"]}
    drivers = {str(t) for d in lines if "field" not in d for t in d["licences"]}
    for timescale in timescales():
        group = group_name(*key, timescale)
        if group not in nodes:
            continue
        about = nodes[group]["attributes"]
        stated = fields | set(filter(None, str(about.get("license", "")).split("; ")))
        about["license"] = "; ".join(sorted(stated | {f"forcings: {t}" for t in drivers if t not in stated}))
        for field in about["fields"]:
            files = sorted({r["sha256"] for r in mine if r.get("variable_id") == field})
            nodes[f"{group}/{field}"]["attributes"] |= {
                "source_files": len(files), "source_files_sha256": settings_digest({"files": files}),
            }  # fmt: skip


def _provenance(
    known: Mapping[str, Any],
    request: Request,
    rows: Mapping[Key, Sequence[str]],
    overlay: Overlay,
    lines: Sequence[Done],
) -> dict[str, Any]:
    """The provenance of what is published and what is added."""
    runs = {**known["settings"]["runs"], **{"/".join(k): list(rows[k]) for k in sorted(rows)}}
    settings = {**request.settings, "runs": runs}
    now, builds = software(), list(known.get("builds", []))
    records = [{**r, "build": len(builds)} for d in lines for r in d["sources"]]
    objects = {n: about for d in lines for n, about in d["objects"].items()}
    stated = {t for d in lines for t in d["licences"]}
    return {
        "version": known.get("version", now["version"]), "libraries": known.get("libraries", now["libraries"]),
        "created": known.get("created", now["created"]), "builds": [*builds, now], "settings": settings,
        "settings_sha256": settings_digest(settings),
        "sources": [*known["sources"], *records],
        "licenses": sorted(set(known["licenses"]) | stated),
        "set_aside": [{"name": r.path.name, "reason": r.reason} for r in request.rejected],
        "files": {**known["files"], **objects, **overlay.written},
    }  # fmt: skip
