"""Scores block by block: the same numbers as the plain functions, whatever the blocks, chunks and order of members."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.baselines.reference import ReferenceEnsemble
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol, scores, series
from worlds.fake_ensemble import fake_ensemble

DAY = 86400.0


def worlds(timescale="year", m=5, n=3):
    years = {"month": (2015, 2020), "year": (2015, 2034), "decade": (2015, 2074)}[timescale]
    return (
        fake_ensemble(timescale, range(m), years, bias=0.3, seed=1, spread=0.8),
        fake_ensemble(timescale, tuple(f"r{i}i1p1f1" for i in range(n)), years, seed=2),
    )


def scored(x, y, name="tas", timescale="year", late=(18, 19)):
    return series.ensemble_series(x, y, name, protocol.periods(y, timescale), np.asarray(late, dtype=int))


def in_mm(field):
    return field.astype(np.float64) * DAY


@pytest.mark.parametrize("timescale", ["month", "year", "decade"])
def test_means_of_the_series_are_the_scores_of_the_whole_arrays(timescale):
    x, y = worlds(timescale)
    got, truth = scored(x, y, "pr", timescale), series.truth_series(y, "pr", protocol.periods(y, timescale))
    a, b = in_mm(x.pr), in_mm(y.pr)
    expected: dict[str, tuple] = {
        "crps": (got.crps.mean(), scores.area_mean(scores.crps_ensemble(a, b)).mean()),
        "plain": (got.crps_plain.mean(), scores.area_mean(scores.crps_ensemble(a, b, "plain")).mean()),
        "rmse": (np.sqrt(got.mean_square.mean()), scores.rmse(a, b)),
        "bias": (got.mean_error.mean(), scores.bias(a, b)),
        "mae": (got.absolute.mean(), scores.mae(a, b)),
        "spread": (np.sqrt(got.variance.mean()), scores.spread(a)),
        "spread_skill": (
            np.sqrt(got.inflation * got.variance.mean() / got.square.mean()),
            scores.spread_skill(a, b),
        ),
        "floor": (truth.floor.mean(), scores.area_mean(scores.pair_floor(b)).mean()),
        "variance": (np.sqrt(truth.variance.mean()), scores.spread(b)),
        "mean": (truth.mean.mean(), scores.area_mean(b).mean()),
    }
    for name, (ours, plain) in expected.items():
        assert float(ours) == pytest.approx(float(plain), rel=1e-10), name
    shares = got.ranks.sum(axis=0)
    np.testing.assert_allclose(shares / shares.sum(), scores.rank_histogram(a, b), atol=1e-12)


def test_crps_is_kept_by_member_and_step():
    x, y = worlds()
    np.testing.assert_allclose(scored(x, y).crps, scores.area_mean(scores.crps_ensemble(x.tas, y.tas)), rtol=1e-10)


def same(a, b):
    for name in ("crps", "crps_plain", "absolute", "square", "mean_error", "mean_square", "variance", "ranks"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12, err_msg=name)
    assert a.late_square == pytest.approx(b.late_square) and a.variability == pytest.approx(b.variability)


@pytest.mark.parametrize("size", [1, 8 * 5 * 96 * 3, 10**9])
def test_scores_do_not_depend_on_the_size_of_blocks(monkeypatch, size):
    x, y = worlds()
    expected = scored(x, y)
    monkeypatch.setattr(series, "BLOCK_BYTES", size)
    same(scored(x, y), expected)


@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_larger_than_a_block_is_read_even_where_one_step_of_all_members_is(rows, monkeypatch):
    x, y = worlds("month", m=30)
    late = (18, 19)
    expected, truth = (
        scored(x, y, timescale="month", late=late),
        series.truth_series(y, "tas", protocol.periods(y, "month")),
    )
    size = 8 * 30 * 12 * rows  # some rows of one step of 30 members; fewer than all steps of one row of a member
    seen = []
    check = series.check_finite
    monkeypatch.setattr(series, "BLOCK_BYTES", size)
    monkeypatch.setattr(series, "check_finite", lambda field, v: (seen.append(v), check(field, v)))
    got = scored(x, y, timescale="month", late=late)
    again = series.truth_series(y, "tas", protocol.periods(y, "month"))
    assert (30, 1, rows, 12) in [v.shape for v in seen]
    assert max(8 * v.size for v in seen if v.shape[1] == 1) <= size
    least = y.tas[0, :, 0].nbytes  # variability in time takes all steps of one row of one member, at least
    assert max(v.nbytes for v in seen if v.shape[1] > 1) <= max(size, least)
    same(got, expected)
    np.testing.assert_allclose(got.thinned_ranks, expected.thinned_ranks)
    for name in ("floor", "variance", "mean"):
        np.testing.assert_allclose(getattr(again, name), getattr(truth, name), rtol=1e-10)
    assert again.variability == pytest.approx(truth.variability)


def test_scores_do_not_depend_on_chunks_or_the_order_of_members():
    x, y = worlds()
    same(scored(x.chunk(member=1, time=7), y.chunk(lat=3)), scored(x, y))
    shuffled = scored(x.isel(member=[4, 2, 0, 1, 3]), y.isel(member=[1, 2, 0]))
    ours = scored(x, y)
    np.testing.assert_allclose(shuffled.crps[[2, 0, 1]], ours.crps, rtol=1e-9)
    np.testing.assert_allclose(shuffled.mean_square, ours.mean_square, rtol=1e-9)


def test_one_member_is_scored_by_its_absolute_error_and_has_no_spread():
    x, y = worlds(m=1)
    got = scored(x, y)
    assert got.kind == "mae" and np.isnan(got.variance).all()
    np.testing.assert_allclose(got.crps, got.absolute, rtol=1e-12)


def test_one_truth_member_has_no_floor():
    _, y = worlds(n=1)
    truth = series.truth_series(y, "tas", protocol.periods(y, "year"))
    assert np.isnan(truth.floor).all() and np.isnan(truth.variance).all() and np.isfinite(truth.mean).all()


def test_late_square_is_the_squared_error_of_the_time_mean():
    x, y = worlds()
    late = [3, 4, 5]
    error = (x.tas.astype(np.float64).mean("member") - y.tas.astype(np.float64).mean("member")).isel(time=late)
    expected = float(scores.area_mean(error.mean("time") ** 2))
    assert scored(x, y, late=late).late_square == pytest.approx(expected, rel=1e-9)
    assert np.isnan(scored(x, y, late=()).late_square)


def test_variability_of_half_the_noise_is_a_quarter():
    y = fake_ensemble(seed=1, years=(2015, 2064))
    half = y.assign(tas=(0.5 * y.tas + 140.0).assign_attrs(y.tas.attrs))
    spans = protocol.periods(y, "year")
    a, b = (series.truth_series(ds, "tas", spans).variability["headline"] for ds in (half, y))
    assert a / b == pytest.approx(0.25, rel=1e-4)


def test_only_a_thinned_sample_enters_the_rank_test():
    x, y = worlds("month", m=3, n=2)
    got = scored(x, y, timescale="month", late=())
    # one January in six years (every tenth year), one of 8 rows, two of 12 columns, two members
    assert got.thinned_ranks.sum() == pytest.approx(1 * 1 * 2 * 2)


@pytest.mark.parametrize("which", [0, 1])
def test_nan_is_refused(which):
    pair = list(worlds())
    pair[which] = pair[which].copy(deep=True)
    pair[which].tas[0, 3, 2, 1] = np.nan
    with pytest.raises(DataContractError, match="tas in .*: 1 of .* values are NaN or infinite"):
        scored(*pair)


def test_precipitation_in_mm_under_the_label_of_si_units_is_refused():
    x, y = worlds()
    with pytest.raises(DataContractError, match="pr in toy: a global mean of .* in another unit than the label says"):
        wet = x.assign(pr=(x.pr * DAY).assign_attrs(x.pr.attrs))
        series.ensemble_series(wet, y, "pr", protocol.periods(y, "year"), np.array([]), "toy")


def pool_reference(y, monthly, k=6):
    """A reference with a known pool and the explicit ensemble of all its residuals."""
    rng = np.random.default_rng(7)
    mean = y.isel(member=0, drop=True)
    shape = (12, k, 8, 12) if monthly else (k, 8, 12)
    dims = ("calendar_month", "sample", "lat", "lon") if monthly else ("sample", "lat", "lon")
    pool = xr.Dataset(
        {"tas": (dims, rng.normal(size=shape).astype(np.float32), {"units": "K"})},
        {"year": ("sample", 2015 + np.arange(k))},
    )
    if monthly:
        pool = pool.assign_coords(calendar_month=np.arange(1, 13))
        residuals = pool.tas.sel(calendar_month=mean.month).transpose("sample", "time", "lat", "lon").values
    else:
        residuals = pool.tas.values[:, None]
    values = mean.tas.values.astype(np.float64) + residuals
    explicit = xr.Dataset({"tas": (("member", "time", "lat", "lon"), values, {"units": "K"})}, mean.coords)
    return ReferenceEnsemble("toy", mean, pool), explicit.assign_attrs(y.attrs)


@pytest.mark.parametrize("timescale", ["month", "year"])
def test_a_pool_scores_as_the_ensemble_of_its_forced_mean_and_every_residual(timescale):
    _, y = worlds(timescale)
    reference, explicit = pool_reference(y, timescale == "month")
    full, headline = protocol.periods(y, timescale)
    for span, residuals in ((full, slice(None)), (headline, slice(2, None))):  # the headline's own, from 2017 on
        got = series.pool_series(reference, y, "tas", span, np.array([], dtype=int))
        members = explicit.isel(member=residuals)
        plain = scored(members, y, timescale=timescale, late=())
        for name in ("crps", "square", "variance"):
            ours, theirs = (getattr(s, name)[..., span.steps] for s in (got, plain))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)
        outside = np.setdiff1d(np.arange(y.sizes["time"]), span.steps)
        assert np.isnan(got.crps[:, outside]).all()
        k = members.sizes["member"]
        assert got.size is None and got.inflation == pytest.approx((k + 1) / k)


def test_the_errors_of_a_pools_mean_are_those_of_its_forced_mean():
    _, y = worlds()
    reference, _ = pool_reference(y, monthly=False)
    got = series.pool_series(reference, y, "tas", protocol.periods(y, "year")[0], np.array([], dtype=int))
    forced = reference.mean.tas.expand_dims("member").astype(np.float64)
    assert np.sqrt(got.mean_square.mean()) == pytest.approx(float(scores.rmse(forced, y.tas)), rel=1e-9)
    assert got.mean_error.mean() == pytest.approx(float(scores.bias(forced, y.tas)), rel=1e-7)


@pytest.mark.parametrize("timescale", ["month", "year"])
def test_a_draw_from_a_pool_varies_as_its_residuals_and_the_trend_free_part_of_its_mean(timescale):
    _, y = worlds(timescale)
    reference, _ = pool_reference(y, timescale == "month")
    span = protocol.periods(y, timescale)[0]
    got = series.pool_series(reference, y, "tas", span, np.array([], dtype=int)).variability["full"]
    forced = series.truth_series(y.isel(member=[0]), "tas", (span,)).variability["full"]
    residual = float(scores.area_mean(reference.pool.tas.assign_coords(lat=y.lat).astype(float).var("sample")).mean())
    assert got == pytest.approx(forced + residual, rel=1e-5)
