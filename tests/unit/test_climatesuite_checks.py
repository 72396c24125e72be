"""Scores of dask-backed, large and incomplete fields: the same numbers, in bounded blocks, with NaN refused or masked alike."""

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import checks, scores

LAT = [-60.0, -20.0, 20.0, 60.0]
SHAPE = (6, 4, 5)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def field(m, seed, name="tas", **attrs):
    values = np.random.default_rng(seed).normal(size=(m, *SHAPE)).astype(np.float32) + 1
    coords = {"member": range(m), "year": ("time", 2015 + np.arange(6)), "lat": LAT, "lon": np.arange(5) * 72.0}
    return xr.DataArray(values, coords, ("member", "time", "lat", "lon"), name, {"units": "K", **attrs})


def pair():
    return field(5, 1), field(3, 2)


def holes(x, y):
    """One member of the forecast lacks a cell, one of the truth another, another a whole step: 22 of 120 values."""
    x[1, 2, 3, 4], y[2, 0, 0, 0], y[0, 3] = np.nan, np.nan, np.nan
    return x, y


POOL = xr.DataArray(np.random.default_rng(3).normal(size=(7, 4, 5)), dims=("sample", "lat", "lon"))
SCORES = {
    "area_mean": lambda x, y, **how: scores.area_mean(x, **how),
    "rmse": scores.rmse,
    "rmse_by_step": scores.rmse_by_step,
    "bias": scores.bias,
    "mae": scores.mae,
    "fair": scores.crps_ensemble,
    "plain": lambda x, y, **how: scores.crps_ensemble(x, y, "plain", **how),
    "absolute": lambda x, y, **how: scores.crps_ensemble(x, y, "mae", **how),
    "tail": lambda x, y, **how: scores.tail_crps(x, y, 1.3, **how),
    "pool": lambda x, y, **how: scores.residual_pool_crps(x.isel(member=0, drop=True), POOL, y, **how),
    "floor": lambda x, y, **how: scores.pair_floor(y, **how),
    "skill": scores.skill,
    "spread": lambda x, y, **how: scores.spread(x, **how),
    "spread_skill": scores.spread_skill,
    "ranks": scores.rank_histogram,
    "rank_test": lambda x, y, **how: scores.rank_test(x, y, (1, 1, 1), **how),
    "nrmse": scores.nrmse,
}
ONE_FIELD = {"area_mean": 0, "spread": 0, "floor": 1}
CHUNKS = [
    {"time": -1}, {"time": 2}, {"member": 1}, {"member": 2, "time": (1, 3, 2)}, {"lat": 3, "lon": 2}
]  # fmt: skip


def is_lazy(result):
    parts = result.data_vars.values() if isinstance(result, xr.Dataset) else [result]
    return all(dask.is_dask_collection(part.data) for part in parts)


# ---- lazy is eager


