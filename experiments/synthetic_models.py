"""Several synthetic Earth system models against their known truth: ``python experiments/synthetic_models.py``.

Five questions, each with thresholds that were written down before anything was run (`LIMITS`); what fails is kept as failed.

a. A scenario that is held out, for two models, each with an emulator of its own.
b. A model that is held out: one emulator of two others draws it, knowing nothing of it, or its forced response and marginals alone.
c. Fine-tuning from that emulator beside training from scratch, for as many steps, on the third model.
d. Aerosol injection that is held out. The synthetic scenarios have one with injection, so an emulator that has never seen AOD vary
   cannot know what it does: this is measured ("never seen") and expected to fail. The test proper lets a second model be trained
   on it and asks for the first model's response ("seen in another model").
e. The response to each forcing alone, under pathways of ssp585 with all else as in 2015; no training scenario separates them, so
   the network must tell them apart from two scenarios (and one with injection, of the second model).

Ensemble means are held against the exact means of the world (error: root mean square beyond what so many perfect members would
have), spreads against its exact standard deviations. Responses are differences of means of ensembles with the same noise. Three
members a scenario, decades, near-surface temperature unless said otherwise. The forced response is the line on CO2: synthetic
models have no calibrated energy balance, so all that aerosols do has to be learned by the network. The third model is more
sensitive than the two others, so their mean cannot be right for it. Training is cut by wall time: other machines get other numbers.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from climatesuite import __version__
from climatesuite.archive.synthetic import member_fields, spec_of, true_moments
from climatesuite.archive.synthetic_files import LICENSE
from climatesuite.archive.synthetic_scenarios import PRESENT, drivers, maps
from climatesuite.archive.synthetic_world import (
    FIRST_YEAR,
    Array,
    SyntheticSpec,
    area_mean,
    edges,
    make_world,
    radiative_forcing,
    warming,
)
from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.evaluate.known_truth import against_moments
from climatesuite.harmonise.calendars import month_lengths, time_coords
from climatesuite.harmonise.grids import cos_weights, grid_coords
from climatesuite.store.provenance import code_commit
from spf.commands.outcome import SPREAD_LIMITS, Check
from spf.commands.steps import hardware
from spf.config import RunConfig, load_config
from spf.learning.data import open_training_runs
from spf.learning.learn import learn
from spf.learning.measure import measure_marginals
from spf.learning.sources import open_runs
from spf.plain import to_dict
from spf.sampling.emulator import Emulator
from spf.sources import fit_codecs

ANY = float("inf")
LIMITS: dict[str, tuple[float, float]] = {
    "spread": SPREAD_LIMITS,  # over the true one
    "held-out scenario": (0.0, 1.0),  # error of the ensemble mean over that of the CO2 line alone
    "held-out model, nothing known": (0.0, 1.0),  # error over the distance of the two training models' truths
    "held-out model, response known": (0.0, 1.25),  # error over that of an emulator trained on the model
    "fine-tuning, error": (0.0, 1.0),  # error over that from scratch, equal steps
    "fine-tuning, loss": (0.0, ANY),  # explained loss of held-out members, minus that from scratch
    "mean response": (0.7, 1.3),  # global mean over the true one
    "pattern of response": (0.8, 1.0),  # area-weighted correlation over cells, means removed
}
A, B, C = "SYNTHETIC-A", "SYNTHETIC-B", "SYNTHETIC-C"
TRAIN, TEST, INJECTION = ("ssp126", "ssp585"), "ssp370", "ssp585-sai"
NAMES, GRID, YEARS, MEMBERS = ("CO2", "CH4", "SO2", "BC", "AOD"), (24, 36), (2015, 2099), 3
LATE, LAST_DECADE = (2075, 2094), 2085
DRAWN, SEED, SECONDS, STEPS = 8, 0, 45.0, 150
ALONE = {"CO2": ("CO2",), "CH4": ("CH4",), "aerosols": ("SO2", "BC"), "AOD": ("AOD",)}
ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("experiment")


# the world


def forcings_of(spec: SyntheticSpec, series: Mapping[str, Array], experiment_id: str) -> xr.Dataset:
    """Canonical monthly forcings of `YEARS` from the world's drivers, which begin in 1850."""
    first = 12 * (YEARS[0] - FIRST_YEAR)
    gridded = {n: (("time", "lat", "lon"), series[n][first:, None, None] * m) for n, m in maps(spec).items()}
    data = {**{n: ("time", series[n][first:]) for n in ("CO2", "CH4")}, **gridded}
    bounds = [np.stack([e[:-1], e[1:]], axis=1) for e in edges(spec)]
    space = grid_coords(*(part for b in bounds for part in (b.mean(axis=1), b)))
    coords = {**time_coords(range(YEARS[0], YEARS[1] + 1), "month", spec.calendar), **space}
    about = {
        "source_id": spec.source_id,
        "experiment_id": experiment_id,
        "calendar": spec.calendar,
        "timescale": "month",
    }
    named = {n: (d, v, {"units": FORCINGS[n].units, "role": "forcing"}) for n, (d, v) in data.items()}
    return xr.Dataset(named, coords, about)


