"""Every real file set there is: ingested, or refused with its reason.

``python experiments/real_files.py`` reads the samples under ``CLIMATE_DATA`` (default ``../shared/data``), groups files into sets
(one variable of one run), builds a store of every set that can be read, and writes ``experiments/results/real_files.json`` and
``.md``.
"""

import argparse
import json
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from climatesuite.archive.axes import grid_kind, time_name
from climatesuite.archive.entry import Entry
from climatesuite.archive.facets import name_match
from climatesuite.archive.joining import read_variable
from climatesuite.archive.months import step_days
from climatesuite.archive.opening import open_raw
from climatesuite.archive.scan import scan
from climatesuite.build import build
from climatesuite.errors import DataContractError, RepairWarning

RESULT = Path(__file__).parent / "results" / "real_files.json"
_DATES = re.compile(r"_\d{4,8}(-\d{4,8})?(?=[_.])")


def collect(folder: Path) -> list[dict[str, Any]]:
    """One row a file set: name, files, grid, calendar, outcome, reason, repairs, seconds."""
    sets: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nc")):
        sets.setdefault(set_name(path, folder), []).append(path)
    return [row(name, paths) for name, paths in sorted(sets.items())]


def set_name(path: Path, folder: Path) -> str:
    """What a file shares with the other files of its set: its collection, and its name without dates."""
    return f"{path.relative_to(folder).parts[0]}: {_DATES.sub('', path.name)}"


def row(name: str, paths: list[Path]) -> dict[str, Any]:
    """Scan and read one set as a build would, and build a store of it where it has a whole year."""
    about, start, repairs = describe(paths[0]), time.perf_counter(), list[str]()
    found = scan(paths)
    reasons = sorted({r.reason for r in (*found.rejected, *found.replaced)})
    outcome, reason = "refused", "; ".join(reasons)
    if not reasons:
        try:
            reason, repairs = _ingest(list(found.entries))
            outcome = "ingested"
        except DataContractError as error:
            reason = f"{error.subject}: {error.found}"
    return {
        "set": name, "files": len(paths), **about, "outcome": outcome, "reason": reason,
        "repairs": sorted({r.partition(": ")[2] for r in repairs}), "notes": sorted({n for e in found.entries for n in e.notes}),
        "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def _ingest(entries: list[Entry]) -> tuple[str, list[str]]:
    """Read a set, and build a store of it where it holds a whole year; what was read, and what was set right."""
    name = entries[0].variable_id
    field = read_variable(entries, name, None)
    years, counts = np.unique(field.year.values, return_counts=True)
    text = f"{field.sizes['time']} months on {field.sizes['lat']} x {field.sizes['lon']} cells"
    if (counts == 12).any():
        with tempfile.TemporaryDirectory() as folder:
            build([e.path for e in entries], Path(folder) / "store.zarr", variables=[name], progress=False)
        text += f", store of {int((counts == 12).sum())} years"
    return text, list(field.attrs["repairs"])


def describe(path: Path) -> dict[str, Any]:
    """Grid, calendar and steps of any file, whatever its variable: what the reader sees before it decides."""
    try:
        with open_raw(path) as ds:
            named = name_match(path.name)
            wanted = str(
                ds.attrs.get("variable_id", named["variable_id"] if named else path.name.split("_")[0].split(".")[0])
            )
            name = wanted if wanted in ds.data_vars else max(ds.data_vars, key=lambda n: ds[n].size)
            time_axis = time_name(ds, name)
            sizes = " x ".join(str(ds.sizes[d]) for d in ds[name].dims)
            days = (
                step_days(np.atleast_1d(ds[time_axis].values).astype(float), str(ds[time_axis].attrs.get("units", "")))
                if time_axis
                else np.nan
            )
            calendar = str(ds[time_axis].attrs.get("calendar", "not stated")) if time_axis else ""
            return {
                "variable": str(name), "dims": f"{', '.join(map(str, ds[name].dims))}: {sizes}",
                "grid": grid_kind(ds, name).removeprefix("a ").removeprefix("an "), "calendar": calendar,
                "step_days": None if np.isnan(days) else round(float(days), 1),
            }  # fmt: skip
    except (OSError, ValueError) as error:
        return {"variable": "", "dims": "", "grid": f"not readable ({error})", "calendar": "", "step_days": None}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as Markdown, ingested sets first."""
    lines = [
        "| set | files | grid (dimensions) | calendar | step, days | outcome | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["outcome"], r["set"])):
        repairs = f" (set right: {'; '.join(r['repairs'])})" if r["repairs"] else ""
        step = "" if r["step_days"] is None else f"{r['step_days']:g}"
        lines.append(
            f"| {r['set']} | {r['files']} | {r['grid']} ({r['dims']}) | {r['calendar']} | {step} "
            f"| {r['outcome']}: {r['reason']}{repairs} | {r['seconds']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Look at all samples and write both results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--samples", type=Path, default=Path(os.environ.get("CLIMATE_DATA", "../shared/data")) / "samples"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore", RepairWarning)
    begin = time.perf_counter()
    rows = collect(args.samples)
    files, ingested = sum(r["files"] for r in rows), [r for r in rows if r["outcome"] == "ingested"]
    about = {
        "command": "python experiments/real_files.py", "files": files, "sets": len(rows), "ingested": len(ingested),
        "refused": len(rows) - len(ingested), "seconds": round(time.perf_counter() - begin, 1), "cpus": os.cpu_count(),
        "machine": platform.machine(), "python": platform.python_version(),
    }  # fmt: skip
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    head = (
        f"# Real file sets\n\n{files} files in {len(rows)} sets: {about['ingested']} ingested, {about['refused']} refused, "
        f"each with its reason. Written by `{about['command']}`; a set's seconds are those of scanning, reading it "
        "and building a store of it.\n\n"
    )
    RESULT.with_suffix(".md").write_text(head + table(rows))
    print(head + table(rows))


if __name__ == "__main__":
    main()
