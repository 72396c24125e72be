"""ClimateBench's files (Watson-Parris et al. 2022, doi 10.1029/2021MS002954): read, and written for other models.

Layout: ``outputs_<experiment>.nc`` with annual anomalies (member, time, lat, lon), ``inputs_<experiment>.nc`` with the forcings of
the same integer years. Precipitation is in mm day-1 as soon as it is read.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.ensemble_file import MEMBER_DIMS, SPACE_NAMES
from climatesuite.errors import DataContractError
from climatesuite.evaluate.scores import check_finite
from climatesuite.forcing.forcings import CREDIBLE, NOISE
from climatesuite.harmonise.coarsen import to_year
from climatesuite.harmonise.grids import order_axis, regrid
from climatesuite.harmonise.units import conversion

MEASURED_LIKE = {"tas": "tas", "diurnal_temperature_range": "tas", "pr": "pr", "pr90": "pr"}
"""ClimateBench's fields and the variable of `conventions` that has the same units."""
INPUTS = ("CO2", "CH4", "SO2", "BC")
IDEALISED = ("1pctCO2", "abrupt-4xCO2")
"""Experiments whose CO2 is an anomaly of atmospheric mass instead of cumulative emissions; both are in Gt."""
CUMULATIVE, ATMOSPHERIC = "cumulative emissions", "atmospheric mass"
PRECIPITATION_STD = (1e-3, 100.0)
"""Credible standard deviation over space and time, mm day-1: below it is kg m-2 s-1, above it was converted twice."""
LARGEST_MEAN = {"tas": 100.0, "diurnal_temperature_range": 5.0, "pr": 1.5, "pr90": 5.0}
"""K and mm day-1; a mean over space and time beyond it is no anomaly."""


def open_outputs(
    root: str | Path,
    experiment: str,
    variables: Sequence[str] | None = None,
    members: Sequence[int] | None = None,
    allow_missing: bool = False,
) -> xr.Dataset:
    """Annual fields of one experiment.

    Args:
        root: Folder with ``outputs_<experiment>.nc``.
        experiment: E.g. ``ssp245``.
        variables: Among `MEASURED_LIKE`; default all that the file holds.
        members: Integer labels, in the file's own numbering; default all.
        allow_missing: Keep members with missing values, for :func:`member_mean`; default is to refuse them.

    Returns:
        Dataset (member, time, lat, lon), float64, K and mm day-1; ``time`` integer years, members and axes ascending. The
        attribute ``anomaly_base`` says what was subtracted ("none" for piControl, whose values are raw).

    Raises:
        DataContractError: If the file, a variable or a member is missing, units or times cannot be read, values are missing (with
            variables, members and years), or numbers do not fit their unit.
    """
    file = Path(root) / f"outputs_{experiment}.nc"
    raw = _open(file, variables)
    if "member" not in raw.dims or "member" not in raw.coords:
        raise DataContractError(file.name, "no labelled dimension member", "members with labels", "add the coordinate")
    absent = sorted(set(members or ()) - set(raw["member"].values.tolist()))
    if absent:
        there = ", ".join(map(str, raw["member"].values))
        raise DataContractError(file.name, f"members {there}", f"member {absent[0]}", "correct the members")
    raw = raw.sortby("member") if members is None else raw.sel(member=sorted(members))
    base = "none" if experiment == "piControl" else str(raw.attrs.get("anomaly_base", "piControl"))
    layout = {n: VARIABLES[like].units for n, like in MEASURED_LIKE.items()}
    fields = {str(n): scored(f, str(n), file.name, layout[str(n)], base != "none") for n, f in raw.data_vars.items()}
    ds = xr.Dataset(fields, attrs={**raw.attrs, "experiment_id": experiment, "anomaly_base": base})
    holes = _holes(ds)
    if holes and not allow_missing:
        complete = [str(m) for m in ds["member"].values if not any(f"member {m} " in h for h in holes)]
        raise DataContractError(
            file.name, f"missing values in {'; '.join(holes)}", "complete fields",
            f"choose members ({', '.join(complete) or 'none'} are complete) or variables",
        )  # fmt: skip
    return ds


