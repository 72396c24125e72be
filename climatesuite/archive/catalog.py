"""A scan as an intake-esm datastore: a JSON description and a CSV with one row a file (a member, where a file holds several)."""

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from climatesuite.archive.entry import Entry, Scan
from climatesuite.archive.opening import local_copy

COLUMNS = ("source_id", "experiment_id", "member", "variable_id", "table_id", "start", "stop", "grid_label", "version", "calendar",
           "parent_experiment_id", "parent_member", "license", "tracking_id", "url", "group", "slot", "stored", "terms",
           "notes", "path")  # fmt: skip
_BETWEEN = " | "  # of several texts in one cell


def write_catalog(scan: Scan, path: str | Path) -> Path:
    """Write ``<path>.json`` and ``<path>.csv``, valid for the ESM collection specification 0.1.0; file paths are absolute.

    Args:
        scan: What was found.
        path: With or without the suffix.

    Returns:
        The JSON file.
    """
    base = Path(path).with_suffix("")
    base.parent.mkdir(parents=True, exist_ok=True)
    table = base.with_suffix(".csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([_cell(entry, c) for c in COLUMNS] for entry in scan.entries)
    description = {
        "esmcat_version": "0.1.0",
        "id": base.name,
        "description": "CMIP files found by climatesuite scan",
        "catalog_file": table.name,
        "attributes": [{"column_name": c} for c in COLUMNS if c != "path"],
        "assets": {"column_name": "path", "format": "netcdf"},
        "aggregation_control": {
            "variable_column_name": "variable_id",
            "groupby_attrs": ["source_id", "experiment_id", "table_id", "grid_label"],
            "aggregations": [
                {"type": "union", "attribute_name": "variable_id"},
                {"type": "join_new", "attribute_name": "member"},
                {"type": "join_existing", "attribute_name": "start", "options": {"dim": "time"}},
            ],
        },
    }
    out = base.with_suffix(".json")
    out.write_text(json.dumps(description, indent=1) + "\n")
    return out


def read_catalog(path: str | Path) -> Scan:
    """Read a catalog written by `write_catalog`; nothing is set aside in it. Files of URLs are fetched where they are not kept.

    Raises:
        FileNotFoundError: If it or its table is missing.
    """
    description = Path(path)
    table = description.parent / json.loads(description.read_text())["catalog_file"]
    with table.open(newline="") as file:
        return Scan(tuple(_entry(row) for row in csv.DictReader(file)), ())


def _cell(entry: Entry, column: str) -> str:
    if column == "path":
        return entry.url or str(entry.path.resolve())
    value = getattr(entry, column)
    return _BETWEEN.join(value) if isinstance(value, tuple) else str(value)


def _entry(row: dict[str, str]) -> Entry:
    known = {f.name for f in fields(Entry)}
    facets: dict[str, Any] = {c: text for c, text in row.items() if c in known}
    facets["path"] = local_copy(row["url"]) if row.get("url") else Path(row["path"])
    facets["slot"] = int(row.get("slot") or -1)
    for c in ("terms", "notes"):
        facets[c] = tuple(filter(None, (row.get(c) or "").split(_BETWEEN)))
    return Entry(**facets)
