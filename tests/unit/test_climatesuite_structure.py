"""Structure of members: closed forms, planted defects, and the printed numbers of real CESM2 members."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.baselines.pattern_scaling import PatternScaling
from climatesuite.errors import DataContractError
from climatesuite.evaluate import structure
from climatesuite.evaluate import structure_table as table
from climatesuite.evaluate.structure_table import structure_table
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor
from worlds.fake_ensemble import fake_ensemble, grid_coords

YEARS = (2015, 2099)
EVEN = np.full(4, 0.25)
REAL = {
    (table.LAG1_LOCAL, "tas"): (0.076, 0.01, 0.14), (table.LAG1_GLOBAL, "tas"): (0.26, 0.00, 0.53),
    (table.SD_GLOBAL, "tas"): (0.110, 0.089, 0.130), (table.SD_GLOBAL, "pr"): (0.0145, 0.012, 0.017),
    (table.DECEMBER_SEAM, "tas"): (1.20, 1.12, 1.29), (table.DECEMBER_SEAM, "pr"): (1.12, 1.06, 1.17),
    (table.DECADE_SEAM, "tas"): (0.99, 0.81, 1.18), (table.DECADE_SEAM, "pr"): (1.01, 0.68, 1.34),
    (table.NINO_SHARE, "tas"): (0.67, 0.62, 0.72), (table.SHARED, "tas, pr"): (0.126, 0.114, 0.138),
}  # fmt: skip
"""references.md "Structure": mean, lower and upper end over nine runs, of which eight are here."""
RESAMPLED = {
    (table.SD_GLOBAL, "tas"): (0.145, 0.027), (table.SD_GLOBAL, "pr"): (0.024, 0.0038),
    (table.DECEMBER_SEAM, "tas"): (1.89, 0.16), (table.DECEMBER_SEAM, "pr"): (1.53, 0.11),
    (table.NINO_SHARE, "tas"): (0.33, 0.059), (table.SHARED, "tas, pr"): (0.012, 0.0021),
    (table.LAG1_LOCAL, "tas"): (-0.02, 0.077), (table.ZONAL_POWER.format(8, 36), "tas"): (1.09, 0.046),
    (table.NEGATIVE_MONTHS, "pr"): (0.008, 0.0013),
}  # fmt: skip
"""The same of resampled residuals; three standard errors of a mean of three members (measured over twelve) plus rounding."""


def ar1(
    rng: np.random.Generator, r: float, n_time: int, shape: tuple[int, ...], window: int | None = None
) -> np.ndarray:
    """Stationary AR(1) of unit variance ``[n_time, *shape]``, begun anew every ``window`` steps."""
    noise = rng.standard_normal((n_time, *shape))
    out = noise.copy()
    for t in range(1, n_time):
        if window is None or t % window:
            out[t] = r * out[t - 1] + np.sqrt(1.0 - r**2) * noise[t]
    return out


def rows_by_name(rows):
    return {(row["name"], row["variable"]): row for row in rows}


def planted(timescale: str, tas: np.ndarray, pr: np.ndarray, years=YEARS) -> xr.Dataset:
    """A warming world with the departures given, ``[member, time, lat, lon]``: tas in K, pr in mm/day about 5 and more."""
    ds = fake_ensemble(timescale, range(len(tas)), years, tas.shape[-2:], spread=0.0)
    values = {"tas": ds.tas.values + tas, "pr": ds.pr.values + (5.0 + pr) / 86400.0}
    return ds.assign({n: ds[n].copy(data=v.astype(np.float32)) for n, v in values.items()})


def years_of(seed: int, size: int = 6, r: float = 0.6, window: int | None = None, coupling: float = 0.6) -> xr.Dataset:
    """Members whose years are AR(1) in every cell, with a common part and pr coupled to tas."""
    rng = np.random.default_rng(seed)
    tas, pr = (np.stack([ar1(rng, r, 85, (8, 12), window) for _ in range(size)]) for _ in range(2))
    tas += 0.5 * np.stack([ar1(rng, r, 85, (1, 1), window) for _ in range(size)])
    return planted("year", tas, coupling * tas + pr)


@pytest.fixture(scope="module")
def real():
    return years_of(1, size=8)


# --------------------------------------------------------------------------------------------------- closed forms


def test_lag1_of_alternation_is_minus_19_of_20():
    assert structure.lag1((-1.0) ** np.arange(20)) == pytest.approx(-0.95, abs=1e-15)
    assert structure.lag1(np.zeros(20)) == 0.0


def test_lag1_of_an_ar1_series_is_its_coefficient():
    a = ar1(np.random.default_rng(0), 0.6, 4000, (4, 25))
    assert structure.lag1(a).mean() == pytest.approx(0.6, abs=0.004)  # sd of the mean: sqrt((1 - r2) / 4000 / 100)


def test_departures_have_no_parabola_and_keep_the_variance():
    t = np.arange(85.0)
    trend = (280.0 + 0.3 * t - 0.002 * t**2)[:, None, None]
    np.testing.assert_allclose(structure.departures(np.broadcast_to(trend, (85, 4, 5)), 1), 0.0, atol=1e-11)
    noise = np.random.default_rng(1).standard_normal((85, 40, 40))
    got = structure.departures(trend + noise, 1)
    assert (got**2).mean() == pytest.approx(1.0, abs=4 * np.sqrt(2.0 / noise.size))
    assert structure.lag1(got).mean() == pytest.approx(-3.0 / 85.0, abs=0.01)


def test_departures_of_months_have_no_season_in_level_slope_or_curvature():
    t, month = np.repeat(np.arange(30.0), 12), np.tile(np.arange(12.0), 30)
    field = (270.0 + 8.0 * np.cos(month) + 0.1 * month * t + 0.01 * np.sin(month) * t**2)[:, None, None]
    np.testing.assert_allclose(structure.departures(field, 12), 0.0, atol=1e-11)


def test_departures_of_half_a_year_are_refused():
    with pytest.raises(DataContractError, match="30 steps, 12 a year; expected whole years"):
        structure.departures(np.zeros((30, 2, 2)), 12)


@pytest.mark.parametrize(("r", "window", "expected"), [(0.6, None, 1.0), (0.6, 10, 2.5), (0.0, 10, 1.0)])
def test_decade_seams_are_1_in_one_process_and_1_over_1_minus_r_between_independent_decades(r, window, expected):
    a = ar1(np.random.default_rng(2), r, 2000, (4, 50), window)
    seams = structure.decade_seams(2015 + np.arange(2000), 2015)
    assert structure.step_ratio(a, seams, EVEN) == pytest.approx(expected, rel=0.03)


def test_decade_seams_lie_before_the_decades_of_their_start():
    year = np.arange(2015, 2100)
    assert (year[1:][structure.decade_seams(year, 2015)]).tolist() == list(range(2025, 2100, 10))
    assert (year[1:][structure.decade_seams(year, 2020)]).tolist() == list(range(2020, 2100, 10))


def test_december_seams_of_years_drawn_by_themselves_are_one_plus_the_variance_ratio():
    rng = np.random.default_rng(3)
    a = 2.0 * np.repeat(rng.standard_normal((400, 4, 50)), 12, axis=0) + rng.standard_normal((4800, 4, 50))
    seams = structure.december_seams(np.tile(np.arange(1, 13), 400))
    assert seams.sum() == 399
    assert structure.step_ratio(a, seams, EVEN) == pytest.approx(1.0 + 2.0**2, rel=0.03)


def test_a_record_without_seams_is_refused():
    with pytest.raises(DataContractError, match="0 of 4 steps at seams"):
        structure.step_ratio(np.zeros((5, 4, 2)), np.zeros(4, bool), EVEN)


def test_a_cosine_has_its_power_in_its_band():
    lon = np.arange(144) * 2 * np.pi / 144
    field = np.broadcast_to(2.0 + 3.0 * np.cos(4 * lon + 0.7) + 1.5 * (-1.0) ** np.arange(144), (3, 4, 144))
    got = structure.band_power(field, EVEN)
    assert got == pytest.approx({(1, 3): 0.0, (4, 7): 4.5, (8, 72): 2.25}, abs=1e-12)


def test_bands_end_where_a_coarse_grid_ends():
    assert structure.wavenumber_bands(12) == ((1, 3), (4, 6))


def test_shared_variance_is_the_squared_correlation():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 3000, 4, 10))
    assert structure.shared_variance(a, -3.0 * a, EVEN) == pytest.approx(1.0, abs=1e-12)
    assert structure.shared_variance(a, a + 2.0 * b, EVEN) == pytest.approx(1.0 / 5.0, abs=0.01)
    assert structure.shared_variance(a, np.zeros_like(a), EVEN) == 0.0


@pytest.mark.parametrize("branch", [0.0, 180.0])
def test_nino34_of_its_own_box_is_one_on_either_branch_of_longitude(branch):
    ds = xr.Dataset(coords=grid_coords((72, 144)))
    lon = (ds.lon.values + branch) % 360.0 - branch
    order = np.argsort(lon)
    ds = ds.drop_vars(["lat_bnds", "lon_bnds"]).assign_coords(lon=lon[order])
    inside = (np.abs(ds.lat.values)[:, None] < 5.0) & ((ds.lon.values % 360 > 190) & (ds.lon.values % 360 < 240))
    box = structure.nino34_weights(ds)
    assert (box * inside).sum() == pytest.approx(1.0, abs=1e-12) and (box > 0).sum() == 4 * 20


def test_nino34_on_one_row_is_left_out():
    assert structure.nino34_weights(xr.Dataset(coords=grid_coords((9, 12)))) is None


def test_a_sine_of_four_years_lies_within_2_to_7_years_and_one_of_ten_does_not():
    t = np.arange(960) / 12.0
    for period, share in ((4.0, 1.0), (10.0, 0.0)):
        assert structure.share_of_variance(np.sin(2 * np.pi * t / period), 12) == pytest.approx(share, abs=1e-12)
    noise = np.random.default_rng(5).standard_normal((200, 960))
    shares = [structure.share_of_variance(series, 12) for series in noise]
    assert np.mean(shares) == pytest.approx(29.0 / 480.0, rel=0.03)  # 80 years: harmonics 12 to 40 of 480


def test_season_ratio_and_negative_share():
    month = np.tile(np.arange(1, 13), 40)
    series = np.where(np.isin(month, (12, 1, 2)), 3.0, 2.0) * (-1.0) ** np.repeat(np.arange(40), 12)
    assert structure.season_ratio(series, month) == pytest.approx(1.5, abs=1e-12)
    assert np.isnan(structure.season_ratio(np.zeros(480), month))
    assert structure.negative_share(np.array([-1.0, 0.0, 2.0, 3.0])) == 0.25


def test_months_1_to_12_have_the_yearly_mean_of_the_calendar():
    months = np.arange(1.0, 13.0)[:, None, None] * np.ones((1, 4, 2))
    days = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31.0])
    np.testing.assert_allclose(structure.yearly_means(months, days), 2382 / 365, rtol=1e-14)
    assert structure.mean_square_gap(months, np.full((1, 4, 2), 2382 / 365 + 0.5), days, EVEN) == pytest.approx(0.25)


# ------------------------------------------------------------------------------------------------------ the table


def test_members_of_the_same_process_lie_inside(real):
    rows = structure_table(years_of(7), real)
    assert {row["name"] for row in rows if not row["inside"]} == set()
    assert {(row["M"], row["N"]) for row in rows} == {(6, 8)}
    assert rows_by_name(rows)[table.SD_GLOBAL, "tas"]["units"] == "K"


@pytest.mark.parametrize(
    ("defect", "where"),
    [
        ({"window": 10}, (table.DECADE_SEAM, "tas")), ({"window": 10}, (table.DECADE_SEAM, "pr")),
        ({"r": 0.0}, (table.LAG1_LOCAL, "tas")), ({"r": 0.0}, (table.LAG1_GLOBAL, "tas")),
        ({"coupling": 0.0}, (table.SHARED, "tas, pr")), ({"coupling": 0.0}, (table.SD_LOCAL, "pr")),
    ],
)  # fmt: skip
def test_planted_defects_of_years_are_found(real, defect, where):
    assert rows_by_name(structure_table(years_of(8, **defect), real))[where]["inside"] is False


def test_blurred_fields_and_negative_rain_are_found(real):
    ds = years_of(9)
    smooth = ds.tas.rolling(lon=3, center=True).mean().fillna(ds.tas)
    rain = ds.pr.copy(data=np.where(np.arange(85)[:, None, None] == 3, -ds.pr, ds.pr))
    got = rows_by_name(structure_table(ds.assign(tas=smooth, pr=rain), real))
    assert got[table.ZONAL_POWER.format(4, 6), "tas"]["value"] < 0.5
    assert got[table.ZONAL_POWER.format(4, 6), "tas"]["inside"] is False
    negative = got[table.NEGATIVE_YEARS, "pr"]
    assert negative["value"] == pytest.approx(1.0 / 85.0) and negative["inside"] is False


def months_of(seed: int, size: int = 4, whole_years: bool = False) -> xr.Dataset:
    """Monthly AR(1) members, or years of months drawn by themselves."""
    rng = np.random.default_rng(seed)
    tas, pr = (
        np.stack([ar1(rng, 0.8, 12 * 40, (18, 24), 12 if whole_years else None) for _ in range(size)]) for _ in range(2)
    )
    return planted("month", tas, pr, (2015, 2054))


def test_years_of_months_drawn_by_themselves_are_found_at_their_december():
    rows = rows_by_name(structure_table(months_of(2, whole_years=True), months_of(1)))
    assert rows[table.DECEMBER_SEAM, "tas"]["value"] == pytest.approx(5.0, rel=0.05)  # 1 / (1 - 0.8)
    assert not rows[table.DECEMBER_SEAM, "tas"]["inside"] and not rows[table.LAG1_LOCAL, "tas"]["inside"]
    same = rows_by_name(structure_table(months_of(3), months_of(1)))
    for name in (table.DECEMBER_SEAM, table.NINO_SD, table.NINO_SHARE, table.NINO_SEASON, table.LAG1_LOCAL):
        assert same[name, "tas"]["real_lo"] < same[name, "tas"]["value"] < same[name, "tas"]["real_hi"], name


def test_sampled_years_are_held_against_the_means_of_sampled_months():
    months = months_of(4, size=3)
    days = months.days.values.reshape(-1, 12)
    means = {
        n: (months[n].values.reshape(3, 40, 12, 18, 24) * (days / 365.0)[:, :, None, None]).sum(2)
        for n in ("tas", "pr")
    }
    years = fake_ensemble("year", range(3), (2015, 2054), (18, 24))
    exact = years.assign({n: years[n].copy(data=v.astype(np.float32)) for n, v in means.items()})
    for shift, inside in ((0.0, True), (1.0, False)):
        ensemble = {"month": months, "year": exact.assign(tas=(exact.tas + shift).assign_attrs(exact.tas.attrs))}
        rows = rows_by_name(structure_table(ensemble, months_of(1)))
        row = rows[table.COHERENCE, "tas"]
        assert row["value"] == pytest.approx(shift / rows[table.SD_LOCAL, "tas"]["real_mean"], abs=1e-3)
        assert row["inside"] is inside and row["real_hi"] == table.COHERENCE_LIMIT


def test_a_forced_response_given_takes_the_place_of_the_trend(real):
    noise, mean = years_of(5), fake_ensemble("year", (0,), YEARS, spread=0.0).isel(member=0)
    mean = mean.assign(pr=(mean.pr + 5.0 / 86400.0).assign_attrs(mean.pr.attrs))
    row = rows_by_name(structure_table(noise, real, forced=lambda ds: mean))[table.LAG1_LOCAL, "tas"]
    assert row["value"] == pytest.approx(0.6, abs=0.03) and row["inside"]
    with pytest.raises(DataContractError, match="forced response of departures: other time labels"):
        structure_table(noise, real, forced=lambda ds: mean.isel(time=slice(0, 40)))


def test_both_sides_are_cut_to_the_years_they_share(real):
    ours = years_of(6)
    short = ours.isel(time=slice(0, 30))
    assert structure_table(short, real) == structure_table(short, real.isel(time=slice(0, 30)))


def test_a_shorter_record_of_months_leaves_the_years_whole():
    months, years = fake_ensemble("month", years=(2015, 2026), grid=(18, 24)), fake_ensemble(years=YEARS, grid=(18, 24))
    runs = fake_ensemble("month", years=YEARS, grid=(18, 24), seed=1)
    both = structure_table({"month": months, "year": years}, runs)
    alone = {**rows_by_name(structure_table(months, runs)), **rows_by_name(structure_table(years, runs))}
    assert [row for row in both if row["name"] != table.COHERENCE] == [
        alone[row["name"], row["variable"]] for row in both[:-2]
    ]
    few = structure_table({"month": months.isel(time=slice(0, 60)), "year": years}, runs)
    assert {r["name"] for r in both} - {r["name"] for r in few} == {table.DECEMBER_SEAM, table.NEGATIVE_MONTHS}


def test_one_real_member_gives_no_interval(real):
    row = structure_table(real, real.isel(member=slice(0, 1)))[0]
    assert row["real_mean"] is not None and row["real_lo"] is None and row["inside"] is None


def test_what_cannot_be_compared_is_refused(real):
    with pytest.raises(DataContractError, match="no real members"):
        structure_table(real, [])
    with pytest.raises(DataContractError, match="another grid"):
        structure_table(fake_ensemble(grid=(4, 6), years=YEARS), real)
    with pytest.raises(DataContractError, match="missing, repeated or unsorted"):
        structure_table(real.isel(time=[0, 2, 3]), real)
    with pytest.raises(DataContractError, match="5 whole years shared; expected 10 or more"):
        structure_table(real.isel(time=slice(0, 5)), real)
    with pytest.raises(DataContractError, match=r"timescales \['decade'\]; expected months or years"):
        structure_table(fake_ensemble("decade", years=YEARS), real)
    with pytest.raises(DataContractError, match=r"variables \['tas'\]"):
        structure_table(real, real[["tas"]])


def test_months_and_years_meet_in_the_members_both_have():
    months, years = (fake_ensemble(t, labels, YEARS) for t, labels in (("month", (0, 1)), ("year", (1, 2, 3))))
    real = fake_ensemble("month", (0, 1, 2), YEARS, seed=1)
    rows = rows_by_name(structure_table({"month": months, "year": years}, real))
    sizes = {name: rows[name, "tas"]["M"] for name in (table.LAG1_LOCAL, table.DECEMBER_SEAM, table.COHERENCE)}
    assert list(sizes.values()) == [3, 2, 1]
    apart = structure_table({"month": months, "year": years.sel(member=[2, 3])}, real)
    assert table.COHERENCE not in {row["name"] for row in apart}


def test_memory_does_not_grow_with_the_members(real):
    one = years_of(1, size=1)
    peaks = []
    for size in (3, 30):
        fields = {
            n: (one[n].dims, np.broadcast_to(one[n].values, (size, *one[n].shape[1:])), one[n].attrs) for n in one
        }
        many = one.drop_vars(["tas", "pr", "member"]).assign(fields).assign_coords(member=np.arange(size))
        tracemalloc.start()
        structure_table(many, real)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.fixture(scope="module")
def cesm2(climate_data):
    return {e: ds for (_, e), ds in open_runs([climate_data / "CMIP6" / "CESM2"]).items()}


def resampled_scaling(runs, climate_data, test: str, size: int) -> xr.Dataset:
    """CO2 scaling with whole years of training residuals, drawn for each variable by itself."""
    drivers = {e: annual_predictor(open_forcings(climate_data / "forcings", ["CO2"], experiment_id=e)) for e in runs}
    training = {e: ds for e, ds in runs.items() if e != test}
    ready = PatternScaling.fit(training, drivers, drivers[test], timescales=["month"]).ensemble("month", runs[test])
    rng, month = np.random.default_rng(0), runs[test].month.values - 1
    fields = {}
    for name in ("tas", "pr"):
        year = np.repeat(rng.integers(0, ready.pool.sizes["sample"], (size, month.size // 12)), 12, axis=1)
        values = np.stack([ready.mean[name].values + ready.pool[name].values[month, drawn] for drawn in year])
        fields[name] = (runs[test][name].dims, values.astype(np.float32), runs[test][name].attrs)
    frame = runs[test].drop_vars(["tas", "pr", "member"])
    return frame.assign(fields).assign_coords(member=np.arange(size))


@pytest.fixture(scope="module")
def published(cesm2, climate_data):
    """The structure table of three members of resampled CO2 scaling on ssp370 beside the eight real members."""
    return rows_by_name(structure_table(resampled_scaling(cesm2, climate_data, "ssp370", 3), cesm2.values()))


def test_real_members_of_cesm2_have_the_published_structure(published):
    for key, (mean, low, high) in REAL.items():
        got, width = published[key], high - low
        assert got["N"] == 8 and got["real_mean"] == pytest.approx(mean, abs=0.05 * width), key
        assert [got["real_lo"], got["real_hi"]] == pytest.approx([low, high], abs=0.1 * width), key
    assert published[table.NEGATIVE_MONTHS, "pr"]["real_hi"] == 0.0


def test_resampled_scaling_of_cesm2_has_the_published_defects(published):
    for key, (value, tolerance) in RESAMPLED.items():
        assert published[key]["value"] == pytest.approx(value, abs=tolerance), key
        assert published[key]["inside"] is False, key
