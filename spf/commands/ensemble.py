"""Ensembles streamed to CF NetCDF or Zarr, member by member, by one process or many; a killed run goes on with what is missing."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import netCDF4
import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from climatesuite import __version__
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.export import annotate_zarr, create_zarr, write_cf, write_zarr_member
from climatesuite.harmonise.calendars import canonical_calendar, relabel
from spf.commands.share import ALONE, PATIENCE_SECONDS, Share, wait_for
from spf.config import SamplingConfig
from spf.sampling.about import ensemble_attrs
from spf.sampling.emulator import Emulator

SECONDS = "seconds"
VARIABLE = "{variable}"
KEY_ATTR, SECONDS_ATTR = "sampling_key", "sampling_seconds"
log = logging.getLogger("spf")


HDF5 = threading.Lock()
"""HDF5 is not safe in threads, and tasks may be threads: two that opened files at once crashed the process."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """An ensemble to be drawn: from what, how, and where to. Any number of processes may draw members of it side by side.

    Members that are done wait in a hidden folder beside the result: each as a file of its own, or, for Zarr, in a store
    that gets its name when it is whole. A member is done when its ``.npz`` is there.

    Attributes:
        emulator: Trained.
        forcings: Canonical monthly forcings of the scenario.
        timescale: ``decade``, ``year`` or ``month``.
        members: How many.
        years: First and last year.
        sampling: Solver, batch and seed.
        out: What to make: ``.zarr`` is a Zarr store, anything else a NetCDF file, or one for each variable where the name holds
            ``{variable}``.
        variables: Fields to keep; default all.
        calendar: Of the result; default that of the Earth system model.
    """

    emulator: Emulator
    forcings: xr.Dataset
    timescale: str
    members: int
    years: tuple[int, int]
    sampling: SamplingConfig
    out: Path
    variables: tuple[str, ...] = ()
    calendar: str = ""

    def __post_init__(self) -> None:
        """Refuse steps that do not fit the stages, and names that do not fit the kind of file, before anything is made."""
        self.sampling.steps(len(self.emulator.backbone.spec.path(self.timescale)))
        canonical_calendar(self.calendar or "standard")
        if self.is_zarr and VARIABLE in self.out.name:
            raise DataContractError(
                str(self.out), "a store for each variable", "one store, where each variable is an array of its own",
                f"leave {VARIABLE} out, or write NetCDF files",
            )  # fmt: skip

    @property
    def is_zarr(self) -> bool:
        """Whether a Zarr store is made."""
        return self.out.suffix == ".zarr"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are kept."""
        return self.variables or self.emulator.codec.variables

    @property
    def files(self) -> dict[Path, tuple[str, ...]]:
        """What is made, and the fields in it."""
        if VARIABLE not in self.out.name:
            return {self.out: self.fields}
        return {self.out.with_name(self.out.name.replace(VARIABLE, v)): (v,) for v in self.fields}

    @cached_property
    def template(self) -> xr.Dataset:
        """Coordinates and attributes, without fields."""
        found = self.emulator.template(self.forcings, self.timescale, self.years)
        return relabel(found, self.calendar) if self.calendar else found

    @cached_property
    def key(self) -> str:
        """sha256 of everything that decides what is drawn."""
        digest = hashlib.sha256()
        for name in sorted(map(str, self.forcings.data_vars)):
            digest.update(name.encode() + np.ascontiguousarray(self.forcings[name].values).tobytes())
        about = [
            __version__, self.emulator.digest, self.emulator.precision, self.timescale, self.years, self.members,
            asdict(self.sampling), self.forcings.attrs.get("experiment_id"), self.emulator.source,
            self.fields, self.calendar,
        ]  # fmt: skip
        digest.update(json.dumps(about, default=str, sort_keys=True).encode())
        return digest.hexdigest()

    @cached_property
    def parts(self) -> Path:
        """Hidden folder of what is done."""
        return self.out.parent / f".{self.out.stem.replace(VARIABLE, 'each')}.{self.key[:12]}.parts"

    @property
    def store(self) -> Path:
        """The Zarr store before it is published."""
        return self.parts / "store.zarr"

    def seconds_if_there(self) -> float | None:
        """Seconds that drawing took, if the result is there already; otherwise None."""
        found = [_attrs_of(file) for file in self.files]
        whole = all(attrs.get(KEY_ATTR) == self.key for attrs in found)
        return float(found[0].get(SECONDS_ATTR, 0.0)) if whole else None

    def prepare(self) -> None:
        """Make the hidden folder, for one process before all others draw.

        Raises:
            DataContractError: If the result would replace a folder that is no ensemble, or `steps` do not fit the stages.
        """
        if self.out.is_dir() and not (self.is_zarr and KEY_ATTR in _attrs_of(self.out)):
            raise DataContractError(
                str(self.out), "a folder that is no ensemble drawn with spf", "a new name", "choose another --out"
            )
        for warning in self.emulator.codec.beyond_training(self.forcings):
            log.warning("%s", warning)
        if not self.is_zarr:
            self.parts.mkdir(parents=True, exist_ok=True)
        elif not self.store.exists():
            shutil.rmtree(self.parts, ignore_errors=True)
            self.parts.mkdir(parents=True)
            begun = self.parts / "begun.zarr"
            create_zarr(begun, self.template, self.fields, range(self.members), self._attributes())
            begun.rename(self.store)

    def is_prepared(self) -> bool:
        """Whether members can be drawn."""
        return (self.store if self.is_zarr else self.parts).exists()

    def missing(self) -> list[int]:
        """Members that are not done."""
        done = {path.name for path in self.parts.glob("*.npz")}
        return [m for m in range(self.members) if f"{m}.npz" not in done]

    def groups(self) -> list[list[int]]:
        """Its members by groups that are drawn at once: who draws one had better draw all of it."""
        return self.emulator.groups(self.forcings, self.timescale, range(self.members), self.years, self.sampling)

    def draw(self, members: Sequence[int], progress: bool = True) -> None:
        """Draw those of some members that are not done; a kill loses those in work at most."""
        missing = sorted(set(members) & set(self.missing()))
        if not missing or self.seconds_if_there() is not None:  # another process may have published in between
            return
        per_member = self.emulator.windows_per_member(self.forcings, self.timescale, self.years, self.sampling)
        label, total = f"sampling {self.timescale}s", len(members) * per_member
        with tqdm(total=total, desc=label, unit="window", disable=not progress) as bar:
            bar.update(per_member * (len(members) - len(missing)))
            begin = time.monotonic()
            for member, fields in self.emulator.draw(
                self.forcings, self.timescale, missing, self.years, self.sampling.seed, self.sampling, bar.update
            ):
                self._keep(member, fields, begin)
                begin = time.monotonic()

    def _keep(self, member: int, fields: xr.Dataset, begin: float) -> None:
        arrays = {}
        if self.is_zarr:
            write_zarr_member(self.store, member, fields[list(self.fields)])
        else:
            arrays = {v: fields[v].values for v in self.fields}
        _save(self.parts / f"{member}.npz", {**arrays, SECONDS: np.array(time.monotonic() - begin)})

    def publish(self) -> float:
        """Give the whole ensemble its name, for one process after all others; seconds of drawing and writing, of all together.

        Raises:
            DataContractError: If members are missing.
        """
        begin = time.monotonic()
        missing = self.missing()
        if missing:
            raise DataContractError(
                str(self.out), f"{len(missing)} of {self.members} members are missing, first {missing[0]}", "all members",
                "draw them first",
            )  # fmt: skip
        spent = 0.0
        for member in range(self.members):
            with np.load(self.parts / f"{member}.npz") as arrays:
                spent += float(arrays[SECONDS])
        if self.is_zarr:
            annotate_zarr(self.store, {SECONDS_ATTR: round(spent, 3)})
            _replace_folder(self.store, self.out)
        else:
            attrs = {**self._attributes(), SECONDS_ATTR: round(spent, 3)}
            for file, variables in self.files.items():
                write_cf(file, _members(self.parts, self.members, self.template, variables), self.template, attrs)
        self.discard()
        return spent + time.monotonic() - begin

    def discard(self) -> None:
        """Remove the hidden folder."""
        if self.parts.exists():  # renamed first: a process that looks meanwhile sees all of it or nothing
            shutil.rmtree(self.parts.rename(self.parts.with_suffix(f".{uuid4().hex[:8]}")))

    def _attributes(self) -> dict[str, Any]:
        about = ensemble_attrs(self.emulator, self.template, self.forcings, self.sampling, self.sampling.seed)
        return {**about, KEY_ATTR: self.key}


