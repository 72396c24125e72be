"""Training in processes: two that learn together, and one that is killed.

Run as a script, this file is the training that the tests start: ``FOLDER WHAT SETTINGS``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from spf import checkpoint
from spf.codec import FieldCodec
from spf.learning import held_out, learn, module, train
from spf.learning.data import WindowStream, open_training_runs
from worlds import tiny

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT_AT, KILLED_AT, STEPS = 6, 9, 14
KILLABLE = {"max_steps": STEPS, "minutes": 600.0, "parts": 2, "held_out": 1}


def trained(folder, settings):
    scenarios = {e: tiny.scenario(e) for e in ("low", "high")}
    config = tiny.config(**settings)
    codec = FieldCodec.fit(scenarios, config.data.variables, config.data.forcings, 4)
    known = {"source_id": "TINY", "training_members": {}}
    with mock.patch.object(held_out, "PATIENCE", 2.0):  # in so few steps nothing better may come
        return learn.learn(config, codec, open_training_runs(scenarios, codec), known, Path(folder), progress=False)


def after(first, action):
    """Do something whenever training asks for a batch that late."""
    original = WindowStream.batch

    def batch(self, number):
        if number >= first and self.seed != held_out.SEED:
            action()
        return original(self, number)

    WindowStream.batch = batch


def hang_after_some_steps():
    """Snapshots up to one step, logs up to a later one; then nothing more comes, until the kill."""
    parts = KILLABLE["parts"]
    train.SNAPSHOT_SECONDS = -1.0
    # Lightning asks for the next batches before it makes a step
    after((SNAPSHOT_AT + 1) * parts, lambda: setattr(train, "SNAPSHOT_SECONDS", 1e9))
    after((KILLED_AT + 1) * parts, lambda: time.sleep(600))


def watch_rank(folder):
    """Write what this process has seen when it is done; the second one's clock runs a hundred times too fast."""
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if rank == 1:
        clock = time.monotonic
        train.time = type("Fast", (), {"monotonic": staticmethod(lambda: 100 * clock())})
    train.SNAPSHOT_SECONDS = 0.2
    seen, fitted = [], learn.fit
    step = module.FlowModule.training_step

    def training_step(self, batch, batch_idx):
        seen.append(float(batch.x_t.double().sum()))
        return step(self, batch, batch_idx)

    def fit(*args):
        how = fitted(*args)
        weights = {n: p.double().sum().item() for n, p in args[0].backbone.named_parameters()}
        averages = {n: p.double().sum().item() for n, p in args[0].average.weights.items()}
        facts = {"how": how, "seen": seen, "weights": weights, "averages": averages, "pid": os.getpid()}
        (Path(folder) / f"rank{rank}.json").write_text(json.dumps(facts))
        return how

    module.FlowModule.training_step, learn.fit = training_step, fit


def command(folder, what, settings):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith(("SLURM_", "PYTEST_"))}
    line = [sys.executable, __file__, str(folder), what, json.dumps(settings)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes with three seconds for what they learn together, or ten times the steps that takes."""
    folder = tmp_path_factory.mktemp("pair")
    process = command(folder, "watch", {"devices": 2, "minutes": 0.05, "max_steps": 100_000, "held_out": 1})
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_every_process_sees_windows_of_its_own(pair):
    first, second = (facts["seen"] for facts in pair[1])
    assert len(first) > 2
    assert not set(first) & set(second)


def test_processes_stop_at_one_step_though_their_clocks_differ(pair):
    first, second = pair[1]
    assert first["how"]["steps"] == second["how"]["steps"] == len(first["seen"]) == len(second["seen"])
    assert first["how"]["processes"] == 2
    assert 2.9 < first["how"]["seconds"] < 12


def test_processes_end_with_the_same_weights(pair):
    first, second = pair[1]
    for kind in ("weights", "averages"):
        assert first[kind] == pytest.approx(second[kind], rel=1e-9, abs=1e-9)
    fresh = sum(abs(v) for n, v in first["weights"].items() if n.startswith("head"))
    assert fresh > 0, "the head starts at zero: nothing was learned"


def test_only_the_first_process_writes(pair):
    folder, (first, second) = pair
    steps = [row.split(",")[0] for row in (folder / "training.csv").read_text().splitlines()[1:]]
    assert steps == [str(i + 1) for i in range(first["how"]["steps"])]
    checks = [row.split(",")[0] + row.split(",")[2] for row in (folder / "validation.csv").read_text().splitlines()[1:]]
    assert len(checks) == len(set(checks))
    assert first["pid"] != second["pid"]
    assert {p.name for p in folder.iterdir()} == {
        "training.csv", "validation.csv", "learning.png", "emulator.pt", "rank0.json", "rank1.json"
    }  # fmt: skip


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole, log = tmp_path / "whole", tmp_path / "killed" / "training.csv"
    process = command(log.parent, "hang", KILLABLE)
    try:
        emulator = trained(whole, KILLABLE)  # meanwhile, uninterrupted
        wait_for(lambda: log.exists() and f"\n{KILLED_AT}," in log.read_text(), process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = rows(log)
    assert int(before[-1][0]) == KILLED_AT and (log.parent / train.SNAPSHOT).exists()
    resumed = trained(log.parent, KILLABLE)
    kept = SNAPSHOT_AT * KILLABLE["parts"]
    assert rows(log)[:kept] == before[:kept], "the first steps were made again"
    assert rows(log)[kept : len(before)] != before[kept:], "the steps after the snapshot were not made again"
    for name, columns in (("training.csv", (3, 4)), ("validation.csv", (3, 4, 5))):
        got, expected = rows(log.with_name(name)), rows(whole / name)
        assert [(row[0], row[2]) for row in got] == [(row[0], row[2]) for row in expected]
        for column in columns:
            numbers = [[float(row[column]) for row in table] for table in (got, expected)]
            np.testing.assert_allclose(*numbers, rtol=0, atol=1e-5)
    weights = [checkpoint.load(path)["weights"] for path in (emulator, resumed)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-5)


def wait_for(happened, process):
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the training did not get so far"
        time.sleep(0.05)


def rows(path):
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


if __name__ == "__main__":
    place, what, wanted = sys.argv[1:]
    hang_after_some_steps() if what == "hang" else watch_rank(place)
    Path(place).mkdir(parents=True, exist_ok=True)
    trained(place, json.loads(wanted))
