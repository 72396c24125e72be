"""ClimateBench's published regressions of annual fields on twelve numbers a year (Watson-Parris et al. 2022).

The numbers are cumulative CO2, CH4, and five principal components each of the maps of BC and SO2. A Gaussian process and a random
forest predict all cells of a variable at once. Both see fields through what they need of them alone: the process through the years'
covariance, the forest through the years' coordinates in an orthogonal basis, in which its splits and leaves are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from climatesuite.errors import DataContractError
from climatesuite.evaluate.climatebench import check_cumulative, training_set

Array = NDArray[np.float64]
Training = Mapping[str, tuple[xr.Dataset, xr.Dataset]]
MAPS = ("BC", "SO2")
COMPONENTS = 5
FORESTS: Mapping[str, dict[str, int]] = {
    "tas": {"n_estimators": 200, "min_samples_split": 10, "min_samples_leaf": 4, "max_depth": 30},
    "diurnal_temperature_range": {
        "n_estimators": 300, "min_samples_split": 25, "min_samples_leaf": 12, "max_depth": 85
    },
    "pr": {"n_estimators": 250, "min_samples_split": 15, "min_samples_leaf": 4, "max_depth": 45},
    "pr90": {"n_estimators": 250, "min_samples_split": 25, "min_samples_leaf": 8, "max_depth": 55},
}  # fmt: skip
"""Settings of duncanwp/ClimateBench, baseline_models/RF_model.ipynb, commit c5d7b48; seed 0 there as here."""


@dataclass(frozen=True)
class Principal:
    """Principal components of maps, of unit variance over the training years.

    Attributes:
        mean: ``[P]`` over the training years.
        loadings: ``[P, components]``.
    """

    mean: Array
    loadings: Array

    @classmethod
    def fit(cls, maps: Array, components: int = COMPONENTS) -> "Principal":
        """From ``[n, P]``; fewer components where the maps have no more."""
        mean = maps.mean(axis=0)
        _, size, basis = np.linalg.svd(maps - mean, full_matrices=False)
        kept = int(min(components, (size > 1e-9 * max(size[0], 1e-300)).sum()))
        return cls(mean, basis[:kept].T / size[:kept] * np.sqrt(maps.shape[0] - 1))

    def __call__(self, maps: Array) -> Array:
        """``[n, P] -> [n, components]``."""
        return (maps - self.mean) @ self.loadings


@dataclass(frozen=True)
class Features:
    """Forcings as numbers a year, standardised over the training years.

    Attributes:
        level: Mean and standard deviation of CO2 and of CH4.
        maps: Principal components of BC and SO2.
    """

    level: Mapping[str, tuple[float, float]]
    maps: Mapping[str, Principal]

    @classmethod
    def fit(cls, inputs: Sequence[xr.Dataset]) -> "Features":
        """From the forcings of the training experiments.

        Raises:
            DataContractError: If one of CO2, CH4, BC, SO2 is missing, or BC or SO2 is no map.
        """
        level = {}
        for name in ("CO2", "CH4"):
            values = np.concatenate([_values(ds, name) for ds in inputs])
            level[name] = (float(values.mean()), float(values.std()) or 1.0)
        return cls(level, {n: Principal.fit(np.concatenate([_values(ds, n) for ds in inputs])) for n in MAPS})

    def __call__(self, inputs: xr.Dataset) -> Array:
        """``[n, features]``: CO2, CH4, BC, SO2."""
        series = [(_values(inputs, n) - mean) / std for n, (mean, std) in self.level.items()]
        return np.column_stack([*series, *[part(_values(inputs, n)) for n, part in self.maps.items()]])

    @property
    def groups(self) -> list[slice]:
        """Columns of each forcing."""
        ends = np.cumsum([1, 1, *[part.loadings.shape[1] for part in self.maps.values()]])
        return [slice(int(end - width), int(end)) for end, width in zip(ends, np.diff([0, *ends]), strict=True)]


def _values(inputs: xr.Dataset, name: str) -> Array:
    experiment = inputs.attrs.get("experiment_id", "unnamed")
    dims = {"time", "lat", "lon"} if name in MAPS else {"time"}
    if name not in inputs or set(inputs[name].dims) != dims:
        found = f"no {name}" if name not in inputs else f"{name} with dimensions {inputs[name].dims}"
        raise DataContractError(
            f"forcings of {experiment}", found, f"{name} ({', '.join(sorted(dims))})",
            "use experiments with CO2, CH4 and maps of SO2 and BC",
        )  # fmt: skip
    values = np.asarray(inputs[name].transpose("time", ...).values, dtype=np.float64)
    return values.reshape(values.shape[0], -1) if name in MAPS else values


class Regressor(Protocol):
    """A fitted regression of one variable's cells."""

    def predict(self, x: Array) -> Array:
        """``[n, features] -> [n, P]``."""
        ...


