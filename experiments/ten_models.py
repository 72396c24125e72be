"""Held-out scenarios of ten Earth system models: the energy balance beside the line on cumulative CO2.

    python experiments/ten_models.py

Every scenario of every model is left out once. From the model's other scenarios and its historical run, both predict the annual
global mean of the scenario that was left out; the error is that of its decadal means, 2015-2024 to 2085-2094, mean over members:

- ``CO2 line``: least squares of the annual global mean, 2015-2099, on annual-mean cumulative CO2, every training scenario alike.
- ``energy balance``: calibrated on the historical run and the training scenarios (``calibration_from_scenarios``), offset, gain
  and aerosol scale fitted to the training scenarios; mean of its global means.
- ``scenarios only``: the same, calibrated without the historical run, to show what that run does.
- For CESM2 also with the calibration that is shipped, and with one made anew from its idealised runs.

Nothing was chosen by these errors: the priors are those of the package, set beforehand, and ``energy balance`` is the
recipe as first written down. The priors are CMIP6 medians, and the ten models are of CMIP6. CESM2's shipped calibration
rests on idealised runs, not on scenarios. A decadal mean of one member varies by itself (CESM2's control:
0.07 K), so no error of a single run can be expected to be smaller.
Data: ``CLIMATE_DATA`` (default ``../shared/data``); the results hold errors only.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climatesuite.forcing.calibrate import calibration_from, calibration_from_scenarios
from climatesuite.forcing.energy_balance import CESM2, Calibration, EnergyBalance, ar6_forcing
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.idealised import idealised_run
from climatesuite.forcing.response import annual_predictor
from climatesuite.store.provenance import code_commit

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / os.environ.get("CLIMATE_DATA", "../shared/data")
RESULTS = ROOT / "experiments/results/ten_models.json"
TABLE, IDEALISED = "global_mean/gsat_annual_ten_models.csv", "global_mean/cesm2_global_mean_idealised_historical.csv"
SCENARIOS = ("ssp126", "ssp245", "ssp370", "ssp585")
YEARS, DECADES = (2015, 2099), (2015, 2094)
Means = Mapping[str, xr.DataArray]
LINE, BALANCE, ALONE = METHODS = "CO2 line", "energy balance", "scenarios only"


def scenario_means(rows: pd.DataFrame) -> dict[str, xr.DataArray]:
    """Annual global means of a model by experiment, mean over members.

    Runs that hold their historical parent are cut in 2015.
    """
    means = {}
    for name, group in rows.groupby("experiment_id"):
        series = group.groupby("year").tas.mean()
        series = series.loc[: YEARS[1]] if name == "historical" else series.loc[YEARS[0] : YEARS[1]]
        means[str(name)] = xr.DataArray(series.to_numpy(), {"year": series.index.to_numpy()}, ("year",))
    return means


def historical_of(rows: pd.DataFrame, training: Means) -> dict[str, xr.DataArray]:
    """The historical run; where a file has none, the parent inside the training scenarios' runs."""
    past = rows[(rows.year < YEARS[0]) & rows.experiment_id.isin(["historical", *training])]
    return {"historical": scenario_means(past.assign(experiment_id="historical"))["historical"]}


def co2_line(training: Means, co2: Means) -> Callable[[str], xr.DataArray]:
    """Least squares on annual-mean cumulative CO2, as a function of the scenario."""
    x = np.concatenate([co2[s].sel(year=y.year).values for s, y in training.items()])
    slope, intercept = np.polyfit(x, np.concatenate([y.values for y in training.values()]), 1)
    return lambda scenario: intercept + slope * co2[scenario]


def energy_balance(training: Means, calibration: Calibration) -> Callable[[str], xr.DataArray]:
    """The mean of the global means of an energy balance, as a function of the scenario."""
    fitted = EnergyBalance.fit(training, {s: ar6_forcing(s, calibration) for s in training}, calibration)
    return lambda scenario: fitted.evaluate(ar6_forcing(scenario, calibration)).mean("response")


def decadal_rmse(predicted: xr.DataArray, seen: xr.DataArray) -> float:
    """Root mean square error of the decadal means, K."""
    first, last = DECADES
    error = (predicted.sel(year=seen.year) - seen).sel(year=slice(first, last)).values.reshape(-1, 10).mean(axis=1)
    return float(np.sqrt((error**2).mean()))


