"""Regions on a grid: areas that are known, coasts as shares, polygons of a file, and no network."""

import json
import socket

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import masks
from worlds.fake_ensemble import grid_coords


def grid(rows: int, columns: int) -> xr.Dataset:
    return xr.Dataset(coords=grid_coords((rows, columns)))


def nearest(weights: xr.DataArray, lat: float, lon: float) -> float:
    return float(weights.sel(lat=lat, lon=lon % 360, method="nearest"))


@pytest.mark.parametrize("shape", [(48, 72), (12, 18), (96, 144)])
def test_every_region_is_a_mean_and_land_and_ocean_make_the_globe(shape):
    large = masks.large_regions(grid(*shape))
    np.testing.assert_allclose(large.sum(("lat", "lon")), 1.0, atol=1e-12)
    globe, land, ocean = (large.sel(region=r).values for r in (masks.GLOBE, masks.LAND, masks.OCEAN))
    share = np.linalg.lstsq((land - ocean).reshape(-1, 1), (globe - ocean).ravel(), rcond=None)[0][0]
    np.testing.assert_allclose(share * land + (1 - share) * ocean, globe, atol=1e-12)
    assert share == pytest.approx(
        0.292, abs=0.005
    )  # land's share of the Earth's surface, without much of its ice shelves


def test_the_globe_has_the_exact_areas_of_its_cells():
    large = masks.large_regions(grid(18, 36))
    edges = np.sin(np.deg2rad(np.linspace(-90.0, 90.0, 19)))
    np.testing.assert_allclose(large.sel(region=masks.GLOBE).sum("lon"), np.diff(edges) / 2.0, rtol=2e-4)


def test_known_places_are_land_or_sea():
    land, ocean = (masks.large_regions(grid(90, 180)).sel(region=r) for r in (masks.LAND, masks.OCEAN))
    for lat, lon in ((0.0, 25.0), (50.0, 80.0), (-25.0, 135.0), (40.0, -100.0), (-85.0, 0.0), (72.0, -40.0)):
        assert nearest(land, lat, lon) > 0 and nearest(ocean, lat, lon) == 0
    for lat, lon in ((0.0, 180.0), (30.0, -40.0), (-60.0, 90.0), (88.0, 10.0)):
        assert nearest(land, lat, lon) == 0 and nearest(ocean, lat, lon) > 0
    assert nearest(ocean, 42.0, 51.0) > nearest(land, 42.0, 51.0) > 0  # the Caspian is a hole in the land


def test_polar_caps_begin_at_the_polar_circle():
    cap = masks.large_regions(grid(36, 4)).sel(region=masks.ARCTIC)
    assert set(cap.lat.values[cap.max("lon") > 0]) == {67.5, 72.5, 77.5, 82.5, 87.5}
    assert (
        float(cap.sel(lat=67.5).sum() / cap.sel(lat=72.5).sum()) < 1.0
    )  # of the lowest row only what lies beyond 66.5


def test_srex_is_land_only_and_needs_no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    regions = masks.reference_regions(grid(48, 72))
    assert regions.sizes["region"] == 26
    np.testing.assert_allclose(regions.sum(("lat", "lon")), 1.0, atol=1e-12)
    assert nearest(regions.sel(region="AMZ"), -5.0, -60.0) > 0
    assert nearest(regions.sel(region="SAH"), 22.0, 10.0) > 0
    land = masks.large_regions(grid(48, 72)).sel(region=masks.LAND)
    assert not np.any(regions.values[:, land.values == 0])


def polygons(path, column="Acronym"):
    """One square in the Pacific, one over Europe, in a GeoJSON file."""
    squares = {"PAC": (-170, -160, 0, 10), "EUR": (0, 20, 45, 55)}
    features = [
        {"type": "Feature", "properties": {column: name},
         "geometry": {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]}}
        for name, (w, e, s, n) in squares.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_polygons_of_a_file_are_regions_and_one_without_land_keeps_its_sea(tmp_path):
    regions = masks.reference_regions(grid(36, 72), polygons(tmp_path / "two.geojson"))
    assert regions.region.values.tolist() == ["PAC", "EUR"]
    assert nearest(regions.sel(region="PAC"), 5.0, 195.0) > 0 and nearest(regions.sel(region="EUR"), 50.0, 10.0) > 0


def test_longitudes_from_minus_180_and_no_bounds_give_the_same_regions():
    ds = grid(36, 72)
    turned = xr.Dataset(coords={"lat": ds.lat, "lon": (ds.lon + 180) % 360 - 180}).sortby("lon")
    ours, theirs = masks.large_regions(ds), masks.large_regions(turned)
    back = theirs.assign_coords(lon=theirs.lon % 360).sortby("lon")
    np.testing.assert_allclose(ours, back, atol=1e-12)


def test_files_that_are_no_regions_are_refused(tmp_path):
    with pytest.raises(DataContractError, match="no such file"):
        masks.reference_regions(grid(8, 12), tmp_path / "absent.zip")
    (tmp_path / "text.geojson").write_text("nothing")
    with pytest.raises(DataContractError, match="not readable"):
        masks.reference_regions(grid(8, 12), tmp_path / "text.geojson")
    with pytest.raises(DataContractError, match="name the regions"):
        masks.reference_regions(grid(8, 12), polygons(tmp_path / "odd.geojson", "colour"))
