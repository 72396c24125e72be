"""ClimateBench: its scores in their order of averaging, its pattern scaling, and published numbers."""

import importlib.util
from functools import partial
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate.climatebench import (
    TRAINING,
    GlobalLine,
    LinearPatternScaling,
    open_pair,
    open_prediction,
    score,
)
from worlds.climatebench import LAT, LON, official_inputs, official_outputs, write_files

LATE = np.arange(2080, 2101)
SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "climatebench_cesm2.py"


@pytest.fixture(scope="module")
def experiment():
    """The script that makes the published rows."""
    spec = importlib.util.spec_from_file_location("climatebench_cesm2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(tmp_path):
    """Writes the files of an experiment and returns their folder."""
    return partial(write_files, tmp_path)


def field(by_member, years=LATE, lat=LAT, units="K", name="tas") -> xr.Dataset:
    """Anomalies (member, time, lat, lon) from anything that broadcasts to it."""
    values = np.array(np.broadcast_to(by_member, (np.shape(by_member)[0], len(years), len(lat), 4)), dtype=np.float64)
    coords = {"member": np.arange(1, len(values) + 1), "time": years, "lat": lat, "lon": LON}
    return xr.Dataset({name: (("member", "time", "lat", "lon"), values, {"units": units})}, coords)


def steady(*members):
    """Members of one value everywhere."""
    return field(np.reshape(members, (-1, 1, 1, 1)))


def predicted(values, **kwargs):
    """One prediction without a member dim."""
    return field(np.asarray(values)[None], **kwargs).isel(member=0, drop=True)


# ---- scores


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([1, 0, 1], (0.3535533906, 0.25, 1.6035533906)), ([1, -1, 1], (0.5, 0.0, 0.5)), ([0, 0, 0], (0.0, 0.0, 0.0))],
)
def test_errors_by_row_worked_out_by_hand(rows, expected):
    prediction = predicted(2.0 + np.reshape(rows, (1, 3, 1)))
    row = score(prediction, steady(1.0, 2.0, 3.0))[0]
    assert (row["nrmse_s"], row["nrmse_g"], row["nrmse_t"]) == pytest.approx(expected, abs=1e-9)
    assert (row["D"], row["rmse_s"]) == pytest.approx((2.0, 2 * expected[0]), abs=1e-9)
    assert (row["M"], row["N"], row["window"], row["weights"]) == (1, 3, [2080, 2100], "coslat")


def test_errors_that_alternate_in_time_count_in_the_global_score_only():
    wave = np.where(np.arange(20) % 2, -1.0, 1.0).reshape(-1, 1, 1)
    row = score(predicted(2.0 + wave, years=LATE[:20]), field(np.reshape([1.0, 2, 3], (3, 1, 1, 1))), (2080, 2099))[0]
    assert (row["nrmse_s"], row["nrmse_g"], row["nrmse_t"]) == pytest.approx((0.0, 0.5, 2.5), abs=1e-12)


def test_members_are_averaged_before_anything_is_squared():
    row = score(steady(0.0, 6.0), steady(1.0, 5.0))[0]
    assert row["nrmse_t"] == 0 and row["rmse"] == 0 and row["M"] == 2 and row["N"] == 2


@pytest.mark.parametrize("name", ["member", "realization", "sample", "ensemble"])
def test_the_ensemble_dimension_has_many_names(name):
    prediction = steady(1.0, 4.0)
    prediction = prediction.rename(member=name) if name != "member" else prediction
    assert score(prediction, steady(2.0))[0]["nrmse_s"] == pytest.approx(0.25)


def test_a_window_is_chosen_by_label_and_stated():
    years = np.arange(2015, 2101)
    warming = np.where(years >= 2080, 2.0, 0.0).reshape(1, -1, 1, 1)
    assert score(field(warming + 1.0, years), field(warming, years))[0]["nrmse_s"] == pytest.approx(0.5)
    early = score(field(warming + 1.0, years), field(warming + 4.0, years), window=(2015, 2020))[0]
    assert early["nrmse_s"] == pytest.approx(0.75) and early["window"] == [2015, 2020]


def test_the_poles_of_the_official_grid_have_no_weight():
    lat = np.linspace(-90, 90, 96)
    spike = np.zeros((1, 1, 96, 1))
    spike[:, :, [0, -1]] = 100.0
    assert score(field(2.0 + spike, lat=lat), field([[[[2.0]]]], lat=lat))[0]["nrmse_s"] < 1e-6


