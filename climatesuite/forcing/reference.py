"""What a departure means beside the named scenario it started from: in a table's accounting, and as radiative forcing.

The SSP table (RCMIP 5.1.0) gives a named scenario's emissions in a second accounting and back to 1850, so that a table of one's own
can be taken as a difference, and FaIR (:mod:`climatesuite.forcing.custom`) can say what the difference forces. Stratospheric
aerosol forces -20 W m-2 per unit of optical depth (IPCC AR6 WG1, section 7.3.4.6: -20 +- 5).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import ACCOUNTINGS, NOT_STATED, known
from climatesuite.forcing.custom import EMISSIONS, SCENARIO_START, Emissions, custom_forcing, read_emissions
from climatesuite.forcing.energy_balance import (
    COMPONENTS,
    Calibration,
    EnergyBalance,
    GlobalMean,
    ar6_forcing,
    calibration_of,
)
from climatesuite.forcing.forcings import CARRIED
from climatesuite.forcing.totals import yearly_totals

if TYPE_CHECKING:
    from climatesuite.forcing.scenario import Scenario

TABLE = "ssp_forcing_annual_1850-2100.csv"
TABLE_ACCOUNTING = "rcmip"
AOD_FORCING = -20.0
"""W m-2 per unit of stratospheric optical depth."""
SAME = 0.01
"""Relative difference up to which the first year of a table is its parent's."""
_COLUMNS = {name.split("_")[0]: name for name in EMISSIONS}
PAST = {"CO2": (2.0, 39.6, 39.2), "CH4": (43.1, 387.9, 388.1), "SO2": (4.54, 114.0, 100.8), "BC": (2.57, 9.74, 9.73)}
"""Emissions of 1850, 2014 and 2015 in `totals.UNITS` (RCMIP 5.1.0, all SSPs); between the first two the past is taken to have grown
evenly. Sulphur falls at once where the scenarios begin, and its forcing of 2014 is what aerosols are scaled by."""
_BASE = slice(1850, 1900)
_YEAR = "erf_year"


def reference_totals(
    base: "Scenario", wanted: pd.DataFrame, accounting: str | None, subject: str
) -> tuple[str, pd.DataFrame]:
    """The parent's yearly totals in the accounting of a table, for the years of the table.

    Args:
        base: The named scenario.
        wanted: The table, by year.
        accounting: Name, or None to take the one in which the table begins where its parent is.
        subject: For messages.

    Returns:
        Name of the accounting and totals with the table's columns and years.

    Raises:
        DataContractError: If the accounting is unknown, not available for this scenario, or cannot be told.
    """
    choices = {base.accounting: yearly_totals(base.fields, list(wanted))}
    file = table_file(base.folder) if isinstance(base.folder, Path) else None
    if file is not None and base.name in scenarios_of(file):
        emissions = read_emissions(file, base.name).yearly
        choices[TABLE_ACCOUNTING] = emissions.rename(columns={v: k for k, v in _COLUMNS.items()})[list(wanted)]
    choices = {name: t.loc[t.index.intersection(wanted.index)] for name, t in choices.items()}
    choices = {name: t for name, t in choices.items() if len(t) == len(wanted)}
    if accounting is not None:
        if accounting not in choices:
            known(accounting)
            raise DataContractError(
                subject, f"no totals of {base.name} counted as {accounting}", f"one of {', '.join(choices)}",
                f"put {TABLE} into the folder scenarios beside the forcings",
            )  # fmt: skip
        return accounting, choices[accounting]
    first = wanted.iloc[0]
    agrees = [name for name, t in choices.items() if np.allclose(t.iloc[0], first, rtol=SAME, atol=0)]
    if len(agrees) != 1:
        year = int(wanted.index[0])
        said = "; ".join(f"{name}: {_numbers(t.iloc[0])}" for name, t in choices.items())
        more = " or ".join(f'"{n}" (CO2 of {ACCOUNTINGS[n].co2})' for n in choices if n in ACCOUNTINGS)
        raise DataContractError(
            subject, f"{_numbers(first)} in {year}, which does not tell how emissions are counted",
            f"the first year of one of {base.name}'s ({said})", f"say accounting={more or NOT_STATED}",
        )  # fmt: skip
    return agrees[0], choices[agrees[0]]


def _numbers(row: pd.Series) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items())


def table_file(folder: Path) -> Path | None:
    """The SSP table beside the forcings of a folder, if it is there."""
    places = (folder / "scenarios" / TABLE, folder / TABLE, folder.parent / "scenarios" / TABLE)
    return next((p for p in places if p.is_file()), None)


def scenarios_of(file: Path) -> list[str]:
    """Scenarios of the SSP table."""
    return sorted(set(pd.read_csv(file, usecols=["scenario"])["scenario"].astype(str)))


