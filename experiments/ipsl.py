"""MESMER and pattern scaling on a second Earth system model: ``python experiments/ipsl.py``.

Real yearly tas of IPSL-CM6A-LR on 20 x 20 cells (``CLIMATE_DATA``/samples/mesmer): one run of ssp126, two of ssp585. Each scenario
trains once and is predicted once; cumulative CO2 of both is that of ``scenarios/ssp_forcing_annual_1850-2100.csv`` (land use
included, at the year's end). Writes ``experiments/results/ipsl.json``.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climatesuite.baselines.fit import Case, exact_baselines, fit_baseline
from climatesuite.baselines.names import FLOOR
from climatesuite.baselines.reference import coarse_runs, draw
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate.report import write_json
from climatesuite.evaluate.scoring import Prediction, score_datasets
from climatesuite.evaluate.text_tables import score_table
from climatesuite.harmonise.calendars import time_coords
from climatesuite.harmonise.grids import with_bounds
from climatesuite.store.provenance import code_commit

ROOT = Path(__file__).resolve().parents[1]
SOURCE, DECADE_START, MEMBERS, SEED = "IPSL-CM6A-LR", 2015, 50, 0
RUNS = {"ssp126": ("r1i1p1f1",), "ssp585": ("r1i1p1f1", "r2i1p1f1")}
TIMESCALES = ("decade", "year")
NOTES = (
    "Can show: whether the same code reads and scores a second Earth system model, and how far a line on CO2 and MESMER carry from "
    "one scenario to a very different one.",
    "Cannot show: a ranking. One training scenario gives no interpolation: ssp126 covers a small part of ssp585's warming, and its "
    "CO2 falls at the end. The floor comes from one pair of runs and is uncertain by 5-10 % for decades; ssp126 has one run, its "
    "ratio takes the floor of ssp585's pair, and it has no interval. Cells of 9 x 18 degrees hide everything small.",
    "Members of equal label may share an initial state across scenarios: the headline period leaves the first years out.",
)


def run(folder: Path, scenario: str) -> xr.Dataset:
    """Members of a scenario as canonical months, each month holding its year's mean, so that years and decades are exact."""
    files = [folder / f"tas_ann_{SOURCE}_{scenario}_{m}_g025.nc" for m in RUNS[scenario]]
    # their time bounds run from mid January to mid December; the fields are means of whole years
    opened = [xr.open_dataset(f)["tas"].sortby("lat").load() for f in files]
    first, values = opened[0], np.stack([field.transpose("time", "lat", "lon").values for field in opened])
    labels = time_coords(first["time"].dt.year.values.tolist(), "month", "noleap")
    cells = with_bounds(xr.Dataset(coords={n: first[n].values for n in ("lat", "lon")}))
    space = {n: cells[n] for n in ("lat", "lon", "lat_bnds", "lon_bnds")}
    about = VARIABLES["tas"]
    tas = (("member", "time", "lat", "lon"), np.repeat(values, 12, axis=1), {"units": about.units})
    ds = xr.Dataset({"tas": tas}, {**labels, **space, "member": list(RUNS[scenario])})
    attrs = {"source_id": SOURCE, "experiment_id": scenario, "timescale": "month", "calendar": "noleap"}
    return ds.assign_attrs(attrs)


def cumulative_co2(table: Path) -> dict[str, xr.DataArray]:
    """Cumulative CO2 (Gt) at the end of each year by scenario."""
    rows = pd.read_csv(table)
    found = {s: rows[(rows.scenario == s) & (rows.year >= 2015)] for s in RUNS}
    return {s: xr.DataArray(r.CO2_cum_GtCO2.values, {"year": r.year.values}, ("year",)) for s, r in found.items()}


def direction(train: str, test: str, runs: dict[str, xr.Dataset], co2: dict[str, xr.DataArray]) -> list[dict[str, Any]]:
    """Rows of climatology, pattern scaling and MESMER."""
    case = Case({train: runs[train]}, test, co2, ["tas"], DECADE_START, TIMESCALES)
    truths = {t: coarse_runs({test: runs[test]}, DECADE_START, [t])[t][test] for t in TIMESCALES}
    start = time.perf_counter()
    mesmer = fit_baseline("mesmer", case)
    fit_s = round(time.perf_counter() - start, 1)
    predictions = []
    for t in TIMESCALES:
        start = time.perf_counter()
        fields = draw(mesmer, t, truths[t], MEMBERS, SEED)
        facts = {"seed": SEED, "runtime_s": round(time.perf_counter() - start + fit_s * (t == "year"), 1)}
        predictions.append(Prediction(mesmer.name, fields, facts))
    rows = score_datasets(predictions, truths, exact_baselines(case), variables=["tas"], decade_start=DECADE_START)
    return [{"train": train, **row} for row in rows]


def borrow_floor(rows: list[dict[str, Any]], lenders: list[dict[str, Any]]) -> None:
    """Ratios of a scenario with one run, over the floor of the other scenario's pair."""
    floors = {(r["timescale"], r["period"]): r["crps"] for r in lenders if r["model"] == FLOOR}
    for row in rows:
        if row["crps_ratio"] is None and row["crps"] is not None:
            floor = floors[row["timescale"], row["period"]]
            row |= {"crps_floor": floor, "crps_ratio": row["crps"] / floor, "flag": "floor of the two runs of ssp585"}


def main() -> None:
    """Score both directions, write, print."""
    data = ROOT / os.environ.get("CLIMATE_DATA", "../shared/data")
    folder = data / "samples" / "mesmer" / "data" / "cmip6-ng" / "tas" / "ann" / "g025"
    runs = {s: run(folder, s) for s in RUNS}
    co2 = cumulative_co2(data / "scenarios" / "ssp_forcing_annual_1850-2100.csv")
    up, down = direction("ssp126", "ssp585", runs, co2), direction("ssp585", "ssp126", runs, co2)
    borrow_floor(down, up)
    out = ROOT / "experiments" / "results" / "ipsl.json"
    kept = [{k: v for k, v in row.items() if v is not None} for row in up + down]
    write_json(out, {"command": "python experiments/ipsl.py", "commit": code_commit(), "notes": NOTES, "rows": kept})
    for rows in (up, down):
        print(f"trained on {rows[0]['train']}\n{score_table(rows)}\n")
    print(*NOTES, out, sep="\n")


if __name__ == "__main__":
    main()
