"""Several Earth system models in one emulator: two tiny ones that differ in sensitivity and variability."""

from dataclasses import replace

import pytest
import torch
import yaml

from climatesuite.errors import DataContractError
from spf import checkpoint
from spf.commands.steps import ingest, provenance, train
from spf.commands.workspace import open_workspace
from spf.config import RunConfig, SamplingConfig
from spf.interfaces import Condition
from spf.learning import held_out
from spf.learning.data import WindowStream, open_training_runs
from spf.learning.initial import load_initial
from spf.learning.learn import learn
from spf.learning.sources import WindowsOfSources, measure_windows, open_runs
from spf.network.backbone import Backbone
from spf.plain import from_dict, to_dict
from spf.pyramid.coupling import coupling_from_dict
from spf.pyramid.spec import PyramidSpec
from spf.sampling.emulator import Emulator
from spf.sampling.restore import make_backbone
from spf.sources import fit_codecs, sharing
from worlds import tiny
from worlds.small import CONTENT

KNOWN = {
    "source_id": "TINY", "license": "CC0", "training_members": {"low": ["r1i1p1f1"]}, "training_years": [2015, 2044],
    "version": "0", "torch": "2", "hardware": "none",
}  # fmt: skip
MEMBERS = {"low": ("r1i1p1f1", "r2i1p1f1"), "high": ("r1i1p1f1", "r2i1p1f1")}
FAST = SamplingConfig(n_steps=1, solver="euler")


def model(source_id, experiment_id, factor=1.0):
    """A scenario of the tiny world, departures from its first month's mean state enlarged."""
    ds = tiny.scenario(experiment_id, seed=int(factor))
    tas = 285 + factor * (ds.tas - 285)
    return ds.assign(tas=tas.astype("float32").assign_attrs(ds.tas.attrs)).assign_attrs(source_id=source_id)


def two_sources(**training):
    config = tiny.config(**training)
    return replace(config, data=replace(config.data, also={"OTHER": MEMBERS}))


def trained(folder, config, scenarios):
    codecs = fit_codecs(scenarios, config.data)
    runs = open_runs(scenarios, codecs)
    codec = codecs.pop(config.data.source_id)
    return learn(
        config, codec, runs, {**KNOWN, "source_id": config.data.source_id}, folder, progress=False, others=codecs
    )


@pytest.fixture(scope="module")
def scenarios():
    return {s: {e: model(s, e, f) for e in ("low", "high")} for s, f in (("TINY", 1.0), ("OTHER", 3.0))}


@pytest.fixture(scope="module")
def world(scenarios):
    codecs = fit_codecs(scenarios, two_sources().data)
    runs = open_runs(scenarios, codecs)
    return codecs, runs, measure_windows(runs, PyramidSpec(), codecs["TINY"].grid.row_weights())


@pytest.fixture(scope="module")
def saved(scenarios, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("both"), two_sources(max_steps=6, learning_rate=1e-2), scenarios)


@pytest.fixture(scope="module")
def emulator(saved):
    return Emulator.load(saved)


@pytest.fixture(scope="module")
def forcings():
    return tiny.forcings()


def settings(**data):
    plain = to_dict(tiny.config())
    return from_dict(RunConfig, {**plain, "data": {**plain["data"], **data}})


def test_also_is_read_from_plain_settings_and_lists_the_main_source_first():
    data = settings(also={"OTHER": {"low": ["r1i1p1f1"]}}).data
    assert list(data.sources()) == ["TINY", "OTHER"] and data.sources()["OTHER"] == {"low": ("r1i1p1f1",)}
    assert list(settings().data.sources()) == ["TINY"]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({"TINY": {"low": ["r1i1p1f1"]}}, "data.also names TINY, which is data.source_id"),
        ({"OTHER": {}}, "data.also.OTHER: name at least one scenario"),
        ({"OTHER": {"low": []}}, "data.also.OTHER: name at least one scenario, and members of each"),
    ],
)
def test_an_also_that_names_nothing_new_is_refused(also, message):
    with pytest.raises(ValueError, match=message):
        settings(also=also)


def test_sources_are_numbered_from_one_and_a_single_one_has_no_number(world, scenarios):
    assert [run.source for run in world[1]] == [1] * 4 + [2] * 4
    alone = {"TINY": scenarios["TINY"]}
    codecs = fit_codecs(alone, tiny.config().data)
    assert {run.source for run in open_runs(alone, codecs)} == {0}


