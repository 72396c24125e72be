"""A build that dies at any moment leaves no store; the next one makes the very store an undisturbed one would have made."""

import signal
import subprocess
import sys

import pytest

from climatesuite.build import build
from climatesuite.errors import DataContractError
from climatesuite.store.open import list_runs
from climatesuite.store.provenance import read_provenance
from climatesuite.store.verify import verify
from worlds.canonical import write_forcings
from worlds.cmip import write_cmip

SCENARIOS, MEMBERS = ("ssp126",), ("r1i1p1f1", "r2i1p1f1")

HOOKED = """
import itertools, sys, time
import climatesuite.build as build
import climatesuite.store.publish as publish
module, name, call = {"build": build, "publish": publish}[sys.argv[1]], sys.argv[2], int(sys.argv[3])
original, calls = getattr(module, name), itertools.count(1)
def hooked(*arguments):
    if next(calls) == call:
        print("here", flush=True)
        time.sleep(60)
    return original(*arguments)
setattr(module, name, hooked)
build.build(sys.argv[4], sys.argv[5], forcings=sys.argv[6], forcing_names=("CO2", "SO2"), progress=False)
"""
MOMENTS = {
    "before the second member": ("build", "write_statistics", 2),
    "while it is flushed to disk": ("publish", "_flush_entry", 40),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    for scenario in SCENARIOS:
        write_forcings(folder / "forcings", scenario)
        for member in MEMBERS:
            for name in ("tas", "pr"):
                write_cmip(folder / "CMIP6", name, scenario=scenario, member=member, months=("2015-01", "2026-12"))
    return folder


def make(archive, store):
    return build(archive / "CMIP6", store, forcings=archive / "forcings", forcing_names=("CO2", "SO2"), progress=False)


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory):
    return make(archive, tmp_path_factory.mktemp("undisturbed") / "s.zarr").path


def start(archive, store, moment):
    """A build in another process that has come to a moment and stands still there."""
    where = [str(archive / "CMIP6"), str(store), str(archive / "forcings")]
    process = subprocess.Popen(
        [sys.executable, "-c", HOOKED, *map(str, moment), *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().strip() == "here"
    return process


def end(process, number):
    process.send_signal(number)
    process.communicate(timeout=120)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_no_store_and_the_next_build_is_as_if_it_never_was(archive, undisturbed, tmp_path, moment):
    store = tmp_path / "s.zarr"
    end(start(archive, store, MOMENTS[moment]), signal.SIGKILL)
    assert not store.exists()
    (staging,) = tmp_path.glob("s.zarr.staging-*")
    if moment == "before the second member":
        with pytest.raises(DataContractError, match="schema None"):
            list_runs(staging)
    report = make(archive, store)
    assert not report.was_noop and verify(store) == []
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    assert read_provenance(store)["files"] == read_provenance(undisturbed)["files"]


def test_a_build_that_runs_is_neither_joined_nor_swept_away_and_cleans_up_if_interrupted(archive, tmp_path):
    process = start(archive, tmp_path / "s.zarr", MOMENTS["before the second member"])
    try:
        with pytest.raises(DataContractError, match="another process is building it"):
            make(archive, tmp_path / "s.zarr")
        assert len(list(tmp_path.glob("s.zarr.staging-*"))) == 1
    finally:
        end(process, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []
