"""The one door between named, unit-carrying fields (xarray) and normalised, anonymous tensors."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.forcing import plain
from climatesuite.forcing.accounting import NOT_STATED, check_like, check_same
from climatesuite.forcing.energy_balance import CALIBRATIONS, ar6_forcing, calibration_of
from climatesuite.forcing.energy_balance import scenarios as ar6_scenarios
from climatesuite.forcing.energy_response import GLOBAL_MEAN_OF, EnergyBalanceResponse, fit_energy_balance_response
from climatesuite.forcing.reference import carried_forcing
from climatesuite.forcing.response import ForcedResponse, Response, annual_predictor, fit_response
from climatesuite.harmonise.grids import area_weights
from spf.pyramid.operators import pool_space
from spf.pyramid.windows import ForcingSeries

log = logging.getLogger("spf")


@dataclass(frozen=True)
class Grid:
    """A rectilinear grid: centres (degrees) and their bounds."""

    lat: tuple[float, ...]
    lon: tuple[float, ...]
    lat_bnds: tuple[tuple[float, float], ...]
    lon_bnds: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, ds: xr.Dataset) -> "Grid":
        """The grid of a canonical Dataset."""
        pairs = {k: tuple((float(a), float(b)) for a, b in ds[k].values) for k in ("lat_bnds", "lon_bnds")}
        return cls(tuple(ds.lat.values.tolist()), tuple(ds.lon.values.tolist()), pairs["lat_bnds"], pairs["lon_bnds"])

    def coords(self) -> dict[str, Any]:
        """Coordinates for a Dataset on this grid."""
        return {
            "lat": ("lat", np.array(self.lat)),
            "lon": ("lon", np.array(self.lon)),
            "lat_bnds": (("lat", "bnds"), np.array(self.lat_bnds)),
            "lon_bnds": (("lon", "bnds"), np.array(self.lon_bnds)),
        }

    def row_weights(self) -> Tensor:
        """Area weight of each row (lat,), mean 1."""
        weights = area_weights(xr.Dataset(coords=self.coords())).values
        return torch.tensor(weights / weights.mean(), dtype=torch.float32)


@dataclass(frozen=True)
class FieldCodec:
    """Encodes departures from the forced response in units of one number a variable; decodes them back.

    Attributes:
        response: Forced response fitted on the training scenarios: one line on CO2, or the energy balance.
        scales: Root-mean-square monthly departure of each variable (canonical unit); fixes the order of variables too.
        forcing_mean: Training mean of each forcing, per pooled cell (lat, lon), canonical unit; fixes the order of forcings.
        forcing_scale: Root-mean-square departure from it, one number a forcing.
        forcing_range: Smallest and largest monthly mean over the pooled cells in training, canonical unit.
        grid: Grid of the fields.
        forcing_pooling: Forcings are seen as area means of blocks of this edge.
        accounting: How the training forcings count emissions.
    """

    response: Response
    scales: Mapping[str, float]
    forcing_mean: Mapping[str, np.ndarray]
    forcing_scale: Mapping[str, float]
    forcing_range: Mapping[str, tuple[float, float]]
    grid: Grid
    forcing_pooling: int
    accounting: str = NOT_STATED

    @classmethod
    def fit(
        cls,
        scenarios: Mapping[str, xr.Dataset],
        variables: Sequence[str],
        forcings: Sequence[str],
        forcing_pooling: int,
        response: str = "auto",
        patterns: xr.DataArray | None = None,
    ) -> "FieldCodec":
        """Fit the forced response and all scales on the training scenarios.

        Args:
            scenarios: Canonical monthly Dataset with members and forcings, by scenario.
            variables: Fields, in channel order.
            forcings: Forcings, in channel order.
            forcing_pooling: Block edge of the forcings that the network sees.
            response: ``energy-balance``, ``co2``, or ``auto``: the energy balance where the source has a calibration, all
                scenarios are in AR6's forcing table and tas is among the variables.
            patterns: Other models' warming patterns (``energy_response.open_patterns``) for the energy balance; None for no
                such term.

        Raises:
            DataContractError: If the response cannot be fitted on these scenarios, patterns are given for CO2, blocks of
                forcings do not tile the grid, or scenarios count emissions in two ways.
        """
        counted = check_same(scenarios.values(), "training scenarios")
        fitted = _fit_response(scenarios, variables, response, patterns)
        grid = Grid.of(next(iter(scenarios.values())))
        if len(grid.lat) % forcing_pooling or len(grid.lon) % forcing_pooling:
            raise DataContractError(
                "forcings", f"a grid of {len(grid.lat)}x{len(grid.lon)} cells", f"blocks of {forcing_pooling} to tile it",
                "choose another data.forcing_pooling, or build the store on another data.grid",
            )  # fmt: skip
        weights = grid.row_weights().numpy()[:, None]
        squares, count = dict.fromkeys(variables, 0.0), 0
        for ds in scenarios.values():
            years = np.unique(ds.year.values).tolist()
            forced = _in_training(fitted).evaluate(_predictor(fitted, ds), "month", years)
            for member in ds.member.values:
                for v in variables:
                    departure = ds[v].sel(member=member).values - forced[v].values
                    squares[v] += float((departure**2 * weights).mean())
                count += 1
        scales = {v: float(np.sqrt(s / count)) for v, s in squares.items()}
        mean, scale, limits = measure_forcings(scenarios, forcings, grid, forcing_pooling)
        return cls(fitted, scales, mean, scale, limits, grid, forcing_pooling, counted)

    @property
    def variables(self) -> tuple[str, ...]:
        """Fields, in channel order."""
        return tuple(self.scales)

    @property
    def forcings(self) -> tuple[str, ...]:
        """Forcings, in channel order."""
        return tuple(self.forcing_mean)

    @property
    def calendar(self) -> str:
        """CF calendar of the fields."""
        return self.response.calendar

    def encode(self, fields: xr.Dataset, forced: Tensor) -> Tensor:
        """Fields (time, lat, lon) of one member minus their forced response -> (var, time, lat, lon) float32.

        Raises:
            DataContractError: If a variable is missing.
        """
        missing = [v for v in self.variables if v not in fields]
        if missing:
            raise DataContractError(
                "encode", f"no {missing} in the data", f"{list(self.variables)}", "build the store with them"
            )
        values = np.stack([fields[v].values for v in self.variables])
        return (torch.from_numpy(values).float() - forced) / self._scale()

    def forced(
        self, predictor: xr.DataArray, timescale: str, years: Sequence[int], member: int | None = None
    ) -> Tensor:
        """Forced response of an ensemble (var, time, lat, lon) in canonical units.

        Args:
            predictor: Of `predictor`.
            timescale: ``month``, ``year`` or ``decade``.
            years: Labels (first years for decades).
            member: Number of the ensemble member, which has one of the energy balance's global means (member modulo their
                number); their mean response if None. Without effect on CO2.
        """
        response = self.response
        if isinstance(response, EnergyBalanceResponse):
            if not _has_pattern(response, predictor):
                response = replace(response, kappa=0.0)
            return self._tensor(response.evaluate(predictor, timescale, years, member=member))
        return self._tensor(response.evaluate(predictor, timescale, years))

    def forced_in_training(self, predictor: xr.DataArray, timescale: str, years: Sequence[int]) -> Tensor:
        """What departures of training runs are taken about (var, time, lat, lon), canonical units.

        The same as `forced` for CO2; for the energy balance the mean of its lines alone, since its other terms follow the
        training runs.
        """
        return self._tensor(_in_training(self.response).evaluate(predictor, timescale, years))

    def _tensor(self, fields: xr.Dataset) -> Tensor:
        return torch.from_numpy(np.stack([fields[v].values for v in self.variables])).float()

    def decode(self, x: Tensor, forced: Tensor) -> dict[str, np.ndarray]:
        """Inverse of `encode`: (var, time, lat, lon) -> canonical arrays (time, lat, lon) by variable; never negative rain."""
        values = (x * self._scale() + forced).numpy()
        return {
            v: np.maximum(values[i], 0.0) if VARIABLES[v].is_nonnegative else values[i]
            for i, v in enumerate(self.variables)
        }

    def encode_forcings(self, month: xr.Dataset) -> ForcingSeries:
        """Canonical monthly forcings of whole years -> encoded series.

        Raises:
            DataContractError: If a forcing that the emulator was trained with is absent, or emissions are counted otherwise.
        """
        check_like(month, self.accounting, "this emulator")
        pooled = pool_forcings(month, self.forcings, self.grid, self.forcing_pooling)
        mean = torch.from_numpy(np.stack([self.forcing_mean[f] for f in self.forcings]))
        scale = torch.tensor([self.forcing_scale[f] for f in self.forcings], dtype=torch.float64).reshape(-1, 1, 1)
        encoded = ((pooled - mean) / scale).float()
        months = encoded.unflatten(0, (-1, 12))
        days = torch.tensor(month.days.values.astype("float32")).unflatten(0, (-1, 12))
        weights = (days / days.sum(1, keepdim=True))[:, :, None, None, None]
        return ForcingSeries(int(month.year.values[0]), (months * weights).sum(1), months, days.sum(1))

    def beyond_training(self, month: xr.Dataset) -> list[str]:
        """One sentence for each forcing that leaves the range seen in training by a tenth of it or more, with how far."""
        level = pool_forcings(month, self.forcings, self.grid, self.forcing_pooling).mean((2, 3))
        said = []
        for i, name in enumerate(self.forcings):
            (low, high), values = self.forcing_range[name], level[:, i]
            over = torch.maximum(low - values, values - high) / max(high - low, 1e-30)
            if float(over.max()) > 0.1:
                first = int(month.year.values[int((over > 0.1).nonzero()[0])])
                said.append(
                    f"{name} runs from {float(values.min()):.4g} to {float(values.max()):.4g} {FORCINGS[name].units}, trained on "
                    f"{low:.4g} to {high:.4g}: from {first} on the ensemble extrapolates, by {float(over.max()):.0%} of that range "
                    "at most (is it in the unit and accounting of the training forcings?)"
                )
        return said

    def predictor(self, month: xr.Dataset, forcing: xr.Dataset | None = None) -> xr.DataArray:
        """What the forced response of a scenario is evaluated on, for the years of ``month``.

        Args:
            month: Canonical monthly forcings; the attribute ``experiment_id`` names the scenario.
            forcing: Effective radiative forcing by component from 1850 on (``climatesuite.forcing.custom``), for the energy
                balance; by default what ``month`` carries (a scenario of one's own), else that of the scenario in AR6's table.

        Returns:
            CO2 ``(year)``, or the energy balance's global means ``(response, year)``. A scenario without a pattern of other models
            where the response has such a term is warned of: it then goes without.

        Raises:
            DataContractError: If CO2 is absent, the scenario is not in AR6's table and ``forcing`` is not given, it is given for
                a response on CO2, or the years are not covered.
        """
        found = _predictor(self.response, month, forcing)
        if isinstance(self.response, EnergyBalanceResponse) and not _has_pattern(self.response, found):
            log.warning(
                "no warming pattern of other models for %s: its forced response goes without that term",
                found.attrs.get("experiment_id", "an unnamed scenario"),
            )
        return found

    def level(self, predictor: xr.DataArray) -> Tensor:
        """How far the climate has moved, year by year (year,): warming in K by the energy balance, or 1,000 units of CO2."""
        moved = predictor.mean("response") if "response" in predictor.dims else predictor / 1000
        return torch.from_numpy(moved.values).float()

    def to_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists, dicts and None only."""
        return {
            "response": _as_tensors(plain.to_dict(self.response)),
            "scales": dict(self.scales),
            "forcing_mean": {f: torch.from_numpy(np.asarray(a)) for f, a in self.forcing_mean.items()},
            "forcing_scale": dict(self.forcing_scale),
            "forcing_range": {f: list(r) for f, r in self.forcing_range.items()},
            "grid": {k: torch.tensor(getattr(self.grid, k), dtype=torch.float64) for k in Grid.__dataclass_fields__},
            "forcing_pooling": self.forcing_pooling,
            "accounting": self.accounting,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FieldCodec":
        """Inverse of `to_dict`."""
        grid = Grid(
            tuple(data["grid"]["lat"].tolist()),
            tuple(data["grid"]["lon"].tolist()),
            tuple(map(tuple, data["grid"]["lat_bnds"].tolist())),
            tuple(map(tuple, data["grid"]["lon_bnds"].tolist())),
        )
        response = plain.from_dict(_as_arrays(data["response"]))
        means = {f: a.numpy() for f, a in data["forcing_mean"].items()}
        limits = {f: (r[0], r[1]) for f, r in data["forcing_range"].items()}
        pooling, counted = data["forcing_pooling"], data.get("accounting", NOT_STATED)
        return cls(response, data["scales"], means, data["forcing_scale"], limits, grid, pooling, counted)

    def _scale(self) -> Tensor:
        return torch.tensor([self.scales[v] for v in self.variables], dtype=torch.float32).reshape(-1, 1, 1, 1)


def _fit_response(
    scenarios: Mapping[str, xr.Dataset], variables: Sequence[str], kind: str, patterns: xr.DataArray | None
) -> Response:
    if kind not in ("auto", plain.ENERGY_BALANCE, plain.CO2):
        raise DataContractError(
            "forced response", repr(kind), f"auto, {plain.ENERGY_BALANCE} or {plain.CO2}", "correct data.response"
        )
    source_id = str(next(iter(scenarios.values())).attrs.get("source_id", "an unnamed model"))
    if kind == "auto":
        known = source_id in CALIBRATIONS and set(scenarios) <= set(ar6_scenarios()) and GLOBAL_MEAN_OF in variables
        kind = plain.ENERGY_BALANCE if known else plain.CO2
    if kind == plain.ENERGY_BALANCE:
        calibration = calibration_of(source_id)
        forcings = {e: ar6_forcing(e, calibration) for e in scenarios}
        return fit_energy_balance_response(scenarios, forcings, variables, patterns=patterns)
    if patterns is not None:
        raise DataContractError(
            "forced response on CO2", "patterns of other models", "none: only the energy balance has that term",
            "leave data.patterns empty",
        )  # fmt: skip
    return fit_response(scenarios, {e: annual_predictor(ds).compute() for e, ds in scenarios.items()}, variables)


def _in_training(response: Response) -> Response:
    return response.lines_only() if isinstance(response, EnergyBalanceResponse) else response


def _predictor(response: Response, month: xr.Dataset, forcing: xr.Dataset | None = None) -> xr.DataArray:
    if isinstance(response, EnergyBalanceResponse):
        forcing = forcing if forcing is not None else carried_forcing(month, response.calibration)
        if forcing is None:
            forcing = ar6_forcing(str(month.attrs.get("experiment_id", "an unnamed scenario")), response.calibration)
        return response.predictor(forcing, np.unique(month.year.values).astype(int).tolist())
    if forcing is not None:
        raise DataContractError(
            f"forcing of {month.attrs.get('experiment_id', 'the scenario')}", "radiative forcing for a response on CO2",
            "none: this emulator's forced response sees cumulative CO2 alone",
            "leave it out, or train with data.response: energy-balance",
        )  # fmt: skip
    name = response.predictor if isinstance(response, ForcedResponse) else "CO2"
    return annual_predictor(month, name).compute()


def _has_pattern(response: EnergyBalanceResponse, predictor: xr.DataArray) -> bool:
    """Whether the pattern change knows the scenario or its parent, or is not used at all."""
    change = response.pattern_change
    if change is None or not response.kappa:
        return True
    return change.scenario_of(predictor) is not None


def _as_tensors(value: Any) -> Any:
    """Arrays as tensors, at any depth of dicts and lists."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value).copy())
    if isinstance(value, Mapping):
        return {k: _as_tensors(v) for k, v in value.items()}
    return [_as_tensors(v) for v in value] if isinstance(value, list | tuple) else value


def _as_arrays(value: Any) -> Any:
    """Tensors as arrays: inverse of `_as_tensors`."""
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, Mapping):
        return {k: _as_arrays(v) for k, v in value.items()}
    return [_as_arrays(v) for v in value] if isinstance(value, list) else value


def pool_forcings(month: xr.Dataset, names: Sequence[str], grid: Grid, factor: int) -> Tensor:
    """Forcings as area means of blocks (time, forcing, lat, lon); scalars fill the map.

    Raises:
        DataContractError: If a forcing is absent.
    """
    missing = [f for f in names if f not in month]
    if missing:
        raise DataContractError(
            f"forcings of {month.attrs.get('experiment_id', 'the scenario')}",
            f"{missing} missing, found {sorted(map(str, month.data_vars))}",
            f"{list(names)}",
            "add them to the forcing file (zero is a value, absence is not)",
        )
    rows, shape = grid.row_weights(), (len(grid.lat) // factor, len(grid.lon) // factor)
    channels = []
    for name in names:
        values = torch.from_numpy(np.asarray(month[name].values, dtype=np.float64))
        if values.ndim == 1:
            channels.append(values.reshape(-1, 1, 1).expand(-1, *shape))
        else:
            channels.append(pool_space(values, factor, rows))
    return torch.stack(list(channels), 1)


def measure_forcings(
    scenarios: Mapping[str, xr.Dataset], names: Sequence[str], grid: Grid, factor: int
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, tuple[float, float]]]:
    """Training mean (per pooled cell), root-mean-square departure and range of the map's mean of each forcing."""
    pooled = torch.cat([pool_forcings(ds, names, grid, factor) for ds in scenarios.values()])
    mean = pooled.mean(0)
    scale = (pooled - mean).square().mean((0, 2, 3)).sqrt()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    level = pooled.mean((2, 3))
    limits = {f: (float(level[:, i].min()), float(level[:, i].max())) for i, f in enumerate(names)}
    return {f: mean[i].numpy() for i, f in enumerate(names)}, {f: float(safe[i]) for i, f in enumerate(names)}, limits
