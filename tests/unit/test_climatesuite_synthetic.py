"""The embedded archive: its truth is true, its files look like CMIP's, and it is the same every time."""

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from climatesuite.archive import synthetic_files
from climatesuite.archive.synthetic import (
    SCENARIO_NAMES,
    SCENARIOS,
    SOURCES,
    member_fields,
    spec_of,
    true_moments,
    write_archive,
)
from climatesuite.archive.synthetic_scenarios import drivers
from climatesuite.archive.synthetic_world import (
    FAST,
    SLOW,
    WAVE_DAMPING,
    WAVE_MONTHS,
    area_mean,
    land,
    make_world,
    warming,
)
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths

SMALL = spec_of("SYNTHETIC-A", (6, 8))
YEARS = (2015, 2034)
MEMBERS = 200
# Three times the scatter of rms z between independent ensembles of 200 (0.15 for decades, whose few values are correlated in
# space; 0.07 for years). The score of 4000 members together is within 0.02 of 1 for tas: no bias hides in the width.
Z_TOLERANCE = {"month": 0.2, "year": 0.2, "decade": 0.45}


@pytest.fixture(scope="module")
def ensemble():
    return np.stack([list(member_fields(SMALL, "ssp370", m, YEARS).values()) for m in range(1, MEMBERS + 1)])


@pytest.mark.parametrize(("timescale", "span"), [("month", 1), ("year", 12), ("decade", 120)])
@pytest.mark.parametrize(("row", "name"), [(0, "tas"), (1, "pr")])
def test_the_known_moments_are_those_of_a_large_ensemble(ensemble, timescale, span, row, name):
    truth = true_moments(SMALL, "ssp370", timescale, YEARS)
    days = month_lengths(range(YEARS[0], YEARS[1] + 1), SMALL.calendar).ravel().reshape(-1, span).astype(float)
    weights = (days / days.sum(1, keepdims=True))[None, :, :, None, None]
    means = (ensemble[:, row].reshape(MEMBERS, -1, span, 6, 8) * weights).sum(2)
    z = (means.mean(0) - truth[f"{name}_mean"].values) / (truth[f"{name}_std"].values / np.sqrt(MEMBERS))
    assert np.sqrt((z**2).mean()) == pytest.approx(1, abs=Z_TOLERANCE[timescale])
    ratio = means.std(0, ddof=1) / truth[f"{name}_std"].values
    sampling_error = 1 / np.sqrt(2 * (MEMBERS - 1))
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert (
        np.sqrt(((ratio - 1) ** 2).mean()) < 1.5 * sampling_error
    )  # in single cells too; pr's tails widen it a little


@pytest.mark.parametrize("source", list(SOURCES))
def test_the_variance_of_a_decade_is_the_sum_over_its_covariance_matrix(source):
    spec, row, column = spec_of(source, (6, 8)), 3, 5
    world, months = make_world(spec), np.arange(120)
    lag = np.abs(months[:, None] - months[None, :])
    shapes = [FAST**lag, SLOW**lag, WAVE_DAMPING**lag * np.cos(2 * np.pi * lag / WAVE_MONTHS)]
    days = month_lengths(range(2025, 2035), spec.calendar).ravel()
    truth = true_moments(spec, "ssp245", "decade", (2025, 2034)).isel(lat=row, lon=column)
    rain = true_moments(spec, "ssp245", "month", (2025, 2034)).pr_mean.values[:, row, column]
    width = world.rain_width[row, column]
    deviation = np.tile(world.deviation[:, row, column], 10)
    tas_corr = sum(s * c for s, c in zip(world.share[:, row, column], shapes, strict=True))
    log_corr = sum(s * c for s, c in zip(world.wet_share[:, row, column], shapes, strict=True))
    w = days / days.sum()
    tas_cov, pr_cov = np.outer(deviation, deviation) * tas_corr, np.outer(rain, rain) * np.expm1(width**2 * log_corr)
    assert truth.tas_std.item() == pytest.approx(np.sqrt(w @ tas_cov @ w), rel=1e-10)
    assert truth.pr_std.item() == pytest.approx(np.sqrt(w @ pr_cov @ w), rel=1e-10)
    assert truth.pr_mean.item() == pytest.approx(w @ rain, rel=1e-12)


def test_moments_are_labelled_with_years_and_months():
    month = true_moments(SMALL, "ssp126", "month", (2015, 2016))
    assert month.year.values.tolist() == [2015] * 12 + [2016] * 12
    assert month.month.values.tolist() == [*range(1, 13)] * 2
    decade = true_moments(SMALL, "ssp126", "decade", (2015, 2099), decade_start=2020)
    assert decade.year.values.tolist() == [2020, 2030, 2040, 2050, 2060, 2070, 2080, 2090]
    assert "month" not in decade.coords
    assert decade.tas_mean.dims == decade.pr_std.dims == ("time", "lat", "lon")
    assert (decade.tas_mean.units, decade.pr_std.units) == ("K", "kg m-2 s-1")


def test_years_before_the_present_have_moments_too():
    past = true_moments(SMALL, "ssp245", "year", (1990, 2000))
    longer = true_moments(SMALL, "ssp245", "year", (1990, 2030)).isel(time=slice(11))
    np.testing.assert_allclose(past.tas_mean, longer.tas_mean, rtol=1e-12)
    np.testing.assert_allclose(past.pr_mean, longer.pr_mean, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ssp999", "year", (2015, 2020)), "not one that the synthetic archive knows.*choose one of them"),
        (("ssp126", "monthly", (2015, 2020)), "timescale 'monthly'"),
        (("ssp126", "year", (1800, 1820)), "years 1800-1820; expected years in 1851-2100"),
        (("ssp126", "year", (2020, 2015)), "years 2020-2015"),
        (("ssp126", "decade", (2016, 2020)), "a whole decade that begins in 2015 plus a multiple of ten"),
    ],
)
def test_moments_that_are_not_defined_are_refused(arguments, message):
    with pytest.raises(DataContractError, match=message):
        true_moments(SMALL, *arguments)


def test_the_energy_balance_is_the_solution_of_its_equations():
    forcing = np.sin(np.arange(240) / 30.0) + np.arange(240) / 60

    def tendency(t, state):
        f = forcing[min(int(t * 12), 239)]
        up, deep = state
        return [
            (f - SMALL.feedback * up - SMALL.uptake * (up - deep)) / 8.2,
            SMALL.uptake * (up - deep) / 109.0,
        ]

    exact = solve_ivp(tendency, (0, 20), [0, 0], t_eval=[20.0], max_step=1 / 48, rtol=1e-9, atol=1e-10).y[0, -1]
    assert warming(SMALL, forcing)[-1] == pytest.approx(exact, abs=2e-4)


def test_scenarios_warm_in_their_order_and_injected_aerosol_cools():
    means = {}
    for name in SCENARIO_NAMES:
        tas = true_moments(SMALL, name, "year", (2090, 2099)).tas_mean
        means[name] = float(area_mean(tas.values, SMALL).mean())
    assert means["ssp126"] < means["ssp245"] < means["ssp370"] < means["ssp585"]
    assert means["ssp585-sai"] < means["ssp585"] - 1
    assert set(means) == set(SCENARIOS)


def test_the_century_warms_by_what_the_scenarios_are_known_for():
    spec = spec_of("SYNTHETIC-A", (12, 18))
    rise = {}
    for name in ("ssp126", "ssp585"):
        tas = area_mean(true_moments(spec, name, "year", (2015, 2099)).tas_mean.values, spec)
        rise[name] = tas[-10:].mean() - tas[0]
    assert rise["ssp126"] == pytest.approx(1.3, abs=0.3)
    assert rise["ssp585"] == pytest.approx(4.5, abs=0.4)