def test_the_noise_floor_of_three_members_a_kelvin_apart():
    row = score(steady(2.0), steady(1.0, 2.0, 3.0))[0]
    assert (row["floor_s"], row["floor_g"]) == pytest.approx((np.sqrt(1 / 3) / 2,) * 2)
    assert row["nrmse_s_corrected"] == 0 and row["nrmse_t_corrected"] == 0
    off = score(steady(3.0), steady(1.0, 2.0, 3.0))[0]
    assert off["nrmse_s_corrected"] == pytest.approx(np.sqrt(0.25 - 1 / 12))
    assert off["nrmse_t_corrected"] == pytest.approx(6 * np.sqrt(0.25 - 1 / 12))


def test_the_true_forced_response_scores_the_noise_floor():
    rng, lat = np.random.default_rng(1), np.linspace(-85, 85, 18)
    seen = []
    for _ in range(20):
        row = score(field([[[[2.0]]]], lat=lat), field(2.0 + rng.normal(0, 1, (3, 21, 18, 4)), lat=lat))[0]
        seen.append([row["nrmse_s"] ** 2, row["floor_s"] ** 2, row["nrmse_g"] ** 2, row["floor_g"] ** 2])
    s, floor_s, g, floor_g = np.mean(seen, axis=0)
    assert s == pytest.approx(floor_s, rel=0.2) and g == pytest.approx(floor_g, rel=0.2)


def test_one_member_has_no_floor():
    row = score(steady(1.0), steady(2.0))[0]
    assert row["N"] == 1 and row["floor_s"] is None and row["nrmse_t_corrected"] is None
    assert score(steady(1.0), steady(2.0).isel(member=0, drop=True))[0]["N"] is None


def test_a_stated_unit_is_converted_before_scoring():
    rng = np.random.default_rng(2)
    x, y = (field(1.0 + rng.normal(size=(m, 21, 3, 4)), units="mm day-1", name="pr") for m in (1, 3))
    in_si = (x.pr / 86400).assign_attrs(units="kg m-2 s-1").to_dataset()
    celsius = steady(1.0).assign(tas=lambda ds: ds.tas.assign_attrs(units="degC"))
    assert score(celsius, steady(2.0))[0]["nrmse_s"] == 0.5, "a difference of temperatures has no offset"
    ours, theirs = score(in_si, y)[0], score(x, y)[0]
    assert ours["units"] == "mm day-1" and all(
        ours[k] == pytest.approx(theirs[k]) for k in ("D", "nrmse_t", "rmse", "floor_s")
    )


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (field([[[[2.0]]]], LATE[1:]), "years 2081-2100; expected all of 2080-2100"),
        (field([[[[2.0]]]], lat=[-50.0, 0.0, 60.0]), "equal lat"),
        (field([[[[2.0]]]], lat=[-60.0, -20, 20, 60.0]), "equal lat"),
        (steady(2.0).rename(tas="huss"), "variables huss; expected tas"),
        (steady(2.0).assign(tas=lambda ds: ds.tas.assign_attrs(units="mm")), "units 'mm' are unknown"),
        (steady(2.0).isel(member=0, drop=True).rename(time="sample"), "expected time"),
        (steady(2.0).rename(time="sample"), "dimensions member, sample; expected one ensemble dimension"),
        (steady(2.0).rename(lat="y"), r"expected \(\[member,\] time, lat, lon\)"),
        (steady(np.nan), "NaN"),
        (steady(289.0), "a mean of 289.0 K; expected anomalies"),
    ],
)
def test_predictions_that_do_not_fit_the_target_are_refused(prediction, message):
    with pytest.raises(DataContractError, match=message):
        score(prediction, steady(1.0, 3.0))


def test_precipitation_in_kg_is_refused_unless_it_says_so_and_no_change_at_all_is_a_prediction():
    rng = np.random.default_rng(3)
    y = field(rng.normal(0.1, 1, (3, 21, 3, 4)), units="mm day-1", name="pr")
    with pytest.raises(DataContractError, match="pr in prediction: a standard deviation of .*still in kg m-2 s-1"):
        score(y / 86400, y)
    assert score(xr.zeros_like(y), y)[0]["nrmse_g"] > 0.9
    with pytest.raises(DataContractError, match="mm day-1; expected anomalies"):
        score((y + 3.0).assign(pr=lambda ds: ds.pr.assign_attrs(units="mm day-1")), y)