@dataclass(frozen=True)
class EmissionRegression:
    """One regression a variable on the same features.

    Attributes:
        name: For the rows.
        features: Fitted.
        fitted: By variable.
        like: By variable a field (lat, lon) with its unit.
        trained_on: Experiments.
    """

    name: str
    features: Features
    fitted: Mapping[str, Regressor]
    like: xr.Dataset
    trained_on: tuple[str, ...]

    def predict(self, inputs: xr.Dataset) -> xr.Dataset:
        """Fields (time, lat, lon) of an experiment from its forcings alone, unit of scores.

        Raises:
            DataContractError: If CO2 is atmospheric mass or a forcing is missing.
        """
        experiment = str(inputs.attrs.get("experiment_id", "unknown"))
        check_cumulative(inputs["CO2"], experiment)
        x, fields = self.features(inputs), {}
        shape = (x.shape[0], self.like.sizes["lat"], self.like.sizes["lon"])
        for name, regressor in self.fitted.items():
            fields[name] = (("time", "lat", "lon"), regressor.predict(x).reshape(shape), self.like[name].attrs)
        coords = {"time": inputs["time"].values, "lat": self.like["lat"].values, "lon": self.like["lon"].values}
        return xr.Dataset(fields, coords, {"experiment_id": experiment, "trained_on": ", ".join(self.trained_on)})


def fit_gaussian_process(training: Training, variables: Sequence[str] | None = None) -> EmissionRegression:
    """Exact Gaussian process: sum of one Matérn-3/2 kernel a forcing, constant mean, one length a feature.

    Args:
        training: (inputs, outputs) by experiment, as ``open_pair`` gives them; every year of the member means counts the same.
        variables: Default all.

    Raises:
        DataContractError: If experiments do not belong together (see :func:`training_set`) or a forcing is missing.
    """
    return _fit("Gaussian process", training, variables, lambda _, x, y, groups: GaussianProcess.fit(x, y, groups))


def fit_random_forest(
    training: Training, variables: Sequence[str] | None = None, trees: int | None = None, seed: int = 0
) -> EmissionRegression:
    """Random forest with the published settings (`FORESTS`).

    Args:
        training: As for :func:`fit_gaussian_process`.
        variables: Default all.
        trees: Fewer than published, for trials.
        seed: Of the resampled years.

    Raises:
        DataContractError: As :func:`fit_gaussian_process`, or if scikit-learn is absent.
    """
    return _fit("random forest", training, variables, lambda name, x, y, _: Forest.fit(name, x, y, trees, seed))


def _fit(name: str, training: Training, variables: Sequence[str] | None, fit: Any) -> EmissionRegression:
    _, means = training_set(training, variables)
    inputs = [pair[0] for pair in training.values()]
    features = Features.fit(inputs)
    x = np.concatenate([features(ds) for ds in inputs])
    fitted, names = {}, [str(n) for n in means[0].data_vars]
    for each in names:
        y = np.concatenate([m[each].transpose("time", "lat", "lon").values for m in means])
        fitted[each] = fit(each, x, y.reshape(y.shape[0], -1), features.groups)
    return EmissionRegression(name, features, fitted, means[0].isel(time=0, drop=True), tuple(training))


@dataclass(frozen=True)
class GaussianProcess:
    """Posterior mean of cells that share one kernel.

    Attributes:
        x: ``[n, features]`` of training.
        weights: ``[n, P]``: inverse covariance times standardised departures.
        log_size: ``[groups]`` logarithm of each kernel's variance, log_length: ``[features]``; groups: columns of each kernel.
        constant: Prior mean of the standardised field; level, scale: of the standardisation.
    """

    x: Array
    weights: Array
    log_size: Array
    log_length: Array
    groups: Sequence[slice]
    constant: float
    level: float
    scale: float

    @classmethod
    def fit(cls, x: Array, y: Array, groups: Sequence[slice], iterations: int = 200) -> "GaussianProcess":
        """Marginal likelihood of all cells ``y [n, P]`` together, from lengths, variances and noise of 1."""
        level, scale = float(y.mean()), float(y.std()) or 1.0
        z = (y - level) / scale
        moments = z @ z.T / z.shape[1], z.mean(axis=1)
        n_groups, n_features = len(groups), x.shape[1]
        start = np.zeros(n_groups + n_features + 1)
        found = minimize(
            _misfit, start, (x, groups, *moments), jac=True, method="L-BFGS-B", bounds=[(-10.0, 10.0)] * start.size,
            options={"maxiter": iterations},
        ).x  # fmt: skip
        log_size, log_length = found[:n_groups], found[n_groups:-1]
        covariance = _kernel(x, x, log_size, log_length, groups) + np.exp(found[-1]) * np.eye(x.shape[0])
        factor = cho_factor(covariance, lower=True)
        constant = _constant(factor, moments[1])
        return cls(x, cho_solve(factor, z - constant), log_size, log_length, groups, constant, level, scale)

    def predict(self, x: Array) -> Array:
        """Posterior mean ``[m, features] -> [m, P]``."""
        kernel = _kernel(x, self.x, self.log_size, self.log_length, self.groups)
        return self.level + self.scale * (self.constant + kernel @ self.weights)


