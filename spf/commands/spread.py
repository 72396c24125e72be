"""One ensemble drawn by tasks on any machines that see its folder: plain functions for dask or any other scheduler.

With a cluster of ``dask.distributed`` (a package of its own)::

    order = Order("emulator.pt", "inputs_ssp245.nc", "year", 1000, "years.zarr")
    groups = prepare(order)
    client.gather(client.map(partial(draw_members, order), groups))
    publish(order)

Tasks may be lost and run again: members that are done stay. Member i does not depend on how members are dealt out.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spf.commands.ensemble import HDF5, Ensemble
from spf.commands.share import ALONE
from spf.config import SamplingConfig
from spf.precision import precision_of
from spf.sampling.emulator import Emulator


@dataclass(frozen=True)
class Order:
    """An ensemble to be drawn, in words that travel between processes.

    Attributes:
        checkpoint: ``emulator.pt`` of a run, or the name of an emulator that is shipped.
        forcings: Name of a scenario that the emulator or CLIMATE_DATA knows, or its forcing file.
        timescale: ``decade``, ``year`` or ``month``.
        members: How many.
        out: NetCDF file, or Zarr store with the suffix ``.zarr``.
        years: First and last year; default all that the forcings cover.
        sampling: Solver, calls, batch and seed; default those of the checkpoint's experiment.
        precision: ``32-true``, ``bf16-mixed`` or ``auto``; empty takes that of the training.
    """

    checkpoint: str | Path
    forcings: str | Path
    timescale: str
    members: int
    out: str | Path
    years: tuple[int, int] | None = None
    sampling: SamplingConfig | None = None
    precision: str = ""


def prepare(order: Order) -> list[list[int]]:
    """Make the folder that members are drawn into; once, before the first task.

    Returns:
        The members by groups that are drawn at once: a task had better have whole groups.
    """
    ensemble = _open(order)
    ensemble.prepare()
    return ensemble.groups()


def draw_members(order: Order, members: Sequence[int]) -> list[int]:
    """Draw some members of an ensemble that is prepared; those that are done stay as they are.

    Args:
        order: The ensemble.
        members: Numbers of the members.

    Returns:
        The numbers.
    """
    _open(order).draw(list(members), progress=False)
    return list(members)


def publish(order: Order) -> Path:
    """Give the ensemble its name; once, after the last task.

    Raises:
        DataContractError: If members are missing.
    """
    ensemble = _open(order)
    if ensemble.seconds_if_there() is None:
        ensemble.publish()
    return ensemble.out


def open_emulator(checkpoint: str | Path, precision: str = "") -> Emulator:
    """An emulator on the processor, in a precision other than that of its training if one is named."""
    emulator = Emulator.load(checkpoint)
    return dataclasses.replace(emulator, precision=precision_of(precision)) if precision else emulator


def _open(order: Order) -> Ensemble:
    emulator = open_emulator(order.checkpoint, order.precision)
    emulator.backbone.to(ALONE.device())  # a cluster shows each of its workers the accelerators that are its own
    with HDF5:
        forcings = emulator.forcings(order.forcings)
    years = order.years or (int(forcings.year.values[0]), int(forcings.year.values[-1]))
    how = order.sampling or emulator.sampling
    return Ensemble(emulator, forcings, order.timescale, order.members, years, how, Path(order.out))
