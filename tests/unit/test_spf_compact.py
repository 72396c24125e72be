"""Small checkpoints: what rounding leaves, what is never rounded, and forcings that come along."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import spf
from spf import checkpoint, shipped
from spf.carried import Carried, pack, unpack
from spf.codec import pool_forcings
from spf.compact import SMALLEST, compact, restored
from worlds import tiny

MAPS = hnp.arrays(np.float32, (3, 24, 36), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=25, deadline=None)
@given(MAPS, st.sampled_from([1e-12, 1.0, 1e12]))
def test_what_comes_back_is_within_the_form_it_was_kept_in(values, unit):
    x = torch.from_numpy(values) * unit
    half, eight = (restored(compact({name: x}))[name] for name in ("weight", "patterns"))
    assert half.dtype == eight.dtype == torch.float32
    assert torch.all((half - x).abs() <= 2**-11 * x.abs() + 2**-24 * x.abs().max())
    assert torch.all((eight - x).abs() <= x.abs().amax((-2, -1), keepdim=True) / 250)


def test_means_covariances_grids_and_small_things_are_kept_whole_and_the_rest_is_not():
    large, small = torch.rand(2, 12, 24, 36, dtype=torch.float32), torch.rand(SMALLEST - 1)
    content = {
        "codec": {"response": {"lines": {"mean": {"tas": large}, "slopes": {"tas": large}}}, "grid": {"lat": large}},
        "couplings": {"2-month": {"mean": {"patterns": large, "covariance": large, "rest": large}}},
        "count": torch.arange(SMALLEST), "few": small, "name": "x", "list": [1, {"a": 2.5}], "nothing": torch.zeros(40, 72),
    }  # fmt: skip
    back = restored(compact(content))
    lines = back["codec"]["response"]["lines"]
    for kept in (
        lines["mean"]["tas"],
        back["codec"]["grid"]["lat"],
        back["couplings"]["2-month"]["mean"]["covariance"],
    ):
        assert torch.equal(kept, large)
    for rounded in (lines["slopes"]["tas"], *(back["couplings"]["2-month"]["mean"][k] for k in ("patterns", "rest"))):
        assert not torch.equal(rounded, large)
    assert torch.equal(back["few"], small) and torch.equal(back["count"], content["count"])
    assert torch.equal(back["nothing"], content["nothing"])
    assert (back["name"], back["list"]) == ("x", [1, {"a": 2.5}])


def test_a_compact_checkpoint_is_small_and_read_like_any_other(tmp_path):
    content = {k: {} for k in checkpoint.KEYS} | {"weights": {"w": torch.randn(1000, 1000)}}
    whole, small = tmp_path / "whole.pt", tmp_path / "small.pt"
    checkpoint.save(whole, content)
    checkpoint.save_compact(small, content)
    assert small.stat().st_size < 0.51 * whole.stat().st_size
    torch.testing.assert_close(checkpoint.load(small)["weights"]["w"], content["weights"]["w"], rtol=1e-3, atol=1e-6)


def test_carried_forcings_are_to_the_network_what_the_file_was():
    codec, _ = tiny.learned()
    forcings = tiny.forcings()
    rng = np.random.default_rng(0)
    maps = rng.random((3, 8, 12)).astype(np.float32) * 1e-10
    series = np.stack([np.ones(360), np.linspace(0, 1, 360), np.linspace(0, 1, 360) ** 2], 1)
    forcings["SO2"] = (
        ("time", "lat", "lon"),
        np.einsum("tr,rhw->thw", series, maps).astype(np.float32),
        {"units": "kg m-2 s-1"},
    )
    content = pack(forcings, codec)
    assert content["forcings"]["SO2"]["maps"].shape[0] == 3  # as many maps as the file was made of
    back = unpack(content, codec)
    given, kept = (pool_forcings(f, codec.forcings, codec.grid, codec.forcing_pooling) for f in (forcings, back))
    for i, scale in enumerate(codec.forcing_scale.values()):
        assert (given[:, i] - kept[:, i]).abs().max() < 1e-5 * max(scale, float(given[:, i].abs().max()))
    np.testing.assert_array_equal(back.CO2, forcings.CO2)
    assert back.attrs["experiment_id"] == "mid" and back.days.equals(forcings.days)
    carried = Carried({"mid": content}, codec)
    assert list(carried) == ["mid"] and len(carried) == 1 and "low" not in carried


def test_names_of_shipped_emulators_are_said_where_one_is_not_known(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"venus: no such checkpoint, nor an emulator that is shipped \(.+\); train one"
    ):
        spf.load("venus")
    (tmp_path / "venus.pt").write_bytes(b"not one")
    monkeypatch.setattr(shipped, "files", lambda name: tmp_path)
    assert shipped.names() == ["venus"] and shipped.find("Venus") == tmp_path / "venus.pt"
    with pytest.raises(ValueError, match="not readable as a checkpoint"):
        spf.load("venus")