def _distances(a: Array, b: Array, log_length: Array, columns: slice) -> Array:
    """Squared differences over squared lengths, ``[features of the group, n, m]``."""
    u, v = (part[:, columns] / np.exp(log_length[columns]) for part in (a, b))
    return (u.T[:, :, None] - v.T[:, None, :]) ** 2


def _kernel(a: Array, b: Array, log_size: Array, log_length: Array, groups: Sequence[slice]) -> Array:
    """Sum of Matérn-3/2 kernels ``[n, m]``."""
    out = np.zeros((a.shape[0], b.shape[0]))
    for size, columns in zip(np.exp(log_size), groups, strict=True):
        r = np.sqrt(3.0 * _distances(a, b, log_length, columns).sum(axis=0))
        out += size * (1.0 + r) * np.exp(-r)
    return out


def _constant(factor: Any, mean: Array) -> float:
    """Generalised least squares of the constant through the mean over cells ``[n]``."""
    ones = cho_solve(factor, np.ones(mean.size))
    return float(ones @ mean / ones.sum())


def _misfit(theta: Array, x: Array, groups: Sequence[slice], second: Array, first: Array) -> tuple[float, Array]:
    """Negative log likelihood a cell (without its constant) and its gradient by log variance, length and noise.

    Args:
        theta: Log variances, log lengths, log noise variance.
        x: ``[n, features]``.
        groups: Columns of each kernel.
        second: ``[n, n]`` mean over cells of the products of years; first: ``[n]`` mean over cells.
    """
    n_groups = len(groups)
    log_size, log_length, noise = theta[:n_groups], theta[n_groups:-1], np.exp(theta[-1])
    eye = np.eye(x.shape[0])
    covariance, decays, kernels = (noise + 1e-8) * eye, [], []
    parts = [_distances(x, x, log_length, columns) for columns in groups]
    for size, squares in zip(np.exp(log_size), parts, strict=True):
        r = np.sqrt(3.0 * squares.sum(axis=0))
        decays.append(size * np.exp(-r))
        kernels.append(decays[-1] * (1.0 + r))
        covariance += kernels[-1]
    factor = cho_factor(covariance, lower=True)
    inverse = cho_solve(factor, eye)
    c = _constant(factor, first)  # the best constant has no gradient
    fit = inverse @ (second - c * (first[:, None] + first[None, :]) + c**2)
    value = 0.5 * np.trace(fit) + np.log(np.diag(factor[0])).sum()
    slope = 0.5 * (inverse - fit @ inverse)  # d value / d covariance
    gradient = np.empty_like(theta)
    for g, columns in enumerate(groups):
        gradient[g] = np.vdot(slope, kernels[g])
        steep = (slope * decays[g]).ravel()
        gradient[n_groups:-1][columns] = 3.0 * parts[g].reshape(-1, steep.size) @ steep
    gradient[-1] = noise * np.trace(slope)
    return float(value), gradient


@dataclass(frozen=True)
class Forest:
    """Trees on the years' coordinates in an orthogonal basis of their departures.

    Attributes:
        trees: Fitted ``RandomForestRegressor``.
        mean: ``[P]``; basis: ``[coordinates, P]``.
    """

    trees: Any
    mean: Array
    basis: Array

    @classmethod
    def fit(cls, name: str, x: Array, y: Array, trees: int | None, seed: int) -> "Forest":
        """From ``y [n, P]``; squared errors, hence splits, and means, hence leaves, are those of the cells themselves."""
        try:
            from sklearn.ensemble import RandomForestRegressor
        except ImportError as error:
            raise DataContractError(
                "random forest", str(error), "scikit-learn, an optional extra", 'pip install "climatesuite-spf[forest]"'
            ) from error
        mean = y.mean(axis=0)
        u, size, basis = np.linalg.svd(y - mean, full_matrices=False)
        settings = FORESTS[name] | ({} if trees is None else {"n_estimators": trees})
        forest = RandomForestRegressor(**settings, max_features=1.0, bootstrap=True, random_state=seed)
        forest.fit(x, u * size)
        return cls(forest, mean, basis)

    def predict(self, x: Array) -> Array:
        """Mean of the trees ``[m, features] -> [m, P]``."""
        return self.mean + self.trees.predict(x) @ self.basis
