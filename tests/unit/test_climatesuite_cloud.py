"""Recipes of the public CMIP6 cloud and of ESGF: which stores they mean, and stores fetched as files that are then read."""

import csv
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import fsspec
import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.archive.cloud import cloud_stores, esgf_url, fetch_stores, index_rows, read_recipe
from climatesuite.archive.read import open_runs
from climatesuite.archive.scan import scan
from climatesuite.errors import DataContractError
from worlds.cmip import credible, write_cmip

CATALOGS = Path(__file__).resolve().parents[2] / "catalogs"
FACETS = {"source_id": ["TEST-ESM"], "experiment_id": ["ssp245"], "table_id": ["Amon"], "variable_id": ["tas", "pr"]}


def row(variable="tas", grid="gn", version="20200101", zstore="", **more):
    facets = {"source_id": "TEST-ESM", "experiment_id": "ssp245", "member_id": "r1i1p1f1", "table_id": "Amon"}
    return {**facets, "variable_id": variable, "grid_label": grid, "version": version, "zstore": zstore, **more}


@pytest.fixture
def bucket(tmp_path):
    """A store of two years in an object store, as the cloud holds them: Zarr version 2."""
    fs = fsspec.filesystem("memory")
    path = write_cmip(tmp_path / "source", attrs={"tracking_id": "hdl:1"})
    with xr.open_dataset(path, decode_cf=False) as ds:
        ds.load().to_zarr("memory://cmip6/tas.zarr", zarr_format=2, consolidated=True)
    yield "memory://cmip6/tas.zarr"
    fs.rm("/cmip6", recursive=True)


def test_the_latest_version_and_the_preferred_grid_are_meant():
    rows = [
        row(version="20190101"), row(version="20200101"), row(version="20210101", grid="gr"), row("pr", grid="gr1"),
        row("huss"), row(table_id="day"), row(experiment_id="ssp585"), row(member_id="r10i1p1f1"), row(member_id="r9i1p1f1"),
    ]  # fmt: skip
    found = cloud_stores({"facets": FACETS}, rows)
    assert [(r["member_id"], r["variable_id"], r["grid_label"], r["version"]) for r in found] == [
        ("r1i1p1f1", "pr", "gr1", "20200101"), ("r1i1p1f1", "tas", "gn", "20200101"),
        ("r9i1p1f1", "tas", "gn", "20200101"), ("r10i1p1f1", "tas", "gn", "20200101"),
    ]  # fmt: skip


def test_facets_that_nothing_has_are_refused():
    with pytest.raises(DataContractError, match="no store with these facets"):
        cloud_stores({"facets": {**FACETS, "source_id": ["OTHER"]}}, [row()])


def test_a_table_of_another_kind_is_refused():
    with pytest.raises(DataContractError, match="no column experiment_id"):
        cloud_stores({"facets": FACETS}, [{"path": "x"}])


def test_a_store_fetched_as_a_file_is_scanned_and_read(bucket, tmp_path):
    (path,) = fetch_stores([row(zstore=bucket)], tmp_path / "out")
    assert path == tmp_path / "out/v20200101/tas_Amon_TEST-ESM_ssp245_r1i1p1f1_gn_201501-201612.nc"
    (entry,) = scan(tmp_path / "out").entries
    assert (entry.version, entry.tracking_id, entry.notes) == ("v20200101", "hdl:1", ())
    assert np.array_equal(open_runs(tmp_path / "out")["TEST-ESM", "ssp245"].tas.values[0], credible("tas", 24, 4, 6))


def test_what_was_fetched_stays_and_nothing_half_is_left(bucket, tmp_path):
    (path,) = fetch_stores([row(zstore=bucket)], tmp_path)
    stamp = path.stat().st_mtime_ns
    assert (
        fetch_stores([row(zstore="memory://cmip6/gone.zarr")], tmp_path) == [path] and path.stat().st_mtime_ns == stamp
    )
    with pytest.raises(DataContractError, match="memory://cmip6/gone.zarr: cannot be opened"):
        fetch_stores([row("pr", zstore="memory://cmip6/gone.zarr")], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.suffix == ".part"] == []


def test_the_command_lists_and_fetches(bucket, tmp_path, capsys):
    table, recipe = tmp_path / "index.csv", tmp_path / "recipe.yaml"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row()))
        writer.writeheader()
        writer.writerow(row(zstore=bucket))
    recipe.write_text(f"index: {table}\nfacets:\n  source_id: [TEST-ESM]\n  variable_id: [tas]\n")
    assert main(["cloud", str(recipe)]) == 0 and bucket in capsys.readouterr().out
    assert main(["cloud", str(recipe), str(tmp_path / "out"), "--index", str(table)]) == 0
    assert len(scan(tmp_path / "out").entries) == 1


def test_an_index_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataContractError, match="cannot be read"):
        index_rows(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize("name", ["cmip6_cloud_runs.yaml", "esgf.yaml"])
def test_shipped_recipes_are_sound(name):
    recipe = read_recipe(CATALOGS / name)
    assert recipe["facets"]["table_id"] == ["Amon"] and recipe["license"]


def test_the_request_to_esgf_asks_for_latest_files_that_are_not_retracted():
    url = urlparse(esgf_url(read_recipe(CATALOGS / "esgf.yaml"), offset=1000))
    asked = {k: v[0] for k, v in parse_qs(url.query).items()}
    assert (asked["latest"], asked["retracted"], asked["type"], asked["offset"]) == ("true", "false", "File", "1000")
    assert asked["variable_id"] == "tas,pr" and asked["project"] == "CMIP6"


@pytest.mark.parametrize(
    "text",
    ["facets: {source_id: [A]}", "index: x", "index: x\nfacets: {model: [A]}", "index: x\nfacets: {source_id: A}"],
)
def test_recipes_that_mean_nothing_are_refused(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(DataContractError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")
