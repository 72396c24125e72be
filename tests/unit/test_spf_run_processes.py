"""Several processes with one experiment: the first one makes folder and store, and does what follows training."""

import copy
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from climatesuite.errors import DataContractError
from climatesuite.store import lock
from spf import checkpoint
from spf.commands import run, share, steps
from spf.commands.workspace import open_workspace
from worlds.small import CONTENT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def experiment(tmp_path):
    """The smallest one that has a store to build."""
    content = copy.deepcopy(CONTENT)
    runs = {"train": {"ssp126": ["r1i1p1f1", "r2i1p1f1"]}, "test": {"ssp370": ["r1i1p1f1"]}}
    content["data"] |= {**runs, "grid": [12, 24], "years": [2015, 2034]}
    content["sampling"] |= {"month_years": [2033, 2034]}
    content["training"] |= {"max_steps": 1, "tokens_per_step": 288}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def ranks(monkeypatch):
    """Threads stand for processes; what they train and measure is noted."""
    done = []

    def is_first():
        return threading.current_thread().name == "rank 0"

    for module in (run, steps):
        monkeypatch.setattr(module, "is_first_process", is_first)
    monkeypatch.setattr(share, "POLL_SECONDS", 0.01)
    for step in ("train", "set_widths"):
        monkeypatch.setattr(
            run, step, lambda work, step=step: done.append((step, threading.current_thread().name, work.store.exists()))
        )
    return done


def test_the_others_wait_for_folder_and_store_of_the_first_and_leave_it_the_rest(
    experiment, tmp_path, ranks, monkeypatch
):
    failed, opened = [], []

    def opening(*given):
        opened.append(threading.current_thread().name)
        return open_workspace(*given)

    monkeypatch.setattr(run, "open_workspace", opening)

    def process():
        try:
            assert run.train_only(experiment, tmp_path / "run") == 0
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=process, name=f"rank {r}") for r in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and opened == ["rank 0"]
    assert sorted(ranks) == [("set_widths", "rank 0", True), *(("train", f"rank {r}", True) for r in range(3))]


def test_who_waits_for_a_store_waits_as_long_as_parts_get_done(experiment, tmp_path, ranks, monkeypatch):
    work = open_workspace(run.load_config(experiment), tmp_path / "run")
    journal = work.folder / f"store.zarr{lock.PARTIAL}" / ".building" / "parts"
    journal.mkdir(parents=True)
    left = steps._unfinished(work)
    (journal / "a.json").touch()
    assert left == ["store.zarr (0 parts are done)"] and steps._unfinished(work) == ["store.zarr (1 parts are done)"]
    monkeypatch.setattr(steps, "wait_for", lambda left, subject: share.wait_for(left, subject, 0.05))
    with pytest.raises(DataContractError, match=r"without store.zarr \(1 parts are done\)"):
        steps.ingest(work)


def test_two_launched_processes_train_in_a_fresh_folder(experiment, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PYTEST_"))} | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    line = [sys.executable, "-m", "spf", "train", str(experiment), "--out", str(tmp_path / "run")]
    started = [
        subprocess.Popen(
            line, env=known | {"RANK": r, "LOCAL_RANK": r}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for r in "01"
    ]
    try:
        ended = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], ended
    assert [out for out, _ in ended] == [f"{tmp_path / 'run' / 'emulator.pt'}\n", ""]
    content = checkpoint.load(tmp_path / "run" / "emulator.pt")
    assert content["provenance"]["training"]["processes"] == 2 and "widths" in content