def test_each_source_has_its_own_forced_response_and_all_else_is_shared(world):
    ours, theirs = world[0]["TINY"], world[0]["OTHER"]
    slopes = [c.response.slope.tas.mean().item() for c in (ours, theirs)]
    assert slopes[1] / slopes[0] == pytest.approx(3, rel=0.2)
    assert ours.scales == theirs.scales and ours.forcing_scale == theirs.forcing_scale
    assert ours.forcing_range == theirs.forcing_range


def test_a_forcing_that_varies_in_one_source_only_has_its_range_for_all(scenarios):
    changed = scenarios["OTHER"]["high"].assign(SO2=lambda ds: ds.SO2 * (1 + (ds.year - 2015) / 10))
    extended = {
        "TINY": scenarios["TINY"],
        "OTHER": {"mid": changed.assign_attrs(experiment_id="mid"), **scenarios["OTHER"]},
    }
    codecs = fit_codecs(extended, two_sources().data)
    alone = fit_codecs({"TINY": scenarios["TINY"]}, tiny.config().data)["TINY"]
    assert codecs["TINY"].forcing_range["SO2"][1] > 3 * alone.forcing_range["SO2"][1]


@pytest.mark.parametrize("key", ["0-decade", "1-year", "2-month"])
def test_departures_of_every_source_have_unit_variance(world, key):
    _, runs, windows = world
    stage = windows.spec.stages()[key]
    for number in (1, 2):
        own = [r for r in runs if r.source == number]
        places = [12 * (2015 + i) for i in range(0, 20)]
        fields = torch.stack([windows.build(r, stage, p, 120 // stage.months, p).fields for r in own for p in places])
        assert fields.square().mean().sqrt() == pytest.approx(1, abs=0.12), number
    ratio = windows.of[2].marginals["1-year"].gain[0] / windows.of[1].marginals["1-year"].gain[0]
    assert ratio.mean() == pytest.approx(3, rel=0.15)


def stream(world, **changes):
    return WindowStream(world[1], world[2], (1, 1, 1), **{"tokens_per_step": 512, "seed": 3, **changes})


def test_a_tenth_of_windows_does_not_say_its_source(world):
    source = torch.cat([stream(world).batch(i).source for i in range(400)])
    share = (source == 0).float().mean().item()
    assert share == pytest.approx(0.1, abs=4 * (0.09 / len(source)) ** 0.5)
    assert (source == 1).float().mean().item() == pytest.approx(0.45, abs=4 * (0.25 / len(source)) ** 0.5)


def test_hidden_sources_are_the_same_after_a_resume(world):
    late, whole = iter(stream(world, start_step=7)), stream(world)
    for number in (7, 8, 9):
        batch = next(late)
        assert torch.equal(batch.source, whole.batch(number).source) and torch.equal(batch.x_t, whole.batch(number).x_t)


def test_one_source_is_learned_from_as_ever(scenarios, tmp_path):
    """The same checkpoint as without any word of sources."""
    alone, config = {"TINY": scenarios["TINY"]}, tiny.config(max_steps=2)
    codec = fit_codecs(alone, config.data)["TINY"]
    runs = open_training_runs(scenarios["TINY"], codec)
    path = learn(config, codec, runs, KNOWN, tmp_path / "plain", progress=False)
    plain, new = checkpoint.load(path), checkpoint.load(trained(tmp_path / "new", config, alone))
    assert "sources" not in plain and "also" not in plain["provenance"]
    assert not isinstance(measure_windows(runs, config.pyramid, codec.grid.row_weights()), WindowsOfSources)
    assert set(plain) == set(new) and "source.weight" not in plain["weights"]
    for name, weight in plain["weights"].items():
        torch.testing.assert_close(new["weights"][name], weight, rtol=0, atol=0)
    loaded = Emulator.load(path)
    assert (loaded.sources, loaded.source) == ((), 0) and loaded.of("TINY") is loaded
    with pytest.raises(DataContractError, match="emulator of NEW: an emulator of one source"):
        loaded.unseen("NEW")


def test_held_out_members_are_those_of_every_source(world):
    runs, aside = held_out.set_aside(world[1], 1)
    assert [(r.source, r.scenario, r.member) for r in aside] == [
        (n, e, "r2i1p1f1") for n in (1, 2) for e in ("low", "high")
    ]
    assert len(runs) == 4


def test_runs_without_a_codec_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match=r"1 codecs \(TINY\) for runs of the sources numbered \[1, 2\]"):
        learn(tiny.config(), world[0]["TINY"], world[1], KNOWN, tmp_path, progress=False)


def test_a_checkpoint_holds_an_emulator_of_each_source(emulator, forcings):
    assert [s.source_id for s in emulator.sources] == ["TINY", "OTHER"] and emulator.source == 1
    other = emulator.of("OTHER")
    assert other.source == 2 and emulator.of("TINY").source == 1
    assert other.provenance["also"] == {"TINY": {e: list(m) for e, m in MEMBERS.items()}}
    drawn = [e.sample(forcings, "year", 4, sampling=FAST) for e in (emulator, other)]
    assert [d.attrs["source_id"] for d in drawn] == ["TINY", "OTHER"]
    spread = [d.tas.std("member").mean().item() for d in drawn]
    assert spread[1] / spread[0] == pytest.approx(3, rel=0.35)
    rise = [(d.tas.isel(time=slice(-10, None)).mean() - d.tas.isel(time=slice(0, 10)).mean()).item() for d in drawn]
    assert rise[1] / rise[0] == pytest.approx(3, rel=0.35)
    with pytest.raises(DataContractError, match="emulator of THIRD: not trained on it; expected one of TINY, OTHER"):
        emulator.of("THIRD")


def test_the_network_is_told_the_number_of_the_source_that_is_drawn(emulator, forcings, monkeypatch):
    asked = []
    velocity = Backbone.velocity

    def spy(self, x, t, stage, condition):
        asked.append(None if condition.source is None else set(condition.source.tolist()))
        return velocity(self, x, t, stage, condition)

    monkeypatch.setattr(Backbone, "velocity", spy)
    for chosen in (emulator, emulator.of("OTHER"), emulator.unseen()):
        chosen.sample(forcings, "decade", 2, sampling=FAST)
    assert [asked[0], asked[len(asked) // 3], asked[-1]] == [{1}, {2}, None]


def test_an_unseen_model_has_the_mean_of_all_responses(emulator, forcings):
    unseen = emulator.unseen("NEW")
    assert unseen.source == 0 and unseen.provenance["training_members"] == {}
    assert set(unseen.provenance["also"]) == {"TINY", "OTHER"}
    codecs = [unseen.codec, *(s.codec for s in emulator.sources)]
    mean, a, b = (c.forced(c.predictor(forcings), "year", [2040]) for c in codecs)
    torch.testing.assert_close(mean, (a + b) / 2, rtol=1e-5, atol=1e-9)
    gains = [s.marginals["2-year"].gain.square() for s in emulator.sources]
    torch.testing.assert_close(unseen.marginals["2-year"].gain.square(), (gains[0] + gains[1]) / 2)
    assert unseen.sample(forcings, "decade", 2, sampling=FAST).attrs["source_id"] == "NEW"


def test_an_unseen_model_may_bring_its_own_forced_response(emulator, scenarios, forcings):
    new = {"NEW": {e: model("NEW", e, 2.0) for e in ("low", "high")}}
    own = fit_codecs(new, tiny.config().data)["NEW"]
    unseen = emulator.unseen("NEW", own)
    predictor = own.predictor(forcings)
    assert torch.equal(unseen.codec.forced(predictor, "year", [2040]), own.forced(predictor, "year", [2040]))
    assert unseen.codec.scales == emulator.codec.scales != own.scales


def test_a_source_on_another_grid_is_refused(world):
    codec = world[0]["OTHER"]
    shifted = replace(codec, grid=replace(codec.grid, lon=tuple(x + 1 for x in codec.grid.lon)))
    with pytest.raises(DataContractError, match="OTHER: a grid of 8 x 12 cells; expected .* the main source's"):
        sharing(shifted, world[0]["TINY"], "OTHER")
    with pytest.raises(DataContractError, match="OTHER: tas; expected tas, pr, in this order"):
        sharing(replace(codec, scales={"tas": 1.0}), world[0]["TINY"], "OTHER")


def test_energy_balances_have_no_mean_response(emulator):
    class Other:
        """Not a line."""

    first = emulator.sources[0]
    changed = replace(emulator, sources=(first, replace(first, codec=replace(first.codec, response=Other()))))
    with pytest.raises(DataContractError, match="mean forced response with TINY: Other; expected lines on CO2"):
        changed.unseen()


# fine-tuning


def answers(backbone, source):
    """What a network says of fixed windows of a source."""
    stage = backbone.spec.path("year")[1]
    rng = torch.Generator().manual_seed(0)
    x, f = torch.randn(2, 2, 10, 4, 6, generator=rng), torch.randn(2, 2, 10, 2, 3, generator=rng)
    condition = Condition(f, torch.arange(13, 23).expand(2, -1), source)
    with torch.no_grad():
        return backbone(x, torch.tensor([0.3, 0.7]), stage, condition)


@pytest.mark.parametrize(("source_id", "number"), [("TINY", 1), ("OTHER", 2), ("NEW", 0)])
def test_fine_tuning_to_one_model_starts_as_the_networks_answer_for_it(saved, tmp_path, source_id, number):
    content, rng = checkpoint.load(saved), torch.Generator().manual_seed(1)
    for name, weight in content["weights"].items():
        if name.startswith(("source", "head", "final")):  # as after long training: what sources do is no rounding error
            weight.copy_(0.3 * torch.randn(weight.shape, generator=rng))
    path = checkpoint.save(tmp_path / "long.pt", content)
    both = make_backbone(content)
    both.load_state_dict(content["weights"])
    every = [answers(both, torch.tensor([n, n])) for n in range(3)]
    assert all((every[a] - every[b]).abs().max() > 0.01 for a, b in ((0, 1), (0, 2), (1, 2)))
    config = tiny.config()
    config = replace(config, data=replace(config.data, source_id=source_id))
    couplings = {k: coupling_from_dict(c) for k, c in content["couplings"].items()}
    lat, lon = (content["codec"]["grid"][k].tolist() for k in ("lat", "lon"))
    for n_sources, told in ((0, None), (1, torch.tensor([1, 1]))):
        one = Backbone(config.network, config.pyramid, couplings, lat, lon, 2, 2, n_sources)
        assert load_initial(one, path, config)["fresh"] == []
        torch.testing.assert_close(answers(one, told), every[number], rtol=1e-4, atol=1e-4)


def test_fine_tuning_to_one_model_through_learn(saved, scenarios, tmp_path):
    config = tiny.config(initial=str(saved), max_steps=1)
    path = trained(tmp_path, config, {"TINY": scenarios["TINY"]})
    content = checkpoint.load(path)
    assert "source.weight" not in content["weights"] and "sources" not in content
    assert set(content["provenance"]["initial"]["also"]) == {"OTHER"}
    assert Emulator.load(path).source == 0


def test_one_model_can_become_several(scenarios, saved, tmp_path):
    first = trained(tmp_path / "one", tiny.config(max_steps=1), {"TINY": scenarios["TINY"]})
    path = trained(tmp_path / "two", two_sources(max_steps=1, initial=str(first)), scenarios)
    assert checkpoint.load(path)["provenance"]["initial"]["fresh"] == ["source.weight"]


def test_a_test_that_the_checkpoint_has_seen_as_another_source_is_refused(saved):
    content, config = checkpoint.load(saved), tiny.config()
    data = replace(config.data, source_id="OTHER", train={"mid": ("r1i1p1f1",)}, test={"low": ("r1i1p1f1",)})
    with pytest.raises(ValueError, match="has learned from low of OTHER, which is tested here"):
        load_initial(make_backbone(content), saved, replace(config, data=data))


# from an archive


def test_an_experiment_of_two_sources_has_a_store_of_each(tmp_path):
    data = {
        **CONTENT["data"], "years": [2015, 2034], "grid": [12, 24], "forcings": ["CO2"], "variables": ["tas"],
        "train": {"ssp126": ["r1i1p1f1"]}, "test": {"ssp370": ["r1i1p1f1"]},
        "also": {"SYNTHETIC-B": {"ssp370": ["r1i1p1f1"]}},
    }  # fmt: skip
    network = {"width": 32, "depth": 1, "heads": 2, "patch": 3, "forcing_patch": 3}
    training, sampling = {**CONTENT["training"], "max_steps": 1}, {**CONTENT["sampling"], "month_years": [2033, 2034]}
    content = {**CONTENT, "data": data, "network": network, "training": training, "sampling": sampling}
    work = open_workspace(from_dict(RunConfig, content), tmp_path / "run", progress=False)
    ingest(work)
    assert sorted(p.name for p in work.folder.glob("*.zarr")) == ["store-SYNTHETIC-B.zarr", "store.zarr"]
    train(work)
    emulator = Emulator.load(work.checkpoint)
    assert [s.source_id for s in emulator.sources] == ["SYNTHETIC-A", "SYNTHETIC-B"]
    assert [s.codec.calendar for s in emulator.sources] == ["noleap", "360_day"]
    known = provenance(work, {"ssp126": work.scenario("ssp126", ("r1i1p1f1",))})
    names = {f["name"] for f in known["source_files"]}
    assert any("SYNTHETIC-B_ssp370" in n for n in names) and not any("SYNTHETIC-A_ssp370" in n for n in names)


def test_settings_that_came_later_do_not_close_a_folder(tmp_path):
    work = open_workspace(tiny.config(), tmp_path)
    plain = yaml.safe_load((tmp_path / "experiment.yaml").read_text())
    del plain["data"]["also"]
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(plain))
    assert open_workspace(tiny.config(), tmp_path) == work
    with pytest.raises(DataContractError, match=r"a run with other settings \(data\)"):
        open_workspace(two_sources(), tmp_path)
