"""A target grid changes maps and nothing else: global means, their trends and the totals of forcings stay to 1e-6."""

import numpy as np
import pytest

from climatesuite.build import build
from climatesuite.forcing.totals import yearly_totals
from climatesuite.harmonise.curvilinear import cell_areas
from climatesuite.harmonise.grids import area_weights, target_grid
from climatesuite.store.open import open_run
from worlds.canonical import canonical_forcings, write_forcing_file
from worlds.cmip import edges, write_cmip
from worlds.turned import corners, triangles, write_cells

KEY, YEARS, SAME = ("TEST-ESM", "ssp245"), (2015, 2034), 1e-6
MONTHS = ("2015-01", "2034-12")
MEAN, A_YEAR = {"tas": 287.0, "pr": 3.4e-5}, {"tas": 0.03, "pr": 4e-8}
TARGETS = [(20, 36), (50, 70)]


def trending(name, area, seed):
    """(240, *cells): seasons and noise without a global mean, on a global mean that rises by ``A_YEAR`` in every month alike."""
    n, area = 240, area / area.sum()
    rough = np.random.default_rng(seed).standard_normal((n, *area.shape))
    rough -= (rough * area).sum(axis=tuple(range(1, rough.ndim)), keepdims=True)
    mean = (MEAN[name] + A_YEAR[name] * np.arange(n) / 12).reshape(-1, *([1] * area.ndim))
    pattern = 1 + 0.2 * (rough[0] / np.abs(rough[0]).max())  # warms here more than there, on average just so much
    return mean[:1] + (mean - mean[:1]) * pattern + 0.02 * MEAN[name] * rough


def plain(folder):
    south_north, west_east = edges(36, 48)
    area = np.outer(np.diff(np.sin(np.radians(south_north))), np.diff(west_east))
    for seed, name in enumerate(A_YEAR):
        write_cmip(folder / "in", name, months=MONTHS, values=trending(name, area, seed).astype("f4"), grid=(36, 48))


def cells(folder, of=lambda c: c):
    turned = of(corners(target_grid((24, 36)), 40.0))
    area = cell_areas(*turned).reshape(turned[0].shape[:-1])
    for seed, name in enumerate(A_YEAR):
        write_cells(folder / "in", turned, trending(name, area, seed), MONTHS, name)


SOURCES = {
    "latitudes by longitudes": plain,
    "turned cells": cells,
    "triangles": lambda folder: cells(folder, triangles),
}


@pytest.fixture(scope="module", params=SOURCES)
def archive(request, tmp_path_factory):
    """tas and pr of a known trend, and CO2 and SO2 on a grid of their own."""
    folder = tmp_path_factory.mktemp("archive")
    SOURCES[request.param](folder)
    write_forcing_file(folder / "forcings", KEY[1], YEARS)
    return folder


def means(store, timescale):
    """Global means (time) by variable."""
    ds = open_run(store, *KEY, timescale).isel(member=0)
    return {n: ds[n].astype("f8").weighted(area_weights(ds)).mean(("lat", "lon")).values for n in A_YEAR}


def trend(month):
    """Rise a year of monthly global means; those of years, rounded once more to float32, would show just that rounding (1e-6)."""
    return np.polyfit(np.arange(240) / 12, month, 1)[0]


def made(archive, out, grid):
    build(
        archive / "in", out, forcings=archive / "forcings", forcing_names=("CO2", "SO2"), grid=grid, progress=False, workers=1
    )  # fmt: skip
    return out


@pytest.mark.parametrize("grid", TARGETS, ids=str)
def test_global_means_and_their_trends_are_those_that_were_written(archive, tmp_path, grid):
    store = made(archive, tmp_path / "s.zarr", grid)
    for name, month in means(store, "month").items():
        np.testing.assert_allclose(month, MEAN[name] + A_YEAR[name] * np.arange(240) / 12, rtol=SAME)
        assert trend(month) == pytest.approx(A_YEAR[name], rel=SAME)


def test_a_store_on_the_files_own_grid_and_one_on_another_agree(tmp_path):
    plain(tmp_path)
    write_forcing_file(tmp_path / "forcings", KEY[1], YEARS)
    own = made(tmp_path, tmp_path / "own.zarr", None)
    other = made(tmp_path, tmp_path / "other.zarr", (24, 36))
    for timescale in ("month", "year", "decade"):
        a, b = means(own, timescale), means(other, timescale)
        for name in A_YEAR:
            np.testing.assert_allclose(b[name], a[name], rtol=SAME)
            if timescale == "month":
                assert trend(b[name]) == pytest.approx(trend(a[name]), rel=SAME)


@pytest.mark.parametrize("grid", TARGETS, ids=str)
def test_totals_of_forcings_are_those_of_their_file(archive, tmp_path, grid):
    store = made(archive, tmp_path / "s.zarr", grid)
    stored, file = open_run(store, *KEY, "month"), canonical_forcings(YEARS)
    for name in ("CO2", "SO2"):
        np.testing.assert_allclose(yearly_totals(stored, [name]), yearly_totals(file, [name]), rtol=SAME)