def write_ensemble(
    emulator: Emulator,
    forcings: xr.Dataset,
    timescale: str,
    members: int,
    years: tuple[int, int],
    sampling: SamplingConfig,
    out: Path,
    progress: bool = True,
    share: Share = ALONE,
    patience: float = PATIENCE_SECONDS,
    variables: tuple[str, ...] = (),
    calendar: str = "",
) -> float:
    """Draw an ensemble and write it to ``out``; memory does not grow with the number of members.

    What is done is kept, so that a killed run loses one member at most. A result drawn from the same checkpoint, forcings
    and settings stays as it is.

    Args:
        emulator: Trained.
        forcings: Canonical monthly forcings of the scenario.
        timescale: ``decade``, ``year`` or ``month``.
        members: How many.
        years: First and last year.
        sampling: Solver, batch and seed.
        out: NetCDF file, or with the suffix ``.zarr`` Zarr store, to make.
        progress: Whether to show a bar.
        share: Which of several processes with the same arguments this is; each draws its members, the first one publishes.
        patience: Seconds without a new member after which the first process gives up waiting for the others, and these
            for it.
        variables: Fields to keep; default all.
        calendar: Of the result; default that of the Earth system model.

    Returns:
        Seconds that drawing and writing took, over all interruptions and processes; for processes other than the first 0.

    Raises:
        DataContractError: If other processes do not deliver, or a folder stands where the result should be.
    """
    ensemble = Ensemble(emulator, forcings, timescale, members, years, sampling, out, variables, calendar)
    seconds = ensemble.seconds_if_there()
    if seconds is not None:
        if share.rank == 0:
            log.info("%s is there already, drawn from the same checkpoint, forcings and settings", out)
            ensemble.discard()
        return seconds if share.rank == 0 else 0.0
    if share.rank > 0:

        def begun() -> list[str]:
            ready = ensemble.is_prepared() or ensemble.seconds_if_there() is not None
            return [] if ready else ["the beginning of it"]

        wait_for(begun, str(out), patience)
        ensemble.draw(share.of(ensemble.groups()), progress=False)
        return 0.0
    ensemble.prepare()
    ensemble.draw(share.of(ensemble.groups()), progress)
    wait_for(lambda: [f"member {m}" for m in ensemble.missing()], str(out), patience)
    return ensemble.publish()


