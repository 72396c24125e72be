"""MESMER, the published statistical emulator of yearly fields, as a baseline: one fit, then any number of members.

    trend(t)        = a + b predictor(t)                                the driver's global mean, fitted on the predictor
    variability(t)  = AR(p) of what the global mean does about it       p by BIC, up to 12
    field(s, t)     = c(s) + d(s) trend(t) + e(s) variability(t) + AR(1)(s, t)

with innovations of the last term correlated in space by a covariance tapered to a radius that cross-validation chooses.
Beusch et al. 2020, doi 10.5194/esd-11-139-2020. Every step is a call of mesmer-emulator (GPL-3), an optional extra; nothing
of it is imported before a fit or a draw.

A predictor may be anything annual to which the warming is linear. Cumulative CO2 and a smoothed global mean in kelvin are
treated alike: through the linear fit of the driver's global mean, which for a smoothed global mean has slope one. What the fit
leaves, its misfit included, is the variability: a predictor that explains less gets a wider ensemble with more memory. As fields
respond linearly to the trend, this is the same as a response to the predictor itself. The driver is tas where all runs hold
it, also for other variables, so that a member's fields share its global variability; their local terms are independent.
MESMER is Gaussian: a little precipitation is below zero and stays so.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.baselines.names import MESMER as NAME
from climatesuite.baselines.reference import decades_of_years, on_steps
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.evaluate.checks import same_coordinate
from climatesuite.evaluate.scores import area_mean
from climatesuite.harmonise.coarsen import to_year

PACKAGE = "mesmer-emulator"
DRIVER = "tas"
SCENARIO = "the scenario to be emulated"
MAX_LAG = 12
RADII_KM = tuple(range(1000, 10001, 500))
"""Localisation radii tried in this order until the cross-validated likelihood falls; larger ones break the taper."""
FOLDS = 5
BUFFER_YEARS = 30
"""Years drawn and dropped in front, so that a member does not begin at zero."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class LocalModel:
    """What MESMER knows about one variable, in its score unit (K, mm day-1: no regression works near rounding).

    Attributes:
        response: ``intercept``, ``trend`` and ``variability`` ``(gridcell)``.
        autoregression: AR(1) about it: ``intercept`` ``(gridcell)``, ``coeffs`` ``(gridcell, lags)``.
        covariance: Of its innovations, ``(gridcell_i, gridcell_j)``.
        radius_km: Localisation radius chosen.
        attrs: Attributes of the training field, with its canonical unit.
    """

    response: xr.Dataset
    autoregression: xr.Dataset
    covariance: xr.DataArray
    radius_km: float
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class Mesmer:
    """A fitted MESMER and the predictor of the scenario to be emulated.

    Attributes:
        trend: Linear fit of the driver's global mean on the predictor: ``intercept``, ``forcing``.
        autoregression: AR(p) of the driver's global mean about the trend: ``intercept``, ``coeffs (lags)``, ``variance``.
        local: By variable.
        target: Annual predictor ``(year)`` of the scenario to be emulated.
        grid: Coordinates ``lat`` and ``lon`` of the training runs.
    """

    trend: xr.Dataset
    autoregression: xr.Dataset
    local: Mapping[str, LocalModel]
    target: xr.DataArray
    grid: xr.Dataset
    name: str = NAME

    @classmethod
    def fit(
        cls,
        runs: Mapping[str, xr.Dataset],
        predictors: Mapping[str, xr.DataArray],
        target: xr.DataArray,
        variables: Sequence[str],
    ) -> "Mesmer":
        """Fit on training runs; scenarios count the same, however many members they have.

        A variable of 48 x 72 cells takes about a minute on one core and 1.3 GB; it stays in memory with 100 MB.

        Args:
            runs: Canonical Datasets of months or years by scenario, with members.
            predictors: Annual predictor ``(year)`` by scenario.
            target: The same of the scenario to be emulated, every year from its first to its last.
            variables: Fields to fit.

        Raises:
            DataContractError: If mesmer-emulator 1 is not installed, there are no runs, a run lacks a variable, a predictor
                lacks a year or does not vary, or units or grids differ.
        """
        mesmer = _mesmer()
        if not runs:
            raise DataContractError(NAME, "no training runs", "at least one scenario", "name training scenarios")
        driver = DRIVER if all(DRIVER in ds for ds in runs.values()) else variables[0]
        yearly = {s: _yearly(ds, {driver, *variables}, s) for s, ds in runs.items()}
        grid = _one_grid(yearly)
        forcing = _tree(
            {s: xr.Dataset({"forcing": _covering(predictors.get(s), s, ds["year"].values)}) for s, ds in yearly.items()}
        )
        _check_varies(forcing)
        _covering(target, SCENARIO, _span(target))
        means = _tree({s: xr.Dataset({"mean": _global_mean(ds, driver)}) for s, ds in yearly.items()})
        weights = mesmer.weighted.equal_scenario_weights_from_datatree(means)
        trend = _regression(mesmer, forcing, means, weights)
        variability = trend.residuals(forcing, means)
        both = _tree(
            {
                s: xr.Dataset({"trend": fit["prediction"], "variability": variability[s]["residuals"]})
                for s, fit in trend.predict(forcing).children.items()
            }
        )
        localizer = _Localizer(mesmer, grid)
        local = {n: _fit_local(mesmer, yearly, n, both, weights, localizer) for n in variables}
        return cls(_plain(trend), _autoregression(mesmer, variability), local, target, grid)

    def draw(self, timescale: str, like: xr.Dataset, members: int, seed: int) -> xr.Dataset:
        """Members on the time labels and grid of a Dataset.

        Every year of ``target`` is drawn, in one stream for the global mean and one a variable, member after member: a
        member's year is the same whatever number of members, years or variables is asked for beside it.

        Args:
            timescale: ``year``, or ``decade`` for the day-weighted means of the years.
            like: Canonical Dataset of this timescale whose labels, grid and attributes the result gets.
            members: Number of members.
            seed: Any whole number from 0.

        Returns:
            Canonical Dataset ``(member, time, lat, lon)``, float32, members 0 to ``members`` - 1, canonical units.

        Raises:
            DataContractError: If the timescale is month or unknown, ``like`` is of another timescale or grid, the target
                lacks one of its years, or there is no member to draw.
        """
        self._check_request(timescale, like, members)
        if timescale == "decade":
            return decades_of_years(lambda years: self.draw("year", years, members, seed), like)
        years = protocol.labels(like)
        _covering(self.target, SCENARIO, years)
        mesmer = _mesmer()
        trend, variability = self._global(mesmer, members, seed)
        shape = (members, years.size, self.grid.sizes["lat"], self.grid.sizes["lon"])
        fields = {}
        for name, model in self.local.items():
            drawn = self._field(mesmer, name, model, trend, variability, seed).sel(time=years)
            values = drawn.transpose("member", "time", "gridcell").values.reshape(shape)
            fields[name] = (values / VARIABLES[name].score_factor).astype(np.float32)
        return on_steps(fields, like, {n: model.attrs for n, model in self.local.items()})

    def _global(self, mesmer: Any, members: int, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
        """Trend ``(time)`` and variability ``(time, member)`` of the driver's global mean in all years of the target."""
        forcing = _covering(self.target, SCENARIO, _span(self.target))
        trend = mesmer.stats.LinearRegression.from_params(self.trend).predict({"forcing": forcing})["prediction"]
        variability = mesmer.stats.draw_auto_regression_uncorrelated(
            self.autoregression, **_draw_options(forcing["time"], members, seed, "global mean")
        )
        return trend, variability["samples"]

    @staticmethod
    def _field(
        mesmer: Any, name: str, model: LocalModel, trend: xr.DataArray, variability: xr.DataArray, seed: int
    ) -> xr.DataArray:
        """One variable ``(gridcell, time, member)`` in score units."""
        mean = mesmer.stats.LinearRegression.from_params(model.response).predict(
            {"trend": trend, "variability": variability}
        )
        local = mesmer.stats.draw_auto_regression_correlated(
            model.autoregression,
            model.covariance,
            **_draw_options(trend["time"], variability.sizes["member"], seed, name),
        )
        return mean["prediction"] + local["samples"]

    def _check_request(self, timescale: str, like: xr.Dataset, members: int) -> None:
        if timescale not in ("year", "decade"):
            raise DataContractError(
                NAME, f"timescale {timescale!r}", "year or decade", "leave it out of the tables of months"
            )
        given = protocol.timescale_of(like, f"{NAME}'s labels")
        if given != timescale:
            raise DataContractError(
                f"{NAME}'s labels",
                f"timescale {given!r}",
                repr(timescale),
                "coarsen with climatesuite.harmonise.coarsen",
            )
        if not _same_grid(like, self.grid):
            sizes = [" x ".join(str(ds.sizes[axis]) for axis in ("lat", "lon")) for ds in (like, self.grid)]
            raise DataContractError(
                f"{NAME}'s labels", f"another grid ({sizes[0]} cells)", f"the training runs' ({sizes[1]})",
                "fit it on runs of this grid",
            )  # fmt: skip
        if members < 1:
            raise DataContractError(NAME, f"{members} members", "1 or more", "ask for a positive number")


def _mesmer() -> Any:
    """The package; raises with the remedy where it, or its present interface, is absent."""
    try:
        found = version(PACKAGE)
        if int(found.split(".")[0]) < 1:
            raise ImportError(f"{PACKAGE} {found}, whose interface is another")
        return importlib.import_module("mesmer")
    except ImportError as error:
        raise DataContractError(
            NAME, str(error), f"{PACKAGE} 1, an optional extra", 'pip install "climatesuite-spf[mesmer]"'
        ) from error


def _yearly(ds: xr.Dataset, names: set[str], scenario: str) -> xr.Dataset:
    """A run's fields as years."""
    missing = sorted(names - set(map(str, ds.data_vars)))
    if missing:
        raise DataContractError(
            f"training run {scenario}", f"no {', '.join(missing)}", "every variable to be fitted", "leave it out"
        )
    for name in sorted(names):
        protocol.check_field(name, ds[name], f"training run {scenario}")
    chosen = ds.drop_vars([n for n in ds.data_vars if n not in names and n != "time_bnds"])
    return (to_year(chosen) if "month" in ds.coords else chosen).compute()


def _one_grid(yearly: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Latitudes and longitudes of all runs."""
    first, *others = [ds[["lat", "lon"]].reset_coords(drop=True) for ds in yearly.values()]
    if not all(_same_grid(first, other) for other in others):
        raise DataContractError(f"{NAME}'s training runs", "several grids", "one grid", "regrid them to one first")
    return first


def _same_grid(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether cells are the same, but for the rounding of coordinates in files."""
    return all(one.sizes[a] == other.sizes[a] and same_coordinate(a, one[a], other[a]) for a in ("lat", "lon"))


def _span(predictor: xr.DataArray) -> NDArray[np.int64]:
    """All years from the first to the last."""
    return np.arange(int(predictor["year"].values[0]), int(predictor["year"].values[-1]) + 1)


def _covering(predictor: xr.DataArray | None, scenario: str, years: NDArray[np.int64]) -> xr.DataArray:
    """A scenario's predictor ``(time)`` in some years, time being the year."""
    if predictor is None:
        raise DataContractError(
            f"predictor of {scenario}", "none", "one for every training scenario", "add it to the predictors"
        )
    have = predictor.dropna("year")
    missing = sorted(set(years.tolist()) - set(have["year"].values.tolist()))
    if missing:
        raise DataContractError(
            f"predictor of {scenario}", f"no value for {missing[0]}", f"every year of {years[0]}-{years[-1]}",
            "extend the forcing file or narrow the years",
        )  # fmt: skip
    values = np.asarray(have.sel(year=years).values, dtype=np.float64)
    return xr.DataArray(values, {"time": years}, ("time",))


def _check_varies(forcing: xr.DataTree) -> None:
    values = np.concatenate([node["forcing"].values for node in forcing.children.values()])
    if not np.ptp(values) > 0:
        raise DataContractError(f"{NAME}'s predictor", "a constant", "a predictor that varies", "add scenarios")


def _global_mean(ds: xr.Dataset, name: str) -> xr.DataArray:
    """Area mean ``(member, time)`` in score units, time being the year."""
    mean = area_mean(ds[name]).transpose("member", "time").values * VARIABLES[name].score_factor
    return xr.DataArray(mean, {"member": ds["member"].values, "time": ds["year"].values}, ("member", "time"))


def _cells(ds: xr.Dataset, name: str) -> xr.DataArray:
    """A field as ``(member, time, gridcell)``, float64, score units, cells in the order of (lat, lon)."""
    field = ds[name].transpose("member", "time", "lat", "lon")
    values = np.asarray(field.values, dtype=np.float64) * VARIABLES[name].score_factor
    coords = {"member": ds["member"].values, "time": ds["year"].values}
    return xr.DataArray(values.reshape(*values.shape[:2], -1), coords, ("member", "time", "gridcell"))


def _tree(parts: Mapping[str, xr.Dataset]) -> xr.DataTree:
    return xr.DataTree.from_dict(dict(parts))


def _regression(mesmer: Any, predictors: xr.DataTree, target: xr.DataTree, weights: xr.DataTree) -> Any:
    """MESMER's linear regression of the only variable of ``target`` on all of ``predictors``."""
    x, y, w = mesmer.datatree.broadcast_and_pool_scen_ens(predictors, target, weights)
    (name,) = y.data_vars
    model = mesmer.stats.LinearRegression()
    model.fit(predictors=x, target=y[name], dim="sample", weights=w["weights"])
    return model


def _plain(model: Any) -> xr.Dataset:
    """Parameters of a regression without the training weights."""
    return model.params.drop_dims("sample").reset_coords(drop=True)


def _autoregression(mesmer: Any, variability: xr.DataTree) -> xr.Dataset:
    """AR(p) of the global mean, p by BIC (1 where it finds no memory at all)."""
    shortest = min(node.sizes["time"] for node in variability.children.values())
    about = {"dim": "time", "ens_dim": "member"}
    order = mesmer.stats.select_ar_order_scen_ens(variability, maxlag=min(MAX_LAG, shortest // 4), ic="bic", **about)
    lags = int(order) if np.isfinite(order) else 1
    return mesmer.stats.fit_auto_regression_scen_ens(variability, lags=lags, **about)


def _fit_local(
    mesmer: Any,
    yearly: Mapping[str, xr.Dataset],
    name: str,
    predictors: xr.DataTree,
    weights: xr.DataTree,
    localizer: "_Localizer",
) -> LocalModel:
    target = _tree({s: xr.Dataset({name: _cells(ds, name)}) for s, ds in yearly.items()})
    response = _regression(mesmer, predictors, target, weights)
    residuals = response.residuals(predictors, target)
    autoregression = mesmer.stats.fit_auto_regression_scen_ens(residuals, dim="time", ens_dim="member", lags=1)
    covariance = mesmer.stats.find_localized_empirical_covariance(
        mesmer.datatree.pool_scen_ens(residuals)["residuals"],
        mesmer.datatree.pool_scen_ens(weights)["weights"],
        localizer,
        "sample",
        k_folds=FOLDS,
    )
    adjusted = mesmer.stats.adjust_covariance_ar1(covariance["localized_covariance"], autoregression["coeffs"])
    attrs = next(iter(yearly.values()))[name].attrs
    return LocalModel(_plain(response), autoregression, adjusted, float(covariance["localization_radius"]), attrs)


class _Localizer(Mapping[int, Array]):
    """Gaspari-Cohn tapers ``(gridcell, gridcell)`` by radius, one in memory at a time (95 MB each on 48 x 72 cells)."""

    def __init__(self, mesmer: Any, grid: xr.Dataset) -> None:
        lat, lon = np.meshgrid(grid["lat"].values, grid["lon"].values, indexing="ij")
        self._taper = mesmer.stats.gaspari_cohn
        self._km: Array = mesmer.geospatial.geodist_exact(lon.ravel(), lat.ravel())
        self._kept: tuple[int, Array] | None = None

    def __getitem__(self, radius: int) -> Array:
        if self._kept is None or self._kept[0] != radius:
            self._kept = radius, self._taper(self._km / radius)
        return self._kept[1]

    def __iter__(self) -> Iterator[int]:
        return iter(RADII_KM)

    def __len__(self) -> int:
        return len(RADII_KM)


def _draw_options(time: xr.DataArray, members: int, seed: int, stream: str) -> dict[str, Any]:
    """Options of MESMER's draws; ``stream`` keeps the global mean and each variable independent under one seed."""
    key = np.random.SeedSequence([seed, *stream.encode()]).generate_state(1, np.uint64)
    return {
        "time": time, "realisation": members, "realisation_dim": "member", "seed": int(key[0]), "buffer": BUFFER_YEARS
    }  # fmt: skip