def test_warming_is_mostly_but_not_entirely_linear_in_cumulative_emissions():
    emitted, warm = [], []
    for name in ("ssp126", "ssp245", "ssp370", "ssp585"):
        emitted.append(drivers(name, (2015, 2099))["CO2"][12 * 165 :].reshape(-1, 12).mean(1))
        warm.append(area_mean(true_moments(SMALL, name, "year", (2015, 2099)).tas_mean.values, SMALL))
    x, y = np.concatenate(emitted), np.concatenate(warm)
    assert 0.9 < np.corrcoef(x, y)[0, 1] ** 2 < 0.99


def test_variability_is_largest_in_polar_winter_and_small_in_decades():
    spec = spec_of("SYNTHETIC-A")
    month = true_moments(spec, "ssp245", "month", (2015, 2015)).tas_std.values
    decade = true_moments(spec, "ssp245", "decade", (2015, 2024)).tas_std.values[0]
    assert 0.5 < month.min() < month.max() < 4
    assert month[0, -2:].mean() > 1.5 * month[6, -2:].mean()
    assert (decade < 0.5 * month.mean(0)).all()


def test_the_seasonal_cycle_changes_with_warming():
    spec = spec_of("SYNTHETIC-A")
    now, later = (true_moments(spec, "ssp585", "month", (y, y)).tas_mean.values for y in (2015, 2099))
    rise = (later - now)[:, -3:].mean((1, 2))
    assert rise[0] > 1.5 * rise[6]


def test_land_and_the_arctic_warm_more():
    spec = spec_of("SYNTHETIC-A")
    pattern, dry = make_world(spec).pattern.mean(0), land(spec)
    assert pattern[dry > 0.9].mean() > 1.2 * pattern[(dry < 0.1)].mean()
    assert pattern[-4:].mean() > 1.5 * pattern.mean()
    assert area_mean(pattern, spec) == pytest.approx(1)


def test_precipitation_is_positive_and_skewed_and_everything_is_credible():
    fields = member_fields(spec_of("SYNTHETIC-C"), "ssp585", 1, (2015, 2099))
    anomaly = fields["pr"] / fields["pr"].mean(0) - 1
    assert fields["pr"].min() > 0
    assert (anomaly**3).mean() / (anomaly**2).mean() ** 1.5 > 0.5
    for name, field in fields.items():
        low, high = VARIABLES[name].valid_range
        assert low < field.min() and field.max() < high
        assert (
            VARIABLES[name].mean_range[0]
            < area_mean(field, spec_of("SYNTHETIC-C")).mean()
            < VARIABLES[name].mean_range[1]
        )


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp("archive")
    files = write_archive(out, sources=tuple(SOURCES), experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8))
    return out, files


def test_files_are_split_in_time_and_named_by_the_reference_syntax(archive):
    out, files = archive
    assert len(files) == 1 + 3 * 2 * 2
    names = sorted(p.name for p in files if "SYNTHETIC-B" in p.name and p.name.startswith("pr"))
    assert names == [
        "pr_Amon_SYNTHETIC-B_ssp245_r1i1p1f1_gn_201501-204412.nc",
        "pr_Amon_SYNTHETIC-B_ssp245_r1i1p1f1_gn_204501-205012.nc",
    ]
    assert (out / "CMIP6/ScenarioMIP/SYNTHETIC/SYNTHETIC-B/ssp245/r1i1p1f1/Amon/pr/gn/v20260101" / names[0]).exists()
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(("source", "days"), [("SYNTHETIC-A", 28), ("SYNTHETIC-B", 30), ("SYNTHETIC-C", 29)])
def test_each_source_keeps_its_calendar(archive, source, days):
    (path,) = [p for p in archive[1] if p.name.startswith(f"tas_Amon_{source}") and "204501" in p.name]
    with xr.open_dataset(path, decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as ds:
        bounds = ds.time_bnds.values
        february = [(b - a).days for a, b in bounds if (a.year, a.month) == (2048, 2)]
        assert february == [days]
        assert np.all(bounds[1:, 0] == bounds[:-1, 1])
        assert [(b.year, b.month, b.day) for b in (bounds[0, 0], bounds[-1, 1])] == [(2045, 1, 1), (2051, 1, 1)]
        assert np.all((ds.time.values > bounds[:, 0]) & (ds.time.values < bounds[:, 1]))
        assert (ds.tas.dtype, ds.tas.units, ds.tas.standard_name) == ("float32", "K", "air_temperature")
        assert (ds.height.item(), ds.height.units) == (2.0, "m")
        assert (ds.lat_bnds.values[0, 0], ds.lon_bnds.values[-1, 1]) == (-90, 360)
        assert ds.attrs["source_id"] == source
        assert "synthetic" in ds.attrs["license"].lower()


def test_the_same_seed_writes_the_same_numbers_and_another_does_not(archive, tmp_path):
    again = write_archive(tmp_path, experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8))
    other = write_archive(tmp_path / "b", experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8), seed=1)
    first = [p for p in archive[1] if "SYNTHETIC-A" in p.name]
    for a, b, c in zip(
        first, [p for p in again if "SYNTHETIC" in p.name], [p for p in other if "SYNTHETIC" in p.name], strict=True
    ):
        name = a.name.split("_")[0]
        x, y, z = (xr.open_dataset(p, decode_times=False)[name].values for p in (a, b, c))
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)


