"""How wide drawn fields are: measured once on the training scenarios after training, and set right when members are drawn.

A flow that is solved in few steps, windows that see their neighbours only, and what the prior leaves out make normalised fields a
little too narrow or too wide. Their mean square is 1 in training; one factor a variable and timescale makes it 1 in drawn members.
"""

import logging
from collections.abc import Iterator, Mapping

import torch
import xarray as xr
from torch import Tensor

from climatesuite.store.open import only
from spf import checkpoint
from spf.commands.workspace import Workspace
from spf.sampling.emulator import Emulator

log = logging.getLogger("spf")
MEMBERS = {"decade": 8, "year": 2, "month": 2}
"""Drawn of each training scenario; two of other timescales."""
LAST_YEARS = {"month": 10, "year": 40}
"""Of the record, where it is not drawn whole."""
SEED = 20_150_102
MOST = 1.25
"""Farther from 1 it is no matter of width."""


def set_widths(work: Workspace) -> None:
    """Measure the factors, once, and keep them in the checkpoint; not for emulators of several Earth system models."""
    content = checkpoint.load(work.checkpoint)
    if "widths" in content or "sources" in content:
        return
    log.info("measuring the width of drawn fields on the training scenarios")
    data, emulator = work.config.data, Emulator.load(work.checkpoint)
    runs = {e: only(work.scenario(e, members), emulator.codec.forcings).load() for e, members in data.train.items()}
    content["widths"] = {
        timescale: widths(emulator, runs, timescale).tolist() for timescale in emulator.backbone.spec.timescales
    }
    for timescale, found in content["widths"].items():
        log.info("drawn %ss are made wider by %s", timescale, ", ".join(f"{100 * (w - 1):+.1f} %" for w in found))
    checkpoint.save(work.checkpoint, content)


def widths(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Tensor:
    """Factor of each variable (var,) that brings the mean square of drawn, normalised fields to 1.

    Args:
        emulator: Without widths.
        scenarios: Canonical monthly forcings of the training scenarios.
        timescale: Of the fields.
    """
    rows = emulator.codec.grid.row_weights()[:, None]
    squares = [(z.square() * rows).mean((1, 2, 3)) for z in _drawn(emulator, scenarios, timescale)]
    return torch.stack(squares).mean(0).rsqrt().clamp(1 / MOST, MOST)


def _drawn(emulator: Emulator, scenarios: Mapping[str, xr.Dataset], timescale: str) -> Iterator[Tensor]:
    for forcings in scenarios.values():
        first, last = (int(forcings.year.values[i]) for i in (0, -1))
        years = max(first, last - LAST_YEARS.get(timescale, last - first + 1) + 1), last
        members = range(MEMBERS.get(timescale, 2))
        yield from (z for _, z in emulator.normalised(forcings, timescale, members, years, SEED))
