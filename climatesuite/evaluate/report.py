"""One HTML file that says how good an ensemble is: what failed, scores beside floor and references, figures, provenance."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.evaluate.page import page
from climatesuite.evaluate.protocol import plain_value
from climatesuite.evaluate.report_figures import colour_limits, figures_section
from climatesuite.evaluate.report_sections import AFTER, SECTIONS, Material, lead
from climatesuite.export import open_ensemble

Source = xr.Dataset | str | Path


def write_scores(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a JSON list, whole or not at all; NaN becomes null.

    Args:
        path: File to make, e.g. ``scores.json``; missing folders are made.
        rows: Rows of ``score_files.score``.

    Returns:
        The path.
    """
    return write_json(path, rows)


def write_json(path: str | Path, content: Any) -> Path:
    """Write nested lists and mappings as JSON, whole or not at all; NaN becomes null."""
    return write_text(Path(path), json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return plain_value(value)


def write_text(path: Path, content: str) -> Path:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write flat rows as CSV, whole or not at all: all their columns, absent values empty, lists and dicts as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        plain = _plain(row)
        table.writerow({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in plain.items()})
    return write_text(Path(path), buffer.getvalue())


def write_report(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    ensembles: Mapping[str, Mapping[str, Source]],
    truth: Mapping[str, xr.Dataset],
    progress: bool = False,
    **more: Any,
) -> Path:
    """Write a self-contained HTML page: no script, no network, figures inside the file.

    Args:
        path: File to make; it appears whole or not at all.
        title: Heading.
        rows: Rows of ``scores.json``; absent columns are left blank.
        ensembles: By model and timescale: canonical Dataset or an ensemble file. They may be lazy; of long ones every k-th year
            enters some figures, whose captions say so.
        truth: By timescale: canonical Dataset of the held-out members. A timescale without truth gets its plume only.
        progress: Whether to show a bar on stderr.
        more: Other fields of ``report_sections.Material``.

    Returns:
        The path.

    Raises:
        DataContractError: If a timescale is unknown, or an ensemble does not fit its truth.
        FileNotFoundError: If an ensemble file is missing.
    """
    unknown = sorted({ts for by in ensembles.values() for ts in by} - set(TIMESCALES))
    if unknown:
        raise DataContractError(
            "report", f"timescales {unknown}", f"some of {', '.join(TIMESCALES)}", "rename the keys"
        )
    models = {m: {ts: _opened(by[ts]) for ts in TIMESCALES if ts in by} for m, by in ensembles.items()}
    material = Material(rows=rows, models=models, truth=truth, **more)
    sections = [made for _, make in SECTIONS if (made := make(material)) is not None]
    common = colour_limits(models, truth)
    drawn = [ts for ts in TIMESCALES if any(ts in by for by in models.values())]
    for timescale in tqdm(drawn, desc="drawing", unit="timescale", disable=not progress):
        having = {m: by[timescale] for m, by in models.items() if timescale in by}
        sections.append(figures_section(timescale, having, truth.get(timescale), common, len(models) == 1))
    sections += [made for _, make in AFTER if (made := make(material)) is not None]
    return write_text(Path(path), page(title, sections, lead(material)))


def _opened(source: Source) -> xr.Dataset:
    return source if isinstance(source, xr.Dataset) else open_ensemble(source)
