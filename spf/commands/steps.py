"""The steps of an experiment, each resumable: archive -> store -> checkpoint -> ensembles."""

import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from climatesuite import __version__
from climatesuite.archive.synthetic import write_archive
from climatesuite.build import build
from climatesuite.forcing.energy_response import open_patterns
from climatesuite.store.lock import PARTIAL
from climatesuite.store.open import only, open_run
from climatesuite.store.place import BUILDING
from climatesuite.store.provenance import read_provenance
from spf.commands.ensemble import drawn_by, predict_minutes, write_ensemble
from spf.commands.share import wait_for
from spf.commands.workspace import Workspace
from spf.config import RunConfig, SamplingConfig, expand
from spf.learning.learn import learn
from spf.learning.sources import open_runs
from spf.learning.train import is_first_process
from spf.sampling.emulator import Emulator
from spf.sources import fit_codecs

log = logging.getLogger("spf")
INGEST_BYTES_PER_MINUTE = 600e6


def ingest(work: Workspace) -> None:
    """Write the synthetic archive if that is the source, then build a store for each source; what is already there stays.

    Of several processes that learn together the first one does it, and the others wait for as long as it gets on.
    """
    if not is_first_process():
        wait_for(lambda: _unfinished(work), str(work.folder))
        return
    data = work.config.data
    wanted = {**data.also, data.source_id: {**data.train, **data.test}}
    done = work.folder / "archive" / "complete"
    if data.archive == "synthetic" and not done.exists():
        log.info("writing the synthetic archive (about %.1f minutes)", 0.2 * len(wanted))
        grid = (data.grid[0], data.grid[1]) if data.grid else (24, 36)
        for source_id, scenarios in wanted.items():
            write_archive(
                work.folder / "archive", sources=(source_id,), experiments={e: len(m) for e, m in scenarios.items()},
                years=data.years, grid=grid, variables=data.variables, progress=work.progress,
            )  # fmt: skip
        done.touch()
    if not work.store.exists():
        size = sum(f.stat().st_size for f in work.archive().rglob("*.nc")) if work.archive().is_dir() else 0
        log.info(
            "ingesting %.0f MB of NetCDF (predicted %.1f minutes)", size / 1e6, size / INGEST_BYTES_PER_MINUTE + 0.1
        )
    for source_id, scenarios in wanted.items():
        members = {e: list(m) for e, m in scenarios.items()}
        build(
            work.archive(), work.store_of(source_id), sources=[source_id], experiments=list(members), members=members,
            variables=data.variables, forcings=work.forcing_files(), forcing_names=data.forcings, years=data.years,
            grid=(data.grid[0], data.grid[1]) if data.grid else None, decade_start=data.decade_start, progress=work.progress,
        )  # fmt: skip


def _unfinished(work: Workspace) -> list[str]:
    """Stores that are not there yet, and how many parts of each are done."""
    stores = [store for s in work.config.data.sources() if not (store := work.store_of(s)).exists()]
    journals = [store.with_name(store.name + PARTIAL) / BUILDING / "parts" for store in stores]
    return [
        f"{store.name} ({sum(1 for _ in journal.glob('*.json'))} parts are done)"
        for store, journal in zip(stores, journals, strict=True)
    ]


def train(work: Workspace, learn: Callable[..., Path] = learn) -> None:
    """Train until the budget is spent, unless the checkpoint is there; ``learn`` is called as `spf.learning.learn.learn` is."""
    if work.checkpoint.exists():
        log.info("checkpoint is there: %s", work.checkpoint)
        return
    config = work.config
    log.info("training (predicted %.1f minutes at most)", config.training.minutes + 0.3)
    given = config.data.sources()
    scenarios = {s: {e: work.scenario(e, m, s) for e, m in runs.items()} for s, runs in given.items()}
    main = scenarios[config.data.source_id]
    first = next(iter(main.values()))
    config.pyramid.check_grid(first.sizes["lat"], first.sizes["lon"])
    data = config.data
    patterns = open_patterns(expand(data.patterns), first) if data.patterns else None
    codecs = fit_codecs(scenarios, data, patterns)
    runs, codec = open_runs(scenarios, codecs), codecs.pop(data.source_id)
    others = {"others": codecs} if codecs else {}
    learn(config, codec, runs, provenance(work, main), work.folder, work.progress, **others)


def provenance(work: Workspace, scenarios: dict[str, xr.Dataset]) -> dict[str, Any]:
    """What a checkpoint and its ensembles say about where they come from."""
    config, sources = work.config, work.config.data.sources()
    stores = {s: read_provenance(work.store_of(s)) for s in sources}

    def is_training(name: str, source_id: str) -> bool:
        return any(f"_{e}_" in name or name == f"inputs_{e}.nc" for e in sources[source_id])

    files = {
        f["name"]: f["sha256"] for s, store in stores.items() for f in store["sources"] if is_training(f["name"], s)
    }
    return {
        "source_id": config.data.source_id,
        "training_members": {e: list(map(str, ds.member.values)) for e, ds in scenarios.items()},
        "training_years": [config.data.years[0], config.data.years[1]],
        "license": "; ".join(dict.fromkeys(text for store in stores.values() for text in store["licenses"])),
        "source_files": [{"name": name, "sha256": digest} for name, digest in files.items()],
        "version": __version__,
        "torch": str(torch.__version__),
        "hardware": hardware(),
    }


def hardware() -> str:
    """Processor, cores and accelerator in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores{gpu}"


def sample(work: Workspace, emulator_type: type[Emulator] = Emulator) -> dict[str, float]:
    """Draw the ensembles of the test scenario that are not there yet; seconds by timescale, kept in ``sampling.json``."""
    config, seconds = work.config, _read_seconds(work)
    emulator = emulator_type.load(work.checkpoint)
    scenario = work.test_scenario()
    forcings = only(open_run(work.store, config.data.source_id, scenario, "month"), config.data.forcings).load()
    for timescale, members in config.sampling.members.items():
        if timescale in seconds and drawn_by(work.ensemble(timescale)) == emulator.digest:
            continue
        years = years_of(config, timescale)
        minutes = predict_minutes(emulator, forcings, timescale, members, years, config.sampling)
        log.info("sampling %d members, %s (predicted %.1f minutes)", members, timescale, minutes)
        seconds[timescale] = write_ensemble(
            emulator, forcings, timescale, members, years, config.sampling, work.ensemble(timescale), work.progress
        )
        (work.folder / "sampling.json").write_text(json.dumps(seconds, indent=1))
    return seconds


def years_of(config: RunConfig, timescale: str) -> tuple[int, int]:
    """First and last year of the ensemble of a timescale; months cover all years unless they are given their own."""
    chosen = config.sampling.month_years
    return chosen if timescale == "month" and chosen != SamplingConfig.month_years else config.data.years


def _read_seconds(work: Workspace) -> dict[str, float]:
    path = work.folder / "sampling.json"
    return json.loads(path.read_text()) if path.exists() else {}
