"""Sufficient statistics: those of numpy, and the same however the data is split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.errors import DataContractError
from climatesuite.harmonise.statistics import merge, month_statistics
from worlds.fake_ensemble import fake_ensemble

RUN = fake_ensemble("month", ("r1i1p1f1", "r2i1p1f1"), (2015, 2026), (3, 4))


def check_against_numpy(stats, values, rel):
    """Values (sample, calendar_month, lat, lon)."""
    assert (stats.tas_count == values.shape[0]).all()
    assert stats.tas_mean.values == pytest.approx(values.mean(0), rel=rel)
    assert stats.tas_m2.values == pytest.approx(values.var(0) * values.shape[0], rel=rel * 1e3)
    np.testing.assert_array_equal(stats.tas_min, values.min(0))
    np.testing.assert_array_equal(stats.tas_max, values.max(0))


def test_the_statistics_of_a_member_are_those_of_numpy():
    stats = month_statistics(RUN.isel(member=0), ["tas", "pr"])
    check_against_numpy(stats, RUN.tas[0].values.astype(np.float64).reshape(12, 12, 3, 4), 1e-14)
    assert stats.tas_mean.dtype == np.float64 and stats.tas_mean.dims == ("calendar_month", "lat", "lon")
    assert stats.tas_count.dims == ("calendar_month",) and stats.pr_mean.attrs["units"] == "kg m-2 s-1"


def test_merging_members_gives_the_statistics_of_their_pool():
    merged = merge(month_statistics(RUN.isel(member=m), ["tas"]) for m in (0, 1))
    check_against_numpy(merged, RUN.tas.values.astype(np.float64).reshape(24, 12, 3, 4), 1e-13)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 143), max_size=5, unique=True))
def test_any_split_in_time_gives_the_same_statistics(cuts):
    one = RUN.isel(member=0)
    edges = [0, *sorted(cuts), 144]
    pieces = [month_statistics(one.isel(time=slice(a, b)), ["tas"]) for a, b in zip(edges, edges[1:], strict=False)]
    check_against_numpy(merge(pieces), one.tas.values.astype(np.float64).reshape(12, 12, 3, 4), 1e-12)


def test_the_mean_survives_a_large_offset():
    one = RUN.isel(member=0)
    far = one.assign(tas=one.tas.astype(np.float64) + 1e6)
    spread = merge(month_statistics(far.isel(time=slice(a, a + 72)), ["tas"]) for a in (0, 72)).tas_m2
    assert spread.values == pytest.approx(month_statistics(one, ["tas"]).tas_m2.values, rel=1e-6)


def test_lazy_fields_are_read_as_they_are():
    lazy = month_statistics(RUN.isel(member=0).chunk({"time": 30}), ["tas"])
    assert lazy.tas_mean.values == pytest.approx(month_statistics(RUN.isel(member=0), ["tas"]).tas_mean.values)


def test_merging_leaves_its_input_alone():
    a, b = (month_statistics(RUN.isel(member=m), ["tas"]) for m in (0, 1))
    before = a.copy(deep=True)
    merge([a, b])
    assert a.identical(before)


def test_nothing_to_merge_is_refused():
    with pytest.raises(DataContractError, match="statistics: nothing to merge"):
        merge([])
