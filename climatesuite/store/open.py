"""Reading a store: runs as lazy canonical Datasets."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from zarr.abc.store import Store

from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError
from climatesuite.store.layout import SCHEMA, STATISTICS, decode_times, group_name, timescales
from climatesuite.store.metadata import root_nodes
from climatesuite.store.place import NODE, Overlay, Place


def open_root(store: str | Path) -> zarr.Group:
    """The root group, of one published state of the store.

    Raises:
        DataContractError: If there is no store, or it is newer than this code.
    """
    return zarr.open_group(open_store(store), mode="r", use_consolidated=False)


def open_store(store: str | Path) -> Store:
    """The zarr store; all metadata is that of the root's one object, read once.

    Raises:
        DataContractError: If there is no store, or it is newer than this code.
    """
    place = Place(str(store))
    try:
        root = json.loads(place.read(NODE))
    except FileNotFoundError as error:
        raise DataContractError(
            str(store), "no store there", "a store made by climatesuite build", "build it first"
        ) from error
    except ValueError as error:
        raise DataContractError(
            f"{place.url}/{NODE}", f"damaged ({error})", "what build wrote", "build it again"
        ) from error
    schema = root.get("attributes", {}).get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise DataContractError(
            str(store), f"schema {schema}", f"up to {SCHEMA}", "update climatesuite, or build the store again"
        )
    nodes = root_nodes(root)
    return Overlay(place.store(), nodes) if nodes else place.store()


def list_runs(store: str | Path) -> list[tuple[str, str]]:
    """All (source_id, experiment_id) of a store."""
    runs: Any = open_root(store).attrs["runs"]
    return [(str(source), str(scenario)) for source, scenario in runs]


def open_run(store: str | Path, source_id: str, experiment_id: str, timescale: str) -> xr.Dataset:
    """One run at one timescale.

    Args:
        store: Path or URL.
        source_id: Earth system model.
        experiment_id: Scenario.
        timescale: ``decade``, ``year`` or ``month``.

    Returns:
        Canonical Dataset, lazy: fields (member, time, lat, lon), forcings (time) or (time, lat, lon).

    Raises:
        DataContractError: If the run or the timescale is not in the store.
    """
    root, name = open_root(store), group_name(source_id, experiment_id, timescale)
    if timescale not in TIMESCALES or name not in root:
        there = [
            f"{source}/{scenario} ({', '.join(timescales_of(root, source, scenario))})"
            for source, scenario in list_runs(store)
        ]
        raise DataContractError(
            str(store), f"no {name}, only {'; '.join(there)}", "a run and timescale of the store", "correct the names or build it"
        )  # fmt: skip
    ds = xr.open_zarr(root.store, group=name, decode_times=False, consolidated=False, chunks={})
    attrs = dict(ds.attrs)
    members = [str(m) for m in attrs.pop("members")]
    order = [*attrs.pop("fields"), *attrs.pop("forcings", [])]
    about = dict(ds["time"].attrs)
    kept = {k: v for k, v in about.items() if k not in ("units", "calendar")}
    dates = {n: (ds[n].dims, decode_times(ds[n].values, about), a) for n, a in (("time", kept), ("time_bnds", {}))}
    loaded = {n: ds[n].load() for n in ("lat_bnds", "lon_bnds", "year", "month", "days") if n in ds.variables}
    ds = ds.drop_vars(["time", "time_bnds"]).set_coords(list(loaded)).assign_coords(loaded)
    ds = ds[order + [n for n in ds.coords if n in loaded]].assign_coords({**dates, **loaded, "member": members})
    ds.attrs = attrs
    return ds


def only(ds: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """The Dataset with some of its variables and all of its coordinates, bounds among them."""
    return ds.drop_vars(set(ds.data_vars) - set(names))


def open_statistics(store: str | Path, source_id: str, experiment_id: str) -> xr.Dataset:
    """Count, mean and M2 of every member (member, calendar_month, lat, lon), in memory; merge them with `harmonise.statistics`."""
    root, name = open_root(store), group_name(source_id, experiment_id, STATISTICS)
    if name not in root:
        raise DataContractError(str(store), f"no {name}", "statistics of every run", "build the store again")
    ds = xr.open_zarr(root.store, group=name, consolidated=False, chunks=None).load()
    return ds.assign_coords(member=[str(m) for m in ds.attrs.pop("members")])


def timescales_of(root: zarr.Group, source_id: str, experiment_id: str) -> list[str]:
    """The timescales of a run, finest first."""
    return [t for t in timescales() if group_name(source_id, experiment_id, t) in root]
