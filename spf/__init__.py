"""Spatiotemporal Pyramid Flows: climate ensembles drawn directly at any timescale."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """``spf.plot`` without an import of its own, and no matplotlib where nothing is drawn."""
    if name == "plot":
        return import_module("spf.plot")
    raise AttributeError(f"module 'spf' has no attribute {name!r}")
