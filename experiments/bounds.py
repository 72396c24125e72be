"""Where a finished run stands against the best forced response, and what keeps it from the floor.

``python experiments/bounds.py runs/cesm2-ssp370 [...]`` reads ensembles and store of the folders and writes
``experiments/results/bounds.json``. Nothing is drawn or trained.

Paired: difference in CRPS to each reference on the same cases, with its bootstrap interval.

Parts of the excess CRPS over the floor, with closed forms for Gaussians. The mean error's square is the mean over pairs of real
members of the product of their errors, less the ensemble mean's own sampling variance: unbiased, whatever internal variability.
``mean`` is what an error of that size costs, ``spread`` what the ensemble's variance costs where it differs from the real members',
``rest`` what neither explains (shapes, sampling of the floor by few members). Where: shares of ``mean`` by band of latitude and of
the tenth of the area that costs most; when: by decade.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.baselines.fit import exact_baselines
from climatesuite.evaluate.compare import compare
from climatesuite.evaluate.report import write_json
from climatesuite.evaluate.scores import area_mean, crps_ensemble, pair_floor
from climatesuite.evaluate.scoring import Prediction, truth_at
from climatesuite.export import open_ensemble
from climatesuite.harmonise.coarsen import to_year
from climatesuite.harmonise.grids import cos_weights
from climatesuite.store.provenance import code_commit
from spf.commands.outcome import open_case
from spf.commands.steps import hardware
from spf.commands.workspace import Workspace
from spf.config import load_config

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "bounds.json"
BANDS = {"60N-90N": (60, 90), "30N-60N": (30, 60), "30S-30N": (-30, 30), "60S-30S": (-60, -30), "90S-60S": (-90, -60)}
NORTH_ATLANTIC = {"lat": (40, 65), "lon": (300, 350)}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished experiments")
    found = {}
    for folder in parser.parse_args().runs:
        found[folder.name] = bounds(Workspace(load_config(folder / "experiment.yaml"), folder))
        print(folder.name, table(found[folder.name]), sep="\n", flush=True)
    names = " ".join(f"runs/{name}" for name in found)
    about = {"command": f"python experiments/bounds.py {names}", "commit": code_commit(), "hardware": hardware()}
    write_json(OUT, {**about, "runs": found})


def bounds(work: Workspace) -> dict[str, Any]:
    """Paired differences and parts of the excess of a run's ensembles."""
    data = work.config.data
    ensembles = {t: open_ensemble(work.ensemble(t)).load() for t in work.config.sampling.members}
    case, test = open_case(work, list(ensembles))
    given = [Prediction("spf", ensemble, {}) for ensemble in ensembles.values()]
    compared = compare(given, test, exact_baselines(case), variables=data.variables, decade_start=data.decade_start)
    cases = [(t, t, ensemble) for t, ensemble in ensembles.items()]
    if "month" in ensembles:
        cases.append(("means of months", "year", to_year(ensembles["month"])))
    parts = []
    for name, timescale, ensemble in cases:
        truth = truth_at(test, timescale, data.decade_start)
        parts += [{"timescale": name, "variable": v, **parted(ensemble[v], truth[v])} for v in data.variables]
    return {
        "test": case.scenario, "members": int(test.sizes["member"]), "paired": compared.differences, "parts": parts,
    }  # fmt: skip


def parted(ensemble: xr.DataArray, truth: xr.DataArray) -> dict[str, Any]:
    """Excess over the floor and its parts, all over the floor: one case."""
    truth, ensemble = (x.astype("float64").reset_coords(drop=True) for x in (truth, ensemble))
    ensemble = ensemble.assign_coords(time=truth.time, lat=truth.lat, lon=truth.lon)
    floor = pair_floor(truth)
    excess = crps_ensemble(ensemble, truth, "fair").mean("target") - floor
    square = mean_square_error(ensemble, truth)
    real, drawn = (x.var("member", ddof=1).mean("time") for x in (truth, ensemble))
    mean = square / np.sqrt(2 * math.pi * (real + drawn))
    spread = (np.sqrt(2 * (real + drawn)) - np.sqrt(drawn) - np.sqrt(real)) / math.sqrt(math.pi)
    whole = average(floor)
    decade = (truth.time.dt.year.values - int(truth.time.dt.year.values[0])) // 10
    by_decade = [average(mean.isel(time=np.flatnonzero(decade == d))) for d in range(8)]
    return {
        "excess": round(average(excess) / whole, 4),
        "mean": round(average(mean) / whole, 4),
        "spread": round(average(spread) / whole, 4),
        "variance_ratio": round(average(drawn) / average(real), 4),
        "rmse_of_mean": float(f"{math.sqrt(max(0.0, average(square))):.4g}"),
        "global_mean_share": round(global_share(ensemble, truth, square), 3),
        **places(mean.mean("time")),
        "mean_by_decade": [round(x / whole, 4) for x in by_decade],
    }


def average(field: xr.DataArray) -> float:
    """Over the area and, where it has one, time."""
    return float(area_mean(field).mean())


def places(cost: xr.DataArray) -> dict[str, Any]:
    """Shares of a cost (lat, lon) by where it arises."""
    area = (cos_weights(cost.lat) * xr.ones_like(cost)).transpose("lat", "lon")
    area = area / area.sum()
    whole = float((cost * area).sum())
    at = cost * area / whole
    atlantic = at.sel(lat=slice(*NORTH_ATLANTIC["lat"]), lon=slice(*NORTH_ATLANTIC["lon"]))
    return {
        "mean_by_band": {b: round(float(at.sel(lat=slice(*limits)).sum()), 3) for b, limits in BANDS.items()},
        "mean_in_north_atlantic": round(float(atlantic.sum()), 3),
        "mean_in_worst_tenth": round(worst((cost * area).values, area.values) / whole, 3),
    }


def mean_square_error(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Square of the ensemble mean's error against the unknown real mean (time, lat, lon), unbiased."""
    error = ensemble.mean("member") - truth
    n = truth.sizes["member"]
    pairs = (error.sum("member") ** 2 - (error**2).sum("member")) / (n * (n - 1))
    return pairs - ensemble.var("member", ddof=1) / ensemble.sizes["member"]


def global_share(ensemble: xr.DataArray, truth: xr.DataArray, square: xr.DataArray) -> float:
    """Share of the squared error that an error of the global mean alone would leave."""
    return float(mean_square_error(area_mean(ensemble), area_mean(truth)).mean()) / average(square)


def worst(cost: np.ndarray, area: np.ndarray) -> float:
    """Cost of the tenth of the area where it is highest."""
    order = np.argsort(-(cost / area), axis=None)
    inside = np.cumsum(area.flatten()[order]) <= 0.1
    return float(cost.flatten()[order][inside].sum())


def table(found: dict[str, Any]) -> str:
    """Both parts in a few lines."""
    lines = [
        f"{r['timescale']} {r['variable']} against {r['against']}: {r['ratio_difference']:+.3f} floors "
        f"[{r['ratio_difference_lo']:+.3f}, {r['ratio_difference_hi']:+.3f}], better: {r['better']}"
        for r in found["paired"]
        if r["period"] == "headline"
    ]
    return "\n".join([*lines, *map(json.dumps, found["parts"])])


if __name__ == "__main__":
    main()
