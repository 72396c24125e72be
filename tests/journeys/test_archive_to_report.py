"""What a user does, from the first command to the last."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
import yaml

from climatesuite.__main__ import main as climatesuite
from climatesuite.export import open_ensemble
from spf import checkpoint
from spf.__main__ import main as spf
from spf.commands.ensemble import drawn_by
from spf.commands.outcome import Check, judge
from spf.commands.workspace import open_workspace
from spf.config import load_config
from worlds.small import CONTENT

FILES = (
    "report.html",
    "scores.json",
    "structure.json",
    "ensemble_decadal.nc",
    "ensemble_yearly.nc",
    "ensemble_monthly.nc",
    "emulator.pt",
)
COLUMNS = {
    "model", "variable", "units", "timescale", "scenario", "window", "M", "N", "target", "seed", "rmse", "crps", "crps_floor",
    "crps_ratio", "spread_skill", "bias",
}  # fmt: skip


def test_a_run_leaves_everything_it_promises(trained):
    assert trained.code == 0
    for name in FILES:
        assert (trained.folder / name).stat().st_size > 1000, name
    assert not list(trained.folder.rglob("*.part")) and not list(trained.folder.glob(".*parts"))


def test_scores_have_all_columns_and_every_reference(trained):
    rows = json.loads((trained.folder / "scores.json").read_text())
    assert {r["timescale"] for r in rows} == {"decade", "year", "month"}
    assert {r["variable"] for r in rows} == {"tas", "pr"}
    models = {r["model"] for r in rows}
    assert models == {"spf", "climatology", "first decade held", "pattern scaling (CO2)", "internal variability floor"}
    for row in rows:
        assert set(row) >= COLUMNS
        assert row["units"] == {"tas": "K", "pr": "mm day-1"}[row["variable"]]
        if row["model"] == "spf":
            assert row["crps"] > 0.9 * row["crps_floor"]
            assert row["N"] == 2 and row["seed"] == 0


def test_the_forced_response_beats_climatology_where_warming_is_large(trained):
    rows = json.loads((trained.folder / "scores.json").read_text())
    crps = {(r["model"], r["variable"], r["timescale"]): r["crps"] for r in rows if r["period"] == "full"}
    for timescale in ("decade", "year", "month"):
        assert crps["spf", "tas", timescale] < crps["climatology", "tas", timescale]


def test_running_again_does_nothing_and_changes_nothing(trained, capsys):
    before = {n: (trained.folder / n).read_bytes() for n in FILES if n != "report.html"}
    assert spf(["run", str(trained.experiment), "--out", str(trained.folder)]) == 0
    for name, content in before.items():
        assert (trained.folder / name).read_bytes() == content, name
    assert "next:" in capsys.readouterr().out


def test_a_folder_holds_one_experiment(trained, tmp_path, capsys):
    changed = {**CONTENT, "training": {**CONTENT["training"], "seed": 7}}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(changed))
    assert spf(["run", str(other), "--out", str(trained.folder)]) == 1
    assert "holds a run with other settings (training)" in capsys.readouterr().err


def test_a_deleted_ensemble_comes_back_bit_for_bit(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    with xr.open_dataset(folder / "ensemble_yearly.nc", decode_times=False) as ds:
        before = ds.load()
    (folder / "ensemble_yearly.nc").unlink()
    assert spf(["run", str(trained.experiment), "--out", str(folder)]) == 0
    with xr.open_dataset(folder / "ensemble_yearly.nc", decode_times=False) as ds:
        xr.testing.assert_equal(before, ds)


def test_a_scenario_is_sampled_from_a_forcing_file(trained, tmp_path, capsys):
    out, forcings = tmp_path / "x.nc", trained.folder / "archive/forcings/inputs_ssp585.nc"
    command = ["sample", str(trained.folder / "emulator.pt"), "--forcings", str(forcings), "--years", "2030-2040"]
    assert (
        spf([*command, "--timescale", "year", "--members", "3", "--seed", "4", "--steps", "2", "--out", str(out)]) == 0
    )
    ds = open_ensemble(out)
    assert ds.sizes["member"] == 3
    assert ds.year.values.tolist() == list(range(2030, 2041))
    assert ds.attrs["experiment_id"] == "ssp585" and ds.attrs["seed"] == 4
    assert "synthetic" in ds.attrs["license"]
    assert float(ds.pr.min()) >= 0


def test_more_co2_makes_it_warmer(trained, tmp_path):
    means = {}
    for scenario in ("ssp126", "ssp585"):
        out = tmp_path / f"{scenario}.nc"
        forcings = str(trained.folder / f"archive/forcings/inputs_{scenario}.nc")
        shared = ["sample", str(trained.folder / "emulator.pt"), "--forcings", forcings, "--timescale", "decade"]
        assert spf([*shared, "--members", "3", "--out", str(out)]) == 0
        means[scenario] = float(open_ensemble(out).tas.isel(time=-1).mean())
    assert means["ssp585"] > means["ssp126"] + 0.2


def test_scoring_the_file_alone_gives_the_scores_of_the_run(trained, tmp_path):
    cmip = trained.folder / "archive/CMIP6/ScenarioMIP/SYNTHETIC/SYNTHETIC-A"
    files = {e: [str(p) for p in sorted((cmip / e).rglob("*.nc"))] for e in ("ssp126", "ssp370", "ssp585")}
    out = tmp_path / "scores.json"
    command = ["score", str(trained.folder / "ensemble_yearly.nc"), "--truth", *files["ssp370"], "--out", str(out)]
    command += [
        "--reference",
        *files["ssp126"],
        *files["ssp585"],
        "--forcings",
        str(trained.folder / "archive/forcings"),
    ]
    assert climatesuite(command) == 0

    def found(path):
        rows = json.loads(path.read_text())
        return {(r["model"], r["variable"], r["period"]): r["crps"] for r in rows if r["timescale"] == "year"}

    ours, theirs = found(out), found(trained.folder / "scores.json")
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=1e-5), key


def test_a_checkpoint_is_inspected(trained, capsys):
    assert spf(["inspect", str(trained.folder / "emulator.pt")]) == 0
    assert "SYNTHETIC-A: tas, pr" in capsys.readouterr().out


def test_the_archive_is_scanned_built_described_and_verified(trained, tmp_path, capsys):
    archive, store = str(trained.folder / "archive/CMIP6"), str(tmp_path / "store.zarr")
    assert climatesuite(["scan", archive, "--out", str(tmp_path / "catalog")]) == 0
    assert "SYNTHETIC-A" in capsys.readouterr().out
    build = ["build", archive, store, "--forcings", str(trained.folder / "archive/forcings"), "--grid", "12x18"]
    assert climatesuite(build) == 0
    begin = time.monotonic()
    assert climatesuite(build) == 0
    assert "is there already" in capsys.readouterr().out
    assert time.monotonic() - begin < 10
    assert climatesuite(["describe", store]) == 0
    assert "12 x 18" in capsys.readouterr().out
    assert climatesuite(["verify", store]) == 0


def test_a_damaged_store_is_found(trained, tmp_path, capsys):
    store = tmp_path / "store.zarr"
    shutil.copytree(trained.folder / "store.zarr", store)
    victim = max(store.rglob("c/**/*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(bytes(content))
    assert climatesuite(["verify", str(store)]) == 1
    assert "changed since it was built" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["spf", "climatesuite"])
def test_help_is_there_without_loading_torch(module):
    lines = [
        f"import sys; from {module}.__main__ import main",
        "try: main(['--help'])",
        "except SystemExit as e: assert e.code == 0",
        "assert 'torch' not in sys.modules",
    ]
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wrong_usage_exits_2():
    for main, arguments in ((spf, ["sample"]), (climatesuite, ["score"]), (spf, ["fly"])):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_members_do_not_depend_on_the_ensemble(trained, tmp_path):
    forcings = str(trained.folder / "archive/forcings/inputs_ssp370.nc")
    shared = [
        "sample",
        str(trained.folder / "emulator.pt"),
        "--forcings",
        forcings,
        "--timescale",
        "decade",
        "--steps",
        "2",
    ]
    for members in ("2", "4"):
        assert spf([*shared, "--members", members, "--out", str(tmp_path / f"{members}.nc")]) == 0
    few, many = (open_ensemble(tmp_path / f"{n}.nc").tas.values for n in ("2", "4"))
    np.testing.assert_array_equal(few, many[:2])


def test_the_gate_measures_every_variable_and_timescale_and_can_fail(trained, monkeypatch, capsys):
    work = open_workspace(load_config(trained.experiment), trained.folder, progress=False)
    rows = json.loads((trained.folder / "scores.json").read_text())
    checks = judge(work, rows)
    assert len(checks) == 2 * 2 * 3
    spreads = [c for c in checks if "spread" in c.name]
    assert all(0.4 < c.value < 2 for c in spreads)
    worse = [{**r, "crps": 10 * r["crps"]} if r["model"] == "spf" else r for r in rows]
    assert not any(c.passed for c in judge(work, worse) if "climatology" in c.name)

    monkeypatch.setattr("spf.commands.run.judge", lambda *_: [Check("planted", 2.0, (0.7, 1.3))])
    gated = dataclasses.replace(work, config=dataclasses.replace(work.config, gate=True))
    monkeypatch.setattr("spf.commands.run.open_workspace", lambda *_: gated)
    assert spf(["run", str(trained.experiment), "--out", str(trained.folder)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_ensembles_of_another_checkpoint_are_drawn_again(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    content = checkpoint.load(folder / "emulator.pt")
    content.pop("schema")
    content["provenance"]["note"] = "another"
    checkpoint.save(folder / "emulator.pt", content)
    assert drawn_by(folder / "ensemble_decadal.nc") != checkpoint.sha256(folder / "emulator.pt")
    assert spf(["run", str(trained.experiment), "--out", str(folder)]) == 0
    assert drawn_by(folder / "ensemble_decadal.nc") == checkpoint.sha256(folder / "emulator.pt")
