"""Grids: areas in closed form, and regridding that keeps what it must."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import (
    area_weights,
    check_bounds,
    coarsen_space,
    cos_weights,
    grid_coords,
    infer_bounds,
    is_global,
    order_axis,
    overlap_lon,
    regrid,
    target_grid,
    with_bounds,
)

SIZES = st.tuples(st.integers(2, 13), st.integers(2, 17))


def shifted(grid: xr.Dataset, degrees: float) -> xr.Dataset:
    """The grid turned eastwards, longitudes still within [0, 360)."""
    lon, bounds, _ = order_axis(grid.lon.values + degrees, grid.lon_bnds.values + degrees, "lon", "test")
    return xr.Dataset(coords=grid_coords(grid.lat.values, grid.lat_bnds.values, lon, bounds))


def field_on(grid: xr.Dataset, seed: int = 0, months: int = 3) -> xr.Dataset:
    values = np.random.default_rng(seed).normal(280, 20, (months, grid.lat.size, grid.lon.size))
    return grid.assign(tas=(("time", "lat", "lon"), values, {"units": "K"}))


def global_mean(ds: xr.Dataset) -> np.ndarray:
    width = np.diff(ds.lon_bnds.values, axis=1)[:, 0]
    weights = area_weights(ds) * xr.DataArray(width, dims="lon")
    return ds.tas.weighted(weights).mean(("lat", "lon")).values


def test_row_weights_are_the_areas_of_zones_and_cover_the_sphere():
    grid = target_grid((4, 8))
    assert area_weights(grid).values == pytest.approx([1 - 0.5**0.5, 0.5**0.5, 0.5**0.5, 1 - 0.5**0.5], abs=1e-15)
    assert float(area_weights(target_grid((37, 5))).sum()) == pytest.approx(2, abs=1e-14)


def test_cosine_weights_never_fall_below_zero():
    lat = xr.DataArray([-90.0, 0.0, 60.0, 90.0], dims="lat")
    assert cos_weights(lat).values == pytest.approx([0, 1, 0.5, 0], abs=1e-15)
    assert (cos_weights(lat) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(source=SIZES, target=SIZES, turn=st.floats(0, 359), seed=st.integers(0, 99))
def test_regridding_keeps_the_global_mean_and_makes_no_new_extremes(source, target, turn, seed):
    ds = field_on(shifted(target_grid(source), turn), seed)
    out = regrid(ds, target_grid(target))
    assert global_mean(out) == pytest.approx(global_mean(ds), rel=1e-12)
    assert out.tas.max() <= ds.tas.max() + 1e-9 and out.tas.min() >= ds.tas.min() - 1e-9


@settings(max_examples=20, deadline=None)
@given(source=SIZES, target=SIZES, turn=st.floats(0, 359))
def test_a_constant_field_stays_constant(source, target, turn):
    ds = field_on(target_grid(source)) * 0 + 287.5
    out = regrid(ds.assign_coords(target_grid(source).coords), shifted(target_grid(target), turn))
    assert out.tas.values == pytest.approx(287.5, rel=1e-13)


def test_refining_and_coarsening_again_gives_the_field_back():
    ds = field_on(target_grid((5, 7)))
    there = regrid(ds, target_grid((15, 21)))
    assert regrid(there, target_grid((5, 7))).tas.values == pytest.approx(ds.tas.values, rel=1e-13)


def test_regridding_one_cell_onto_two_is_the_mean_of_its_parts():
    ds = xr.Dataset({"tas": (("lat", "lon"), [[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.0]])}).assign_coords(
        target_grid((2, 4)).coords
    )
    out = regrid(ds, target_grid((2, 2)))
    assert out.tas.values == pytest.approx(np.array([[1.5, 6], [0, 0]]), abs=1e-14)


def test_missing_cells_take_no_weight_and_mostly_missing_cells_are_missing():
    ds = field_on(target_grid((4, 8)), months=1)
    ds.tas[0, 0, 0] = np.nan
    ds.tas[0, 2:4, 0:2] = np.nan
    out = regrid(ds, target_grid((2, 4)))
    w = area_weights(ds).values
    corner = ds.tas[0, :2, :2].values
    expected = (corner[0, 1] * w[0] + (corner[1] * w[1]).sum()) / (w[0] + 2 * w[1])
    assert float(out.tas[0, 0, 0]) == pytest.approx(expected, rel=1e-13)
    assert np.isnan(out.tas[0, 1, 0]) and int(np.isnan(out.tas).sum()) == 1
    assert np.isnan(regrid(ds, target_grid((2, 4)), min_coverage=1.0).tas[0, 0, 0])


def test_lazy_arrays_stay_lazy_and_give_the_same_numbers():
    ds = field_on(target_grid((6, 8)), months=10)
    lazy = ds.assign(tas=ds.tas.chunk({"time": 4, "lat": 3, "lon": 5}).astype("float32"))
    out = regrid(lazy, target_grid((4, 5)))
    assert isinstance(out.tas.data, da.Array) and out.tas.dtype == np.float32
    assert out.tas.values == pytest.approx(regrid(ds, target_grid((4, 5))).tas.values, rel=1e-6)


def test_variables_without_a_map_and_attributes_pass_unchanged():
    ds = field_on(target_grid((4, 6))).assign(CO2=("time", [1.0, 2.0, 3.0])).assign_attrs(source_id="X")
    out = regrid(ds, target_grid((3, 5)))
    assert out.CO2.values.tolist() == [1, 2, 3] and out.attrs == {"source_id": "X"} and out.tas.attrs == {"units": "K"}
    assert out.lat_bnds.shape == (3, 2) and set(out.coords) >= {"lat", "lon", "lat_bnds", "lon_bnds"}


def test_a_single_array_can_be_regridded():
    ds = field_on(target_grid((4, 6)))
    assert regrid(ds.tas, target_grid((2, 3))).values == pytest.approx(regrid(ds, target_grid((2, 3))).tas.values)


def test_blocks_of_cells_are_averaged_by_area_in_closed_form():
    ds = field_on(target_grid((4, 6)), months=1)
    out = coarsen_space(ds, (2, 3))
    w = area_weights(ds).values[:2, None]
    expected = (ds.tas[0, :2, :3].values * w).sum() / (3 * w.sum())
    assert float(out.tas[0, 0, 0]) == pytest.approx(expected, rel=1e-13)
    assert out.lat.values.tolist() == [-45, 45] and out.lon.values.tolist() == [90, 270]
    assert global_mean(out) == pytest.approx(global_mean(ds), rel=1e-13)


def test_a_block_across_the_edge_of_the_map_moves_within_the_circle():
    ds = field_on(shifted(target_grid((4, 6)), -30.0), months=1)
    out = coarsen_space(ds, 2)
    assert ((out.lon >= 0) & (out.lon < 360)).all() and (np.diff(out.lon) > 0).all()
    assert global_mean(out) == pytest.approx(global_mean(ds), rel=1e-13)


def test_the_real_grid_and_a_gaussian_grid_without_bounds_cover_the_sphere(climate_data):
    files = [
        climate_data / "CMIP6/CESM2/tas_Amon_CESM2_ssp126_r4i1p1f1_gr1_201501-209912.nc",
        climate_data / "samples/xcdat-data/tas_Amon_CanESM5_historical_r13i1p1f1_gn_185001-201412_subset.nc",
    ]
    for file in files:
        with xr.open_dataset(file, decode_times=False) as ds:
            made = with_bounds(ds[["lat", "lon"]].drop_vars(["lat_bnds", "lon_bnds"], errors="ignore"))
            assert is_global(made) and float(area_weights(made).sum()) == pytest.approx(2, abs=1e-12)
            assert np.abs(made.lat_bnds.values - ds.lat_bnds.values).max() < 0.1


def test_inferred_edges_lie_halfway_and_end_at_the_poles():
    assert infer_bounds([-88.0, 0.0, 88.0], "lat").tolist() == [[-90, -44], [-44, 44], [44, 90]]
    assert infer_bounds([10.0, 20.0, 30.0], "lat").tolist() == [[5, 15], [15, 25], [25, 35]]
    assert infer_bounds([0.0, 90.0, 180.0, 270.0], "lon")[[0, -1]].tolist() == [[-45, 45], [225, 315]]


def test_descending_latitudes_and_western_longitudes_are_put_in_order():
    lat, lat_bnds, order = order_axis([60.0, 0.0, -60.0], [[90.0, 30.0], [30.0, -30.0], [-30.0, -90.0]], "lat", "f")
    assert lat.tolist() == [-60, 0, 60] and order.tolist() == [2, 1, 0]
    assert lat_bnds.tolist() == [[-90, -30], [-30, 30], [30, 90]]
    lon, lon_bnds, order = order_axis([-120.0, 0.0, 120.0], [[-180.0, -60.0], [-60.0, 60.0], [60.0, 180.0]], "lon", "f")
    assert lon.tolist() == [0, 120, 240] and order.tolist() == [1, 2, 0]
    assert lon_bnds.tolist() == [[-60, 60], [60, 180], [180, 300]]


def test_longitude_bounds_are_unwrapped_around_their_centre():
    _, bounds, _ = order_axis([0.0, 120.0, 240.0], [[300.0, 60.0], [60.0, 180.0], [180.0, 300.0]], "lon", "f")
    assert bounds[0].tolist() == [-60, 60]


def test_cells_overlap_on_the_circle():
    source, target = np.array([[-60.0, 60.0], [60.0, 300.0]]), np.array([[0.0, 180.0], [180.0, 360.0]])
    assert overlap_lon(source, target).tolist() == [[60, 120], [60, 120]]


@pytest.mark.parametrize(
    ("axis", "centres", "bounds", "message"),
    [
        ("lat", [0.0, 10.0], [[-5, 5], [6, 15]], "do not meet"),
        ("lat", [0.0, 10.0], [[-5, 5], [11, 15]], "expected cells that contain their centre"),
        ("lat", [0.0, 10.0], [[-5, 5]], r"shape \(1, 2\)"),
        ("lon", [0.0, 200.0], [[-100, 100], [100, 300]], "400 degrees of longitude"),
    ],
)
def test_unsound_bounds_are_refused(axis, centres, bounds, message):
    with pytest.raises(DataContractError, match=message):
        check_bounds(centres, bounds, axis, "file.nc")


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("lon", [0.0, 120.0, 360.0], "lon in f.nc: repeated values"),
        ("lon", [0.0, 120.0, 1e30], "a value of 1e\\+30"),
        ("lat", [0.0, 95.0], "a value of 95"),
        ("lat", [0.0, np.nan], "a value of nan"),
        ("lat", [0.0], "1 value and no bounds"),
    ],
)
def test_impossible_coordinates_are_refused(axis, values, message):
    with pytest.raises(DataContractError, match=message):
        order_axis(values, None, axis, "f.nc")


def test_bounds_of_the_wrong_shape_are_refused_with_it():
    with pytest.raises(DataContractError, match=r"shape \(2,\)"):
        order_axis([0.0, 10.0], [0.0, 10.0], "lat", "f.nc")


def test_weights_without_bounds_are_refused():
    with pytest.raises(DataContractError, match="area weights: no lat_bnds"):
        area_weights(xr.Dataset(coords={"lat": [0.0, 1.0]}))


def test_a_grid_that_the_factor_does_not_divide_is_refused():
    with pytest.raises(DataContractError, match="grid 4 x 6: 6 lon is not a multiple of 4"):
        coarsen_space(field_on(target_grid((4, 6))), (2, 4))


def test_a_grid_of_one_cell_is_refused():
    with pytest.raises(DataContractError, match="target grid: .1, 4.; expected at least 2 latitudes"):
        target_grid((1, 4))
