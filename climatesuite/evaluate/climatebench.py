"""ClimateBench's scores and its linear pattern scaling (Watson-Parris et al. 2022, doi 10.1029/2021MS002954).

Everything is annual, an anomaly, in K and mm day-1, and about the mean of members. Files: ``climatebench_files``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.evaluate import scores
from climatesuite.evaluate.climatebench_files import (
    ATMOSPHERIC,
    CUMULATIVE,
    IDEALISED,
    named,
    open_inputs,
    open_outputs,
    open_pair,
    open_prediction,
    scored,
    span,
    wanted,
    write_layout,
    years_of,
)
from climatesuite.evaluate.protocol import LATE_WINDOW

__all__ = [
    "TRAINING", "GlobalLine", "LinearPatternScaling", "member_mean", "open_inputs", "open_outputs", "open_pair",
    "open_prediction", "score", "write_layout",
]  # fmt: skip
TRAINING = ("ssp126", "ssp370", "ssp585", "hist-GHG", "hist-aer", "historical")
"""Experiments of the published pattern scaling: 753 years."""
Row = dict[str, Any]


def score(
    prediction: xr.Dataset,
    target: xr.Dataset,
    window: tuple[int, int] = LATE_WINDOW,
    variables: Sequence[str] | None = None,
    model: str = "prediction",
) -> list[Row]:
    """ClimateBench's scores of annual anomalies against the mean of the target's members, one row a variable.

    Args:
        prediction: ``([member,] time, lat, lon)``; member may be called realization, sample or ensemble. K and mm day-1, or another
            unit stated in the attribute units.
        target: The same with its N single members, or their mean without a member dim (then there is no noise floor).
        window: First and last year, both scored.
        variables: Default: all of the prediction's.
        model: Name for the rows.

    Returns:
        Rows with window, M, N, weights (cosine of latitude), ``D`` (denominator), ``nrmse_s``, ``nrmse_g``, ``nrmse_t``
        (= s + 5 g), ``rmse_s``, ``rmse_g`` (the same x D, in units), ``rmse`` (of single years, pooled), ``rmse_by_step`` (mean
        of the yearly ones); ``floor_s``, ``floor_g``: what the target's own sampling noise leaves of a perfect forced response,
        taking years as independent; ``*_corrected``: sqrt(max(0, nrmse^2 - floor^2)); ``flag`` where the scored scenario was
        in training.

    Raises:
        DataContractError: If a variable or a year of the window is missing, dims, grids or units differ, or values are missing.
    """
    ours, theirs = named(prediction, model), named(target, "target")
    rows = []
    for name in wanted(ours, variables, model):
        if name not in theirs:
            raise DataContractError("target", f"no {name}", "every scored variable", "name variables of the target")
        x, y = (_cut(scored(ds[name], name, what), window, what) for ds, what in ((ours, model), (theirs, "target")))
        head = {
            "model": model,
            "variable": name,
            "units": y.attrs["units"],
            "timescale": "year",
            "window": list(window),
        }
        rows.append(head | _origin(prediction.attrs, target.attrs) | _errors(x, y))
    return rows


def _cut(field: xr.DataArray, window: tuple[int, int], what: str) -> xr.DataArray:
    """The years of the window, by label."""
    field = field.assign_coords(time=years_of(field["time"], what))
    wanted = np.arange(window[0], window[1] + 1)
    if not np.isin(wanted, field["time"].values).all():
        raise DataContractError(
            f"{field.name} of {what}", f"years {span(field)}", f"all of {window[0]}-{window[1]}", "narrow the window"
        )
    return field.sel(time=wanted)


def _origin(ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> Row:
    """What was scored, and whether its scenario had been seen in training."""
    scenario, trained_on = theirs.get("experiment_id"), ours.get("trained_on")
    is_seen = bool(trained_on) and scenario in str(trained_on).split(", ")
    return {
        "esm": theirs.get("source_id"), "scenario": scenario, "anomaly_base": theirs.get("anomaly_base"), "trained_on": trained_on,
        "flag": "the scored scenario was in training" if is_seen else None,
    }  # fmt: skip


def _errors(x: xr.DataArray, y: xr.DataArray) -> Row:
    mean = y.mean("member") if "member" in y.dims else y
    scale = abs(float(scores.area_mean(mean.mean("time"))))
    if scale == 0:
        raise DataContractError(str(y.name), "a target without any change", "a mean anomaly", "score its RMSE instead")
    relative = {str(k): float(v) for k, v in scores.nrmse(x, y).items()}
    s, g = relative["nrmse_s"], relative["nrmse_g"]
    row: Row = {"target": "member_mean", "M": x.sizes.get("member", 1), "N": y.sizes.get("member"), "weights": "coslat"}
    row |= {"D": scale, **relative, "rmse_s": s * scale, "rmse_g": g * scale, "rmse": float(scores.rmse(x, y))}
    row["rmse_by_step"] = float(scores.rmse_by_step(x, y).mean())
    floor_s, floor_g = _floors(y, scale)
    row |= {"floor_s": floor_s, "floor_g": floor_g}
    if floor_s is None or floor_g is None:
        return row | dict.fromkeys(("nrmse_s_corrected", "nrmse_g_corrected", "nrmse_t_corrected"))
    s, g = (float(np.sqrt(max(0.0, e**2 - floor**2))) for e, floor in ((s, floor_s), (g, floor_g)))
    return row | {"nrmse_s_corrected": s, "nrmse_g_corrected": g, "nrmse_t_corrected": s + 5.0 * g}


def _floors(y: xr.DataArray, scale: float) -> tuple[float | None, float | None]:
    """NRMSE_s and NRMSE_g of the true forced response against a mean of these members, from their spread; None for one member."""
    size = y.sizes.get("member", 1)
    if size < 2:
        return None, None
    s2 = float(scores.area_mean(y.mean("time").var("member", ddof=1).drop_attrs()))
    g2 = float(scores.area_mean(y).var("member", ddof=1).mean())
    return float(np.sqrt(s2 / size)) / scale, float(np.sqrt(g2 / size)) / scale


# ---- linear pattern scaling


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intercept and slope of least squares, for every column of ``y [n, ...]`` on ``x [n]``."""
    centred = x - x.mean()
    power = float(centred @ centred)
    if not power > 0:
        raise DataContractError("pattern scaling", "a predictor that is constant", "one that varies", "add experiments")
    slope = np.tensordot(centred, y, 1) / power
    return y.mean(axis=0) - slope * x.mean(), slope


@dataclass(frozen=True)
class GlobalLine:
    """Global mean temperature anomaly (K) = intercept + slope (K per Gt) x cumulative CO2 emissions (Gt)."""

    intercept: float
    slope: float

    @classmethod
    def fit(cls, co2: NDArray[np.float64], tas: NDArray[np.float64]) -> "GlobalLine":
        """Least squares over all years ``[n]`` of all training experiments."""
        intercept, slope = _line(np.asarray(co2, dtype=np.float64), np.asarray(tas, dtype=np.float64))
        return cls(float(intercept), float(slope))

    def predict(self, co2: xr.DataArray) -> xr.DataArray:
        """Global mean ``(time)`` in K from Gt ``(time)``."""
        return (self.intercept + self.slope * co2).assign_attrs(units="K").rename("tas")


@dataclass(frozen=True)
class LinearPatternScaling:
    """Two least-squares lines: cumulative CO2 -> global mean tas -> every cell (Lütjens et al. 2024, arXiv 2408.05288).

    At test the global mean is predicted from CO2. Using the test run's own global mean instead, as some notebooks do, is leakage;
    nothing here takes outputs of the experiment to be predicted.

    Attributes:
        line: First step.
        intercept: Fields (lat, lon), unit of scores.
        slope: Fields (lat, lon), unit of scores per K of global mean.
        trained_on: Experiments.
    """

    line: GlobalLine
    intercept: xr.Dataset
    slope: xr.Dataset
    trained_on: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, training: Mapping[str, tuple[xr.Dataset, xr.Dataset]], variables: Sequence[str] | None = None
    ) -> "LinearPatternScaling":
        """Fit on (inputs, outputs) by experiment, every year of every experiment's member mean counting the same.

        Raises:
            DataContractError: If there is no training, CO2 of an experiment is atmospheric mass, inputs and outputs are of other
                years, grids differ, or tas is missing.
        """
        co2, means = training_set(training, variables)
        names = [str(n) for n in means[0].data_vars]
        if "tas" not in names:
            raise DataContractError("pattern scaling", f"only {', '.join(names)}", "tas", "add it: it is the predictor")
        warming = np.concatenate([scores.area_mean(m["tas"]).values for m in means])
        intercept, slope = {}, {}
        for name in names:
            units = means[0][name].attrs["units"]
            a, b = _line(warming, np.concatenate([m[name].values for m in means]))
            intercept[name] = xr.Variable(("lat", "lon"), a, {"units": units})
            slope[name] = xr.Variable(("lat", "lon"), b, {"units": f"{units} K-1"})
        space = {"lat": means[0]["lat"], "lon": means[0]["lon"]}
        line = GlobalLine.fit(co2, warming)
        return cls(line, xr.Dataset(intercept, space), xr.Dataset(slope, space), tuple(training))

    def predict(self, inputs: xr.Dataset) -> xr.Dataset:
        """Fields (time, lat, lon) of an experiment from its CO2 alone, unit of scores.

        Raises:
            DataContractError: If CO2 is atmospheric mass.
        """
        experiment = str(inputs.attrs.get("experiment_id", "unknown"))
        check_cumulative(inputs["CO2"], experiment)
        warming = self.line.predict(inputs["CO2"]).drop_attrs()
        fields = {
            n: (self.intercept[n] + self.slope[n] * warming)
            .transpose("time", "lat", "lon")
            .assign_attrs(units=self.intercept[n].attrs["units"])
            for n in self.slope.data_vars
        }
        return xr.Dataset(fields, attrs={"experiment_id": experiment, "trained_on": ", ".join(self.trained_on)})


