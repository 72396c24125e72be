"""Ensembles streamed to CF NetCDF, member by member; a killed run goes on with the next member."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from climatesuite.conventions import VARIABLES
from climatesuite.export import write_cf
from spf.config import SamplingConfig
from spf.interfaces import Condition
from spf.pyramid.windows import calendar_ids
from spf.sampling.emulator import Emulator
from spf.sampling.solvers import CALLS_PER_STEP

SECONDS = "seconds"
log = logging.getLogger("spf")
SOURCE = "climatesuite-spf: Spatiotemporal Pyramid Flows (arXiv 2512.02268) around a fitted forced response"


def write_ensemble(
    emulator: Emulator,
    forcings: xr.Dataset,
    timescale: str,
    members: int,
    years: tuple[int, int],
    sampling: SamplingConfig,
    out: Path,
    progress: bool = True,
) -> float:
    """Draw an ensemble and write it to ``out``.

    Finished members wait in a hidden folder beside it, so that a killed run loses one member at most.

    Args:
        emulator: Trained.
        forcings: Canonical monthly forcings of the scenario.
        timescale: ``decade``, ``year`` or ``month``.
        members: How many.
        years: First and last year.
        sampling: Solver, batch and seed.
        out: NetCDF file to make.
        progress: Whether to show a bar.

    Returns:
        Seconds that drawing and writing took, over all interruptions.
    """
    key = json.dumps(
        [emulator.digest, emulator.precision, timescale, years, asdict(sampling)], default=str, sort_keys=True
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = out.parent / f".{out.stem}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.parts"
    for warning in emulator.codec.beyond_training(forcings):
        log.warning("%s", warning)
    template = emulator.template(forcings, timescale, years)
    per_member = emulator.windows_per_member(forcings, timescale, years, sampling)
    parts.mkdir(exist_ok=True)
    with tqdm(total=members * per_member, desc=f"sampling {timescale}s", unit="window", disable=not progress) as bar:
        missing = [m for m in range(members) if not (parts / f"{m}.npz").exists()]
        bar.update(per_member * (members - len(missing)))
        begin = time.monotonic()
        for member, fields in emulator.draw(forcings, timescale, missing, years, sampling.seed, sampling, bar.update):
            arrays = {v: fields[v].values for v in emulator.codec.variables}
            _save(parts / f"{member}.npz", {**arrays, SECONDS: np.array(time.monotonic() - begin)})
            begin = time.monotonic()
    begin = time.monotonic()
    attrs = _attributes(emulator, template, sampling)
    write_cf(out, _members(parts, members, template), template, attrs)
    spent = time.monotonic() - begin
    for part in parts.iterdir():
        with np.load(part) as arrays:
            spent += float(arrays[SECONDS])
        part.unlink()
    parts.rmdir()
    return spent


def drawn_by(path: Path) -> str | None:
    """Digest of the checkpoint that drew an ensemble file; None if there is no such file."""
    if not path.exists():
        return None
    with netCDF4.Dataset(path) as file:
        return str(file.checkpoint_sha256)


def predict_minutes(
    emulator: Emulator,
    forcings: xr.Dataset,
    timescale: str,
    members: int,
    years: tuple[int, int],
    sampling: SamplingConfig,
) -> float:
    """Minutes that sampling will take, from one timed network call a stage."""
    total = 0.0
    for stage, windows, shape, condition in emulator.calls(forcings, timescale, years, sampling):
        n = min(sampling.batch, windows)
        x, known = torch.zeros(n, *shape), condition.chosen(torch.zeros(n, dtype=torch.long))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, emulator.precision == "bf16-mixed"):
            for _ in range(2):
                begin = time.monotonic()
                emulator.backbone.velocity(x, torch.full((n,), 0.5), stage, known)
        total += (time.monotonic() - begin) * members * windows / n
    return total / 60


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    part.replace(path)


def _members(parts: Path, members: int, template: xr.Dataset) -> Iterator[tuple[int, xr.Dataset]]:
    for member in range(members):
        with np.load(parts / f"{member}.npz") as arrays:
            fields = {
                v: (("time", "lat", "lon"), arrays[v], {"units": VARIABLES[v].units})
                for v in arrays.files
                if v in VARIABLES
            }
        yield member, template.assign(fields)


def _attributes(emulator: Emulator, template: xr.Dataset, sampling: SamplingConfig) -> dict[str, Any]:
    known = emulator.provenance
    return {
        "title": f"Emulated {known['source_id']} under {template.attrs.get('experiment_id', 'a scenario')}",
        "institution": "made with climatesuite-spf",
        "source": SOURCE,
        "references": "https://arxiv.org/abs/2512.02268",
        "model": "spf",
        "license": known["license"],
        "training_sources": {"source_id": known["source_id"], "members": known["training_members"]},
        "checkpoint_sha256": emulator.digest,
        "seed": sampling.seed,
        "solver": f"{sampling.solver}, {sampling.n_steps} steps a stage, shift {sampling.shift}",
        "precision": emulator.precision,
        "comment": "Windows are drawn independently given their parents: persistence across their borders is not represented. "
        "Negative precipitation is set to zero.",
    }
