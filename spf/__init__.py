"""Spatiotemporal Pyramid Flows: climate ensembles drawn directly at any timescale."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spf.sampling.emulator import Emulator

# before torch is loaded: threads that spin while they wait make a network's calls ten times slower beside another process
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load(emulator: "str | os.PathLike[str]") -> "Emulator":
    """A trained emulator: ``spf.load("cesm2")`` for one that comes with the package, or from its checkpoint file.

    See `spf.sampling.emulator.Emulator.sample`.

    Raises:
        FileNotFoundError: If there is no such file, and none is shipped under that name.
        ValueError: If it is not a checkpoint.
    """
    from spf.sampling.emulator import Emulator

    return Emulator.load(os.fspath(emulator))


def __getattr__(name: str) -> Any:
    """``spf.plot`` without an import of its own, and no matplotlib where nothing is drawn."""
    if name == "plot":
        return import_module("spf.plot")
    raise AttributeError(f"module 'spf' has no attribute {name!r}")