def labels(members: int = MEMBERS) -> tuple[str, ...]:
    """Names of the first members."""
    return tuple(f"r{i + 1}i1p1f1" for i in range(members))


@lru_cache(maxsize=16)
def runs_of(source_id: str, experiment_id: str) -> xr.Dataset:
    """Canonical monthly run with members and forcings."""
    spec = spec_of(source_id, GRID)
    fields = [member_fields(spec, experiment_id, i + 1, YEARS) for i in range(MEMBERS)]
    dims = ("member", "time", "lat", "lon")
    stacked = {
        v: (dims, np.stack([f[v] for f in fields]).astype(np.float32), {"units": VARIABLES[v].units, "role": "field"})
        for v in ("tas", "pr")
    }
    out = forcings_of(spec, drivers(experiment_id, YEARS), experiment_id)
    return out.assign(stacked).assign_coords(member=list(labels()))


def alone(names: Sequence[str], experiment_id: str) -> dict[str, Array]:
    """Drivers of a scenario from 2015 on for some forcings, all else as at the beginning of 2015."""
    series, now = drivers(experiment_id, YEARS), 12 * (PRESENT - FIRST_YEAR)
    held = {n: np.where(np.arange(len(x)) < now, x, x[now]) for n, x in series.items() if n != "year"}
    return {**held, "year": series["year"], **{n: series[n] for n in names}}


def true_decade(spec: SyntheticSpec, series: Mapping[str, Array]) -> Array:
    """True mean tas (lat, lon) of the last decade under any drivers: the world's equations, see `synthetic_world`."""
    world = make_world(spec)
    level = {n: float(area_mean(m, spec)) for n, m in maps(spec).items()}
    total, aerosol = radiative_forcing({**series, **{n: series[n] * level[n] for n in level}})
    surface, now = warming(spec, total), 12 * (PRESENT - FIRST_YEAR)
    chosen = slice(12 * (LAST_DECADE - FIRST_YEAR), 12 * (LAST_DECADE + 10 - FIRST_YEAR))
    rise, haze = (surface[chosen] - surface[now : now + 12].mean())[:, None, None], aerosol[chosen, None, None]
    base, pattern = (np.tile(a, (10, 1, 1)) for a in (world.base, world.pattern))
    days = month_lengths(np.arange(LAST_DECADE, LAST_DECADE + 10), spec.calendar).astype(float).ravel()
    return np.average(base + pattern * rise + world.aerosol * haze, axis=0, weights=days)


# emulators


def settings(source_id: str, also: Mapping[str, Sequence[str]] | None = None, **training: Any) -> RunConfig:
    """The quickstart's network on some sources; ``also`` names the scenarios of those beside the first."""
    base = load_config(ROOT / "experiments/quickstart.yaml")
    given = {s: {e: labels() for e in scenarios} for s, scenarios in (also or {}).items()}
    data = replace(
        base.data, source_id=source_id, train={e: labels() for e in TRAIN}, forcings=NAMES, years=YEARS, also=given
    )
    return replace(
        base, name="synthetic-models", data=data, training=replace(base.training, seed=SEED, **training), gate=False
    )


