"""The verb sample: ensembles of any number of scenarios from a checkpoint, by one process or the share of one of many."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from climatesuite.errors import DataContractError
from spf.commands.ensemble import predict_minutes, write_ensemble
from spf.commands.share import PATIENCE_SECONDS, Share
from spf.commands.spread import open_emulator
from spf.config import SamplingConfig
from spf.sampling.request import check_variables
from spf.sampling.solvers import CALLS_PER_STEP

log = logging.getLogger("spf")
SCENARIO = "{scenario}"


def sample_files(
    checkpoint: str | Path,
    scenarios: Sequence[str | Path],
    timescale: str,
    members: int,
    years: tuple[int, int] | None,
    settings: Mapping[str, Any],
    out: Path,
    precision: str = "",
    source_id: str = "",
    patience: float = PATIENCE_SECONDS,
    variables: Sequence[str] = (),
    calendar: str = "",
) -> list[Path]:
    """An ensemble from a checkpoint for every scenario; under torchrun or srun the processes share the members.

    Args:
        checkpoint: ``emulator.pt`` of a run, or the name of an emulator that is shipped.
        scenarios: Names that the emulator or CLIMATE_DATA knows, or forcing files.
        timescale: ``decade``, ``year`` or ``month``.
        members: How many, of each scenario.
        years: First and last year; None for all that the forcings cover.
        settings: What differs from the sampling of the checkpoint's experiment, e.g. solver, n_steps, batch, seed.
        out: NetCDF file or Zarr store, or what `targets` makes of it for several scenarios; with ``{variable}`` in its name a
            file for each variable.
        precision: Of the network; empty takes that of its training.
        source_id: Which of the Earth system models it was trained on; empty takes the first.
        patience: Seconds that processes wait for each other without anything new.
        variables: Fields to keep; default all.
        calendar: Of the result; default that of the Earth system model.

    Returns:
        The files made, by the first process.

    Raises:
        DataContractError: If it was not trained on ``source_id`` or the variables, a scenario is not known, forcings do not fit,
            or several scenarios would have one file.
    """
    share, files = Share.from_environment(), targets(out, scenarios)
    emulator = open_emulator(checkpoint, precision)
    emulator = emulator.of(source_id) if source_id else emulator
    emulator.backbone.to(share.device())
    how, wanted = changed(emulator.sampling, settings), check_variables(variables or None, emulator.codec)
    for scenario, file in zip(scenarios, files, strict=True):
        drivers = emulator.forcings(scenario)
        covered = years or (int(drivers.year.values[0]), int(drivers.year.values[-1]))
        among = f" in {share.world} processes" if share.world > 1 else ""
        if share.rank == 0:
            own = len(share.of(emulator.groups(drivers, timescale, range(members), covered, how)))
            minutes = predict_minutes(emulator, drivers, timescale, own, covered, how)
            log.info("sampling %d members, timescale %s%s (predicted %.1f minutes)", members, timescale, among, minutes)
        seconds = write_ensemble(
            emulator, drivers, timescale, members, covered, how, file, share=share, patience=patience,
            variables=wanted, calendar=calendar,
        )  # fmt: skip
        if share.rank == 0:
            log.info("took %.1f minutes%s", seconds / 60, " of all processes together" if among else "")
    return files if share.rank == 0 else []


def changed(how: SamplingConfig, settings: Mapping[str, Any]) -> SamplingConfig:
    """Other settings; a solver that comes without steps keeps the number of network calls, as steps are the old one's."""
    solver = settings.get("solver", how.solver)
    if solver in CALLS_PER_STEP and "n_steps" not in settings:
        ratio = CALLS_PER_STEP[how.solver] / CALLS_PER_STEP[solver]
        each = how.n_steps if isinstance(how.n_steps, tuple) else (how.n_steps,)
        steps = tuple(max(1, round(n * ratio)) for n in each)
        how = replace(how, n_steps=steps if isinstance(how.n_steps, tuple) else steps[0])
    return replace(how, **settings)


def targets(out: Path, scenarios: Sequence[str | Path]) -> list[Path]:
    """The file of each scenario.

    Args:
        out: A file or store for one scenario; a folder, which gets ``<scenario>.nc``; or a name with ``{scenario}`` in it.
        scenarios: Names, or forcing files ``inputs_<scenario>.nc``.

    Raises:
        DataContractError: If several scenarios would have one file.
    """
    names = [Path(s).name.removesuffix(".nc").removeprefix("inputs_") for s in scenarios]
    if SCENARIO not in out.name and out.suffix != ".zarr" and (out.is_dir() or not out.suffix):
        out = out / f"{SCENARIO}.nc"
    files = [out.with_name(out.name.replace(SCENARIO, name)) for name in names]
    if len(set(files)) < len(files):
        raise DataContractError(
            f"--out {out}", f"one file for {', '.join(names)}", "a file each",
            f"give a folder, or a name with {SCENARIO} in it, and every scenario once",
        )  # fmt: skip
    return files