def test_a_target_without_change_has_no_normalised_error():
    with pytest.raises(DataContractError, match="a target without any change"):
        score(steady(1.0), steady(0.0))
    with pytest.raises(DataContractError, match="target: no tas"):
        score(steady(1.0), steady(1.0).rename(tas="diurnal_temperature_range"))


def test_predictions_of_other_tools_are_read_and_scored_like_our_own(tmp_path):
    x, y = steady(1.0, 2.0), steady(1.0, 3.0)
    dates = xr.Dataset({"tas": x.tas.variable}, {k: x[k] for k in ("member", "lat", "lon")})
    days = [(y - 2080) * 365 + 181 for y in LATE]
    dates = dates.assign_coords(time=("time", days, {"units": "days since 2080-01-01", "calendar": "noleap"}))
    dates.rename(member="realization", lat="latitude", lon="longitude").to_netcdf(tmp_path / "p.nc")
    assert score(open_prediction(tmp_path / "p.nc"), y) == score(x, y)
    decoded = xr.open_dataset(tmp_path / "p.nc")
    assert score(decoded, y) == score(x.assign_coords(year=x.time, time=np.arange(21)), y) == score(x, y)


# ---- pattern scaling


def test_a_line_through_the_origin_of_emissions_is_least_squares():
    line = GlobalLine.fit(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 5.0]))
    assert (line.intercept, line.slope) == pytest.approx((-0.5, 2.5))


def linear_world(experiment="ssp126", first_co2=0.0, years=range(2015, 2101), members=2):
    """Inputs and outputs that follow two lines exactly; the slopes' area mean is 1, the intercepts' 0."""
    x = official_inputs(years, first_co2=first_co2).rename(latitude="lat", longitude="lon")
    x.CO2.attrs["quantity"] = "cumulative emissions"
    warming = (0.1 + 5e-4 * x.CO2.values).reshape(1, -1, 1, 1)
    row = np.reshape([0.5, 1.0, 1.5], (3, 1))
    y = field(np.repeat(row * warming + np.reshape([-0.2, 0.0, 0.2], (3, 1)), members, 0), list(years))
    return x.assign_attrs(experiment_id=experiment), y.assign(
        pr=(
            ("member", "time", "lat", "lon"),
            np.repeat(0.03 * row * warming + 0.01, members, 0) * np.ones(4),
            {"units": "mm day-1"},
        )
    )


def test_two_exact_lines_are_found_and_continued():
    model = LinearPatternScaling.fit({"ssp126": linear_world(), "ssp585": linear_world(first_co2=2000.0)})
    assert (model.line.intercept, model.line.slope) == pytest.approx((0.1, 5e-4))
    np.testing.assert_allclose(model.slope.tas, np.reshape([0.5, 1, 1.5], (3, 1)) * np.ones(4))
    np.testing.assert_allclose(model.intercept.tas, np.reshape([-0.2, 0, 0.2], (3, 1)) * np.ones(4), atol=1e-12)
    np.testing.assert_allclose(model.slope.pr, 0.03 * model.slope.tas)
    assert model.slope.pr.attrs["units"] == "mm day-1 K-1" and model.trained_on == ("ssp126", "ssp585")
    inputs, outputs = linear_world(first_co2=6000.0)
    prediction = model.predict(inputs)
    for name in ("tas", "pr"):
        np.testing.assert_allclose(prediction[name], outputs[name].mean("member"), rtol=1e-10)
        assert prediction[name].dims == ("time", "lat", "lon") and prediction[name].attrs == outputs[name].attrs
    assert all(row["nrmse_t"] == pytest.approx(0, abs=1e-9) for row in score(prediction, outputs))


def test_the_official_files_of_all_training_experiments_make_753_years(write):
    def length(name):
        return range(2015, 2101) if name.startswith("ssp") else range(1850, 2015)

    for k, name in enumerate(TRAINING):
        root = write(name, official_outputs(length(name), seed=k), official_inputs(length(name), first_co2=0.1))
    pairs = {e: open_pair(root, e) for e in TRAINING}
    model = LinearPatternScaling.fit(pairs)
    tas = np.concatenate(
        [np.average(y.tas.mean(("member", "lon")), weights=[0.5, 1, 0.5], axis=1) for _, y in pairs.values()]
    )
    co2 = np.concatenate([x.CO2 for x, _ in pairs.values()])
    assert tas.size == 753 and [model.line.slope, model.line.intercept] == pytest.approx(np.polyfit(co2, tas, 1))
    assert set(model.slope.data_vars) == {"tas", "diurnal_temperature_range", "pr", "pr90"}
    cell = np.concatenate([y.pr90.mean("member").values[:, 1, 2] for _, y in pairs.values()])
    fitted = [model.slope.pr90.values[1, 2], model.intercept.pr90.values[1, 2]]
    assert fitted == pytest.approx(np.polyfit(tas, cell, 1))