def train(config: RunConfig, folder: Path) -> Path:
    """Learn from the configuration's sources."""
    begin = time.monotonic()
    scenarios = {s: {e: runs_of(s, e) for e in given} for s, given in config.data.sources().items()}
    codecs = fit_codecs(scenarios, config.data)
    runs, codec = open_runs(scenarios, codecs), codecs.pop(config.data.source_id)
    known = {
        "source_id": config.data.source_id, "license": LICENSE, "training_years": list(YEARS), "version": __version__,
        "training_members": to_dict(config)["data"]["train"], "torch": str(torch.__version__), "hardware": hardware(),
    }  # fmt: skip
    path = learn(config, codec, runs, known, folder, progress=False, others=codecs)
    log.info("%s trained in %.0f s", folder.name, time.monotonic() - begin)
    return path


def draw(
    emulator: Emulator, forcings: xr.Dataset, timescale: str = "decade", years: tuple[int, int] = YEARS
) -> xr.Dataset:
    """An ensemble under forcings, with the same noise each time."""
    return emulator.sample(forcings[list(NAMES)], timescale, DRAWN, years, seed=SEED)


def forced_only(emulator: Emulator, forcings: xr.Dataset) -> xr.Dataset:
    """Decades of the codec's forced response as an ensemble of one."""
    frame = emulator.template(forcings, "decade", YEARS)
    forced = emulator.codec.forced(emulator.codec.predictor(forcings), "decade", frame.year.values.tolist())
    fields = emulator.codec.decode(torch.zeros_like(forced), forced)
    named = {v: (("time", "lat", "lon"), x, {"units": VARIABLES[v].units}) for v, x in fields.items()}
    return frame.assign(named).expand_dims(member=[0])


@dataclass(frozen=True)
class Found:
    """An ensemble beside the truth: error of its mean beyond sampling, spread over the true one."""

    error: float
    spread: float


def compare(
    ensemble: xr.Dataset, source_id: str, experiment_id: str, timescale: str = "decade", v: str = "tas"
) -> Found:
    """Hold an ensemble against a model's exact moments."""
    years = (int(ensemble.year.values[0]), int(ensemble.year.values[-1]) + (9 if timescale == "decade" else 0))
    truth = true_moments(spec_of(source_id, GRID), experiment_id, timescale, years)
    found = against_moments(ensemble, truth, v)
    by_chance = found["rmse_expected"] ** 2 if ensemble.sizes["member"] > 1 else 0.0
    return Found(float(np.sqrt(max(found["rmse"] ** 2 - by_chance, 0.0))), found["spread_ratio"])


def response(emulator: Emulator, forcings: xr.Dataset, reference: xr.Dataset) -> Array:
    """Change of the ensemble mean tas (lat, lon) in the last decade, with the same noise under both."""
    return _late(emulator, forcings) - _late(emulator, reference)


def _late(emulator: Emulator, forcings: xr.Dataset) -> Array:
    ensemble = draw(emulator, forcings, years=LATE)
    return ensemble.tas.isel(time=-1).mean("member").values.astype(float)


def like(found: Array, truth: Array) -> tuple[float, float]:
    """Global mean over the true one, and area-weighted correlation of the patterns."""
    lat = xr.DataArray((edges(spec_of(A, GRID))[0][1:] + edges(spec_of(A, GRID))[0][:-1]) / 2, dims="lat")
    w = np.broadcast_to(np.asarray(cos_weights(lat).values)[:, None], truth.shape)
    means = [np.average(x, weights=w) for x in (found, truth)]
    a, b = found - means[0], truth - means[1]
    size = np.sqrt(np.average(a * a, weights=w) * np.average(b * b, weights=w))
    return float(means[0] / means[1]), float(np.average(a * b, weights=w) / size) if size else 0.0


# questions