def errors(source_id: str, rows: pd.DataFrame, co2: Means, idealised: Calibration) -> list[dict[str, Any]]:
    """Errors of every scenario of a model, each held out once."""
    means, result = scenario_means(rows), []
    scenarios = [s for s in SCENARIOS if s in means]
    for held_out in scenarios:
        training = {s: means[s] for s in scenarios if s != held_out}
        calibrations = {
            BALANCE: calibration_from_scenarios(source_id, historical_of(rows, training) | training),
            ALONE: calibration_from_scenarios(source_id, training),
        }
        if source_id == CESM2.source_id:
            calibrations |= {"shipped": CESM2, "idealised runs": idealised}
        predictions = {LINE: co2_line(training, co2)} | {
            n: energy_balance(training, c) for n, c in calibrations.items()
        }
        rmse = {n: round(decadal_rmse(predict(held_out), means[held_out]), 4) for n, predict in predictions.items()}
        members = int(rows[rows.experiment_id == held_out].member.nunique())
        result.append(
            {
                "source_id": source_id,
                "held_out": held_out,
                "trained_on": list(training),
                "members": members,
                "rmse_K": rmse,
            }
        )
    return result


def from_idealised_runs(table: pd.DataFrame) -> Calibration:
    """CESM2 anew from its four CO2 experiments."""
    runs = []
    for experiment in ("abrupt-0p5xCO2", "abrupt-2xCO2", "abrupt-4xCO2", "1pctCO2"):
        run = table[table.experiment == experiment].set_index("year")
        tas, toa = (
            xr.DataArray(run[n].to_numpy(), {"year": run.index}, ("year",)) for n in ("tas_anom_K", "toa_net_anom_Wm2")
        )
        runs.append(idealised_run(experiment, tas, toa))
    return calibration_from(CESM2.source_id, runs, aerosol_2014=CESM2.aerosol_2014)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over all held-out scenarios, by scenario, and where the line is better than the energy balance."""

    def means(some: list[dict[str, Any]]) -> dict[str, float]:
        return {n: round(float(np.mean([r["rmse_K"][n] for r in some])), 4) for n in METHODS}

    return {
        "held_out_scenarios": len(rows),
        "mean_rmse_K": means(rows),
        "by_scenario_K": {s: means([r for r in rows if r["held_out"] == s]) for s in SCENARIOS},
        "CO2_line_is_better": [
            f"{r['source_id']} {r['held_out']}" for r in rows if r["rmse_K"][LINE] < r["rmse_K"][BALANCE]
        ],
    }


def table(rows: list[dict[str, Any]], total: dict[str, Any]) -> str:
    """A readable table, K."""
    lines = ["".join(f"{title:16s}" for title in ("model", "held out", *METHODS))]
    for r in rows:
        e = r["rmse_K"]
        more = [f"{n} {e[n]:.3f}" for n in e if n not in METHODS] + ["line is better"] * (e[LINE] < e[BALANCE])
        lines.append(
            "".join(
                f"{x:16s}" for x in (r["source_id"], r["held_out"], *(f"{e[n]:.3f}" for n in METHODS), ", ".join(more))
            )
        )
    lines.append("".join(f"{x:16s}" for x in ("mean", "", *(f"{total['mean_rmse_K'][n]:.3f}" for n in METHODS))))
    for scenario, e in total["by_scenario_K"].items():
        lines.append("".join(f"{x:16s}" for x in ("", scenario, *(f"{e[n]:.3f}" for n in METHODS))))
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Compute, write the results, print the table."""
    data = pd.read_csv(DATA / TABLE)
    idealised = from_idealised_runs(pd.read_csv(DATA / IDEALISED))
    co2 = {s: annual_predictor(open_forcings(DATA / "forcings", ["CO2"], s)) for s in SCENARIOS}
    rows = [row for model, group in data.groupby("source_id") for row in errors(str(model), group, co2, idealised)]
    total = summary(rows)
    result = {
        "command": "python experiments/ten_models.py",
        "commit": code_commit(),
        "data": {
            TABLE: f"CMIP6 output via {', '.join(sorted(map(str, data.source.unique())))}",
            IDEALISED: "CMIP6 output of CESM2 via chrisroadmap/fair-calibrate",
            "forcings": "cumulative CO2 of input4MIPs in ClimateBench's layout; effective radiative forcing of AR6",
        },
        "score": "root mean square error of decadal means 2015-2024 to 2085-2094, K, member mean of the scenario left out",
        "notes": {
            "anomalies": sorted(map(str, data[data.reference != "absolute"].source_id.unique())),
            "flag": {str(m): str(f) for m, f in data[["source_id", "flag"]].dropna().drop_duplicates().to_numpy()},
        },
        "summary": total,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(f"{table(rows, total)}\n{RESULTS}\n")


if __name__ == "__main__":
    main()