@pytest.mark.parametrize("skipna", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_chunked_input_gives_lazy_results_and_the_same_numbers(name, skipna):
    score, (x, y) = SCORES[name], holes(*pair()) if skipna else pair()
    expected = score(x, y, skipna=skipna)
    assert not is_lazy(expected)
    for chunks in CHUNKS:
        both = x.chunk(chunks), y.chunk(chunks)
        mixed = [(both[0], y), (x, both[1])] if chunks == {"time": 2} and name not in ONE_FIELD else []
        for a, b in (both, *mixed):
            got = score(a, b, skipna=skipna)
            assert is_lazy(got), chunks
            xr.testing.assert_allclose(got.compute(), expected, rtol=1e-12)
            assert got.attrs.items() >= {k: v for k, v in expected.attrs.items() if k != "masked_fraction"}.items()


@pytest.mark.parametrize("name", SCORES)
def test_large_arrays_in_memory_are_cut_into_blocks_and_computed(name, monkeypatch):
    (x, y), score = pair(), SCORES[name]
    expected = score(x, y)
    for size in (8 * 5 * 20 * 2, 8 * 5 * 5):  # two steps of all members; one row of a step
        monkeypatch.setattr(checks, "BLOCK_BYTES", size)
        got = score(x, y)
        assert not is_lazy(got)
        xr.testing.assert_allclose(got, expected, rtol=1e-12)


def test_nothing_of_a_lazy_field_is_read_before_it_is_computed():
    def explode(block):
        raise RuntimeError("read")

    x, y = pair()
    trap = x.chunk(time=1).copy(
        data=dask.array.map_blocks(explode, x.chunk(time=1).data, dtype=x.dtype, meta=x.data[:0])
    )
    for name, score in SCORES.items():
        result = score(trap, trap) if name == "floor" else score(trap, y)
        with pytest.raises(RuntimeError, match="read"):
            result.compute()


# ---- blocks


@pytest.mark.parametrize("chunks", [{"time": 3}, {"member": 1, "time": 1}, {"member": 2}])
@pytest.mark.parametrize(
    ("size", "steps", "rows"), [(8 * 5 * 20 * 6, 6, 4), (8 * 5 * 20 * 2, 2, 4), (8 * 5 * 5 * 3, 1, 3), (1, 1, 1)]
)
def test_blocks_hold_all_members_of_as_many_steps_as_fit_then_of_as_many_rows(chunks, size, steps, rows, monkeypatch):
    monkeypatch.setattr(checks, "BLOCK_BYTES", size)
    x, _ = pair()
    lengths = [max(c) for c in checks.in_blocks(x.chunk(chunks), "member").chunks]
    assert lengths == [5, min(steps, chunks.get("time", 6)), rows, 5]
    assert 8 * np.prod(lengths) <= max(size, 8 * 5 * 5)


def test_chunks_that_are_small_enough_stay_as_they_are():
    x, _ = pair()
    given = x.chunk(member=2, time=3)
    assert checks.in_blocks(given).chunks == given.chunks
    assert checks.in_blocks(x).chunks is None


def test_a_file_that_is_not_yet_read_is_read_block_by_block(tmp_path, monkeypatch):
    x, y = pair()
    x.to_dataset().to_netcdf(tmp_path / "x.nc")
    monkeypatch.setattr(checks, "BLOCK_BYTES", 8 * 5 * 20)
    seen = []
    check = checks._checked_block
    monkeypatch.setattr(checks, "_checked_block", lambda v, *a, **k: (seen.append(v.shape), check(v, *a, **k))[1])
    with xr.open_dataset(tmp_path / "x.nc") as ds:
        got = scores.crps_ensemble(ds.tas.assign_coords(year=x.year), y)
    assert seen.count((5, 1, 4, 5)) == 6 and all(np.prod(shape) <= 5 * 20 for shape in seen)
    monkeypatch.undo()
    xr.testing.assert_allclose(got, scores.crps_ensemble(x, y), rtol=1e-12)


# ---- NaN and infinity


@pytest.mark.parametrize("name", SCORES)
def test_nan_in_a_lazy_field_raises_with_its_name_when_computed(name):
    x, y = pair()
    spoilt, chunks = (y, x)[ONE_FIELD.get(name, 1) == 0], {"time": 1}
    spoilt[2 if name != "pool" else 0, 4, 1, 1] = np.nan
    result = SCORES[name](x.chunk(chunks), y.chunk(chunks))
    with pytest.raises(DataContractError, match="tas: 1 of .* values are NaN or infinite; expected finite values"):
        result.compute()


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("chunks", [None, {"time": 1}])
def test_infinite_values_are_refused_even_with_skipna(name, chunks):
    x, y = holes(*pair())
    for spoilt in (x, y):
        spoilt[0, 1, 1, 1] = -np.inf
    x, y = (f if chunks is None else f.chunk(chunks) for f in (x, y))
    with pytest.raises(DataContractError, match="tas: 1 of .* values are infinite"):
        SCORES[name](x, y, skipna=True).compute()


def test_one_mask_serves_all_members_of_forecast_and_truth():
    x, y = holes(*pair())
    valid = (x.notnull().all("member") & y.notnull().all("member")).drop_vars("member", errors="ignore")
    crps = scores.crps_ensemble(x, y, skipna=True)
    np.testing.assert_array_equal(crps.notnull(), valid.broadcast_like(crps).transpose(*crps.dims))
    assert crps.attrs["masked_fraction"] == pytest.approx(22 / 120)
    assert float(scores.masked_fraction(x, y)) == pytest.approx(22 / 120)
    assert float(scores.masked_fraction(x.chunk(time=1), y)) == pytest.approx(22 / 120)
    for name in ("rmse", "bias", "mae", "skill", "spread_skill", "ranks"):
        assert SCORES[name](x, y, skipna=True).attrs["masked_fraction"] == pytest.approx(22 / 120)
    assert scores.spread(x, skipna=True).attrs["masked_fraction"] == pytest.approx(1 / 120)  # its own mask alone


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"area_mean"}))
def test_a_masked_half_of_the_globe_leaves_the_scores_of_the_other(name):
    """Three of five longitudes masked in one member: the weights of rows do not change, so the rest scores as if alone."""
    x, y = pair()
    left = [f.isel(lon=slice(2)).copy(deep=True) for f in (x, y)]
    (y if name == "floor" else x)[0, :, :, 2:] = np.nan
    if name == "pool":
        expected = scores.residual_pool_crps(left[0].isel(member=0, drop=True), POOL.isel(lon=slice(2)), left[1])
    else:
        expected = SCORES[name](*left)
    got = SCORES[name](x, y, skipna=True)
    if "lon" in got.dims:
        assert got.isel(lon=slice(2, None)).isnull().all()
        got = got.isel(lon=slice(2))
    xr.testing.assert_allclose(got, expected, rtol=1e-12)


