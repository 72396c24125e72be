"""A build that dies at any moment shows no store; the next one goes on, to the very store an undisturbed one would have made."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from climatesuite.build import build
from climatesuite.errors import DataContractError
from climatesuite.store.provenance import read_provenance
from climatesuite.store.verify import verify
from worlds.canonical import write_forcing_file
from worlds.cmip import write_cmip

SCENARIOS, MEMBERS = ("ssp126",), ("r1i1p1f1", "r2i1p1f1")

NURSERY = """
import itertools, os, sys, time
import climatesuite.building.journal as journal
import climatesuite.building.units as units
import climatesuite.store.place as place
from climatesuite.build import build

EVENTS = {
    "reads": (units, "read_variable"), "shards": (units.Shards, "add"), "parts": (journal, "write_part"),
    "objects": (place.Place, "write"), "removals": (place.Place, "remove"), "flushes": (place, "flush_entry"),
    "renames": (os, "rename"),
}

def run(archive, store, forcings, event, call):
    owner, name = EVENTS[event]
    original, calls = getattr(owner, name), itertools.count(1)
    def hooked(*arguments, **more):
        if next(calls) == int(call):
            print("here", os.getpid(), flush=True)
            time.sleep(60)
        return original(*arguments, **more)
    setattr(owner, name, hooked)
    build(archive, store, forcings=forcings, forcing_names=("CO2", "SO2"), progress=False, workers=2)
    print("done", os.getpid(), flush=True)

for line in sys.stdin:  # a child for each build: importing everything takes longer than the build
    child = os.fork()
    if child == 0:
        try:
            run(*line.rstrip("\\n").split("\\t"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""
EVENTS = {"reads": 4, "shards": 10, "parts": 5, "objects": 60, "removals": 2, "flushes": 120, "renames": 1}
"""What a build does, and about how often: it is stopped at a random one of them, not at a random time."""
KILLS = 10


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    for scenario in SCENARIOS:
        write_forcing_file(folder / "forcings", scenario)
        for member in MEMBERS:
            for name in ("tas", "pr"):
                write_cmip(folder / "CMIP6", name, scenario=scenario, member=member, months=("2015-01", "2026-12"))
    return folder


def make(archive, store):
    return build(archive / "CMIP6", store, forcings=archive / "forcings", forcing_names=("CO2", "SO2"), progress=False)


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory):
    return make(archive, tmp_path_factory.mktemp("undisturbed") / "s.zarr").path


@pytest.fixture(scope="module")
def nursery():
    """A process that begins builds in children of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        yield process
        process.stdin.close()


def start(nursery, archive, store, event, call):
    """Begin a build: its process id, and whether it has come to that call of the event and stands still there, or is done."""
    where = [str(archive / "CMIP6"), str(store), str(archive / "forcings")]
    print("\t".join([*where, event, str(call)]), file=nursery.stdin, flush=True)
    said, pid = nursery.stdout.readline().split()
    return int(pid), said == "here"


def end(nursery, pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    assert nursery.stdout.readline().strip() == "gone"


def data(store):
    """Digest of every object that holds data."""
    return {n: about for n, about in read_provenance(store)["files"].items() if "/c/" in n}


def test_killed_again_and_again_it_shows_nothing_until_it_is_whole_and_then_is_the_same(
    archive, undisturbed, tmp_path, nursery
):
    rng, store, kills = np.random.default_rng(20261128), tmp_path / "s.zarr", 0
    while kills < KILLS:
        event = str(rng.choice(list(EVENTS)))
        pid, stands = start(nursery, archive, store, event, int(rng.integers(1, EVENTS[event] + 1)))
        end(nursery, pid, signal.SIGKILL)
        kills += stands  # it does so less often when most is done
        if store.exists():
            assert verify(store) == [] and data(store) == data(undisturbed)
            shutil.rmtree(store)
    make(archive, store)
    assert verify(store) == [] and data(store) == data(undisturbed)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    assert make(archive, store).was_noop


def test_a_build_that_runs_is_neither_joined_nor_swept_away_and_goes_on_if_interrupted(
    archive, undisturbed, tmp_path, nursery
):
    pid, stands = start(nursery, archive, tmp_path / "s.zarr", "parts", 4)
    try:
        assert stands
        with pytest.raises(DataContractError, match="another process is building it"):
            make(archive, tmp_path / "s.zarr")
    finally:
        end(nursery, pid, signal.SIGTERM)
    assert not (tmp_path / "s.zarr").exists()
    assert make(archive, tmp_path / "s.zarr").kept >= 2
    assert data(tmp_path / "s.zarr") == data(undisturbed)