def open_inputs(root: str | Path, experiment: str) -> xr.Dataset:
    """Annual forcings of one experiment.

    Returns:
        Dataset of CO2, CH4 (time) and SO2, BC (time, lat, lon), or (time) in the idealised experiments; float64, units of
        `conventions.FORCINGS`, integer years. CO2's attribute ``quantity`` tells cumulative emissions from atmospheric mass.

    Raises:
        DataContractError: If the file or CO2 is missing (piControl has none), units or times cannot be read, or values are missing
            or not credible.
    """
    file = Path(root) / f"inputs_{experiment}.nc"
    if experiment == "piControl" and not file.is_file():
        raise DataContractError(file.name, "no inputs exist for piControl", "outputs only", "use open_outputs")
    raw = _open(file, known=INPUTS)
    if "CO2" not in raw:
        raise DataContractError(file.name, f"only {', '.join(map(str, raw.data_vars))}", "CO2 (time)", "add it")
    quantity = ATMOSPHERIC if experiment in IDEALISED else CUMULATIVE
    data = {str(n): _forcing(f, str(n), file.name, experiment in IDEALISED) for n, f in raw.data_vars.items()}
    data["CO2"] = data["CO2"].assign_attrs(quantity=quantity, long_name=f"CO2, {quantity}")
    return xr.Dataset(data, attrs={**raw.attrs, "experiment_id": experiment})


