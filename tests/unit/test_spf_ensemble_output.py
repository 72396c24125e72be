"""Large ensembles: what is written, how processes share it, what a kill leaves behind."""

import multiprocessing
import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from climatesuite.__main__ import main as climatesuite
from climatesuite.archive.synthetic import write_archive
from climatesuite.errors import DataContractError
from climatesuite.export import create_zarr, open_ensemble, write_zarr_member
from spf.commands import share as share_module
from spf.commands.ensemble import drawn_by
from spf.commands.share import ALONE, Share
from worlds.fake_emulator import ATTRS, FORCINGS, FORMATS, HOW, MADE_WHEN, YEARS, Fake, names, same, write
from worlds.fake_ensemble import fake_ensemble, member_by_member

# A store is a CF file in another format


@pytest.mark.parametrize(("timescale", "years"), [("decade", (2015, 2044)), ("year", YEARS), ("month", (2015, 2016))])
def test_a_store_comes_back_as_written_at_every_timescale(tmp_path, timescale, years):
    ds = fake_ensemble(timescale, (0, 1, 2), years)
    create_zarr(tmp_path / "e.zarr", ds, ["tas", "pr"], [0, 1, 2], ATTRS)
    for number, fields in member_by_member(ds):
        write_zarr_member(tmp_path / "e.zarr", number, fields)
    back = open_ensemble(tmp_path / "e.zarr")
    xr.testing.assert_equal(back[["tas", "pr"]].compute(), ds[["tas", "pr"]])
    assert set(back.coords) == set(ds.coords)
    assert (back.attrs["timescale"], back.attrs["seed"], back.attrs["note"]) == (timescale, 3, '["a", 1]')
    assert back.tas.chunks[0] == (1, 1, 1)


def test_store_and_file_of_an_ensemble_hold_the_same_down_to_the_attributes(tmp_path):
    for name in FORMATS:
        write(tmp_path / name)
    a = xr.open_dataset(tmp_path / "x.nc", decode_times=False)
    b = xr.open_dataset(tmp_path / "x.zarr", engine="zarr", consolidated=False, decode_times=False)
    for ds in (a, b):
        for name in MADE_WHEN:
            del ds.attrs[name]
    xr.testing.assert_identical(a, b)
    assert names(tmp_path) == ["x.nc", "x.zarr"]
    assert drawn_by(tmp_path / "x.zarr") == drawn_by(tmp_path / "x.nc") == Fake.digest


def test_a_member_is_one_file_of_each_variable_however_long_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("climatesuite.export.CHUNK_VALUES", 8 * 12 * 7)  # 20 years are three chunks, the last not full
    ds = fake_ensemble()
    path = create_zarr(tmp_path / "e.zarr", ds, ["tas", "pr"], [0, 1, 2], ATTRS)
    write_zarr_member(path, 1, ds.isel(member=1, drop=True))
    assert [p.name for p in (path / "tas" / "c").iterdir()] == ["1"]
    assert sum(p.is_file() for p in (path / "tas" / "c").rglob("*")) == 1
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3 and group["tas"].chunks == (1, 7, 8, 12)
    np.testing.assert_array_equal(group["tas"][1], ds.tas.values[1])
    assert np.isnan(group["tas"][0]).all()


def test_what_does_not_belong_in_a_store_is_refused(tmp_path):
    ds, path = fake_ensemble(), tmp_path / "e.zarr"
    with pytest.raises(DataContractError, match=r"members \[1, 1\]; expected each number once"):
        create_zarr(path, ds, ["tas"], [1, 1], ATTRS)
    with pytest.raises(DataContractError, match=r"variables \['wind'\]; expected some of tas"):
        create_zarr(path, ds, ["wind"], [1], ATTRS)
    create_zarr(path, ds, ["tas", "pr"], [0, 7], ATTRS)
    with pytest.raises(DataContractError, match="already there; expected a new name"):
        create_zarr(path, ds, ["tas"], [1], ATTRS)
    one = ds.isel(member=0, drop=True)
    with pytest.raises(DataContractError, match="no member 1; expected one of the store"):
        write_zarr_member(path, 1, one)
    with pytest.raises(DataContractError, match=r"member 7: variables \['tas'\]; expected pr, tas"):
        write_zarr_member(path, 7, one[["tas"]])
    with pytest.raises(DataContractError, match="tas of member 7: 96 of 1920 values are NaN"):
        write_zarr_member(path, 7, one.assign(tas=one.tas.where(one.year > 2015)))
    with pytest.raises(DataContractError, match="e: a folder without zarr.json; expected a Zarr store"):
        (tmp_path / "e").mkdir()
        open_ensemble(tmp_path / "e")


def test_a_store_is_scored_like_a_file(tmp_path, capsys):
    write_archive(tmp_path, experiments={"ssp370": 2}, years=(2015, 2034), grid=(6, 8))
    for name in FORMATS:
        write(tmp_path / name, 3, Fake(grid=(6, 8)))
        truth = [str(p) for p in (tmp_path / "CMIP6").rglob("*.nc")]
        command = ["score", str(tmp_path / name), "--truth", *truth, "--bootstrap", "0"]
        assert climatesuite([*command, "--out", str(tmp_path / f"{name}.json")]) == 0
    a, b = ((tmp_path / f"{name}.json").read_text() for name in FORMATS)
    assert a == b and '"crps"' in a


