"""Windows of different stages in one call answer as they do alone; both kinds of attention, sizes, sources, recomputing."""

import copy
import os
import shutil

import pytest
import torch

from spf.config import NetworkConfig
from spf.interfaces import Condition
from spf.network.backbone import Backbone, count_parameters, drop_sources
from spf.network.sizes import SIZES
from spf.plain import from_dict, to_dict
from spf.pyramid.coupling import white_coupling
from spf.pyramid.prior import Prior
from spf.pyramid.spec import PyramidSpec

SPEC = PyramidSpec()
STAGES = SPEC.stages()
LAT = [-78.75 + 22.5 * i for i in range(8)]
LON = [15.0 + 30 * i for i in range(12)]
ATTENTION = pytest.mark.parametrize("attention", ["joint", "cross"])


COUPLINGS = {k: white_coupling(s, 2, (8 // s.pooling, 12 // s.pooling)) for k, s in STAGES.items()}


def network(trained=True, n_sources=0, **size):
    torch.manual_seed(0)
    config = NetworkConfig(**{"width": 32, "depth": 2, "heads": 2, "patch": 1, "forcing_patch": 1, **size})
    net = Backbone(config, SPEC, COUPLINGS, LAT, LON, 2, 3, n_sources).eval()
    if trained:  # as if: no weight is zero
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return net


def window(key, length, batch=2, seed=1, source=None):
    g, stage = torch.Generator().manual_seed(seed), STAGES[key]
    x = torch.randn(batch, 2, length, 8 // stage.pooling, 12 // stage.pooling, generator=g)
    calendar = (torch.arange(length) % 12 + 1).expand(batch, length)
    condition = Condition(torch.randn(batch, 3, length, 2, 3, generator=g), calendar, source)
    return x, torch.rand(batch, generator=g), stage, condition


def mix():
    return [window("1-year", 10, 1), window("0-decade", 3, 2, seed=2), window("2-month", 24, 2, seed=3)]


@ATTENTION
@torch.no_grad()
def test_windows_packed_answer_as_they_do_alone(attention):
    net = network(attention=attention)
    for packed, part in zip(net.packed(mix()), mix(), strict=True):
        torch.testing.assert_close(packed, net(*part), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_order_of_parts_is_the_order_of_answers():
    net, order = network(), (2, 0, 1)
    straight, turned = net.packed(mix()), net.packed([mix()[i] for i in order])
    for i, answer in zip(order, turned, strict=True):
        torch.testing.assert_close(answer, straight[i], rtol=1e-5, atol=1e-5)


@ATTENTION
@pytest.mark.parametrize("what", ["state", "forcings"])
@torch.no_grad()
def test_a_window_that_changes_leaves_all_others_bitwise_as_they_were(attention, what):
    net, before = network(attention=attention), mix()
    x, t, stage, c = before[2]
    changed = torch.zeros(2, 1, 1, 1, 1).index_fill(0, torch.tensor([1]), 1.0)
    new = (x + changed, t, stage, c) if what == "state" else (x, t, stage, Condition(c.forcings + changed, c.calendar))
    old, after = net.packed(before), net.packed([*before[:2], new])
    assert torch.equal(old[0], after[0])
    assert torch.equal(old[1], after[1])
    assert torch.equal(old[2][0], after[2][0])
    assert (old[2][1] - after[2][1]).abs().max() > 1e-3


@ATTENTION
def test_packed_parts_share_one_gradient(attention):
    net = network(attention=attention)
    torch.stack([out.square().sum() for out in net.packed(mix())]).sum().backward()
    together = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for part in mix():
        net(*part).square().sum().backward()
    alone = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert set(together) == set(alone)
    for name, gradient in alone.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-6)


@ATTENTION
@torch.no_grad()
def test_with_either_attention_an_untrained_network_is_the_prior(attention):
    x, t, stage, condition = window("1-year", 10)
    prior = Prior(stage, COUPLINGS[stage.key])(x, t)
    torch.testing.assert_close(network(trained=False, attention=attention)(x, t, stage, condition), prior)


@ATTENTION
@pytest.mark.parametrize("length", [1, 12, 13, 18])
@torch.no_grad()
def test_what_is_learned_takes_windows_of_any_length_and_hears_the_forcings(attention, length):
    net, (x, t, stage, c) = network(attention=attention), window("2-month", length)
    # without the prior, which pools whole blocks of frames
    correction = lambda c: net._corrections([(x, t, stage, c)])[0]  # noqa: E731
    assert correction(c).shape == x.shape
    assert (correction(c) - correction(Condition(c.forcings + 1, c.calendar))).abs().max() > 1e-3


def test_cross_attention_leaves_forcing_tokens_as_they_were():
    net = network(attention="cross")
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, given, out: seen.append(torch.equal(given[1], out[1])))
    net(*window("1-decade", 2))
    assert seen == [True, True]


@torch.no_grad()
def test_an_unknown_model_is_number_0_and_named_models_differ():
    net = network(n_sources=2)
    known = window("1-decade", 2, source=torch.tensor([1, 2]))
    unknown = net(*window("1-decade", 2))
    assert torch.equal(unknown, net(*window("1-decade", 2, source=torch.zeros(2, dtype=torch.long))))
    assert ((net(*known) - unknown).abs().amax((1, 2, 3, 4)) > 1e-3).all()
    assert torch.equal(known[3].chosen(torch.tensor([1])).source, torch.tensor([2]))
    assert not network(trained=False, n_sources=2).source.weight.any()


def test_a_tenth_of_models_is_dropped_and_the_seed_says_which():
    source = torch.full((20_000,), 3)
    dropped = drop_sources(source, torch.Generator().manual_seed(0))
    assert torch.equal(dropped, drop_sources(source, torch.Generator().manual_seed(0)))
    assert set(dropped.tolist()) == {0, 3}
    assert abs(float((dropped == 0).float().mean()) - 0.1) < 0.01
    assert (source == 3).all()


@ATTENTION
def test_recomputing_blocks_changes_no_gradient(attention):
    gradients, calls = [], []
    for checkpointing in (False, True):
        net = network(checkpointing=checkpointing, attention=attention).train()
        calls.append(0)
        net.blocks[0].register_forward_pre_hook(lambda *_: calls.__setitem__(-1, calls[-1] + 1))
        net(*window("1-year", 10)).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert calls == [1, 2]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def meta_network(config):
    couplings = {k: white_coupling(s, 2, (48 // s.pooling, 72 // s.pooling)) for k, s in STAGES.items()}
    with torch.device("meta"):
        return Backbone(config, SPEC, couplings, [0.0] * 48, [0.0] * 72, 2, 4)


@pytest.mark.parametrize("name", SIZES)
def test_a_named_size_has_the_parameters_of_its_name(name):
    net = meta_network(NetworkConfig(size=name))
    assert count_parameters(net) == pytest.approx(float(name[:-1]) * 1e6, rel=0.1)
    assert {p.device.type for p in net.parameters()} == {"meta"}


def test_a_size_is_written_back_as_its_numbers():
    config = from_dict(NetworkConfig, {"size": "200M", "patch": 8}, "network")
    assert (config.width, config.depth, config.heads, config.patch) == (*SIZES["200M"], 8)
    assert from_dict(NetworkConfig, to_dict(config), "network") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": "7B"}, "network.size '7B' is unknown; expected one of 1M, 8M"),
        ({"size": "200M", "width": 64}, "network.width 64 beside network.size 200M; give one or the other"),
        ({"attention": "both"}, "network.attention 'both' is unknown; expected joint or cross"),
    ],
)
def test_a_network_that_cannot_be_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        from_dict(NetworkConfig, content, "network")


@torch.no_grad()
def test_a_copy_answers_the_same_and_constants_stay_out_of_checkpoints():
    net, part = network(), window("2-year", 10)
    answer = net(*part)
    assert torch.equal(copy.deepcopy(net)(*part), answer)
    assert not [name for name in net.state_dict() if name.startswith(("place", "priors"))]


@pytest.mark.skipif("SPF_SLOW" not in os.environ, reason="compiling takes minutes; set SPF_SLOW=1")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@torch.no_grad()
def test_a_compiled_network_answers_the_same_and_is_compiled_once_per_shape():
    net, part = network(depth=1), window("1-decade", 2)
    torch._dynamo.reset()
    compiled = torch.compile(net)
    torch.testing.assert_close(compiled(*part), net(*part), rtol=1e-4, atol=1e-4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        x, t, _, condition = part
        torch.testing.assert_close(
            compiled(x, t / 2, PyramidSpec().stages()["1-decade"], condition),
            net(x, t / 2, part[2], condition),
            rtol=1e-4,
            atol=1e-4,
        )
