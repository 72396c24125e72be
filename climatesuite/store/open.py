"""Reading a store: runs as lazy canonical Datasets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from climatesuite.errors import DataContractError
from climatesuite.store.layout import SCHEMA, STATISTICS, decode_times, group_name
from climatesuite.store.provenance import read_provenance


def open_root(store: str | Path) -> zarr.Group:
    """The root group.

    Raises:
        DataContractError: If there is no store, or it is newer than this code.
    """
    try:
        root = zarr.open_group(str(store), mode="r")
    except FileNotFoundError as error:
        raise DataContractError(
            str(store), "no store there", "a store made by climatesuite build", "build it first"
        ) from error
    schema = root.attrs.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise DataContractError(
            str(store), f"schema {schema}", f"up to {SCHEMA}", "update climatesuite, or build the store again"
        )
    return root


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
    if name not in root:
        runs = ", ".join("/".join(r) for r in list_runs(store))
        raise DataContractError(
            str(store), f"no {name}, only {runs}", "a run and timescale of the store", "correct the names or build it"
        )
    ds = xr.open_zarr(str(store), group=name, decode_times=False, consolidated=False, chunks={})
    attrs = dict(ds.attrs)
    members = [str(m) for m in attrs.pop("members")]
    order = [*attrs.pop("fields"), *attrs.pop("forcings", [])]
    about = dict(ds["time"].attrs)
    dates = {n: (ds[n].dims, decode_times(ds[n].values, about)) for n in ("time", "time_bnds")}
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
    ds = xr.open_zarr(str(store), group=name, consolidated=False, chunks=None).load()
    return ds.assign_coords(member=[str(m) for m in ds.attrs.pop("members")])


def describe(store: str | Path) -> str:
    """What a store holds, in words."""
    known = read_provenance(store)
    lines = [
        f"{store}",
        f"  built by climatesuite {known['version']} from {len(known['sources'])} files, {known['created']}",
    ]
    for source, scenario in list_runs(store):
        month = open_run(store, source, scenario, "month")
        fields = [str(v) for v in month.data_vars if month[v].attrs.get("role") == "field"]
        forcings = [str(v) for v in month.data_vars if month[v].attrs.get("role") == "forcing"]
        years = np.unique(month.year.values)
        lines.append(
            f"  {source} {scenario}: {', '.join(fields)}; {month.sizes['member']} members; {years[0]}-{years[-1]}; "
            f"{month.sizes['lat']} x {month.sizes['lon']}; {month.attrs['calendar']}; forcings {', '.join(forcings) or 'none'}"
        )
    size = sum(p.stat().st_size for p in Path(store).rglob("*") if p.is_file())
    lines.append(f"  size {size / 1e6:.0f} MB; licences: {'; '.join(known['licenses']) or 'not stated'}")
    return "\n".join(lines)