def open_pair(
    root: str | Path,
    experiment: str,
    variables: Sequence[str] | None = None,
    members: Sequence[int] | None = None,
    allow_missing: bool = False,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Inputs and outputs of the years that both hold (ssp370-lowNTCF's outputs end before its inputs).

    Raises:
        DataContractError: As :func:`open_inputs` and :func:`open_outputs`, or if no year is common.
    """
    x, y = open_inputs(root, experiment), open_outputs(root, experiment, variables, members, allow_missing)
    years = np.intersect1d(x["time"], y["time"])  # both go up by one, so the common stretch has no holes
    if years.size == 0:
        raise DataContractError(
            f"inputs of {experiment}", f"years {span(x)}", f"years of the outputs, {span(y)}", "give matching files"
        )
    return x.sel(time=years), y.sel(time=years)


def open_prediction(path: str | Path, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Predicted anomalies of any tool: NetCDF with dims (time, lat, lon) and at most one of member, realization, sample, ensemble.

    Units are taken from the attribute, else as K and mm day-1. Returned as by :func:`open_outputs`.

    Raises:
        DataContractError: If it cannot be read as such, or the numbers do not fit their unit.
    """
    raw = _open(Path(path), variables)
    fields = {str(n): scored(f, str(n), Path(path).name) for n, f in raw.data_vars.items()}
    return xr.Dataset(fields, attrs=raw.attrs)


def _open(file: Path, variables: Sequence[str] | None = None, known: Iterable[str] = MEASURED_LIKE) -> xr.Dataset:
    """Variables of a file with the project's names of dims, integer years and ascending axes, in memory."""
    if not file.is_file():
        raise DataContractError(
            file.name,
            f"no such file in {file.parent}",
            "ClimateBench's layout",
            "add the file (climatesuite fetch climatebench gets the official ones)",
        )
    try:
        raw = xr.open_dataset(file, decode_times=False, engine="netcdf4")
    except (OSError, RuntimeError) as error:
        raise DataContractError(file.name, f"not readable ({error})", "a whole NetCDF file", "get it again") from error
    with raw:
        ds = named(raw[wanted(raw, variables, file.name, known)], file.name)
        return ds.assign_coords(time=years_of(ds["time"], file.name)).load()


def named(ds: xr.Dataset, subject: str) -> xr.Dataset:
    """The dims called member, time, lat, lon; axes ascending; of the other coordinates only ``year`` survives, as time."""
    member = [d for d in MEMBER_DIMS if d in ds.dims]
    if len(member) > 1:
        raise DataContractError(subject, f"dimensions {', '.join(member)}", "one ensemble dimension", "keep one")
    names = {old: new for old, new in SPACE_NAMES.items() if old in ds.dims} | {d: "member" for d in member}
    ds = ds.rename({old: new for old, new in names.items() if old != new})
    if "time" not in ds.dims:
        found = ", ".join(map(str, ds.dims))
        raise DataContractError(subject, f"dimensions {found}", "time", "rename the dimension of the years")
    years = ds["year"].values if "year" in ds.coords and ds["year"].dims == ("time",) else None
    ds = ds.reset_coords(drop=True)  # a scalar quantile = 0.9 sits on every official output
    ds = ds if years is None else ds.assign_coords(time=years)
    for axis in ("lat", "lon"):
        if axis in ds.dims:
            centres, _, order = order_axis(ds[axis].values, None, axis, subject)
            ds = ds.isel({axis: order}).assign_coords({axis: centres})
    return ds


def years_of(time: xr.DataArray, subject: str) -> NDArray[np.int64]:
    """Integer labels of yearly steps, from integers or dates."""
    values, units = time.values, str(time.attrs.get("units", ""))
    if values.dtype.kind in "MO":
        values = time.dt.year.values
    elif "since" in units:
        dates = np.atleast_1d(cftime.num2date(values, units, str(time.attrs.get("calendar", "standard"))))
        values = np.array([d.year for d in dates])
    numbers = values.astype(np.float64)
    if numbers.size == 0 or (numbers != np.floor(numbers)).any() or (np.diff(numbers) != 1).any():
        found = "no steps" if numbers.size == 0 else f"{numbers.size} steps labelled {values[0]} to {values[-1]}"
        raise DataContractError(f"time in {subject}", found, "every year once, as integers", "make yearly means first")
    return numbers.astype(np.int64)


def wanted(
    ds: xr.Dataset, variables: Sequence[str] | None, subject: str, known: Iterable[str] = MEASURED_LIKE
) -> list[str]:
    """The variables asked for, or all known ones that are there."""
    names = [n for n in known if n in ds.data_vars] if variables is None else list(variables)
    absent = [n for n in names if n not in ds.data_vars or n not in known]
    if absent or not names:
        found = ", ".join(map(str, ds.data_vars)) or "nothing"
        raise DataContractError(
            subject, f"variables {found}", ", ".join(absent or known), "correct the names of the variables"
        )
    return names


def scored(
    field: xr.DataArray, name: str, subject: str, default: str | None = None, is_anomaly: bool = True
) -> xr.DataArray:
    """Float64 ``([member,] time, lat, lon)`` in the unit of scores; a factor only, as anomalies have no offset."""
    about, where = VARIABLES[MEASURED_LIKE[name]], f"{name} in {subject}"
    if set(field.dims) - {"member"} != {"time", "lat", "lon"}:
        raise DataContractError(where, f"dimensions {field.dims}", "([member,] time, lat, lon)", "rename or select")
    units = str(field.attrs.get("units", default or about.score_units))
    factor = 1.0 if units == about.score_units else conversion(units, about.units, where)[0] * about.score_factor
    dims = [d for d in ("member", "time", "lat", "lon") if d in field.dims]
    out = field.transpose(*dims).astype(np.float64).load() * factor
    if about.name == "pr":
        std, (low, high) = float(out.std()), PRECIPITATION_STD
        if 0 < std < low or std > high:
            kind = "still in kg m-2 s-1" if std < low else "converted twice"
            raise DataContractError(
                where, f"a standard deviation of {std:.3g} {about.score_units} over space and time, {kind}",
                f"{low:g} to {high:g}", "state the unit in the attribute units",
            )  # fmt: skip
    mean = float(out.mean())
    if is_anomaly and abs(mean) > LARGEST_MEAN[name]:
        raise DataContractError(
            where, f"a mean of {mean:.1f} {about.score_units}", "anomalies", "subtract the control run"
        )
    return out.assign_attrs(units=about.score_units)


def _forcing(field: xr.DataArray, name: str, subject: str, is_idealised: bool) -> xr.DataArray:
    about, where = FORCINGS[name], f"{name} in {subject}"
    dims = ("time", "lat", "lon") if about.is_gridded and not is_idealised else ("time",)
    if set(field.dims) != set(dims):
        raise DataContractError(where, f"dimensions {field.dims}", f"{dims}", "correct the file")
    factor, offset = conversion(str(field.attrs.get("units", about.units)), about.units, where)
    out = (field.transpose(*dims).astype(np.float64).load() * factor + offset).assign_attrs(units=about.units)
    check_finite(out)
    low, high = CREDIBLE[name]
    if not is_idealised and (float(out.min()) < low - NOISE or float(out.max()) > high):
        found = f"values from {float(out.min()):.4g} to {float(out.max()):.4g} {about.units}"
        raise DataContractError(where, found, f"{low:g} to {high:g}", "is the unit label right?")
    return out


def _holes(ds: xr.Dataset) -> list[str]:
    """Which members of which variables miss values in which years."""
    out = []
    for name, field in ds.data_vars.items():
        bad = ~np.isfinite(field.values).all(axis=(2, 3))
        for member, row in zip(ds["member"].values, bad, strict=True):
            if row.any():
                years = ds["time"].values[row]
                out.append(f"{name} of member {member} ({years[0]}-{years[-1]}, {years.size} years)")
    return out


def span(ds: xr.Dataset | xr.DataArray) -> str:
    """First and last year."""
    return f"{int(ds['time'][0])}-{int(ds['time'][-1])}"


def write_layout(
    runs: Mapping[str, xr.Dataset],
    forcings: Mapping[str, xr.Dataset],
    folder: str | Path,
    training: Sequence[str],
    base_years: tuple[int, int] = (2015, 2024),
) -> list[Path]:
    """Write runs of a model without piControl in ClimateBench's layout: annual day-weighted means, yearly forcings beside them.

    Args:
        runs: Canonical monthly Datasets (member, time, lat, lon) by experiment.
        forcings: Canonical monthly forcings by experiment; maps are regridden conservatively onto the runs' grid.
        folder: Made if absent; files of equal name are replaced.
        training: Experiments whose members' mean over ``base_years`` is subtracted, per cell, from all.
        base_years: First and last year of it.

    Returns:
        Files made: ``outputs_*`` and ``inputs_*``. Fields in kg m-2 s-1 and K, float32; members numbered from 1, their names in the
        attribute ``members``.

    Raises:
        DataContractError: If a training run or forcing is missing, or a training run lacks the base years.
    """
    absent = [f"run {e}" for e in training if e not in runs] + [f"forcing {e}" for e in runs if e not in forcings]
    if absent or not training:
        raise DataContractError("ClimateBench layout", f"no {', '.join(absent) or 'training'}", "all", "add them")
    yearly = {e: to_year(ds) for e, ds in runs.items()}
    base = _base({e: yearly[e] for e in training}, base_years)
    text = f"mean {base_years[0]}-{base_years[1]} of {', '.join(training)} (all members, per cell), as the archive has no piControl"
    out, made = Path(folder), []
    out.mkdir(parents=True, exist_ok=True)
    for experiment, ds in yearly.items():
        about = {k: ds.attrs[k] for k in ("source_id", "calendar", "license") if k in ds.attrs}
        labels = [str(m) for m in ds["member"].values]
        anomalies = {n: (ds[n] - base[n]).astype(np.float32).assign_attrs(units=ds[n].attrs["units"]) for n in base}
        fields = _plain(xr.Dataset(anomalies)).assign_coords(member=np.arange(1, len(labels) + 1))
        numbered = ", ".join(f"{i} {label}" for i, label in enumerate(labels, 1))
        about |= {"experiment_id": experiment, "anomaly_base": text, "members": numbered}
        made.append(write_whole(fields.assign_attrs(about), out / f"outputs_{experiment}.nc"))
        drivers = to_year(forcings[experiment])
        drivers = regrid(drivers, ds) if "lat" in drivers.dims else drivers
        drivers = _plain(drivers).rename({"lat": "latitude", "lon": "longitude"} if "lat" in drivers.dims else {})
        drivers.attrs = {
            "experiment_id": experiment,
            "license": str(drivers.attrs.get("license", "not stated")),
            "comment": "means of each year's months; ClimateBench's own CO2 is that of each year's beginning",
        }
        made.append(write_whole(drivers, out / f"inputs_{experiment}.nc"))
    return made


def _base(yearly: Mapping[str, xr.Dataset], years: tuple[int, int]) -> xr.Dataset:
    """Mean over years (by their days), members and experiments, every member counting the same; (lat, lon), float64."""
    parts = []
    for experiment, ds in yearly.items():
        inside = np.flatnonzero((ds["year"].values >= years[0]) & (ds["year"].values <= years[1]))
        if inside.size != years[1] - years[0] + 1:
            found = f"{inside.size} of these years"
            raise DataContractError(
                f"base of {experiment}", found, f"all of {years[0]}-{years[1]}", "choose base_years"
            )
        part = ds.isel(time=inside).astype(np.float64)
        parts.append(part.weighted(ds["days"].isel(time=inside)).mean("time").reset_coords(drop=True))
    return xr.concat([p.drop_vars("member") for p in parts], "member", join="exact").mean("member")


def _plain(ds: xr.Dataset) -> xr.Dataset:
    """Integer years as time, and no other coordinates than the dims'."""
    return ds.assign_coords(time=ds["year"].values).reset_coords(drop=True)


def write_whole(ds: xr.Dataset, path: Path) -> Path:
    """Write a NetCDF file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        ds.to_netcdf(part, engine="netcdf4", encoding={n: {"zlib": True, "complevel": 1} for n in ds.data_vars})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
