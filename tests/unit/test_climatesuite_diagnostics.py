"""Spectra, plumes, ranks and maps: known answers on small spheres."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, scores
from climatesuite.evaluate.known_truth import against_moments
from worlds.fake_ensemble import fake_ensemble


def noise(ds: xr.Dataset, seed: int, sd: float = 1.0, name: str = "tas") -> xr.Dataset:
    """The dataset with one field replaced by white noise about 288 K."""
    values = 288.0 + sd * np.random.default_rng(seed).standard_normal(ds[name].shape)
    return ds[[name]].assign({name: ds[name].copy(data=values.astype(np.float32))})


def test_global_mean_is_area_weighted_and_in_score_units():
    ds = fake_ensemble("month", years=(2015, 2016))
    got = diagnostics.global_mean(ds, "pr")
    assert got.dims == ("member", "time") and got.attrs["units"] == "mm day-1" and "month" in got.coords
    np.testing.assert_allclose(got, scores.area_mean(ds.pr.astype(np.float64) * 86400.0), rtol=1e-12)


def test_lazy_and_loaded_ensembles_give_the_same_global_mean():
    ds = fake_ensemble()
    lazy = ds.chunk({"member": 1})
    np.testing.assert_array_equal(diagnostics.global_mean(lazy, "tas"), diagnostics.global_mean(ds, "tas"))


def test_anomalies_from_the_base_have_no_season_and_keep_a_bias():
    truth, biased = (fake_ensemble("month", years=(2015, 2024), warming=0.0, spread=0.0, bias=b) for b in (0.0, 0.5))
    base = diagnostics.base_level(diagnostics.global_mean(truth, "tas"), (2015, 2024))
    assert base.dims == ("month",)
    got = diagnostics.anomaly(diagnostics.global_mean(biased, "tas"), base)
    np.testing.assert_allclose(got, 0.5, atol=1e-4)


def test_base_period_outside_the_series_is_refused():
    series = diagnostics.global_mean(fake_ensemble(), "tas")
    with pytest.raises(DataContractError, match="years 2015 to 2034; expected 1850 to 1900"):
        diagnostics.base_level(series, (1850, 1900))


def test_plume_of_five_members_is_their_order_statistics():
    ds = fake_ensemble(members=range(5))
    series = diagnostics.global_mean(ds, "tas")
    got = diagnostics.plume(series, (0.0, 0.25, 0.5, 0.75, 1.0))
    np.testing.assert_allclose(got, np.sort(series.values, axis=0), rtol=1e-15)
    assert list(got.year.values) == list(ds.year.values)


@pytest.mark.parametrize("width", [12, 13])
def test_zonal_power_sums_to_the_mean_square(width):
    z = np.random.default_rng(0).standard_normal((3, 5, width))
    got = diagnostics.zonal_power(z)
    assert got.shape == (5, width // 2 + 1)
    np.testing.assert_allclose(got.sum(axis=1), (z**2).mean(axis=(0, 2)), rtol=1e-13)


def test_one_wave_has_its_power_at_its_wavenumber_alone():
    wave = 3.0 * np.cos(2 * np.pi * 4 * np.arange(24) / 24)
    got = diagnostics.zonal_power(wave[None])[0]
    np.testing.assert_allclose(got, np.where(np.arange(13) == 4, 4.5, 0.0), atol=1e-12)


def test_ensemble_spectrum_of_white_noise_is_flat_and_unbiased_in_small_ensembles():
    ds = noise(fake_ensemble(members=(0, 1), years=(2015, 2114)), seed=0, sd=2.0)
    got = diagnostics.band_mean(diagnostics.zonal_spectrum(ds, "tas"))
    assert float(got.sum()) == pytest.approx(4.0, rel=0.05)
    np.testing.assert_allclose(got.values[1:-1], 2 * 4.0 / 12, rtol=0.1)


def test_trend_spectrum_removes_warming_and_season_and_needs_no_second_member():
    ds = fake_ensemble("month", members=(0,), years=(2015, 2034), spread=0.0, warming=0.1)
    assert float(diagnostics.zonal_spectrum(ds, "tas", "trend").max()) < 1e-8  # float32 rounding of 288 K
    white = noise(fake_ensemble(members=(0,), years=(2015, 2114)), seed=1, sd=2.0)
    assert float(diagnostics.band_mean(diagnostics.zonal_spectrum(white, "tas", "trend")).sum()) == pytest.approx(
        4.0, rel=0.06
    )


def test_spectra_that_cannot_be_computed_are_refused():
    with pytest.raises(DataContractError, match="1 member; expected 2 or more"):
        diagnostics.zonal_spectrum(fake_ensemble(members=(0,)), "tas")
    with pytest.raises(DataContractError, match="fewer than 3 years"):
        diagnostics.zonal_spectrum(fake_ensemble(years=(2015, 2016)), "tas", "trend")
    with pytest.raises(ValueError, match="expected ensemble or trend"):
        diagnostics.zonal_spectrum(fake_ensemble(), "tas", "raw")
    with pytest.raises(DataContractError, match="no row between 89 and 89.5 degrees"):
        diagnostics.band_mean(diagnostics.zonal_spectrum(fake_ensemble(), "tas"), (89.0, 89.5))


def test_bands_of_latitude_split_the_globe():
    spectrum = diagnostics.zonal_spectrum(fake_ensemble(), "pr")
    rows = [
        (np.abs(spectrum.lat.values) >= low) & (np.abs(spectrum.lat.values) < high)
        for low, high in diagnostics.BANDS.values()
    ]
    assert (np.sum(rows, axis=0) == 1).all()
    weights = [np.cos(np.deg2rad(spectrum.lat.values[r])).sum() for r in rows]
    parts = np.array([diagnostics.band_mean(spectrum, band).values for band in diagnostics.BANDS.values()])
    np.testing.assert_allclose(np.average(parts, axis=0, weights=weights), diagnostics.band_mean(spectrum), rtol=1e-12)


def test_half_the_power_is_three_decibels():
    truth = diagnostics.band_mean(diagnostics.zonal_spectrum(fake_ensemble(), "tas"))
    assert diagnostics.log_spectral_distance(truth / 2, truth) == pytest.approx(3.0103, abs=1e-4)


def test_ranks_of_a_calibrated_ensemble_are_flat():
    ds = fake_ensemble("year", members=range(7), years=(2015, 2064), grid=(16, 24))
    whole = noise(ds, seed=3)
    got = diagnostics.ranks(whole.isel(member=slice(5)), whole.isel(member=slice(5, 7)), "tas")
    assert got.shares.size == 6 and float(got.shares.sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(got.shares, 1 / 6, atol=0.01)
    assert got.reliability_index < 0.03 and got.chi2_ratio is not None and got.chi2_ratio < 3.0
    assert got.thinned == 2 * 5 * 2 * 3


def test_ranks_of_a_narrow_ensemble_are_a_u_and_blocks_do_not_change_them(monkeypatch):
    ds = fake_ensemble("month", members=range(4), years=(2015, 2034))
    narrow, truth = noise(ds, seed=4, sd=0.3), noise(ds, seed=5).isel(member=slice(2))
    got = diagnostics.ranks(narrow, truth, "tas")
    assert got.shares.values[[0, -1]].min() > 2 * got.shares.values[1:-1].max()
    np.testing.assert_allclose(got.shares, scores.rank_histogram(narrow.tas, truth.tas), rtol=1e-12)
    monkeypatch.setattr(diagnostics, "_BLOCK_VALUES", 6 * 96 * 7)
    np.testing.assert_allclose(diagnostics.ranks(narrow, truth, "tas").shares, got.shares, rtol=1e-12)


def test_change_maps_find_a_known_bias_and_a_known_warming():
    truth = fake_ensemble(members=("r1i1p1f1", "r2i1p1f1"), years=(2015, 2054), spread=0.0, warming=0.05)
    warm = fake_ensemble(members=range(4), years=(2015, 2054), spread=0.0, warming=0.05, bias=0.7)
    got = diagnostics.change_maps(warm, truth, "tas")
    assert got.attrs == {"first": (2015, 2024), "last": (2045, 2054)} and "lat_bnds" in got.coords
    np.testing.assert_allclose(got.error, 0.7, atol=1e-4)
    np.testing.assert_allclose(got.truth_change, got.change, atol=1e-4)
    expected = 30 * 0.05 * (1 + 0.6 * np.sin(np.deg2rad(truth.lat)))
    np.testing.assert_allclose(got.truth_change.mean("lon"), expected, atol=1e-3)


def test_error_beyond_its_noise_is_rare_in_a_perfect_ensemble():
    ds = noise(fake_ensemble(members=range(22), years=(2015, 2054), grid=(24, 36)), seed=6)
    got = diagnostics.change_maps(ds.isel(member=slice(20)), ds.isel(member=slice(20, 22)), "tas")
    assert 0.03 < diagnostics.area_share(abs(got.error) > 2 * got.error_noise) < 0.09


def test_seasons_are_taken_from_months_and_decades_named_by_their_last_year():
    month = fake_ensemble("month", years=(2015, 2034), spread=0.0, warming=0.0)
    got = diagnostics.period_means(month, "tas", (2025, 2034), (6, 7, 8))
    july = month.tas.isel(time=(month.month == 7).values).mean("time")
    assert abs(float((july - got).mean())) < 0.1 and float(abs(july - got).max()) < 1.0
    decade = fake_ensemble("decade", years=(2015, 2094))
    assert diagnostics.change_maps(decade, decade, "tas").attrs == {"first": (2015, 2024), "last": (2085, 2094)}
    with pytest.raises(DataContractError, match="years 2015 to 2034; expected 2050 to 2059, months"):
        diagnostics.period_means(month, "tas", (2050, 2059), (1,))


def test_spread_map_is_the_root_of_the_mean_variance():
    ds = fake_ensemble(members=range(6))
    expected = np.sqrt((ds.pr.astype(np.float64) * 86400).var("member", ddof=1).mean("time"))
    np.testing.assert_allclose(diagnostics.spread_map(ds, "pr"), expected, rtol=1e-10)
    with pytest.raises(DataContractError, match="1 member; expected 2 or more"):
        diagnostics.spread_map(ds.isel(member=[0]), "pr")


def test_thinning_keeps_whole_years_within_the_budget():
    ds = fake_ensemble("month", years=(2015, 2034))
    stride = diagnostics.year_stride(ds, "tas", ds.tas.size // 3)
    thinned = diagnostics.every_year(ds, stride)
    assert (
        stride == 4 and list(np.unique(thinned.year)) == [2015, 2019, 2023, 2027, 2031] and thinned.sizes["time"] == 60
    )
    assert diagnostics.year_stride(fake_ensemble("decade", years=(2015, 2094)), "tas", 1) == 1


def test_fields_that_break_the_contract_are_refused():
    ds = fake_ensemble()
    with pytest.raises(DataContractError, match="diagnostics of huss: no such variable; expected tas, pr"):
        diagnostics.global_mean(ds, "huss")
    with pytest.raises(DataContractError, match="units 'mm day-1'"):
        diagnostics.global_mean(ds.assign(pr=ds.pr.assign_attrs(units="mm day-1")), "pr")
    with pytest.raises(DataContractError, match=r"expected \(member, time, lat, lon\)"):
        diagnostics.global_mean(ds.isel(member=0), "tas")
    with pytest.raises(DataContractError, match="NaN"):
        diagnostics.global_mean(ds.assign(tas=ds.tas.where(ds.lat > 0).assign_attrs(units="K")), "tas")


def test_ensemble_drawn_from_the_known_truth_matches_its_moments():
    ds = noise(fake_ensemble(members=range(8), years=(2015, 2044)), seed=8, sd=2.0)
    one = ds.tas.isel(member=0, drop=True)
    moments = xr.Dataset({"tas_mean": one * 0 + 288.0, "tas_std": one * 0 + 2.0})
    got = against_moments(ds, moments, "tas")
    assert got["rmse"] == pytest.approx(got["rmse_expected"], rel=0.05) and got["rmse_expected"] == pytest.approx(
        2 / 8**0.5
    )
    assert got["spread_ratio"] == pytest.approx(1.0, abs=0.03) and abs(got["bias"]) < 0.05
    with pytest.raises(DataContractError, match="coordinate lon"):
        against_moments(ds, moments.isel(lon=slice(6)), "tas")
    with pytest.raises(DataContractError, match="no pr_mean, pr_std"):
        against_moments(ds, moments, "pr")
