"""Every emulator that comes with the package: small, with its card, and drawn from at once, without any data."""

import numpy as np
import pytest

import spf
from spf import checkpoint, shipped
from spf.commands.ship import MOST_BYTES
from spf.config import SamplingConfig

FAST = SamplingConfig(solver="euler", n_steps=1)


@pytest.fixture(params=shipped.names() or [None])
def name(request):
    if request.param is None:
        pytest.skip("no emulator is shipped in this checkout; make one with `spf ship`")
    return request.param


def test_it_is_small_and_its_card_is_of_this_very_file(name):
    file = shipped.find(name)
    assert file.stat().st_size <= MOST_BYTES
    card = file.with_suffix(".md").read_text()
    for said in (checkpoint.sha256(file), "## Scores", "## Limits", "CC BY 4.0", "`spf run experiments/"):
        assert said in card, said
    content = checkpoint.load(name)
    assert content["card"]["scores"] and content["codec"]["response"].get("pattern_change") is None


def test_it_draws_warming_at_once_from_a_name_and_a_scenario(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIMATE_DATA", str(tmp_path))
    emulator = spf.load(name)
    assert {"ssp126", "ssp370", "ssp585"} <= set(emulator.scenarios)
    warming = []
    for scenario in ("ssp126", "ssp585"):
        tas = emulator.sample(scenario, timescale="decade", members=2, sampling=FAST, variables=["tas"]).tas
        mean = tas.weighted(np.cos(np.deg2rad(tas.lat))).mean(("lat", "lon", "member"))
        assert 286 < float(mean[0]) < 290
        warming.append(float(mean[-1] - mean[0]))
    assert warming[0] < 1.5 < 2.5 < warming[1] < 7
    assert "Skill on" in emulator._repr_html_()
