"""The backbone: right for every stage, equivariant in longitude, blind to what it must not see, untrained = the prior."""

import pytest
import torch

from spf.config import NetworkConfig
from spf.interfaces import Condition
from spf.network.backbone import Backbone, count_parameters, patchify, unpatchify
from spf.network.layers import rotary, rotate, sphere_positions
from spf.pyramid.coupling import white_coupling
from spf.pyramid.path import noise_fall
from spf.pyramid.prior import Prior
from spf.pyramid.spec import PyramidSpec

SPEC = PyramidSpec()
LAT = [-78.75 + 22.5 * i for i in range(8)]
LON = [15.0 + 30 * i for i in range(12)]


COUPLINGS = {k: white_coupling(s, 2, (8 // s.pooling, 12 // s.pooling)) for k, s in SPEC.stages().items()}


def network(seed=0, trained=True, **size):
    torch.manual_seed(seed)
    config = NetworkConfig(**{"width": 32, "depth": 2, "heads": 2, "patch": 1, "forcing_patch": 1, **size})
    net = Backbone(config, SPEC, COUPLINGS, LAT, LON, 2, 3).eval()
    if trained:  # as if: no weight is zero
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return net


def inputs(stage, length, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 2, length, 8 // stage.pooling, 12 // stage.pooling, generator=g)
    condition = Condition(
        torch.randn(batch, 3, length, 2, 3, generator=g), torch.zeros(batch, length, dtype=torch.long)
    )
    return x, torch.rand(batch, generator=g), stage, condition


@pytest.mark.parametrize(
    ("key", "length"), [("0-decade", 3), ("1-decade", 2), ("1-year", 10), ("2-year", 10), ("2-month", 12)]
)
def test_every_stage_gets_a_velocity_of_its_shape(key, length):
    net, args = network(), inputs(SPEC.stages()[key], length)
    with torch.no_grad():
        out = net(*args)
        torch.testing.assert_close(net.velocity(*args), noise_fall(args[2]) * out)
    assert out.shape == args[0].shape
    assert torch.isfinite(out).all()


def test_an_untrained_network_is_the_prior():
    x, t, stage, condition = inputs(SPEC.stages()["1-year"], 10)
    with torch.no_grad():
        torch.testing.assert_close(
            network(trained=False)(x, t, stage, condition), Prior(stage, COUPLINGS[stage.key])(x, t)
        )


@pytest.mark.parametrize("what", ["forcings", "calendar", "t", "stage"])
def test_the_answer_depends_on_everything_it_is_conditioned_on(what):
    net, (x, t, stage, condition) = network(), inputs(SPEC.stages()["2-year"], 10)
    changed = {
        "forcings": (x, t, stage, Condition(condition.forcings + 1, condition.calendar)),
        "calendar": (x, t, stage, Condition(condition.forcings, condition.calendar + 5)),
        "t": (x, t / 2, stage, condition),
        "stage": (x, t, SPEC.stages()["2-decade"], condition),
    }[what]
    with torch.no_grad():
        assert (net(x, t, stage, condition) - net(*changed)).abs().max() > 1e-3


def test_windows_of_a_batch_do_not_see_each_other():
    net, (x, t, stage, condition) = network(), inputs(SPEC.stages()["2-month"], 12, batch=3)
    with torch.no_grad():
        together, alone = net(x, t, stage, condition), net(x[1:2], t[1:2], stage, condition.chosen(torch.tensor([1])))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_the_date_line_is_no_seam():
    """Neighbours across 0 degrees are as close in position code as neighbours anywhere else."""
    code = sphere_positions(torch.tensor([0.0]), torch.tensor(LON), 64)
    steps = (code - code.roll(1, 0)).norm(dim=-1)
    torch.testing.assert_close(steps, steps.mean().expand(12), rtol=1e-4, atol=1e-5)


def test_rotary_products_depend_on_the_distance_in_time_only():
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    product = lambda i, j: (  # noqa: E731
        (rotate(q, *rotary(torch.tensor([i]), 16)) * rotate(k, *rotary(torch.tensor([j]), 16))).sum()
    )
    torch.testing.assert_close(product(3, 1), product(9, 7))
    assert (product(3, 1) - product(5, 1)).abs() > 1e-3


def test_patches_are_put_back_where_they_came_from():
    x = torch.randn(2, 3, 4, 6, 8)
    torch.testing.assert_close(unpatchify(patchify(x, 2), 2, 3, 4, (3, 4)), x)


def test_one_batch_can_be_learned():
    net, (x, t, stage, condition) = network(trained=False), inputs(SPEC.stages()["1-decade"], 2)
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (net(x, t, stage, condition) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]


def test_a_patch_that_does_not_tile_is_refused():
    with pytest.raises(ValueError, match="network.patch 2 does not tile the coarsest grid 2x3"):
        network(patch=2)


def test_parameters_are_counted():
    assert count_parameters(torch.nn.Linear(3, 2)) == 8