def check(about: str, value: float, limits: str) -> dict[str, Any]:
    """A measurement beside its threshold, as it is kept."""
    found = Check(about, value, LIMITS[limits])
    log.info("%s", found)
    kept = [None if abs(x) == ANY else x for x in found.limits]
    return {"name": about, "value": round(value, 4), "limits": kept, "passed": bool(found.passed)}


def response_checks(about: str, found: Array, truth: Array) -> list[dict[str, Any]]:
    """Mean and pattern of a response."""
    mean, pattern = like(found, truth)
    return [check(f"{about}, mean", mean, "mean response"), check(f"{about}, pattern", pattern, "pattern of response")]


def held_out_scenario(emulator: Emulator, source_id: str) -> list[dict[str, Any]]:
    """Question a, of one model."""
    scenario, about = forcings_for(source_id, TEST), f"a. {TEST} of {source_id}"
    decades, line = draw(emulator, scenario), forced_only(emulator, scenario)
    found = []
    for v in ("tas", "pr"):
        ours, alone_ = compare(decades, source_id, TEST, v=v), compare(line, source_id, TEST, v=v)
        found.append(check(f"{about}, {v}: error over the CO2 line's", ours.error / alone_.error, "held-out scenario"))
        found.append(check(f"{about}, {v}: spread of decades", ours.spread, "spread"))
    late = draw(emulator, scenario, "year", (2080, 2099))
    return [*found, check(f"{about}, tas: spread of years", compare(late, source_id, TEST, "year").spread, "spread")]


def forcings_for(source_id: str, experiment_id: str) -> xr.Dataset:
    """Forcings of a scenario in a model's calendar."""
    return forcings_of(spec_of(source_id, GRID), drivers(experiment_id, YEARS), experiment_id)


def held_out_model(pair: Emulator, own: Emulator) -> list[dict[str, Any]]:
    """Question b; ``own`` is trained on the model."""
    scenario, truths = forcings_for(C, TEST), [true_moments(spec_of(s, GRID), TEST, "decade", YEARS) for s in (A, B)]
    first = (
        truths[0].rename(tas_mean="tas").expand_dims(member=[0]).assign(tas=lambda ds: ds.tas.assign_attrs(units="K"))
    )
    apart = against_moments(first, truths[1].assign_coords(first.coords).drop_vars("member"), "tas")["rmse"]
    # the mean response has the first source's calendar
    nothing = compare(draw(pair.unseen(C), forcings_for(A, TEST)).assign_attrs(source_id=C), C, TEST)
    runs = {C: {e: runs_of(C, e) for e in TRAIN}}
    known = pair.unseen(C, fit_codecs(runs, settings(C).data)[C])
    marginals = measure_marginals(
        open_training_runs(runs[C], known.codec), pair.backbone.spec, known.codec.grid.row_weights()
    )
    known = replace(known, marginals=marginals)
    told, trained = compare(draw(known, scenario), C, TEST), compare(draw(own, scenario), C, TEST)
    about = f"b. {C}, {TEST}"
    return [
        check(f"{about}, nothing known: error over A to B", nothing.error / apart, "held-out model, nothing known"),
        check(f"{about}, nothing known: spread", nothing.spread, "spread"),
        check(f"{about}, response known: error", told.error / trained.error, "held-out model, response known"),
        check(f"{about}, response known: spread", told.spread, "spread"),
    ]


def fine_tuning(tuned: Emulator, scratch: Emulator) -> list[dict[str, Any]]:
    """Question c."""
    scenario = forcings_for(C, TEST)
    errors = [compare(draw(e, scenario), C, TEST).error for e in (tuned, scratch)]
    explained = [float(np.mean(list(e.provenance["training"]["explained"].values()))) for e in (tuned, scratch)]
    log.info("fine-tuned, from scratch: errors %s K, explained %s", errors, explained)
    return [
        check("c. fine-tuned: error over from scratch", errors[0] / errors[1], "fine-tuning, error"),
        check("c. fine-tuned: more of held-out loss explained", explained[0] - explained[1], "fine-tuning, loss"),
    ]


