"""A scan as an intake-esm datastore: a JSON description and a CSV with one row a file."""

import csv
import json
from pathlib import Path

from climatesuite.archive.scan import Entry, Scan

COLUMNS = ("source_id", "experiment_id", "member", "variable_id", "start", "stop", "grid_label", "version", "license",
           "tracking_id", "path")  # fmt: skip


def write_catalog(scan: Scan, path: str | Path) -> Path:
    """Write ``<path>.json`` and ``<path>.csv``; file paths are absolute.

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
        for entry in scan.entries:
            writer.writerow([str(entry.path.resolve()) if c == "path" else getattr(entry, c) for c in COLUMNS])
    description = {
        "esmcat_version": "0.1.0",
        "id": base.name,
        "description": "CMIP files found by climatesuite scan",
        "catalog_file": table.name,
        "attributes": [{"column_name": c} for c in COLUMNS if c != "path"],
        "assets": {"column_name": "path", "format": "netcdf"},
        "aggregation_control": {
            "variable_column_name": "variable_id",
            "groupby_attrs": ["source_id", "experiment_id"],
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
    """Read a catalog written by `write_catalog`; nothing is set aside in it.

    Raises:
        FileNotFoundError: If it or its table is missing.
    """
    description = Path(path)
    table = description.parent / json.loads(description.read_text())["catalog_file"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = [Entry(**{c: Path(row[c]) if c == "path" else row[c] for c in COLUMNS}) for row in rows]  # type: ignore[arg-type]
    return Scan(tuple(entries), ())