def drawn_by(path: Path) -> str | None:
    """Digest of the checkpoint that drew an ensemble; None if there is no such file."""
    return str(_attrs_of(path)["checkpoint_sha256"]) if path.exists() else None


def predict_minutes(
    emulator: Emulator,
    forcings: xr.Dataset,
    timescale: str,
    members: int,
    years: tuple[int, int],
    sampling: SamplingConfig,
) -> float:
    """Minutes that sampling will take, from one timed network call a stage; members are drawn in whole groups."""
    together = len(emulator.groups(forcings, timescale, range(sampling.batch), years, sampling)[0])
    drawn = -(-members // together) * together
    total = 0.0
    device = next(emulator.backbone.parameters()).device
    for stage, windows, shape, condition in emulator.calls(forcings, timescale, years, sampling):
        n = min(sampling.batch, windows)
        x, t = torch.zeros(n, *shape, device=device), torch.full((n,), 0.5, device=device)
        known = condition.chosen(torch.zeros(n, dtype=torch.long, device=device))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, emulator.precision == "bf16-mixed"):
            for _ in range(2):
                begin = time.monotonic()
                emulator.backbone.velocity(x, t, stage, known).cpu()  # waits for the accelerator
        total += (time.monotonic() - begin) * drawn * windows / n
    return total / 60


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    part.replace(path)


def _attrs_of(path: Path) -> dict[str, Any]:
    """Global attributes of an ensemble; none if there is nothing, or something else."""
    try:
        if path.is_dir():
            return dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
        if not path.exists():
            return {}
        with HDF5, netCDF4.Dataset(path) as file:
            return {name: file.getncattr(name) for name in file.ncattrs()}
    except OSError:
        return {}


def _replace_folder(new: Path, out: Path) -> None:
    """Give a folder a name that an older ensemble may have; the older one is gone only when the new one is there."""
    old = out.with_name(f".{out.name}.{uuid4().hex[:8]}")
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _members(
    parts: Path, members: int, template: xr.Dataset, variables: Sequence[str]
) -> Iterator[tuple[int, xr.Dataset]]:
    for member in range(members):
        with np.load(parts / f"{member}.npz") as arrays:
            fields = {v: (("time", "lat", "lon"), arrays[v], {"units": VARIABLES[v].units}) for v in variables}
        yield member, template.assign(fields)
