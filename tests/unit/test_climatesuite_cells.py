"""Builds from curvilinear and unstructured grids: right on the target grid, or refused with file, variable, reason, a way out."""

import numpy as np
import pytest
import xarray as xr
import yaml

from climatesuite.archive.joining import read_variable
from climatesuite.archive.read import open_runs
from climatesuite.archive.scan import scan
from climatesuite.build import build
from climatesuite.building import units
from climatesuite.errors import DataContractError
from climatesuite.harmonise import curvilinear
from climatesuite.harmonise.curvilinear import CORNERS, put_on_grid, regrid_cells
from climatesuite.harmonise.grids import area_weights, target_grid
from climatesuite.plan import plan
from climatesuite.store.open import open_run
from climatesuite.store.verify import verify
from worlds.cmip import write_cmip
from worlds.turned import area_mean, corners, points, triangles, warmth, write_cells

KEY, MONTHS, TARGET = ("TEST-ESM", "ssp245"), ("2015-01", "2024-12"), (24, 36)
TURNED = corners(target_grid((60, 120)), 50.0)


def made(folder, grid=TARGET, variables=("tas",), **more):
    build(folder / "in", folder / "s.zarr", variables=variables, grid=grid, progress=False, **more)
    return open_run(folder / "s.zarr", *KEY, "month")


def global_mean(ds, name="tas"):
    return ds[name].astype(np.float64).weighted(area_weights(ds)).mean(("lat", "lon"))


def rows_of_z(grid):
    """Area mean of the sine of latitude in each row."""
    edges = np.sin(np.radians(grid.lat_bnds.values))
    return (edges[:, 1] ** 2 - edges[:, 0] ** 2) / 2 / (edges[:, 1] - edges[:, 0])


@pytest.mark.parametrize("kind", ["turned", "triangles"])
def test_a_store_of_cells_holds_the_field_that_was_sampled(tmp_path, kind):
    cells = TURNED if kind == "turned" else triangles(TURNED)
    values = warmth(cells, 120)
    write_cells(tmp_path / "in", cells, values, MONTHS)
    ds, grid = made(tmp_path), target_grid(TARGET)
    phi, lam = np.radians(grid.lat_bnds.values), np.radians(grid.lon_bnds.values)
    x = (  # area mean of x = cos(lat) cos(lon), exactly
        (np.diff(phi + np.sin(phi) * np.cos(phi), axis=1) / 2 / np.diff(np.sin(phi), axis=1))
        * (np.diff(np.sin(lam), axis=1) / np.diff(lam, axis=1)).T
    )
    z = rows_of_z(grid)[:, None]
    for step in (0, 3, 119):
        exact = 280 + 20 * z + 10 * x + np.cos(step * np.pi / 6) * z + 0.01 * step
        np.testing.assert_allclose(ds.tas[0, step], exact, atol=0.15)  # K; a row differs from the next by 2.6 K
    np.testing.assert_allclose(global_mean(ds)[0], area_mean(values, cells), rtol=2e-7)  # stored in float32
    assert verify(tmp_path / "s.zarr") == []


def test_the_area_mean_is_kept_for_any_values_wherever_the_sphere_is_covered():
    rough = 280 + 30 * np.random.default_rng(0).standard_normal((3, 60, 120))
    for cells, field in ((TURNED, rough), (triangles(TURNED), np.repeat(rough.reshape(3, -1), 2, axis=1))):
        for shape in ((24, 36), (48, 72), (7, 150)):
            grid = target_grid(shape)
            out = regrid_cells(xr.DataArray(field, dims=("time", "y", "x")[: field.ndim], name="tas"), *cells, grid)
            mean = out.weighted(area_weights(grid)).mean(("lat", "lon"))
            np.testing.assert_allclose(mean, area_mean(field, cells), rtol=1e-6)
            assert np.isfinite(out).all() and field.min() <= out.min() and out.max() <= field.max()


def test_weights_are_made_once_for_all_blocks_variables_and_threads(tmp_path, monkeypatch):
    write_cells(tmp_path / "in", TURNED, warmth(TURNED, 120), MONTHS)
    rain = (2 + points(TURNED)[None, ..., 2] * np.cos(np.arange(120) * 2.5)[:, None, None]) / 86400
    write_cells(tmp_path / "in", TURNED, rain, MONTHS, "pr")
    curvilinear._made.cache_clear()
    monkeypatch.setattr(units, "BLOCK_BYTES", 1)  # a block a year
    made(tmp_path, variables=("tas", "pr"), workers=2)
    about = curvilinear._made.cache_info()
    assert about.misses == 1 and about.hits == 19


