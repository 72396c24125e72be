"""Spatiotemporal Pyramid Flows: climate ensembles drawn directly at any timescale."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spf.sampling.emulator import Emulator


def load(path: str) -> "Emulator":
    """A trained emulator from its checkpoint file; see `spf.sampling.emulator.Emulator.sample`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a checkpoint.
    """
    from spf.sampling.emulator import Emulator

    return Emulator.load(path)
