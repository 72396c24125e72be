"""ClimateBench's published regressions: features, Gaussian process and forest against what others compute."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from climatesuite.baselines.emission_regression import (
    FORESTS,
    Features,
    Forest,
    GaussianProcess,
    Principal,
    _misfit,
    fit_gaussian_process,
    fit_random_forest,
)
from climatesuite.errors import DataContractError
from climatesuite.evaluate.climatebench import open_pair
from worlds.climatebench import official_inputs, official_outputs, write_files


def years(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.linspace(-2, 2, n), rng.normal(size=n), rng.normal(size=n)])
    y = np.sin(x[:, :1]) * [1.0, 2.0, -1.0, 0.5, 0.0] + 0.3 * x[:, 1:2] + 0.05 * rng.normal(size=(n, 5))
    return x, y


def moments(y):
    z = (y - y.mean()) / y.std()
    return z @ z.T / z.shape[1], z.mean(axis=1)


def test_components_have_unit_variance_and_rebuild_what_has_no_more_of_them():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 50)) * 1e-11 + 4e-10
    part = Principal.fit(maps)
    scores = part(maps)
    assert scores.shape == (30, 3), "maps of rank 3 have three components, not five"
    np.testing.assert_allclose(np.cov(scores.T), np.eye(3), atol=1e-8)
    again = np.linalg.lstsq(scores, maps - maps.mean(axis=0), rcond=None)[0]
    np.testing.assert_allclose(scores @ again + maps.mean(axis=0), maps, rtol=1e-6)
    np.testing.assert_allclose(part(maps[:2]), scores[:2], err_msg="projected alike when it is not training")


def test_the_gradient_of_the_likelihood_is_its_slope():
    x, y = years()
    groups = [slice(0, 1), slice(1, 3)]
    args = (x, groups, *moments(y))
    for seed in range(3):
        theta = np.random.default_rng(seed).normal(size=6)
        error = check_grad(lambda t: _misfit(t, *args)[0], lambda t: _misfit(t, *args)[1], theta)
        assert error < 1e-4 * np.linalg.norm(_misfit(theta, *args)[1])


def test_the_posterior_mean_is_that_of_scikit_learn_at_the_same_parameters():
    x, y = years()
    ours = GaussianProcess.fit(x, y, [slice(0, 3)])
    noise = np.exp(_fitted_noise(x, y))
    kernel = ConstantKernel(np.exp(ours.log_size[0])) * Matern(np.exp(ours.log_length), nu=1.5) + WhiteKernel(noise)
    theirs = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0)
    theirs.fit(x, (y - ours.level) / ours.scale - ours.constant)
    new = years(7, seed=5)[0]
    expected = ours.level + ours.scale * (theirs.predict(new) + ours.constant)
    np.testing.assert_allclose(ours.predict(new), expected, atol=1e-6)


def _fitted_noise(x, y):
    from scipy.optimize import minimize

    start = np.zeros(5)
    return minimize(_misfit, start, (x, [slice(0, 3)], *moments(y)), jac=True, method="L-BFGS-B",
                    bounds=[(-10.0, 10.0)] * 5, options={"maxiter": 200}).x[-1]  # fmt: skip


def test_the_process_finds_the_law_and_its_mean_far_away():
    x, y = years(80)
    process = GaussianProcess.fit(x, y, [slice(0, 1), slice(1, 3)])
    held = np.column_stack([np.linspace(-1.5, 1.5, 9), np.zeros((9, 2))])
    np.testing.assert_allclose(process.predict(held), np.sin(held[:, :1]) * [1.0, 2.0, -1.0, 0.5, 0.0], atol=0.15)
    far = process.predict(np.full((1, 3), 1e6))
    np.testing.assert_allclose(far, process.level + process.scale * process.constant, atol=1e-6)


def test_a_forest_in_rotated_coordinates_is_the_forest_of_the_cells():
    x, y = years()
    new = years(11, seed=4)[0]
    ours = Forest.fit("pr", x, y, trees=20, seed=3).predict(new)
    settings = FORESTS["pr"] | {"n_estimators": 20}
    theirs = RandomForestRegressor(**settings, max_features=1.0, random_state=3).fit(x, y).predict(new)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Pairs of two experiments with maps that vary."""
    root = tmp_path_factory.mktemp("layout")
    for k, name in enumerate(("ssp126", "ssp585")):
        inputs = official_inputs(range(2015, 2055), first_co2=1500.0 + 400 * k)
        shape = inputs["SO2"].shape
        rng = np.random.default_rng(k)
        inputs["SO2"] = inputs["SO2"] * (1.0 + rng.uniform(size=shape))
        inputs["BC"] = inputs["BC"] * (1.0 + rng.uniform(size=shape))
        write_files(root, name, official_outputs(range(2015, 2055), seed=k), inputs)
    return {e: open_pair(root, e) for e in ("ssp126", "ssp585")}


@pytest.mark.parametrize(("fit", "options"), [(fit_gaussian_process, {}), (fit_random_forest, {"trees": 5})])
def test_a_regression_predicts_all_variables_in_units_of_scores(training, fit, options):
    model = fit(training, **options)
    assert model.features.groups == [slice(0, 1), slice(1, 2), slice(2, 7), slice(7, 12)]
    prediction = model.predict(training["ssp126"][0])
    assert set(prediction) == {"tas", "diurnal_temperature_range", "pr", "pr90"}
    assert prediction["pr"].attrs["units"] == "mm day-1" and prediction["tas"].dims == ("time", "lat", "lon")
    assert prediction.attrs["trained_on"] == "ssp126, ssp585" and np.isfinite(prediction["pr90"]).all()


def test_forcings_that_are_no_maps_or_absent_are_refused(training):
    inputs, outputs = training["ssp126"]
    with pytest.raises(DataContractError, match="forcings of ssp126: no CH4"):
        fit_gaussian_process({"ssp126": (inputs.drop_vars("CH4"), outputs)})
    flat = inputs.assign(SO2=inputs["SO2"].mean(("lat", "lon")))
    with pytest.raises(DataContractError, match="SO2 with dimensions"):
        Features.fit([flat])
    with pytest.raises(DataContractError, match="expected cumulative emissions"):
        mass = inputs.assign(CO2=inputs["CO2"].assign_attrs(quantity="atmospheric mass"))
        fit_gaussian_process({"ssp126": (inputs, outputs)}, ["tas"]).predict(mass)