def parent_emissions(base: "Scenario") -> Emissions:
    """Emissions of a named scenario from 1850: those of the SSP table where it is there, else its own and a smooth past.

    Only differences of forcing are taken, which the past moves little: without the table, what CESM2's energy balances expect of
    departures from ssp370 in CO2, CH4 or aerosols moves by less than 0.01 K in any year (test_climatesuite_scenario_real.py).
    """
    file = table_file(base.folder) if isinstance(base.folder, Path) else None
    if file is not None and base.name in scenarios_of(file):
        return read_emissions(file, base.name)
    totals, (first, last) = base.totals, base.years
    years = np.arange(1850, last + 1)
    yearly = {}
    for name, column in _COLUMNS.items():
        begin, before, now = PAST[name]
        own = totals[name] if name in totals else pd.Series(0.0, totals.index)
        growth = (before / begin) ** ((years - 1850) / max(1, first - 1851))
        yearly[column] = np.where(
            years < first, begin * growth, (own - own.iloc[0] + now).reindex(years).to_numpy(np.float64)
        )
    return Emissions(base.name, pd.DataFrame(yearly, index=years))


def radiative_forcing(scenario: "Scenario", calibration: Calibration) -> xr.Dataset:
    """Effective radiative forcing by component of a named scenario, or of a departure (see :func:`custom.custom_forcing`).

    Returns:
        ``COMPONENTS`` with dim ``year`` from 1850, W m-2.

    Raises:
        DataContractError: If the scenario's parent is not in AR6's table, or ``fair`` is not installed.
    """
    base = scenario.base
    if scenario.parent is None:
        return ar6_forcing(base.name, calibration)
    change = scenario.difference()
    out = ar6_forcing(base.name, calibration).sel(year=slice(None, scenario.years[1]))
    if any(np.abs(change[n]).max() > 0 for n in _COLUMNS if n in change):
        parent = parent_emissions(base)
        yearly = parent.yearly.loc[: scenario.years[1]].copy()
        for name, column in _COLUMNS.items():
            if name in change:
                yearly.loc[change.index, column] += change[name]
        own = Emissions(scenario.name, yearly, parent.co2_ppm_1850, parent.ch4_ppb_1850)
        out = custom_forcing(base.name, parent, own, calibration, start=min(SCENARIO_START, base.years[0]))
    if "AOD" in change:
        out["natural"] = (
            out["natural"] + AOD_FORCING * change["AOD"].reindex(out["year"].values, fill_value=0.0).to_numpy()
        )
    return out.assign_attrs(experiment_id=scenario.name)


def with_radiative_forcing(scenario: "Scenario", source_id: str) -> xr.Dataset:
    """The scenario's fields with ``erf_<component> (erf_year)``; without them, and with the reason, where they cannot be had."""
    calibration = calibration_of(source_id)
    try:
        forcing = radiative_forcing(scenario, calibration)
    except DataContractError as error:
        return scenario.fields.assign_attrs(no_radiative_forcing=str(error))
    about = {"units": "W m-2", "long_name": "effective radiative forcing since 1850"}
    carried = {
        f"{CARRIED}{n}": xr.DataArray(forcing[n].values, {_YEAR: forcing["year"].values}, (_YEAR,), attrs=about)
        for n in COMPONENTS
    }
    carried[f"{CARRIED}aerosol"].attrs["aerosol_2014"] = calibration.aerosol_2014
    return scenario.fields.assign(carried)


def carried_forcing(month: xr.Dataset, calibration: Calibration) -> xr.Dataset | None:
    """The radiative forcing that forcings carry, the aerosol as strong as the calibration's; None where they carry none.

    Raises:
        DataContractError: If they could not be given one, with the reason.
    """
    if f"{CARRIED}co2" not in month:
        if "no_radiative_forcing" in month.attrs:
            raise DataContractError(
                f"scenario {month.attrs.get('experiment_id')} for an energy balance", str(month.attrs["no_radiative_forcing"]),
                "its radiative forcing", "do what is said there, or use an emulator whose forced response sees CO2 alone",
            )  # fmt: skip
        return None
    parts = {n: ("year", month[f"{CARRIED}{n}"].values, {"units": "W m-2"}) for n in COMPONENTS}
    named = {"experiment_id": "experiment_id", "parent_scenario": "parent_experiment_id"}
    attrs = {new: month.attrs[old] for old, new in named.items() if old in month.attrs}
    out = xr.Dataset(parts, {"year": month[_YEAR].values.astype(np.int64)}, attrs)
    out["aerosol"] = out["aerosol"] * (
        calibration.aerosol_2014 / float(month[f"{CARRIED}aerosol"].attrs["aerosol_2014"])
    )
    return out


def expected_response(scenario: "Scenario", source_id: str) -> xr.Dataset:
    """See :meth:`climatesuite.forcing.scenario.Scenario.response`."""
    calibration = calibration_of(source_id)
    balance = EnergyBalance(tuple(GlobalMean(layers, offset=0.0) for layers in calibration.sets))
    last = scenario.years[1]
    parts = {
        "scenario": radiative_forcing(scenario, calibration),
        "parent": ar6_forcing(scenario.base.name, calibration),
    }
    means = {name: balance.evaluate(forcing).sel(year=slice(None, last)) for name, forcing in parts.items()}
    above = {n: (m - m.sel(year=_BASE).mean("year")).assign_attrs(units="K") for n, m in means.items()}
    return xr.Dataset(above, attrs={"source_id": source_id, "comment": "K above 1850-1900"})
