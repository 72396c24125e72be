"""What a store holds, for people: in words and, in a notebook, as a table."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.store.open import list_runs, open_root, open_run, open_statistics, timescales_of
from climatesuite.store.place import BUILDING, Place
from climatesuite.store.provenance import read_provenance

_COLUMNS = ("model", "scenario", "fields", "members", "years", "grid", "calendar", "forcings", "steps")


@dataclass(frozen=True)
class Store:
    """A store to look at and to read from; shows what it holds.

    Attributes:
        url: Path or URL.
    """

    url: str | Path

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(source_id, experiment_id) of every run."""
        return list_runs(self.url)

    def open(self, source_id: str, experiment_id: str, timescale: str) -> xr.Dataset:
        """One run, lazy; see `store.open.open_run`."""
        return open_run(self.url, source_id, experiment_id, timescale)

    def statistics(self, source_id: str, experiment_id: str) -> xr.Dataset:
        """Statistics of every member; see `store.open.open_statistics`."""
        return open_statistics(self.url, source_id, experiment_id)

    def sources(self, **facets: str) -> list[dict[str, Any]]:
        """Records of source files (name, sha256, tracking_id, licence, ...) with some facets, e.g. ``variable_id="tas"``."""
        records = read_provenance(self.url)["sources"]
        return [r for r in records if all(r.get(k) == v for k, v in facets.items())]

    def __repr__(self) -> str:
        return describe(self.url)

    def _repr_html_(self) -> str:
        head, rows, foot = _facts(self.url)
        titles = "".join(f"<th>{escape(c)}</th>" for c in _COLUMNS)
        body = "".join("<tr>" + "".join(f"<td>{escape(str(row[c]))}</td>" for c in _COLUMNS) + "</tr>" for row in rows)
        caption = f"<b>{escape(str(self.url))}</b><br>{escape(head)}"
        return f"<div>{caption}<table><tr>{titles}</tr>{body}</table>{'<br>'.join(map(escape, foot))}</div>"


def describe(store: str | Path) -> str:
    """What a store holds, in words: runs, fields, members, years, grid, forcings, size, licences."""
    head, rows, foot = _facts(store)
    lines = [f"{store}", f"  {head}"]
    for row in rows:
        lines += [
            f"  {row['model']} {row['scenario']}: {row['fields']}; {row['members']} members; {row['years']}; {row['grid']}; "
            f"{row['calendar']}; forcings {row['forcings']}",
            f"    {row['steps']}; members {row['labels']}",
        ]
    return "\n".join([*lines, *(f"  {line}" for line in foot)])


def _facts(store: str | Path) -> tuple[str, list[dict[str, str]], list[str]]:
    """Where it comes from, one row a run, size and licences."""
    known, root, sizes = read_provenance(store), open_root(store), Place(str(store)).sizes()
    files = {r["sha256"]: int(r["bytes"]) for r in known["sources"]}  # one may hold several members or fields
    read = f"{len(files)} files of {sum(files.values()) / 1e6:.0f} MB"
    head = f"built by climatesuite {known['version']} from {read}, {known['created']}"
    rows = [_row(store, *run, timescales_of(root, *run)) for run in list_runs(store)]
    size = sum(n for name, n in sizes.items() if not name.startswith(BUILDING))
    foot = [f"size {size / 1e6:.0f} MB; licences: {'; '.join(known['licenses']) or 'not stated'}"]
    builds = known.get("builds", [])
    if len(builds) > 1:
        foot.append(f"added to {len(builds) - 1} times, last {builds[-1]['created']}")
    if any(name.startswith(BUILDING) for name in sizes):
        foot.append("an unfinished addition lies in it, invisible; the build that began it goes on with it")
    return head, rows, foot


def _row(store: str | Path, source: str, scenario: str, scales: list[str]) -> dict[str, str]:
    ds = open_run(store, source, scenario, scales[0])
    by_role = {r: [str(v) for v in ds.data_vars if ds[v].attrs.get("role") == r] for r in ("field", "forcing")}
    years, steps = np.unique(ds.year.values), [f"{ds.sizes['time']} {scales[0]}s"]
    for scale in scales[1:]:
        coarse = open_run(store, source, scenario, scale)
        begin = f" from {coarse.year.values[0]}" if scale == "decade" else ""
        steps.append(f"{coarse.sizes['time']} {scale}s{begin}")
    return {
        "model": source, "scenario": scenario, "fields": ", ".join(by_role["field"]), "members": str(ds.sizes["member"]),
        "years": f"{years[0]}-{years[-1]}", "grid": f"{ds.sizes['lat']} x {ds.sizes['lon']}", "calendar": ds.attrs["calendar"],
        "forcings": ", ".join(by_role["forcing"]) or "none", "steps": ", ".join(steps),
        "labels": ", ".join(map(str, ds.member.values)),
    }  # fmt: skip