def test_weights_are_renormalised_over_the_valid_cells_of_each_step_and_empty_steps_left_out():
    x, y = holes(*pair())
    error = (x.astype(float).mean("member", skipna=False) - y.astype(float).mean("member", skipna=False)).values
    w = np.broadcast_to(np.cos(np.radians(LAT))[:, None], (4, 5))
    steps = [np.average(e[np.isfinite(e)] ** 2, weights=w[np.isfinite(e)]) for e in error if np.isfinite(e).any()]
    assert len(steps) == 5
    assert float(scores.rmse(x, y, skipna=True)) == pytest.approx(np.sqrt(np.mean(steps)), rel=1e-12)
    assert np.isnan(scores.rmse_by_step(x, y, skipna=True)[3])


def test_a_mask_that_stands_still_scores_as_in_xskillscore():
    import xskillscore  # type: ignore[import-untyped]

    x, y = pair()
    x[:, :, 0, :3] = np.nan
    a, b = (f.astype(float).mean("member", skipna=False) for f in (x, y))
    w = np.cos(np.radians(x.lat)).broadcast_like(a.isel(time=0)).transpose("lat", "lon")
    theirs = xskillscore.rmse(a, b, dim=["lat", "lon"], weights=w, skipna=True)
    np.testing.assert_allclose(scores.rmse_by_step(x, y, skipna=True), theirs, rtol=1e-12)


def test_a_pool_with_a_gap_masks_its_cells():
    x, y = pair()
    pool = POOL.copy()
    pool[3, 1, 2] = np.nan
    mean = x.isel(member=0, drop=True)
    with pytest.raises(DataContractError, match="1 of 140 values are NaN"):
        scores.residual_pool_crps(mean, pool, y)
    got = scores.residual_pool_crps(mean, pool, y, skipna=True)
    assert got.isel(lat=1, lon=2).isnull().all() and int(got.isnull().sum()) == 18
    assert got.attrs["masked_fraction"] == pytest.approx(1 / 20)


def test_all_masked_is_nan_and_never_zero():
    x, y = pair()
    x[:] = np.nan
    assert np.isnan(scores.rmse(x, y, skipna=True)) and np.isnan(scores.bias(x, y, skipna=True))


def test_the_error_survives_the_way_back_from_another_process():
    error = DataContractError("tas in a.nc", "units 'degC'", "'K'", "convert it")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) and back.remedy == "convert it"
