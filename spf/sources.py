"""Several Earth system models in one emulator: numbered, each with its own forced response and marginals, on shared scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.response import ForcedResponse, Response
from spf.codec import FieldCodec, measure_forcings
from spf.config import DataConfig
from spf.pyramid.marginals import Marginal, averaged

Scenarios = Mapping[str, xr.Dataset]
UNKNOWN = 0
"""Number of a model that was not trained on; those that were count from 1, ``data.source_id`` first."""


@dataclass(frozen=True)
class Source:
    """An Earth system model that an emulator has learned from.

    Attributes:
        source_id: Its name.
        codec: With its own forced response; scales and normalisation of forcings are those of all sources.
        marginals: Scale and shape of its departures by stage key, in shared scales.
        training_members: By scenario.
    """

    source_id: str
    codec: FieldCodec
    marginals: dict[str, Marginal]
    training_members: Mapping[str, Sequence[str]]

    def to_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dicts only."""
        members = {e: list(m) for e, m in self.training_members.items()}
        return {
            "source_id": self.source_id, "codec": self.codec.to_dict(), "training_members": members,
            "marginals": {k: m.to_dict() for k, m in self.marginals.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Source":
        """Inverse of `to_dict`."""
        marginals = {k: Marginal.from_dict(m) for k, m in data["marginals"].items()}
        return cls(data["source_id"], FieldCodec.from_dict(data["codec"]), marginals, data["training_members"])


def fit_codecs(
    scenarios: Mapping[str, Scenarios], data: DataConfig, patterns: xr.DataArray | None = None
) -> dict[str, FieldCodec]:
    """A codec for every source: its own forced response, the first source's scales, one normalisation of forcings.

    Scales are one number a variable, whatever the source, since marginals carry what differs between them. Forcings are normalised
    over all scenarios that any source is trained on, each counted once, so that one that varies in a single source has its range.

    Args:
        scenarios: Canonical monthly Datasets with members and forcings, by source_id and scenario; the main source first.
        data: Variables, forcings, kind of response.
        patterns: Other models' warming patterns, for the main source's energy balance.

    Raises:
        DataContractError: If a response cannot be fitted, or grids differ.
    """
    fitted: dict[str, FieldCodec] = {}
    for source_id, runs in scenarios.items():
        own = None if fitted else patterns
        fitted[source_id] = FieldCodec.fit(
            runs, data.variables, data.forcings, data.forcing_pooling, data.response, own
        )
    main = next(iter(fitted.values()))
    if len(fitted) == 1:
        return fitted
    every = {e: ds for runs in reversed(list(scenarios.values())) for e, ds in runs.items()}
    mean, scale, limits = measure_forcings(every, main.forcings, main.grid, main.forcing_pooling)
    main = replace(main, forcing_mean=mean, forcing_scale=scale, forcing_range=limits)
    return {source_id: sharing(codec, main, source_id) for source_id, codec in fitted.items()}


def sharing(codec: FieldCodec, main: FieldCodec, source_id: str) -> FieldCodec:
    """The codec's forced response with everything else of another codec.

    Raises:
        DataContractError: If their grids or variables differ.
    """
    ours, theirs = codec.grid, main.grid
    shapes = [(len(g.lat), len(g.lon)) for g in (ours, theirs)]
    if shapes[0] != shapes[1] or not (np.allclose(ours.lat, theirs.lat) and np.allclose(ours.lon, theirs.lon)):
        found, expected = (f"a grid of {n} x {m} cells" for n, m in shapes)
        raise DataContractError(
            source_id, found, f"{expected}, the main source's", "give data.grid: all sources are then regridded to it"
        )
    if codec.variables != main.variables:
        raise DataContractError(
            source_id, ", ".join(codec.variables), f"{', '.join(main.variables)}, in this order", "fit it on the same variables"
        )  # fmt: skip
    return replace(main, response=codec.response)


def averaged_codec(sources: Sequence[Source]) -> FieldCodec:
    """A codec whose forced response is the mean of the sources', with the first one's calendar: a model of which nothing is known.

    Raises:
        DataContractError: If a response is not a line on CO2; energy balances have no mean that is one.
    """
    lines = [_line(source.codec.response, source.source_id) for source in sources]
    centre = float(np.mean([line.centre for line in lines]))
    intercept, slope = (_mean_maps([getattr(line, name) for line in lines]) for name in ("intercept", "slope"))
    return replace(sources[0].codec, response=replace(lines[0], intercept=intercept, slope=slope, centre=centre))


def averaged_marginals(sources: Sequence[Source]) -> dict[str, Marginal]:
    """Root mean square of the gains and mean of the bends of sources, by stage key."""
    return {k: averaged([s.marginals[k] for s in sources]) for k in sources[0].marginals}


def _mean_maps(maps: Sequence[xr.Dataset]) -> xr.Dataset:
    """Mean of Datasets cell by cell, on the first one's coordinates, which others may differ from by rounding."""
    first = maps[0]
    return first.copy(data={v: np.mean([each[v].values for each in maps], axis=0) for v in first.data_vars})


def _line(response: Response, source_id: str) -> ForcedResponse:
    if not isinstance(response, ForcedResponse):
        raise DataContractError(
            f"mean forced response with {source_id}", type(response).__name__, "lines on CO2",
            "give a codec fitted on the model's own data, or train with data.response: co2",
        )  # fmt: skip
    return response


def provenance_of(known: Mapping[str, Any], sources: Sequence[Source], source_id: str) -> dict[str, Any]:
    """Provenance of an emulator with one of its sources, or one that it has not seen, as the main one."""
    members: dict[str, Mapping[str, Sequence[str]]] = {s.source_id: s.training_members for s in sources}
    own = members.pop(source_id, {})
    return {**known, "source_id": source_id, "training_members": own, "also": members}
