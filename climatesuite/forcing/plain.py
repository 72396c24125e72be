"""Forced responses as plain data: dicts of numbers, strings, lists and numpy arrays, to be kept in a file and read back.

Lines that were fitted on the same runs go through the same point, the training mean at the training mean of their predictor. So
one map of means and one map of slopes a line hold them all; and maps lose nothing that matters as float32, since slopes then
multiply small departures from the centre, not 290 K.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import Calibration, EnergyBalance, GlobalMean, ThreeLayer
from climatesuite.forcing.energy_response import CommonDeparture, EnergyBalanceResponse, PatternChange
from climatesuite.forcing.response import ForcedResponse, Response

CO2, ENERGY_BALANCE = "co2", "energy-balance"
DIMS = ("calendar_month", "lat", "lon")
Plain = Mapping[str, Any]


def to_dict(response: Response) -> dict[str, Any]:
    """A response as plain data; :func:`from_dict` reads it back.

    Returns:
        ``kind`` (``co2`` or ``energy-balance``), ``calendar``, ``units`` by field, ``lat``, ``lon``, ``lines``; of an energy
        balance also ``calibration``, ``global_means``, ``departure``, ``common``, ``kappa`` and ``pattern_change`` (None, or the
        differences alone, not the patterns). Maps are float32.

    Raises:
        DataContractError: If it is another kind of response, or its lines do not share their mean.
    """
    if isinstance(response, ForcedResponse):
        return {"kind": CO2, **_frame(response), "lines": _lines([response])}
    if isinstance(response, EnergyBalanceResponse):
        return {
            "kind": ENERGY_BALANCE,
            **_frame(response.lines[0]),
            "lines": _lines(response.lines),
            "calibration": _calibration(response.calibration),
            "global_means": [
                {"layers": asdict(m.layers)} | {k: float(getattr(m, k)) for k in ("offset", "gain", "aerosol_scale")}
                for m in response.balance.members
            ],
            "departure": {"terms": _slopes(response.departure.terms), "years": list(response.departure.years)},
            "common": float(response.common),
            "kappa": float(response.kappa),
            "pattern_change": _change(response.pattern_change),
        }
    raise DataContractError(
        "forced response", type(response).__name__, "ForcedResponse or EnergyBalanceResponse", "fit one of them"
    )


def from_dict(data: Plain) -> Response:
    """Inverse of :func:`to_dict`, in float64.

    Raises:
        DataContractError: If the kind is unknown.
    """
    if data["kind"] not in (CO2, ENERGY_BALANCE):
        raise DataContractError(
            "forced response", f"kind {data['kind']!r}", f"{CO2} or {ENERGY_BALANCE}", "update climatesuite"
        )
    lines = _read_lines(data)
    if data["kind"] == CO2:
        return lines[0]
    source, departure = data["calibration"], data["departure"]
    terms = _read_maps(data, departure["terms"])
    first, last = departure["years"]
    return EnergyBalanceResponse(
        EnergyBalance(
            tuple(
                GlobalMean(_layers(m["layers"]), m["offset"], m["gain"], m["aerosol_scale"])
                for m in data["global_means"]
            )
        ),
        Calibration(source["source_id"], tuple(map(_layers, source["sets"])), source["aerosol_2014"]),
        lines,
        CommonDeparture(
            tuple(ForcedResponse(xr.zeros_like(t), t, data["calendar"], f"t^{p}") for p, t in enumerate(terms)),
            (int(first), int(last)),
        ),
        _read_change(data),
        data["common"],
        data["kappa"],
    )


def _frame(line: ForcedResponse) -> dict[str, Any]:
    """What all maps share."""
    units = {v: str(line.intercept[v].attrs["units"]) for v in line.variables}
    where = {k: np.asarray(line.intercept[k].values, dtype=np.float64) for k in ("lat", "lon")}
    return {"calendar": line.calendar, "units": units, **where}


def _lines(lines: Sequence[ForcedResponse]) -> dict[str, Any]:
    means = {}
    for v in lines[0].variables:
        each = [line.intercept[v].values + line.slope[v].values * line.centre for line in lines]
        means[v] = np.asarray(each[0], dtype=np.float32)
        apart = max(float(np.abs(e - each[0]).max()) for e in each)
        if apart > 1e-6 * float(np.abs(each[0]).max()):
            raise DataContractError(
                f"lines of {v}", f"means up to {apart:.2g} apart", "one mean of the training runs", "fit them on the same runs"
            )  # fmt: skip
    return {
        "mean": means,
        "slopes": _slopes(lines),
        "centres": [float(line.centre) for line in lines],
        "predictors": [line.predictor for line in lines],
        "slope_units": {v: str(lines[0].slope[v].attrs.get("units", "")) for v in lines[0].variables},
    }


def _slopes(lines: Sequence[ForcedResponse]) -> dict[str, Any]:
    """``(line, calendar_month, lat, lon)`` by field."""
    return {v: np.stack([x.slope[v].values for x in lines]).astype(np.float32) for v in lines[0].variables}


def _read_lines(data: Plain) -> tuple[ForcedResponse, ...]:
    part = data["lines"]
    means, out = _maps(data, part["mean"], data["units"]), []
    slopes = _read_maps(data, part["slopes"], part["slope_units"])
    for slope, centre, predictor in zip(slopes, part["centres"], part["predictors"], strict=True):
        intercept = means.copy(data={v: means[v].values - slope[v].values * centre for v in map(str, means.data_vars)})
        out.append(ForcedResponse(intercept, slope, data["calendar"], predictor, centre))
    return tuple(out)


def _read_maps(data: Plain, stacks: Plain, units: Plain | None = None) -> list[xr.Dataset]:
    """A Dataset for each of the stacked maps."""
    count = len(next(iter(stacks.values())))
    return [_maps(data, {v: a[i] for v, a in stacks.items()}, units or data["units"]) for i in range(count)]


def _maps(data: Plain, arrays: Plain, units: Plain) -> xr.Dataset:
    fields = {v: (DIMS, np.asarray(a, dtype=np.float64), {"units": units[v]}) for v, a in arrays.items()}
    return xr.Dataset(fields, _coords(data))


def _coords(data: Plain) -> dict[str, Any]:
    return {"calendar_month": np.arange(1, 13), "lat": np.asarray(data["lat"]), "lon": np.asarray(data["lon"])}


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "source_id": calibration.source_id,
        "sets": [asdict(layers) for layers in calibration.sets],
        "aerosol_2014": float(calibration.aerosol_2014),
    }


def _layers(data: Plain) -> ThreeLayer:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.items()}
    return ThreeLayer(**fields)


def _change(change: PatternChange | None) -> dict[str, Any] | None:
    if change is None:
        return None
    names = [str(s) for s in change.patterns["experiment_id"].values]
    return {"experiment_id": names, "difference": np.stack([change.of(s).values for s in names]).astype(np.float32)}


def _read_change(data: Plain) -> PatternChange | None:
    change = data["pattern_change"]
    if change is None:
        return None
    coords = {"experiment_id": list(change["experiment_id"]), **_coords(data)}
    difference = xr.DataArray(np.asarray(change["difference"], dtype=np.float64), coords, ("experiment_id", *DIMS))
    return PatternChange(difference, xr.zeros_like(difference.isel(experiment_id=0, drop=True)))