def test_forcings_come_in_the_layout_of_climatebench(archive):
    with xr.open_dataset(archive[0] / "forcings/inputs_ssp245.nc", decode_times=False) as ds:
        assert ds.CO2.dims == ds.CH4.dims == ("time",)
        for name in ("SO2", "BC", "AOD"):
            assert ds[name].dims == ("time", "latitude", "longitude")
        assert np.all(np.diff(ds.CO2.values) > 0)
        assert 1300 < ds.CO2.values[0] < 1700
        assert (ds.AOD == 0).all()
        assert (ds.CO2.units, ds.CH4.units, ds.SO2.units, ds.BC.units) == ("Gt", "Gt year-1", *["kg m-2 s-1"] * 2)


def test_cumulative_emissions_fall_where_emissions_turn_negative():
    co2 = drivers("ssp126", (2015, 2099))["CO2"]
    assert co2[-1] < co2.max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ["CESM2"]}, "not a synthetic model.*SYNTHETIC-A, SYNTHETIC-B, SYNTHETIC-C.*choose one of them"),
        ({"sources": []}, "no source"),
        ({"grid": (1, 8)}, "at least 2 rows"),
        ({"variables": []}, "variables none"),
        ({"experiments": ["ssp999"]}, "not one that the synthetic archive knows"),
        ({"variables": ["huss"]}, r"variables \['huss'\]"),
        ({"members": 0}, "no members"),
        ({"years": (2015, 2150)}, "years in 1851-2100"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, change, message):
    with pytest.raises(DataContractError, match=message):
        write_archive(tmp_path, **{"experiments": ["ssp245"], **change})
    assert not list(tmp_path.rglob("*.nc"))


def test_a_file_that_fails_midway_leaves_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "tas.nc"
    with pytest.raises(OSError, match="disk full"), synthetic_files.staged(path):
        raise OSError("disk full")
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]


@pytest.mark.parametrize(("progress", "shown"), [(False, False), (True, True)])
def test_progress_goes_to_stderr_and_only_when_asked(tmp_path, capsys, progress, shown):
    write_archive(tmp_path, experiments=["ssp126"], members=1, years=(2015, 2016), grid=(4, 6), progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("writing members" in err) == shown


def test_an_archive_of_other_years_is_not_mixed_in(tmp_path):
    write_archive(tmp_path, experiments=["ssp126"], members=1, years=(2015, 2016), grid=(6, 8))
    write_archive(tmp_path, experiments=["ssp585"], members=1, years=(2015, 2016), grid=(6, 8))
    with pytest.raises(
        DataContractError, match=r"an archive of other years \(pr_Amon.*ssp126.*; expected years 2015-2017"
    ):
        write_archive(tmp_path, experiments=["ssp370"], members=1, years=(2015, 2017), grid=(6, 8))
    assert not list(tmp_path.rglob("*ssp370*"))
