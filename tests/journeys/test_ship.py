"""From a finished run to an emulator that comes with the package: one small file, its card, and a first call without any data."""

import json
import re
import shutil

import pytest
import torch

import spf
from climatesuite.errors import DataContractError
from spf import checkpoint, shipped
from spf.__main__ import main
from spf.commands import ship as module
from spf.commands.card import card_text
from spf.commands.inspect import describe
from spf.config import SamplingConfig

FAST = SamplingConfig(solver="euler", n_steps=1)


def test_a_run_is_shipped_and_opened_by_its_name_without_any_data(trained, tmp_path, monkeypatch, capsys):
    assert main(["ship", str(trained.folder), "--out", str(tmp_path), "--name", "small"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "small.pt"), str(tmp_path / "small.md")]
    monkeypatch.setattr(shipped, "files", lambda name: tmp_path)
    monkeypatch.setenv("CLIMATE_DATA", str(tmp_path / "nowhere"))
    emulator, whole = spf.load("small"), spf.load(trained.folder / "emulator.pt")
    assert (tmp_path / "small.pt").stat().st_size < 0.55 * (trained.folder / "emulator.pt").stat().st_size
    assert {"ssp126", "ssp370", "ssp585"} <= set(emulator.scenarios)
    drawn = emulator.sample("ssp370", members=2, sampling=FAST)
    file = trained.folder / "archive" / "forcings" / "inputs_ssp370.nc"
    reference = whole.sample(file, members=2, sampling=FAST)
    for v in ("tas", "pr"):  # far below what members differ by
        shift, spread = (
            (drawn[v] - reference[v]).std(),
            (reference[v].isel(member=0) - reference[v].isel(member=1)).std(),
        )
        assert float(shift) < 0.02 * float(spread)
    assert drawn.attrs["checkpoint_sha256"] == checkpoint.sha256(tmp_path / "small.pt")


def test_the_card_holds_scores_limits_licence_and_the_command_that_rebuilds_it(trained, tmp_path):
    _, card = module.ship(trained.folder, tmp_path)
    text = card.read_text()
    rows = json.loads((trained.folder / "scores.json").read_text())
    period = "headline" if any(r["period"] == "headline" for r in rows) else "full"
    for r in rows:
        if r["model"] == "spf" and r["period"] == period:
            assert f"| {r['variable']} {r['timescale']} |" in text and f"{r['crps_ratio']:.3f}" in text
    digest = checkpoint.sha256(tmp_path / "synthetic-a.pt")
    for said in (
        "`spf run experiments/small.yaml`",
        digest,
        "ssp126 (r1i1p1f1, r2i1p1f1)",
        "no ensemble of models",
        "CC0",
    ):
        assert said in text, said
    page = spf.load(tmp_path / "synthetic-a.pt")._repr_html_()
    assert "Skill on ssp370" in page and "no ensemble of models" in page
    text = describe(tmp_path / "synthetic-a.pt")
    assert re.search(r"scenarios inside +.*ssp370", text) and re.search(
        r"CRPS over the floor +tas .*\(on ssp370, 1 is perfect\)", text
    )


def test_what_is_too_large_or_may_not_be_passed_on_is_not_shipped(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(
        DataContractError, match="MB, with .* parameters; expected 0.001 MB at most; train a smaller network"
    ):
        module.ship(trained.folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    shutil.copy(trained.folder / "emulator.pt", tmp_path / "emulator.pt")
    with pytest.raises(DataContractError, match="scores.json: no scores; expected a finished run"):
        module.ship(tmp_path, tmp_path / "out")
    content = checkpoint.load(trained.folder / "emulator.pt")
    content["codec"]["response"]["pattern_change"] = {"difference": torch.zeros(1)}
    checkpoint.save(tmp_path / "emulator.pt", content)
    with pytest.raises(DataContractError, match="other models' warming patterns, from a source without a licence"):
        module.ship(tmp_path, tmp_path / "out")


def test_a_card_of_cesm2_credits_it(trained, tmp_path):
    file, _ = module.ship(trained.folder, tmp_path)
    content = checkpoint.load(file)
    content["provenance"]["source_id"] = "CESM2"
    text = card_text(content, "cesm2", 9_700_000, "d" * 64)
    for said in ("10.22033/ESGF/CMIP6.2201", "creativecommons.org/licenses/by/4.0", "input4MIPs", "9.7 MB"):
        assert said in text
