"""Queries and keys: normalised, weighed and turned in time as written, with the gradient of what is written."""

import pytest
import torch

from spf.network import attention
from spf.network.layers import normalise, rotary


def inputs(n_weights, dtype=torch.float64, rows=5, width=8):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, 2, width, generator=g, dtype=torch.float64).to(dtype)
    weight = torch.rand(n_weights, width, generator=g, dtype=torch.float64) + 0.5
    angles = tuple(a[:, None, None].to(dtype) for a in rotary(torch.arange(rows), width))
    return x, weight.to(dtype), angles


def by_single_operations(x, weight, angles):
    """Root mean square 1, weight, then each pair (i, i + width / 2) as a complex number times a phase."""
    n, half = len(weight), x.shape[-1] // 2
    y = x[:, :n] * (x[:, :n].square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).rsqrt() * weight[:, None]
    phase = torch.complex(angles[0][..., :half], angles[1][..., half:])
    turned = torch.complex(y[..., :half], y[..., half:]) * phase
    return torch.cat([torch.cat([turned.real, turned.imag], -1), x[:, n:]], 1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_first_projections_are_normalised_and_turned_and_the_others_stay(n):
    x, weight, angles = inputs(n)
    out = normalise(x, weight, angles)
    torch.testing.assert_close(out, by_single_operations(x, weight, angles))
    assert torch.equal(out[:, n:], x[:, n:])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_gradient_is_that_of_the_operations(n):
    x, weight, angles = inputs(n)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: normalise(a, b, angles), (x, weight))


def test_bfloat16_rounds_values_and_gradients_and_weights_keep_their_precision():
    x, weight, angles = inputs(2, rows=200, width=64)
    exact = by_single_operations(x.requires_grad_(), weight.requires_grad_(), angles)
    push = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    known = torch.autograd.grad(exact, (x, weight), push)
    low, single = x.detach().bfloat16().requires_grad_(), weight.detach().float().requires_grad_()
    out = normalise(low, single, angles)
    found = torch.autograd.grad(out, (low, single), push.bfloat16())
    assert (out.dtype, found[0].dtype, found[1].dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    for mine, true in zip((out, *found), (exact, *known), strict=True):
        assert (mine.double() - true).norm() < 0.01 * true.norm()


def test_a_second_derivative_is_refused():
    x, weight, angles = inputs(2)
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(normalise(x, weight, angles).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def heads_first(tokens, others, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(3, 2, n, 4, generator=g, dtype=torch.float64).to(dtype) for n in (tokens, others, others)]


@pytest.mark.parametrize("windows", [1, 2, 3])
@pytest.mark.parametrize("others", [6, 5])
def test_attention_of_a_few_windows_at_a_time_is_attention_with_its_gradient(monkeypatch, windows, others):
    """Also where keys are of other tokens than queries."""
    monkeypatch.setattr(attention, "SCORES", windows * 2 * 6 * others)
    q, k, v = heads_first(6, others)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(attention.InCache.apply(q, k, v), expected)
    assert torch.autograd.gradcheck(attention.InCache.apply, [x.requires_grad_() for x in (q, k, v)])


def test_attention_in_half_precision_is_that_in_full_to_its_rounding():
    q, k, v = (x.transpose(1, 2) for x in heads_first(6, 6, torch.bfloat16))
    whole = attention.attend(*(x.float() for x in (q, k, v)))
    torch.testing.assert_close(attention.attend(q, k, v).float(), whole, rtol=0, atol=0.02)