def test_pattern_scaling_refuses_training_that_does_not_belong_together(write):
    inputs, outputs = linear_world()
    fit = LinearPatternScaling.fit
    with pytest.raises(DataContractError, match="no experiments"):
        fit({})
    with pytest.raises(DataContractError, match="outputs of ssp126: years 2015-2054; expected the inputs' 2015-2100"):
        fit({"ssp126": (inputs, outputs.sel(time=slice(None, 2054)))})
    with pytest.raises(DataContractError, match="outputs of b: another lat; expected the grid of a"):
        fit({"a": (inputs, outputs), "b": (inputs, outputs.assign_coords(lat=[-50.0, 0.0, 50.0]))})
    with pytest.raises(DataContractError, match="only pr; expected tas"):
        fit({"ssp126": (inputs, outputs)}, variables=["pr"])
    with pytest.raises(DataContractError, match="a predictor that is constant"):
        fit({"hist-aer": (inputs.assign(CO2=0 * inputs.CO2), outputs)})


def test_atmospheric_mass_is_never_taken_for_emissions(write):
    root = write("1pctCO2", official_outputs(range(1850, 1936)), official_inputs(range(1850, 1936), is_idealised=True))
    pair = open_pair(root, "1pctCO2")
    with pytest.raises(
        DataContractError, match="CO2 of 1pctCO2: atmospheric mass in Gt; expected cumulative emissions"
    ):
        LinearPatternScaling.fit({"ssp126": linear_world(), "1pctCO2": pair})
    model = LinearPatternScaling.fit({"ssp126": linear_world()})
    for inputs in (
        pair[0],
        xr.Dataset({"CO2": pair[0].CO2}),
        xr.Dataset({"CO2": ("time", pair[0].CO2.values)}, attrs=pair[0].attrs),
    ):
        with pytest.raises(DataContractError, match="expected cumulative emissions"):
            model.predict(inputs)


def test_a_scenario_that_was_in_training_is_flagged():
    inputs, outputs = linear_world("ssp126")
    model = LinearPatternScaling.fit({"ssp126": (inputs, outputs), "ssp585": linear_world(first_co2=2000.0)})
    prediction = model.predict(inputs)
    seen, unseen = (score(prediction, outputs.assign_attrs(experiment_id=e))[0] for e in ("ssp126", "ssp245"))
    assert seen["flag"] == "the scored scenario was in training" and unseen["flag"] is None
    assert unseen["trained_on"] == "ssp126, ssp585"


def test_the_prediction_of_a_scenario_knows_its_emissions_only():
    inputs, outputs = linear_world("ssp245", first_co2=1000.0)
    model = LinearPatternScaling.fit({"ssp126": linear_world()})
    hot = outputs.assign(tas=(outputs.tas + 3).assign_attrs(units="K"))
    prediction = model.predict(inputs)
    assert score(prediction, outputs)[0]["nrmse_g"] == pytest.approx(0, abs=1e-9)
    assert score(prediction, hot)[0]["rmse_g"] == pytest.approx(3.0)


# ---- real numbers


def test_the_published_global_error_and_denominator_come_out_of_the_real_series(climate_data, experiment):
    row = experiment.noresm(climate_data)
    assert row["training_years"] == 753
    assert row["D"] == pytest.approx(2.0705421, abs=1e-6)
    assert row["nrmse_g"] == pytest.approx(0.0409974797, abs=1e-6)


def test_the_real_patterns_carry_the_global_mean_with_the_leaderboards_weights(climate_data, experiment):
    model, series, _ = experiment.published_scaling(climate_data / "climatebench")
    weights = np.cos(np.radians(model.slope.lat))
    assert weights.sizes["lat"] == 96 and float(abs(weights[[0, -1]]).max()) < 1e-15
    mean = {part: getattr(model, part).weighted(weights).mean(("lat", "lon")) for part in ("slope", "intercept")}
    assert float(mean["slope"].tas) == pytest.approx(1.0, abs=1e-6)
    assert float(mean["intercept"].tas) == pytest.approx(0.0, abs=1e-6)
    equal = model.slope.tas.mean(("lat", "lon"))
    assert abs(float(equal) - 1) > 0.1, "other weights would show"
    co2 = series["ssp245"][0]
    warming = model.predict(xr.Dataset({"CO2": co2})).tas.weighted(weights).mean(("lat", "lon"))
    np.testing.assert_allclose(warming, model.line.predict(co2), atol=1e-6)


