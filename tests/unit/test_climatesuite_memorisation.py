"""Copies of training fields are found; honest members, narrow ones included, are not accused."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.errors import DataContractError
from climatesuite.evaluate import structure
from climatesuite.evaluate.memorisation import Memorisation, member_rows, memorisation, nearest_distances
from climatesuite.harmonise.coarsen import to_year
from worlds.fake_ensemble import fake_ensemble

YEARS = (2015, 2074)
GRID = (12, 18)


def world(seed: int, size: int, **settings) -> xr.Dataset:
    return fake_ensemble("year", range(size), YEARS, GRID, seed=seed, **settings)[["tas"]]


@pytest.fixture(scope="module")
def training():
    return [world(1, 3), world(2, 3)]


@pytest.fixture(scope="module")
def held_out():
    return world(3, 3)


def with_departures(seed: int, donor: np.ndarray, share: float, amplitude: float = 1.0) -> xr.Dataset:
    """Members of their own of which a share of the years carries departures of a donor ``[member, time, lat, lon]``."""
    ds = world(seed, len(donor))
    forced = fake_ensemble("year", (0,), YEARS, GRID, spread=0.0).tas.values
    copied = np.random.default_rng(seed).random((len(donor), ds.sizes["time"], 1, 1)) < share
    return ds.assign(tas=ds.tas.copy(data=np.where(copied, forced + amplitude * (donor - forced), ds.tas.values)))


def test_distance_is_0_for_a_copy_root_2_for_a_stranger_and_2_for_the_opposite():
    pool = np.eye(3, dtype=np.float32)[:1]
    angle = np.float32(0.4)
    units = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [np.cos(angle), np.sin(angle), 0]], dtype=np.float32)
    expected = [0.0, np.sqrt(2.0), 2.0, 2.0 * np.sin(angle / 2)]
    np.testing.assert_allclose(nearest_distances(units, pool), expected, atol=1e-6)


def test_p_of_both_nearest_of_four_being_sampled_is_a_sixth():
    found = Memorisation("tas", "year", np.array([[0.6, 0.7]]), (np.array([0.8, 0.9]),))
    assert found.p_value == pytest.approx(1.0 / 6.0, rel=1e-12)
    assert found.copies == 0.0 and found.passed


def test_members_of_the_same_process_pass(training, held_out):
    found = memorisation(world(4, 8), training, held_out, "tas")
    assert found.passed and found.sampled.shape == (8, 60)
    rows = {row["name"]: row for row in found.rows()}
    assert all(row["inside"] for row in rows.values())
    assert rows["distance to the nearest training year, median"]["N"] == 3


def test_a_copying_sampler_fails(training, held_out):
    found = memorisation(with_departures(5, training[0].tas.values, 1.0, amplitude=0.7), training, held_out, "tas")
    assert not found.passed and found.copies == 1.0
    assert {row["name"] for row in found.rows() if not row["inside"]} == {row["name"] for row in found.rows()}


def test_one_copied_year_in_fifty_fails(training, held_out):
    found = memorisation(with_departures(6, training[1].tas.values, 0.02), training, held_out, "tas")
    assert 0.0 < found.copies < 0.06 and not found.passed


def test_copies_under_noise_fail_by_their_number(training, held_out):
    own = world(7, 3)
    mixed = 0.75 * with_departures(7, training[0].tas.values, 1.0).tas.values + 0.25 * own.tas.values
    found = memorisation(own.assign(tas=own.tas.copy(data=mixed)), training, held_out, "tas")
    assert found.p_value < 1e-6 and not found.passed


def test_a_sampler_that_is_only_too_narrow_passes(training, held_out):
    assert memorisation(world(8, 8, spread=0.3), training, held_out, "tas").passed


def test_months_are_compared_with_months_of_their_name():
    months = [fake_ensemble("month", (0, 1), (2015, 2034), (6, 9), seed=s)[["tas"]] for s in (1, 2, 3)]
    moved = months[0].assign(tas=months[0].tas.copy(data=np.roll(months[0].tas.values, 1, axis=1)))
    assert memorisation(months[0], months[0], months[1], "tas").copies == 1.0
    assert memorisation(moved, months[0], months[1], "tas").copies < 0.01


def test_a_forced_response_given_is_taken_off(training, held_out):
    mean = fake_ensemble("year", (0,), YEARS, GRID, spread=0.0).isel(member=0)
    copying = with_departures(9, training[0].tas.values, 1.0)
    assert memorisation(copying, training, held_out, "tas", forced=lambda ds: mean).copies == 1.0
    assert memorisation(world(10, 3), training, held_out, "tas", forced=lambda ds: mean).passed


def test_all_rows_of_members_are_the_structure_table_and_the_memorisation_test():
    def runs(seed):
        return fake_ensemble("month", ("r1i1p1f1", "r2i1p1f1"), (2015, 2034), (6, 9), seed=seed)

    ensembles = {t: fake_ensemble(t, range(3), (2015, 2034), (6, 9), seed=5) for t in ("year", "month", "decade")}
    rows = member_rows(ensembles, [runs(1), runs(2)], runs(3))
    names = [row["name"] for row in rows]
    assert names.count("copies among years") == 2 and "December-January seam" in names
    assert {row["N"] for row in rows if row["name"] == "lag-1 of years, local"} == {6}
    months = member_rows({"month": ensembles["month"]}, [runs(1)], runs(3))
    assert "copies among months" in [row["name"] for row in months]
    assert not [row for row in member_rows(ensembles, [], runs(3)) if "copies" in row["name"]]


def test_what_cannot_be_compared_is_refused(training, held_out):
    with pytest.raises(DataContractError, match="no held-out members"):
        memorisation(held_out, training, [], "tas")
    with pytest.raises(DataContractError, match=r"timescales \['month', 'year'\]; expected one"):
        memorisation(fake_ensemble("month", (0,), YEARS, GRID), training, held_out, "tas")
    with pytest.raises(DataContractError, match="another grid"):
        memorisation(fake_ensemble("year", grid=(4, 6)), training, held_out, "tas")
    with pytest.raises(DataContractError, match="diagnostics of pr: no such variable"):
        memorisation(held_out, training, held_out, "pr")


def test_memory_does_not_grow_with_the_sampled_members(training, held_out):
    peaks = []
    for size in (3, 60):
        one = world(11, 1)
        values = np.broadcast_to(one.tas.values, (size, *one.tas.shape[1:]))
        many = one.drop_vars(["tas", "member"]).assign(tas=(one.tas.dims, values, one.tas.attrs))
        tracemalloc.start()
        memorisation(many.assign_coords(member=np.arange(size)), training, held_out, "tas")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_real_member_passes_and_a_copied_training_member_fails(climate_data):
    runs = {e: to_year(ds) for (_, e), ds in open_runs([climate_data / "CMIP6" / "CESM2"], ["tas"]).items()}
    training, test = [runs["ssp126"], runs["ssp585"]], runs["ssp370"]
    honest = memorisation(test.isel(member=slice(0, 1)), training, test.isel(member=slice(1, 2)), "tas")
    assert honest.passed and np.median(honest.sampled) == pytest.approx(np.median(honest.held_out[0]), rel=0.05)
    copied = memorisation(runs["ssp126"].isel(member=slice(0, 1)), training, test, "tas")
    assert not copied.passed and copied.copies == 1.0
    own, donor = (np.asarray(ds.tas[0].values, dtype=np.float64) for ds in (test, runs["ssp585"]))
    drawn = np.random.default_rng(0).integers(0, len(donor), len(donor))
    shuffled = own - structure.departures(own, 1) + structure.departures(donor, 1)[drawn]
    one = test.isel(member=slice(0, 1))
    resampled = memorisation(one.assign(tas=one.tas.copy(data=shuffled[None])), training, test, "tas")
    assert not resampled.passed and resampled.p_value < 1e-10  # a new trend was fitted, yet the fields are found
