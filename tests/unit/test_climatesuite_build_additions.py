"""A build is made of parts: each fails alone, what is done is not done again, and a store can be added to; wherever it lies."""

import itertools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import xarray as xr
import zarr

from climatesuite.build import build
from climatesuite.building import commit, journal
from climatesuite.errors import DataContractError
from climatesuite.store import publish
from climatesuite.store.describe import Store, describe
from climatesuite.store.open import list_runs, open_run, open_statistics
from climatesuite.store.place import Place
from climatesuite.store.provenance import digest, read_provenance
from climatesuite.store.verify import verify
from worlds.canonical import write_forcing_file
from worlds.cmip import credible, write_cmip

MEMBERS, SCENARIOS, MONTHS = ("r1i1p1f1", "r2i1p1f1", "r3i1p1f1"), ("ssp126", "ssp245"), ("2015-01", "2026-12")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three members of one scenario, one of another, one of another model."""
    folder = tmp_path_factory.mktemp("parts")
    runs = [("TEST-ESM", "ssp126", m) for m in MEMBERS]
    runs += [("TEST-ESM", "ssp245", "r1i1p1f1"), ("OTHER-ESM", "ssp126", "r1i1p1f1")]
    for seed, run in enumerate((*r, v) for r in runs for v in ("tas", "pr")):
        write_cmip(folder / "CMIP6", run[3], *run[:3], MONTHS, credible(run[3], 144, 4, 6, seed))
    for scenario in SCENARIOS:
        write_forcing_file(folder / "forcings", scenario)
    return folder


def make(archive, out, *labels, **settings):
    """A build of members of ssp126, or of whatever is asked for."""
    given = {"members": {"ssp126": list(labels)}, "sources": ["TEST-ESM"]} if labels else {}
    how = {"forcings": archive / "forcings", "forcing_names": ("CO2", "SO2"), "progress": False, **given, **settings}
    return build(archive / "CMIP6", out, **how)


def contents(store):
    """Everything in a store but the time it was made."""
    place = Place(str(store))
    known = {k: v for k, v in read_provenance(store).items() if k not in ("created", "builds")}
    known["sources"] = sorted(({**r, "build": 0} for r in known["sources"]), key=lambda r: r["name"])
    names = [n for n in place.sizes() if n != "zarr.json" and not n.startswith("provenance")]
    return {n: place.digest(n) for n in names}, known


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    make(archive, store, *MEMBERS)
    return store


@pytest.fixture(scope="module")
def two(archive, tmp_path_factory):
    """A store of two of the three members."""
    store = tmp_path_factory.mktemp("two") / "s.zarr"
    make(archive, store, *MEMBERS[:2])
    return store


# ---- parts


def test_one_bad_file_fails_alone_and_a_second_build_does_just_what_is_missing(archive, whole, tmp_path, monkeypatch):
    mine = shutil.copytree(archive, tmp_path / "a")
    bad = next(mine.glob("CMIP6/tas_*_TEST-ESM_ssp126_r2i1p1f1_*"))
    good = bad.read_bytes()
    bad.write_bytes(good[:5000])
    for _ in range(2):
        with pytest.raises(
            DataContractError, match="1 of 7 parts failed: tas of TEST-ESM ssp126 r2i1p1f1: not readable"
        ):
            make(mine, tmp_path / "s.zarr", *MEMBERS)
    assert not (tmp_path / "s.zarr").exists() and (tmp_path / "s.zarr.partial").exists()
    shutil.copy2(next(archive.glob("CMIP6/tas_*_TEST-ESM_ssp126_r2i1p1f1_*")), bad)
    done, do = [], journal.write_part
    monkeypatch.setattr(journal, "write_part", lambda part, url: (done.append(str(part)), do(part, url))[1])
    report = make(mine, tmp_path / "s.zarr", *MEMBERS)
    assert done == ["tas of TEST-ESM ssp126 r2i1p1f1"] and report.kept == 6 and "6 parts kept" in str(report)
    assert contents(tmp_path / "s.zarr")[0] == contents(whole)[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "s.zarr"]


def test_what_is_wrong_inside_a_file_fails_alone_too(archive, tmp_path):
    mine = shutil.copytree(archive, tmp_path / "a")
    values = credible("tas", 144, 4, 6)
    values[70, 1, 1] = np.nan
    write_cmip(mine / "CMIP6", "tas", "TEST-ESM", "ssp126", "r3i1p1f1", MONTHS, values)
    with pytest.raises(
        DataContractError, match="1 of 7 parts failed: .*1 missing values, the first in 2020-11.*6 finished"
    ):
        make(mine, tmp_path / "s.zarr", *MEMBERS)


def test_a_run_without_a_whole_year_fails_alone_and_can_be_left_out(archive, tmp_path):
    mine = shutil.copytree(archive, tmp_path / "a")
    write_cmip(mine / "CMIP6", "tas", "SHORT-ESM", "ssp126", "r1i1p1f1", ("2015-01", "2015-05"))
    asked = {"variables": ("tas",), "experiments": ["ssp126"]}
    with pytest.raises(
        DataContractError, match="1 of 7 .*SHORT-ESM ssp126 r1i1p1f1: months 201501 to 201505, no whole"
    ):
        make(mine, tmp_path / "s.zarr", **asked)
    report = make(mine, tmp_path / "s.zarr", sources=["TEST-ESM", "OTHER-ESM"], **asked)
    assert report.kept == 6 and verify(tmp_path / "s.zarr") == []


def test_a_part_whose_file_has_changed_since_is_done_again(archive, whole, tmp_path):
    mine = shutil.copytree(archive, tmp_path / "a")
    first = next(mine.glob("CMIP6/tas_*_TEST-ESM_ssp126_r1i1p1f1_*"))
    write_cmip(mine / "CMIP6", "tas", "TEST-ESM", "ssp126", "r1i1p1f1", MONTHS, credible("tas", 144, 4, 6, 99))
    bad = next(mine.glob("CMIP6/pr_*_TEST-ESM_ssp126_r2i1p1f1_*"))
    bad.write_bytes(b"")
    with pytest.raises(DataContractError, match="1 of 7"):
        make(mine, tmp_path / "s.zarr", *MEMBERS)
    for path in (first, bad):
        shutil.copy2(archive / "CMIP6" / path.name, path)
    assert make(mine, tmp_path / "s.zarr", *MEMBERS).kept == 5
    assert contents(tmp_path / "s.zarr")[0] == contents(whole)[0]


def test_leaving_the_bad_one_out_goes_on_from_what_is_done(archive, tmp_path):
    mine = shutil.copytree(archive, tmp_path / "a")
    next(mine.glob("CMIP6/tas_*_TEST-ESM_ssp126_r3i1p1f1_*")).write_bytes(b"")
    with pytest.raises(DataContractError, match="1 of 7"):
        make(mine, tmp_path / "s.zarr", *MEMBERS)
    assert make(mine, tmp_path / "s.zarr", *MEMBERS[:2]).kept == 5
    assert verify(tmp_path / "s.zarr") == []


# ---- workers


@pytest.mark.parametrize("scheduler", ["processes", "executor", "dask"])
def test_the_store_is_the_same_whoever_does_the_work(archive, whole, tmp_path, scheduler, capsys):
    if scheduler == "dask":
        pytest.importorskip("distributed", reason="the extra cluster is not installed")
    if scheduler == "executor":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            make(archive, tmp_path / "s.zarr", *MEMBERS, scheduler=pool)
    else:
        make(archive, tmp_path / "s.zarr", *MEMBERS, scheduler=scheduler, workers=2)
    assert contents(tmp_path / "s.zarr") == contents(whole)
    assert ("dashboard" in capsys.readouterr().err) == (scheduler == "dask")


@pytest.mark.parametrize("scheduler", ["thread", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_refused(archive, tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr("climatesuite.building.workers.PATIENCE", 0.2)
    with pytest.raises(DataContractError, match="scheduler"):
        make(archive, tmp_path / "s.zarr", *MEMBERS, scheduler=scheduler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused_and_leave_nothing(archive, tmp_path, workers):
    with pytest.raises(DataContractError, match=f"workers: {workers}; expected one at least"):
        make(archive, tmp_path / "s.zarr", *MEMBERS, workers=workers)
    assert list(tmp_path.iterdir()) == []


# ---- additions


def test_members_scenarios_and_models_are_added_to_a_store(archive, whole, tmp_path):
    store = tmp_path / "s.zarr"
    make(archive, store, "r1i1p1f1")
    first = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file() and "/c/" in str(p)}
    report = make(archive, store, *MEMBERS)
    assert report.added == 2 and not report.was_noop and "2 members added" in str(report)
    assert open_run(store, "TEST-ESM", "ssp126", "month").member.values.tolist() == list(MEMBERS)
    xr.testing.assert_identical(
        open_run(store, "TEST-ESM", "ssp126", "year").load(), open_run(whole, "TEST-ESM", "ssp126", "year").load()
    )
    xr.testing.assert_identical(
        open_statistics(store, "TEST-ESM", "ssp126"), open_statistics(whole, "TEST-ESM", "ssp126")
    )
    assert {p: p.stat().st_mtime_ns for p in first} == first  # data that was there is not touched
    assert make(archive, store).added == 2
    assert list_runs(store) == [("TEST-ESM", "ssp126"), ("OTHER-ESM", "ssp126"), ("TEST-ESM", "ssp245")]
    assert verify(store) == [] and len(read_provenance(store)["builds"]) == 3
    assert make(archive, store).was_noop and make(archive, store, "r2i1p1f1").was_noop


def test_any_reader_of_zarr_sees_the_added_members(archive, tmp_path):
    make(archive, tmp_path / "s.zarr", "r1i1p1f1")
    make(archive, tmp_path / "s.zarr", "r2i1p1f1")
    ds = xr.open_zarr(tmp_path / "s.zarr", group="TEST-ESM/ssp126/month", consolidated=True)
    assert ds.sizes["member"] == 2 and np.isfinite(ds.tas.values).all()
    assert zarr.open_group(tmp_path / "s.zarr", mode="r")["TEST-ESM/ssp126/year/tas"].shape[0] == 2


def test_every_array_says_how_many_files_it_comes_from_and_the_records_name_them(archive, whole):
    attrs = open_run(whole, "TEST-ESM", "ssp126", "decade").tas.attrs
    records = Store(whole).sources(variable_id="tas", experiment_id="ssp126")
    assert attrs["source_files"] == 3 == len(records) and len(attrs["source_files_sha256"]) == 64
    assert {r["sha256"] for r in records} == {digest(p) for p in archive.glob("CMIP6/tas_*_TEST-ESM_ssp126_*")}
    assert {r["build"] for r in records} == {0} and read_provenance(whole)["builds"][0]["libraries"]["zarr"]


def test_a_member_that_is_unlike_those_in_the_store_is_not_added(archive, tmp_path):
    store = tmp_path / "s.zarr"
    make(archive, store, "r1i1p1f1")
    before = contents(store)
    for name in ("tas", "pr"):
        write_cmip(tmp_path / "CMIP6", name, "TEST-ESM", "ssp126", "r7i1p1f1", MONTHS, grid=(6, 6))
    with pytest.raises(DataContractError, match="r7i1p1f1: a grid of 6 x 6 .*but the store has 4 x 6"):
        build(tmp_path / "CMIP6", store, forcings=archive / "forcings", forcing_names=("CO2", "SO2"), progress=False)
    assert verify(store) == [] and contents(store)[1] == before[1]
    assert open_run(store, "TEST-ESM", "ssp126", "month").member.values.tolist() == ["r1i1p1f1"]


STAGES = {
    "the data": (journal, "write_part", 1),
    "the journal": (journal, "_name", 4),
    "the metadata": (commit, "publish", 1),
    "the root": (publish, "root_file", 1),
    "other readers' metadata": (publish, "stale_nodes", 2),
}
"""Where an addition is broken off: at that call."""


class Killed(BaseException):
    """Nothing handles it, as nothing handles a kill."""


@pytest.mark.parametrize("stage", STAGES)
def test_an_addition_that_breaks_off_is_invisible_and_the_next_build_finishes_it(
    archive, whole, two, tmp_path, stage, monkeypatch
):
    store, (module, name, call) = shutil.copytree(two, tmp_path / "s.zarr"), STAGES[stage]
    original, calls = getattr(module, name), itertools.count(1)

    def hooked(*arguments):
        if next(calls) == call:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(module, name, hooked)
        make(archive, store, *MEMBERS, workers=1)
    is_published = stage == "other readers' metadata"
    members = open_run(store, "TEST-ESM", "ssp126", "month").member.values.tolist()
    assert members == list(MEMBERS if is_published else MEMBERS[:2])
    assert is_published or verify(store) == []
    make(archive, store, *MEMBERS)
    assert verify(store) == [] and contents(store)[0] == contents(whole)[0]
    assert make(archive, store, *MEMBERS).was_noop


def test_an_unfinished_addition_is_mentioned(archive, tmp_path):
    mine, store = shutil.copytree(archive, tmp_path / "a"), tmp_path / "s.zarr"
    make(mine, store, "r1i1p1f1")
    next(mine.glob("CMIP6/tas_*_TEST-ESM_ssp126_r2i1p1f1_*")).write_bytes(b"")
    with pytest.raises(DataContractError, match="1 of 2 parts failed"):
        make(mine, store, "r2i1p1f1")
    assert "unfinished addition" in describe(store) and verify(store) == []


def test_an_addition_that_fails_in_every_part_leaves_nothing(archive, tmp_path):
    mine, store = shutil.copytree(archive, tmp_path / "a"), tmp_path / "s.zarr"
    make(mine, store, "r1i1p1f1")
    before = Place(str(store)).sizes()
    for path in mine.glob("CMIP6/*_TEST-ESM_ssp126_r2i1p1f1_*"):
        path.write_bytes(b"")
    with pytest.raises(DataContractError, match="2 of 2 parts failed.*nothing is kept"):
        make(mine, store, *MEMBERS[:2])
    assert Place(str(store)).sizes() == before and not (store / ".building").exists()


def test_what_a_failed_addition_left_is_gone_once_a_build_asks_for_nothing_new(archive, tmp_path):
    mine, store = shutil.copytree(archive, tmp_path / "a"), tmp_path / "s.zarr"
    make(mine, store, "r1i1p1f1")
    next(mine.glob("CMIP6/tas_*_TEST-ESM_ssp126_r2i1p1f1_*")).write_bytes(b"")
    with pytest.raises(DataContractError, match="1 finished parts are kept"):
        make(mine, store, *MEMBERS[:2])
    make(mine, store, "r1i1p1f1")
    assert verify(store) == [] and not Place(str(store)).is_unfinished
    assert make(mine, store, "r1i1p1f1").was_noop


# ---- elsewhere than on a disk


@pytest.fixture
def bucket(request):
    place = Place(f"memory://bucket/{request.node.name}.zarr")
    yield place
    place.remove(list(place.sizes()))


def test_a_store_can_lie_behind_a_url(archive, whole, bucket):
    report = make(archive, bucket.url, *MEMBERS[:2])
    assert str(report.path) == bucket.url and report.bytes > 0
    assert make(archive, bucket.url, *MEMBERS).added == 1
    assert make(archive, bucket.url, *MEMBERS).was_noop
    assert verify(bucket.url) == [] and contents(bucket.url)[0] == contents(whole)[0]
    assert "3 members" in describe(bucket.url)
    xr.testing.assert_identical(
        open_run(bucket.url, "TEST-ESM", "ssp126", "month").load(),
        open_run(whole, "TEST-ESM", "ssp126", "month").load(),
    )


def test_a_build_elsewhere_goes_on_too_and_shows_nothing_before_it_is_whole(archive, bucket, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(commit, "publish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        make(archive, bucket.url, *MEMBERS)
    with pytest.raises(DataContractError, match="no store there"):
        list_runs(bucket.url)
    assert make(archive, bucket.url, *MEMBERS).kept == 7
    assert not any(n.startswith(".building") for n in bucket.sizes())


def test_a_build_whose_lock_was_taken_over_publishes_nothing(archive, bucket, monkeypatch):
    do = journal.write_part

    def last_beat(part, url):
        bucket.remove([n for n in bucket.sizes() if n.startswith(".building/locks/")])
        return do(part, url)

    monkeypatch.setattr(journal, "write_part", last_beat)
    with pytest.raises(DataContractError, match="another process, .* is building it"):
        make(archive, bucket.url, *MEMBERS[:2])
    with pytest.raises(DataContractError, match="no store there"):
        list_runs(bucket.url)


def test_processes_cannot_share_the_memory_of_one(archive, bucket):
    with pytest.raises(DataContractError, match="memory"):
        make(archive, bucket.url, *MEMBERS, scheduler="processes")


def test_the_command_says_what_failed_and_exits_with_one(archive, tmp_path):
    mine = shutil.copytree(archive, tmp_path / "a")
    next(mine.glob("CMIP6/tas_*_OTHER-ESM_*")).write_bytes(b"")
    line = [
        sys.executable,
        "-m",
        "climatesuite",
        "build",
        str(mine / "CMIP6"),
        str(tmp_path / "s.zarr"),
        "--workers",
        "2",
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of 10 parts failed: tas of OTHER-ESM ssp126" in done.stderr
    assert json.loads(next((tmp_path / "s.zarr.partial/.building/parts").iterdir()).read_text())["objects"]
