"""An ensemble against a world whose law is known: no sampling error on the side of the truth."""

import numpy as np
import xarray as xr

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate.diagnostics import members
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import align
from climatesuite.evaluate.scores import check_comparable
from climatesuite.harmonise.grids import cos_weights


def against_moments(ensemble: xr.Dataset, moments: xr.Dataset, name: str) -> dict[str, float]:
    """Error of mean and spread of an ensemble against exact moments.

    Args:
        ensemble: Canonical Dataset of M members.
        moments: ``<name>_mean`` and ``<name>_std`` ``(time, lat, lon)`` with coord year (and month), canonical units, as
            ``climatesuite.archive.synthetic.true_moments`` returns them.
        name: Variable.

    Returns:
        ``rmse`` of the ensemble mean, ``rmse_expected`` of M perfect members, sqrt(mean of std^2 / M), ``bias``, all in score
        units, and ``spread_ratio``, root of the mean variance over that of the truth; NaN for one member.

    Raises:
        DataContractError: If a moment is missing, or labels or grids differ.
    """
    absent = [n for n in (f"{name}_mean", f"{name}_std") if n not in moments]
    if absent:
        raise DataContractError("known truth", f"no {', '.join(absent)}", "mean and std", "take true_moments' result")
    ours, theirs = align(ensemble, moments)
    check_comparable(ours[name], theirs[f"{name}_mean"])
    exact, std = (_moment(theirs, n, VARIABLES[name].score_factor) for n in (f"{name}_mean", f"{name}_std"))
    size = ours.sizes["member"]
    mean, squares = np.zeros_like(exact), np.zeros_like(exact)
    for count, field in enumerate(members(ours, name), start=1):
        delta = field - mean
        mean += delta / count
        squares += delta * (field - mean)
    weights = np.asarray(cos_weights(ours["lat"]).values)

    def area(values: Array) -> float:
        return float(np.average(values.mean(axis=(0, 2)), weights=weights))

    spread = np.sqrt(area(squares / (size - 1)) / area(std**2)) if size > 1 else np.nan
    return {
        "rmse": float(np.sqrt(area((mean - exact) ** 2))),
        "rmse_expected": float(np.sqrt(area(std**2) / size)),
        "bias": area(mean - exact),
        "spread_ratio": float(spread),
    }


def _moment(ds: xr.Dataset, name: str, factor: float) -> Array:
    return np.asarray(ds[name].transpose("time", "lat", "lon").values, dtype=np.float64) * factor
