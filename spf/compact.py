"""Checkpoints in half precision and less, for shipping: what is stored small, and the float32 that comes back.

Numbers of the network, of couplings, marginals and slopes are kept as 16-bit floats with one scale a tensor. Patterns, and what
multiplies small numbers (the network's modulation among it), are kept as 8-bit integers with one scale a map: the rounding of a map
is below 0.5 % of its largest value, and patterns are three quarters of all numbers. Means, of which 0.1 K matters, and
autocovariances, which must stay positive definite, are kept whole.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SMALLEST = 2048
"""Smaller tensors are kept whole."""
WHOLE = ("covariance", "together", "correlation", "series_of_maps", "maps")
EIGHT_BITS = ("patterns", "companions", "surroundings", "bend", "growth", "departure", "pattern_change")
EIGHT_BIT_WEIGHTS = "modulation.weight"
STEPS = 127


def compact(value: Any, path: tuple[str, ...] = ()) -> Any:
    """A checkpoint's content with its large float tensors small; `restored` brings them back.

    Args:
        value: Dicts and lists of tensors, numbers and strings.
        path: Keys on the way here.
    """
    if isinstance(value, Mapping):
        return {k: compact(v, (*path, str(k))) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [compact(v, path) for v in value]
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < SMALLEST:
        return value
    if any(part in EIGHT_BITS for part in path) or path[-1].endswith(EIGHT_BIT_WEIGHTS):
        return _eight_bits(value)
    return value if path[-1] in WHOLE or "grid" in path or ("lines" in path and "mean" in path) else _half(value)


def restored(value: Any) -> Any:
    """Inverse of `compact`: float32 tensors, within what their form holds."""
    if isinstance(value, Mapping):
        if set(value) == {"half", "scale"}:
            return value["half"].float() * value["scale"]
        if set(value) == {"eight_bits", "scale"}:
            return value["eight_bits"].float() / STEPS * value["scale"][..., None, None]
        return {k: restored(v) for k, v in value.items()}
    return [restored(v) for v in value] if isinstance(value, list) else value


def _half(x: Tensor) -> dict[str, Any]:
    scale = float(x.abs().max()) or 1.0
    return {"half": (x / scale).half(), "scale": scale}


def _eight_bits(x: Tensor) -> dict[str, Any]:
    scale = x.abs().amax((-2, -1)).float()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return {"eight_bits": (x / safe[..., None, None] * STEPS).round().to(torch.int8), "scale": safe}
