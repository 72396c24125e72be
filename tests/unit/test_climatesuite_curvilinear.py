"""Curvilinear cells on a rectilinear grid: integrals are kept, constants stay, wrong corners are refused."""

import math

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.harmonise.curvilinear import cell_weights, holds, regrid_cells
from climatesuite.harmonise.grids import area_weights, regrid, target_grid
from worlds.turned import corners, points

TARGET = target_grid((18, 36))


def cells(grid, seed=0):
    values = 280 + 10 * np.random.default_rng(seed).random((2, grid.sizes["lat"], grid.sizes["lon"]))
    return xr.DataArray(values, dims=("time", "y", "x"), name="tas", attrs={"units": "K"})


def test_the_integral_of_turned_cells_is_kept_to_rounding_and_the_sphere_is_covered_once():
    source = target_grid((30, 60))
    weights = cell_weights(*corners(source, 40.0), TARGET)
    field = cells(source)[0].values.ravel()
    area = np.asarray(weights.sum(axis=0))
    assert area.sum() == pytest.approx(4 * math.pi, rel=1e-12)
    assert (weights @ field).sum() == pytest.approx(area @ field, rel=1e-14)


def test_a_constant_stays_constant_and_attributes_stay():
    source = target_grid((30, 60))
    out = regrid_cells(xr.full_like(cells(source), 7.0), *corners(source, 65.0), TARGET)
    assert out.dims == ("time", "lat", "lon") and out.attrs == {"units": "K"}
    np.testing.assert_allclose(out, 7.0, rtol=1e-13)


def test_a_smooth_field_is_what_it_is_wherever_the_source_cells_lie():
    source = target_grid((60, 120))
    lat, lon = corners(source, 50.0)
    middle = np.sin(np.radians(lat)).mean(-1)
    out = regrid_cells(xr.DataArray(middle, dims=("y", "x")), lat, lon, TARGET)
    exact = np.diff(np.sin(np.radians(TARGET.lat_bnds.values)) ** 2 / 2, axis=1)[:, 0] / area_weights(TARGET).values
    np.testing.assert_allclose(out, np.broadcast_to(exact[:, None], out.shape), atol=0.02)


def test_cells_that_are_rectilinear_give_nearly_what_the_exact_scheme_gives():
    source = target_grid((36, 72))
    field = cells(source)
    out = regrid_cells(field, *corners(source), TARGET)
    exact = regrid(xr.Dataset({"tas": field.rename(y="lat", x="lon")}).assign_coords(source.coords), TARGET).tas
    np.testing.assert_allclose(out, exact, rtol=2e-3)


def test_missing_cells_take_no_weight_and_mostly_missing_targets_are_missing():
    source = target_grid((36, 72))
    field = xr.full_like(cells(source), 5.0)
    field[:, :, :36] = np.nan
    out = regrid_cells(field, *corners(source), TARGET)
    assert np.isnan(out[:, :, :18]).all() and (np.abs(out[:, :, 18:] - 5.0) < 1e-12).all()


def test_triangles_are_cells_too_and_a_cell_without_corners_has_no_area():
    lat, lon = corners(target_grid((30, 60)), 10.0)
    halves = [np.stack([a[..., [0, 1, 2]], a[..., [0, 2, 3]]], axis=2) for a in (lat, lon)]
    halves[0][0, 0, 0, 0] = np.nan
    weights = cell_weights(*halves, TARGET)
    assert weights.shape[1] == 3600 and weights[:, [0]].sum() == 0
    assert weights.sum() == pytest.approx(4 * math.pi, rel=1e-3)


def test_corners_that_cannot_be_right_are_refused():
    lat, lon = corners(target_grid((30, 60)))
    with pytest.raises(DataContractError, match="1 of 1800 cells wider than 30 degrees"):
        bad = lat.copy()
        bad[3, 3, 0] = -bad[3, 3, 0]
        cell_weights(bad, lon, TARGET)
    with pytest.raises(DataContractError, match="2.000 spheres"):
        cell_weights(np.concatenate([lat, lat]), np.concatenate([lon, lon]), TARGET)
    with pytest.raises(DataContractError, match="3. or"):
        cell_weights(lat[..., :2], lon[..., :2], TARGET)
    with pytest.raises(DataContractError, match="own corners"):
        regrid_cells(cells(target_grid((4, 8))), lat, lon, TARGET)


@pytest.mark.parametrize("shape", [(30, 60), (90, 30), (20, 160)])  # square cells, and 6 and 4 times as long as wide
def test_a_cell_holds_its_middle_and_not_that_of_a_neighbour_however_long_it_is(shape):
    cells = corners(target_grid(shape), 50.0)
    x, y, z = np.moveaxis(points(cells), -1, 0)
    middle = np.degrees(np.arcsin(z)), np.degrees(np.arctan2(y, x))
    assert holds(*cells, *middle).all()
    for axis in (0, 1):
        assert not holds(*cells, *(np.roll(a, 1, axis) for a in middle)).any()
    assert not holds(*cells, -middle[0], middle[1] + 180).any()  # the other side of the sphere


def test_a_pole_may_stand_for_the_cells_around_it():
    lat, lon = corners(target_grid((30, 60)))
    assert holds(lat[-1], lon[-1], np.full(60, 90.0), lon[-1].mean(axis=-1)).all()


def test_corners_that_do_not_go_round_their_cell_are_refused():
    lat, lon = corners(target_grid((30, 60)), 40.0)
    for order in ([0, 1, 3, 2], [0, 2, 1, 3]):
        with pytest.raises(DataContractError, match="cells with corners out of order.*around their cell, in turn"):
            cell_weights(lat[..., order], lon[..., order], TARGET)
    assert cell_weights(lat[..., ::-1], lon[..., ::-1], TARGET).nnz  # clockwise is round it too


def test_a_real_tripolar_grid_is_regridded_or_refused_with_the_reason(climate_data):
    files = [
        p
        for p in (climate_data / "samples").rglob("*.nc")
        if "CNRM" in p.name and ("Omon" in p.name or "SImon" in p.name)
    ]
    if not files:
        pytest.skip("no tripolar CNRM file among the samples")
    with xr.open_dataset(files[0], decode_times=False) as ds:
        known = (("bounds_lat", "bounds_lon"), ("vertices_latitude", "vertices_longitude"), ("lat_bnds", "lon_bnds"))
        pairs = [pair for pair in known if pair[0] in ds.variables]
        name = str(ds.attrs["variable_id"])
        field = ds[name].isel(time=slice(0, 1)).load()
        lat, lon = (ds[n].values for n in pairs[0])
    if lat.shape[:-1] != field.shape[-2:] or min(lat.shape[:2]) < 100:
        pytest.skip("the sample is thinned out: its cells do not touch")
    out = regrid_cells(field, lat, lon, target_grid((90, 180)))
    assert float(np.nanmin(field)) <= float(np.nanmin(out)) and float(np.nanmax(out)) <= float(np.nanmax(field))
    assert 0.4 < float(np.isfinite(out).mean()) < 0.9