def test_the_spatial_error_of_a_wrong_global_mean_is_that_of_the_pattern(climate_data, experiment):
    model, series, _ = experiment.published_scaling(climate_data / "climatebench")
    co2, truth = series["ssp245"]
    target = xr.Dataset({"tas": model.intercept.tas + model.slope.tas * truth})
    row = score(model.predict(xr.Dataset({"CO2": co2})), target, variables=["tas"])[0]
    late = slice(2080, 2100)
    shift = float((model.line.predict(co2) - truth).sel(time=late).mean())
    w = np.cos(np.radians(model.slope.lat))
    size = float(np.sqrt((model.slope.tas**2).weighted(w).mean(("lat", "lon"))))
    assert row["nrmse_s"] == pytest.approx(abs(shift) * size / float(truth.sel(time=late).mean()), rel=1e-6)
    assert row["nrmse_s"] < 0.0786087528  # the published error has the pattern's own on top


def test_cesm2_goes_through_layout_reader_scaling_and_scorer(climate_data, experiment, tmp_path):
    rows = {(r["model"], r["variable"]): r for r in experiment.cesm2(climate_data, tmp_path)}
    tas, pr = (rows["linear pattern scaling", n] for n in ("tas", "pr"))
    assert (tas["N"], tas["window"], tas["esm"], tas["scenario"]) == (2, [2080, 2099], "CESM2", "ssp370")
    assert "no piControl" in tas["anomaly_base"] and "2015-2024 of ssp126, ssp585" in tas["anomaly_base"]
    assert 2.7 < tas["D"] < 3.0 and 0.11 < pr["D"] < 0.14
    assert 0.08 < tas["nrmse_s"] < 0.13 and 0.03 < tas["nrmse_g"] < 0.05
    assert 1.4 < pr["nrmse_s"] < 1.8 and 0.25 < pr["nrmse_g"] < 0.35
    assert 0 < tas["floor_s"] < tas["nrmse_s"] and 0.6 < pr["floor_s"] < 0.9
    assert rows["no change", "tas"]["nrmse_g"] == pytest.approx(1.0, abs=0.02)
    expected = by_hand(tmp_path)
    assert (tas["nrmse_s"], tas["nrmse_g"], tas["D"]) == pytest.approx(expected, rel=1e-6)


def by_hand(folder) -> tuple[float, float, float]:
    """NRMSE of tas from the same files with numpy alone."""

    def read(kind, name, variable):
        with netCDF4.Dataset(folder / f"{kind}_{name}.nc") as ds:
            return np.asarray(ds[variable][:], dtype=np.float64), np.asarray(ds["time"][:])

    with netCDF4.Dataset(folder / "outputs_ssp370.nc") as ds:
        w = np.cos(np.radians(np.asarray(ds["lat"][:])))
        assert ds["pr"].units == "kg m-2 s-1" and ds["member"][:].tolist() == [1, 2]

    def area(z):
        return (z.mean(-1) * w).sum(-1) / w.sum()

    train = [(read("inputs", e, "CO2")[0], read("outputs", e, "tas")[0].mean(0)) for e in ("ssp126", "ssp585")]
    co2, y = (np.concatenate(part) for part in zip(*train, strict=True))
    b, a = np.polyfit(co2, area(y), 1)
    slope, intercept = np.polyfit(area(y), y.reshape(len(y), -1), 1)
    warming = a + b * read("inputs", "ssp370", "CO2")[0]
    truth, years = read("outputs", "ssp370", "tas")
    truth = truth.mean(0)
    late = (years >= 2080) & (years <= 2099)
    error = ((intercept + np.outer(warming, slope)).reshape(truth.shape) - truth)[late]
    scale = abs(area(truth[late].mean(0)))
    return (
        float(np.sqrt(area(error.mean(0) ** 2)) / scale),
        float(np.sqrt((area(error) ** 2).mean()) / scale),
        float(scale),
    )
