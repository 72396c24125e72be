"""Runs of the public CMIP6 cloud and of ESGF: recipes of facets, the stores or the search they mean, stores fetched as files.

A recipe is YAML: ``index`` (a table with one row a Zarr store, as of pangeo-cmip6), or ``search`` (an ESGF search service), and
``facets``, a list of accepted values each.
"""

import csv
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fsspec
import numpy as np
import xarray as xr

from climatesuite.archive.download import read_yaml
from climatesuite.archive.entry import member_key
from climatesuite.archive.months import month_text, months_of
from climatesuite.archive.prefer import GRIDS
from climatesuite.errors import DataContractError

FACETS = ("source_id", "experiment_id", "member_id", "table_id", "variable_id", "grid_label")
Row = dict[str, str]


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe, checked.

    Raises:
        DataContractError: If it has neither index nor search, or facets that CMIP6 does not know.
    """
    content = read_yaml(path)
    facets = content.get("facets", {}) if isinstance(content, dict) else {}
    if not facets or not ({"index", "search"} & set(content)):
        raise DataContractError(
            str(path), "no facets, or neither index nor search", "both", "see catalogs/cmip6_cloud_runs.yaml"
        )
    unknown = sorted(set(facets) - set(FACETS))
    if unknown or not all(isinstance(v, list) for v in facets.values()):
        raise DataContractError(
            str(path), f"facets {unknown or facets}", f"lists of {', '.join(FACETS)}", "correct them"
        )
    return content


def cloud_stores(recipe: Mapping[str, Any], rows: Iterable[Row]) -> list[Row]:
    """The rows of an index that a recipe means: the latest version of each data set, one grid a run and variable.

    Args:
        recipe: From `read_recipe`.
        rows: Of the index, with the facets, ``zstore`` and ``version``; `index_rows` reads them.

    Returns:
        Rows sorted by source, experiment, member and variable.

    Raises:
        DataContractError: If a row lacks a facet, or nothing fits.
    """
    wanted = {facet: set(map(str, values)) for facet, values in recipe["facets"].items()}
    best: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if not {*FACETS, "zstore"} <= set(row):
            lacking = ", ".join(sorted({*FACETS, "zstore"} - set(row)))
            raise DataContractError(
                str(recipe.get("index", "index")), f"no column {lacking}", "a table of pangeo-cmip6", "check the URL"
            )
        if all(row[facet] in values for facet, values in wanted.items()):
            key = tuple(row[f] for f in FACETS[:-1])
            best[key] = max(row, best.get(key, row), key=_rank)
    if not best:
        raise DataContractError(
            str(recipe.get("index", "index")), "no store with these facets", f"{dict(recipe['facets'])}", "widen them"
        )
    return sorted(
        best.values(), key=lambda r: (r["source_id"], r["experiment_id"], member_key(r["member_id"]), r["variable_id"])
    )


def index_rows(url: str) -> list[Row]:
    """Rows of a table at a path or URL, packed or not.

    Raises:
        DataContractError: If it cannot be read.
    """
    try:
        with fsspec.open(url, "rt", newline="", compression="infer") as file:
            return list(csv.DictReader(file))
    except (OSError, ImportError, ValueError) as error:
        raise DataContractError(
            url, f"cannot be read ({error})", "a CSV table", "check the URL, or download it first"
        ) from error


def fetch_stores(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Fetch stores as NetCDF files with CMIP6 names, one after another; what is there already stays.

    Everything of the store is kept as it is: packed numbers, attributes, units. `climatesuite scan` then looks at the files.

    Raises:
        DataContractError: If a store cannot be opened or holds no months.
    """
    return [_fetch(row, Path(folder)) for row in rows]


def esgf_url(recipe: Mapping[str, Any], offset: int = 0, limit: int = 1000) -> str:
    """The request of an ESGF search service for the files of a recipe: latest versions that are not retracted, one page."""
    facets = {facet: ",".join(map(str, values)) for facet, values in recipe["facets"].items()}
    fixed = {
        "project": "CMIP6",
        "type": "File",
        "latest": "true",
        "retracted": "false",
        "format": "application/solr+json",
    }
    return f"{recipe['search']}?{urlencode({**fixed, **facets, 'offset': offset, 'limit': limit})}"


def _rank(row: Row) -> tuple[int, str]:
    """The preferred grid first, then the latest version."""
    label = row["grid_label"]
    return -(GRIDS.index(label) if label in GRIDS else len(GRIDS)), row.get("version", "")


def _fetch(row: Row, folder: Path) -> Path:
    url, name = row["zstore"], row["variable_id"]
    stem = "_".join(
        row[f] for f in ("variable_id", "table_id", "source_id", "experiment_id", "member_id", "grid_label")
    )
    version = f"v{row['version']}" if row.get("version", "").isdigit() else ""
    there = sorted((folder / version).glob(f"{stem}_*.nc"))
    if there:
        return there[0]
    try:
        with xr.open_zarr(url, decode_cf=False, chunks=None, storage_options=_anonymous(url)) as store:
            ds = store.load()
    except (OSError, ImportError, ValueError, KeyError) as error:
        raise DataContractError(
            url, f"cannot be opened ({error})", "a Zarr store of the index", "try again, or leave it out"
        ) from error
    stamps = ds["time"].values
    months = months_of(ds, "time", f"{name} in {url}", [int(np.argmin(stamps)), int(np.argmax(stamps))])
    first, last = (month_text(int(i)).replace("-", "") for i in months.index)
    out = folder / version / f"{stem}_{first}-{last}.nc"
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.{uuid.uuid4().hex}.part")
    for variable in ds.variables.values():
        variable.encoding = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
    try:
        ds.assign_attrs(fetched_from=url).to_netcdf(partial)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def _anonymous(url: str) -> dict[str, Any] | None:
    """Public buckets are read without an account."""
    public: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "s3": {"anon": True}}
    return public.get(url.partition("://")[0])