def test_cells_and_plain_grids_stand_side_by_side_on_the_target(tmp_path):
    write_cells(tmp_path / "in", TURNED, warmth(TURNED, 24), ("2015-01", "2016-12"))
    write_cmip(tmp_path / "in", member="r2i1p1f1", grid=(12, 18))
    assert made(tmp_path).tas.shape == (2, 24, *TARGET)


def test_scenarios_of_cells_are_joined_to_their_parents_with_a_checked_seam(tmp_path):
    parent = {"parent_experiment_id": "historical", "parent_variant_label": "r1i1p1f1"}
    for name, jump in (("smooth", 0.0), ("jump", 3.0)):
        folder = tmp_path / name
        values = warmth(TURNED, 240)
        write_cells(folder / "in", TURNED, values[:120], ("2005-01", "2014-12"), scenario="historical")
        write_cells(folder / "in", TURNED, values[120:] + jump, MONTHS, attrs=parent)
    assert made(tmp_path / "smooth", join_parents=True).sizes["time"] == 240
    refused(tmp_path / "jump", "its mean jumps by .* standard deviations after 2014-12", join_parents=True)


def test_land_without_values_stays_missing_and_coasts_are_means_of_what_is_there():
    grid, field = target_grid(TARGET), xr.DataArray(warmth(TURNED, 2), dims=("time", "cell_j", "cell_i"))
    whole = regrid_cells(field, *TURNED, grid)
    x, _, z = np.moveaxis(points(TURNED), -1, 0)
    land = (x > 0.3) & (z > 0.1)
    wet = regrid_cells(field.where(~land), *TURNED, grid)
    share = regrid_cells(xr.DataArray((~land).astype(float), dims=("cell_j", "cell_i")), *TURNED, grid)
    clear = np.abs(share - 0.5) > 1e-6
    np.testing.assert_array_equal(
        np.isnan(wet).where(clear, False), (share < 0.5).where(clear, False).broadcast_like(wet)
    )
    assert 0.1 < float(np.isnan(wet).mean()) < 0.4
    sea = share > 1 - 1e-9
    np.testing.assert_allclose(wet.where(sea), whole.where(sea), rtol=1e-12)
    coast = (share > 0.5) & ~sea
    assert coast.sum() > 10 and float(np.abs(wet - whole).where(coast).max()) < 3.0  # no zeros mixed in


def test_a_plan_says_that_cells_need_a_target_grid(tmp_path):
    write_cells(tmp_path / "in", TURNED, warmth(TURNED, 24), ("2015-01", "2016-12"))
    recipe = tmp_path / "recipe.yaml"
    for more, is_complete in (({}, False), ({"grid": [24, 36]}, True)):
        recipe.write_text(
            yaml.safe_dump({"name": "mine", "archive": str(tmp_path / "in"), "variables": ["tas"], **more})
        )
        assert plan(recipe).is_complete == is_complete
        needs = "missing: TEST-ESM: a target grid (grid in the recipe), as its files have a curvilinear grid"
        assert (needs in str(plan(recipe))) != is_complete


# ---- what is refused


def refused(folder, words, **more):
    with pytest.raises(DataContractError, match=words):
        made(folder, **more)
    assert not (folder / "s.zarr").exists()


@pytest.mark.parametrize("kind", ["a curvilinear grid", "an unstructured grid"])
def test_without_a_target_grid_cells_are_refused_and_the_option_is_named(tmp_path, kind):
    cells = TURNED if "curv" in kind else triangles(TURNED)
    path = write_cells(tmp_path / "in", cells, warmth(cells, 24), ("2015-01", "2016-12"))
    words = f"tas in {path.name}: {kind} .*build --grid 48x72.*grid_label gr"
    refused(tmp_path, words, grid=None)
    with pytest.raises(DataContractError, match=words):
        open_runs(path)


def without_corners(ds):
    return ds.drop_vars(["vertices_latitude", "vertices_longitude"])


def a_cell_along(ds):
    return ds.assign({n: ds[n].roll(i=1) for n in ("vertices_latitude", "vertices_longitude")})


def a_row_across(ds):
    return ds.assign({n: ds[n].shift(j=1) for n in ("vertices_latitude", "vertices_longitude")})


def in_rows_of_two(ds):
    return ds.isel(vertices=[0, 1, 3, 2])  # south-west, south-east, north-west, north-east


def at_the_fold(ds):
    lat = ds.vertices_latitude.values.copy()
    lat[30, 60, 0] -= 60
    return ds.assign(vertices_latitude=(ds.vertices_latitude.dims, lat))