def injection(emulators: Mapping[str, Emulator]) -> list[dict[str, Any]]:
    """Question d: A's change from ssp585 to ssp585 with injection."""
    spec = spec_of(A, GRID)
    with_it, without = (drivers(e, YEARS) for e in (INJECTION, "ssp585"))
    truth = true_decade(spec, with_it) - true_decade(spec, without)
    given = [forcings_of(spec, x, INJECTION) for x in (with_it, without)]
    return [
        row for name, e in emulators.items() for row in response_checks(f"d. injection, {name}", response(e, *given), truth)
    ]  # fmt: skip


def each_alone(emulators: Mapping[str, Emulator]) -> list[dict[str, Any]]:
    """Question e, of A."""
    spec, found = spec_of(A, GRID), []
    still = alone((), "ssp585")
    for name, names in ALONE.items():
        series = alone(names, INJECTION)  # the same as ssp585 but for AOD
        truth = true_decade(spec, series) - true_decade(spec, still)
        for about, emulator in emulators.items():
            if name != "AOD" or emulator.sources:
                change = response(emulator, forcings_of(spec, series, "ssp585"), forcings_of(spec, still, "ssp585"))
                found += response_checks(f"e. {name} alone, {about}", change, truth)
    return found


def check_truth() -> None:
    """The decade's mean under a scenario is that of the archive."""
    ours = true_decade(spec_of(A, GRID), drivers(TEST, YEARS))
    theirs = true_moments(spec_of(A, GRID), TEST, "decade", YEARS).tas_mean.isel(time=-1).values
    if not np.allclose(ours, theirs, atol=1e-6):
        raise ValueError("the equations here are not those of the synthetic archive")


def main(seconds: float, out: Path) -> int:
    """Train all, ask all, write the results."""
    begin = time.monotonic()
    check_truth()
    timed: dict[str, Any] = {"minutes": seconds / 60}
    counted: dict[str, Any] = {"minutes": 60.0, "max_steps": max(2, round(STEPS * seconds / SECONDS)), "held_out": 1}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = {s: Emulator.load(train(settings(s, **timed), folder / f"one-{s}")) for s in (A, B)}
        pair_path = train(settings(A, {B: TRAIN}, **timed), folder / "pair")
        taught = Emulator.load(train(settings(A, {B: (*TRAIN, INJECTION)}, **timed), folder / "injection"))
        scratch = Emulator.load(train(settings(C, **counted), folder / "scratch"))
        tuned = Emulator.load(train(settings(C, initial=str(pair_path), **counted), folder / "tuned"))
        pair = Emulator.load(pair_path)
    rows = [row for s, emulator in one.items() for row in held_out_scenario(emulator, s)]
    rows += held_out_model(pair, scratch) + fine_tuning(tuned, scratch)
    rows += injection({"never seen": one[A], "seen in another model": taught})
    rows += each_alone({"one model": one[A], "two models and injection": taught})
    content = {
        "command": " ".join(["python", "experiments/synthetic_models.py", *sys.argv[1:]]), "commit": code_commit(),
        "seed": SEED, "hardware": hardware(), "threads": torch.get_num_threads(), "seconds": round(time.monotonic() - begin, 1),
        "seconds_of_each_training": seconds, "steps": {e: x.provenance["training"]["steps"] for e, x in
            {"one A": one[A], "one B": one[B], "pair": pair, "injection": taught, "scratch": scratch, "tuned": tuned}.items()},
        "members_drawn": DRAWN, "thresholds": {n: [None if abs(x) == ANY else x for x in t] for n, t in LIMITS.items()},
        "passed": sum(row["passed"] for row in rows), "of": len(rows), "checks": rows,
    }  # fmt: skip
    out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{content['passed']} of {content['of']} passed in {content['seconds']:.0f} s: {out}")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    logging.getLogger("spf").setLevel(logging.ERROR)  # that scenarios leave the range of training is the question here
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each timed training; steps of c follow it")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments/results/synthetic_models.json")
    given = parser.parse_args()
    sys.exit(main(given.seconds, given.out))
