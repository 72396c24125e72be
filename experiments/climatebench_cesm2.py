"""ClimateBench's numbers from real data: ``python experiments/climatebench_cesm2.py``.

Data: CLIMATE_DATA, default ../shared/data. NorESM2-LM: the published global error of linear pattern scaling, from its global
series and pattern maps (no target maps here, so no spatial error). CESM2: tas and pr written in ClimateBench's layout, read back,
scaled and scored by the same code.
"""

import csv
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.evaluate.climatebench import (
    GlobalLine,
    LinearPatternScaling,
    open_inputs,
    open_outputs,
    open_pair,
    score,
    write_layout,
)
from climatesuite.forcing.forcings import open_forcings
from climatesuite.store.provenance import code_commit

ROOT = Path(__file__).resolve().parents[1]
TRAIN, TEST, WINDOW = ("ssp126", "ssp585"), "ssp370", (2080, 2099)
PUBLISHED = {"D": 2.0705421003592264, "nrmse_g": 0.0409974797}
"""Linear pattern scaling of tas on ssp245, mean of 2080-2100: blutjens/climate-emulator, after Watson-Parris et al. (2022)."""
SHOWN = ("D", "nrmse_s", "nrmse_g", "nrmse_t", "floor_s", "floor_g", "rmse_s", "rmse_g")


def global_series(path: Path) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    """Cumulative CO2 (Gt) and global mean tas anomaly (K) by experiment, dim ``time`` (years)."""
    by_experiment: dict[str, list[dict[str, str]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            by_experiment.setdefault(row["scenario"], []).append(row)
    return {
        e: (_series(rows, "co2_cumulative_GtCO2"), _series(rows, "tas_anomaly_K_vs_piControl"))
        for e, rows in by_experiment.items()
    }


def _series(rows: list[dict[str, str]], column: str) -> xr.DataArray:
    years = [int(r["year"]) for r in rows]
    return xr.DataArray([float(r[column]) for r in rows], {"time": years}, ("time",), name=column)


def published_scaling(folder: Path) -> tuple[LinearPatternScaling, dict[str, tuple[xr.DataArray, xr.DataArray]], int]:
    """NorESM2-LM's pattern scaling: global line fitted here, pattern maps as published; the series and the years fitted on."""
    series = global_series(folder / "climatebench_noresm2lm_global_mean_tas_co2.csv")
    training = [pair for experiment, pair in series.items() if experiment != "ssp245"]
    line = GlobalLine.fit(*(np.concatenate([pair[i].values for pair in training]) for i in (0, 1)))
    maps = np.load(folder / "climatebench_noresm2lm_pattern_scaling_96x144.npz")
    coords, dims = {"lat": maps["lat"], "lon": maps["lon"]}, ("lat", "lon")
    units = {"tas": "K", "diurnal_temperature_range": "K", "pr": "mm day-1", "pr90": "mm day-1"}
    fields = {
        part: xr.Dataset(
            {n: (dims, maps[f"{n}_{part}"].astype(np.float64), {"units": u}) for n, u in units.items()}, coords
        )
        for part in ("intercept", "slope")
    }
    trained_on = tuple(e for e in series if e != "ssp245")
    return (
        LinearPatternScaling(line, fields["intercept"], fields["slope"], trained_on),
        series,
        sum(p[0].size for p in training),
    )


def noresm(data: Path) -> dict[str, Any]:
    """D and NRMSE_g of tas beside the published ones.

    The target's global mean is the true one; its maps are the pattern's, so its spatial error is left out.
    """
    scaling, series, years = published_scaling(data / "climatebench")
    co2, truth = series["ssp245"]
    target = xr.Dataset({"tas": scaling.intercept["tas"] + scaling.slope["tas"] * truth})
    target["tas"].attrs["units"] = "K"
    target.attrs = {"source_id": "NorESM2-LM", "experiment_id": "ssp245", "anomaly_base": "piControl"}
    row = score(scaling.predict(xr.Dataset({"CO2": co2})), target, variables=["tas"], model="linear pattern scaling")[0]
    kept = (
        "model",
        "variable",
        "units",
        "esm",
        "scenario",
        "window",
        "weights",
        "anomaly_base",
        "D",
        "nrmse_g",
        "rmse_g",
    )
    line = {"intercept_K": scaling.line.intercept, "slope_K_per_Gt": scaling.line.slope}
    note = "target is the mean of 3 members; spatial error needs target maps, which are not here"
    return {k: row[k] for k in kept} | {"published": PUBLISHED, "training_years": years, "line": line, "note": note}


def cesm2(data: Path, folder: Path) -> list[dict[str, Any]]:
    """Rows of linear pattern scaling on CESM2, through files in ClimateBench's layout in ``folder``."""
    runs = {scenario: ds for (_, scenario), ds in open_runs(data / "CMIP6" / "CESM2").items()}
    names = ["CO2", "CH4", "SO2", "BC"]
    forcings = {e: open_forcings(data / "forcings", names, e) for e in runs}
    write_layout(runs, forcings, folder, training=TRAIN)
    scaling = LinearPatternScaling.fit({e: open_pair(folder, e) for e in TRAIN})
    prediction, target = scaling.predict(open_inputs(folder, TEST)), open_outputs(folder, TEST)
    return [
        row
        for model, fields in (("linear pattern scaling", prediction), ("no change", xr.zeros_like(prediction)))
        for row in score(fields, target, WINDOW, model=model)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """One line a row; a dash where there is no number."""
    head = f"{'esm':<11}{'scenario':<9}{'model':<23}{'variable':<9}{'window':<11}" + "".join(f"{n:>9}" for n in SHOWN)
    lines = [head]
    for r in rows:
        numbers = "".join(f"{r[n]:9.4f}" if r.get(n) is not None else f"{'-':>9}" for n in SHOWN)
        span = "-".join(map(str, r["window"]))
        lines.append(f"{r['esm']:<11}{r['scenario']:<9}{r['model']:<23}{r['variable']:<9}{span:<11}{numbers}")
    return "\n".join(lines)


def main() -> None:
    """Write ``results/climatebench.json`` and print the table."""
    data = ROOT / os.environ.get("CLIMATE_DATA", "../shared/data")
    with tempfile.TemporaryDirectory() as folder:
        rows = cesm2(data, Path(folder))
    result: dict[str, Any] = {
        "command": "python experiments/climatebench_cesm2.py",
        "commit": code_commit(),
        "noresm2lm": noresm(data),
        "cesm2": rows,
    }
    out = ROOT / "experiments" / "results" / "climatebench.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    published = {**result["noresm2lm"], **PUBLISHED, "model": "(published)", "rmse_g": None}
    sys.stdout.write(f"{table([published, result['noresm2lm'], *rows])}\n{out}\n")


if __name__ == "__main__":
    main()