def one_corner_more(ds):
    return ds.isel(vertices=[0, 1, 2, 3, 0])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without_corners, "tas in F: a curvilinear grid without corners of its cells; expected bounds of latitude"),
        (a_cell_along, "corners of tas in F: 7200 of 7200 cells whose centre lies outside their corners"),
        (a_row_across, "corners of tas in F: 7080 of 7200 cells whose centre lies outside their corners"),
        (in_rows_of_two, "corners of tas in F: [0-9]{4} of 7200 cells with corners out of order"),
        (at_the_fold, "corners of tas in F: 1 of 7200 cells wider than 30 degrees"),
        (one_corner_more, "corners of tas in F: shapes .7200, 5"),
    ],
)
def test_corners_that_are_missing_or_wrong_are_refused_with_the_file(tmp_path, edit, words):
    path = write_cells(tmp_path / "in", TURNED, warmth(TURNED, 24), ("2015-01", "2016-12"), edit=edit)
    refused(tmp_path, words.replace("F", path.name))


def test_part_of_the_sphere_is_refused(tmp_path):
    half = tuple(a[:, :60] for a in TURNED)
    write_cells(tmp_path / "in", half, warmth(half, 24), ("2015-01", "2016-12"))
    refused(
        tmp_path, r"tas of TEST-ESM ssp245 r1i1p1f1: less than half of the area of 4\d\d of 864 target cells is covered"
    )


def test_files_and_blocks_of_other_cells_are_refused(tmp_path, monkeypatch):
    other = corners(target_grid((60, 120)), 51.0)
    write_cells(tmp_path / "in", TURNED, warmth(TURNED, 24), ("2015-01", "2016-12"))
    path = write_cells(tmp_path / "in", other, warmth(other, 24), ("2017-01", "2018-12"))
    refused(tmp_path, f"files on differing grids .cells with other corners in {path.name}")
    monkeypatch.setattr(units, "BLOCK_BYTES", 1)
    refused(tmp_path, "a grid of 7200 cells with corners, but what came before has 7200 cells with corners")


def test_blocks_of_other_plain_grids_are_refused_whatever_the_target(tmp_path, monkeypatch):
    write_cmip(tmp_path / "in", grid=(6, 8))
    write_cmip(tmp_path / "in", months=("2017-01", "2018-12"), grid=(8, 10))
    monkeypatch.setattr(units, "BLOCK_BYTES", 1)
    refused(tmp_path, "a grid of 8 x 10 cells from .*, but what came before has 6 x 8")


# ---- real corners


@pytest.fixture(scope="module")
def triangular(climate_data):
    """A real file of tas on the 20,480 triangles of ICON-ESM-LR, one month."""
    (path,) = (climate_data / "samples").rglob("tas_Amon_ICON-ESM-LR_*.nc")
    return path


@pytest.mark.filterwarnings("ignore::climatesuite.errors.RepairWarning")
def test_a_real_unstructured_file_is_read_and_keeps_its_mean(triangular):
    month = read_variable(scan(triangular).entries, "tas", None, any_cells=True)
    out = put_on_grid(month, target_grid((48, 72)))
    before = area_mean(month.tas.values, tuple(month[n].values for n in CORNERS))
    assert month.tas.shape == (1, 20480) and out.tas.shape == (1, 48, 72)
    np.testing.assert_allclose(global_mean(out), before, rtol=1e-6)
    assert (
        np.isfinite(out.tas).all()
        and 284 < before[0] < 288
        and float(out.tas[0, 0].mean()) < 255 < 290 < float(out.tas[0, 24].mean())
    )


def test_a_store_on_real_triangles(tmp_path, triangular):
    with xr.open_dataset(triangular, decode_cf=False) as ds:
        cells = ds.latitude_bnds.values, ds.longitude_bnds.values
    values = warmth(cells, 24)
    write_cells(tmp_path / "in", cells, values, ("2015-01", "2016-12"))
    ds = made(tmp_path, (48, 72))
    np.testing.assert_allclose(global_mean(ds)[0], area_mean(values, cells), rtol=2e-7)


def test_generated_warmth_on_a_real_tripolar_ocean_is_missing_over_land_and_right_at_sea(climate_data):
    (path,) = (climate_data / "samples").rglob("tos_Omon_CNRM-CM6-1_*.nc")
    with xr.open_dataset(path, decode_times=False) as ds:
        cells, sea = (ds.bounds_lat.values, ds.bounds_lon.values), np.isfinite(ds.tos.values)
    grid = target_grid((48, 72))
    field = xr.DataArray(np.where(sea, warmth(cells, 1), np.nan), dims=("time", "y", "x"))
    out = regrid_cells(field, *cells, grid)[0]
    assert 0.6 < float(np.isfinite(out).weighted(area_weights(grid)).mean()) < 0.75  # the ocean's share of the sphere
    x = np.cos(np.radians(grid.lat)) * np.cos(np.radians(grid.lon))
    exact = 280 + 21 * np.sin(np.radians(grid.lat)) + 10 * x
    assert float(np.abs(out - exact).quantile(0.99)) < 0.8  # K; of coasts only the sea is there