# Kills, memory, what is there already


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders where a process was killed while it drew its third member of four."""
    folders = {name: tmp_path_factory.mktemp("killed") for name in FORMATS}
    fork = multiprocessing.get_context("fork").Process
    running = {n: fork(target=write, args=(f / n,), kwargs={"fake": Fake(finished=2)}) for n, f in folders.items()}
    for name, process in running.items():
        process.start()
        deadline = time.monotonic() + 120
        while len(list(folders[name].glob(".*.parts/*.npz"))) < 2:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    return folders


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_ensemble_goes_on_with_the_missing_members_and_ends_the_same(killed, tmp_path, name):
    out, fake = killed[name] / name, Fake()
    assert not out.exists()
    if name == "x.zarr":  # half a member is no member
        (store,) = out.parent.glob(".*.parts/store.zarr")
        frame = fake.template(FORCINGS, "year", YEARS)
        other = next(iter(fake.draw(FORCINGS, "year", [9], YEARS, 0, HOW, None)))[1]
        write_zarr_member(store, 2, other.assign(tas=other.tas + 1))
        assert frame.sizes["time"] == 20
        fake.drawn.clear()
    write(out, fake=fake)
    write(tmp_path / name)
    assert fake.drawn == [2, 3]
    assert same(out, tmp_path / name)
    assert names(out.parent) == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_the_ensemble(tmp_path, name):
    def peak(members):
        tracemalloc.start()
        try:
            write(tmp_path / str(members) / name, members, Fake(grid=(24, 36)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    member = 2 * 4 * 20 * 24 * 36  # bytes of two variables
    peak(2)  # imports
    assert peak(25) < peak(5) + 2 * member


def test_an_ensemble_that_is_there_stays_and_another_one_replaces_it(tmp_path):
    for name in FORMATS:
        out, again = tmp_path / name, Fake()
        first = write(out)
        assert write(out, fake=again) == pytest.approx(first, abs=0.5) and again.drawn == []
        write(out, members=5, fake=again)
        assert again.drawn == [0, 1, 2, 3, 4] and open_ensemble(out).sizes["member"] == 5
        warmer = Fake()
        write(out, members=5, fake=warmer, forcings=FORCINGS + 1)
        assert warmer.drawn == [0, 1, 2, 3, 4]
    assert names(tmp_path) == ["x.nc", "x.zarr"]


def test_a_folder_that_is_no_ensemble_is_never_replaced(tmp_path):
    for name in FORMATS:
        (tmp_path / name).mkdir()
        with pytest.raises(DataContractError, match="a folder that is no ensemble drawn with spf"):
            write(tmp_path / name)


# Several processes


@pytest.mark.parametrize("name", FORMATS)
def test_processes_share_members_and_the_first_one_publishes(tmp_path, name):
    fakes, failed = [Fake(pause=0.02) for _ in range(3)], []

    def process(rank):
        try:
            write(tmp_path / name, 7, fakes[rank], share=Share(rank, 3), patience=20)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [f.drawn for f in fakes] == [[0, 3, 6], [1, 4], [2, 5]]
    write(tmp_path / "alone" / name, 7)
    assert same(tmp_path / name, tmp_path / "alone" / name)
    late = Fake()
    write(tmp_path / name, 7, late, share=Share(1, 3))
    assert late.drawn == [] and names(tmp_path) == ["alone", name]


def test_a_process_does_not_wait_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(share_module, "POLL_SECONDS", 0.01)
    with pytest.raises(DataContractError, match="nothing new for 0.005 minutes, without the beginning of it"):
        write(tmp_path / "x.zarr", share=Share(1, 2), patience=0.3)
    with pytest.raises(DataContractError, match="without member 1, member 3; expected these from the other processes"):
        write(tmp_path / "x.zarr", share=Share(0, 2), patience=0.3)
    assert names(tmp_path)[0].startswith(".x.") and not (tmp_path / "x.zarr").exists()
    rest = Fake()
    write(tmp_path / "x.zarr", fake=rest)
    assert rest.drawn == [1, 3]


def test_torchrun_says_which_share_a_process_has():
    assert Share.from_environment({}) == ALONE == Share.from_environment({"WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    share = Share.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert share == Share(5, 8, 1) and share.of([[m, m + 1] for m in range(0, 40, 2)]) == [10, 11, 26, 27]
    for told in ({"RANK": "1"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(DataContractError, match="RANK, WORLD_SIZE and LOCAL_RANK: "):
            Share.from_environment(told)


def test_srun_says_it_too_and_a_batch_script_without_it_is_alone():
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert Share.from_environment(batch) == ALONE
    step = batch | {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    assert Share.from_environment(step) == Share(3, 4, 1)
    assert Share.from_environment(step | {"RANK": "1", "WORLD_SIZE": "2"}) == Share(1, 2, 0)
    with pytest.raises(DataContractError, match="SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID: 'x'"):
        Share.from_environment(step | {"SLURM_PROCID": "x"})


def test_each_process_takes_the_accelerator_of_its_local_rank(monkeypatch):
    assert Share(3, 8, 3).device() == torch.device("cpu") or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(Share(r, 8, r).device()) for r in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