def training_set(
    training: Mapping[str, tuple[xr.Dataset, xr.Dataset]], variables: Sequence[str] | None
) -> tuple[NDArray[np.float64], list[xr.Dataset]]:
    """CO2 of all years ``[n]`` and the member means by experiment, once they are found to belong together.

    Raises:
        DataContractError: If there is no training, CO2 of an experiment is atmospheric mass, inputs and outputs are of other
            years, or grids differ.
    """
    if not training:
        raise DataContractError("training", "no experiments", "one or more", "name training experiments")
    co2, means = [], []
    for experiment, (inputs, outputs) in training.items():
        subject = f"outputs of {experiment}"
        check_cumulative(inputs["CO2"], experiment)
        if not np.array_equal(inputs["time"], outputs["time"]):
            raise DataContractError(subject, f"years {span(outputs)}", f"the inputs' {span(inputs)}", "use open_pair")
        co2.append(np.asarray(inputs["CO2"].values, dtype=np.float64))
        means.append(member_mean(outputs[wanted(outputs, variables, subject)]))
        for axis in ("lat", "lon"):
            first, this = means[0][axis].values, means[-1][axis].values
            if first.shape != this.shape or not np.allclose(first, this):
                raise DataContractError(
                    subject, f"another {axis}", f"the grid of {next(iter(training))}", "regrid first"
                )
    return np.concatenate(co2), means


def check_cumulative(co2: xr.DataArray, experiment: str) -> None:
    """Raise DataContractError where CO2 is atmospheric mass, as in the idealised experiments."""
    quantity = ATMOSPHERIC if experiment in IDEALISED else co2.attrs.get("quantity", CUMULATIVE)
    if quantity != CUMULATIVE:
        raise DataContractError(
            f"CO2 of {experiment}",
            f"{quantity} in Gt",
            CUMULATIVE,
            "leave the idealised experiments out: the two do not mix",
        )


def member_mean(outputs: xr.Dataset) -> xr.Dataset:
    """Mean over the members that have a value there, as in ClimateBench's own training data (time, lat, lon).

    Raises:
        DataContractError: If no member has one.
    """
    mean = outputs.mean("member", skipna=True, keep_attrs=True) if "member" in outputs.dims else outputs
    for field in mean.data_vars.values():
        scores.check_finite(field)
    return mean
