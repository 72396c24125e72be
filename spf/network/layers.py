"""Small building blocks: position codes on the sphere, rotary time, attention over two streams of packed windows.

The tokens of several batches of windows lie one after the other in one tensor of rows (row, width); ``sizes`` says which rows
are whose: (batch, tokens) of each part. What works token by token runs once over all rows; attention stays inside a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spf.network.attention import attend


def sinusoid(x: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sine and cosine features of scalars (batch,) -> (batch, width)."""
    half = width // 2
    frequency = torch.exp(-math.log(longest) * torch.arange(half, device=x.device) / half)
    angle = x.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def sphere_positions(lat_deg: Tensor, lon_deg: Tensor, width: int) -> Tensor:
    """Position code of each (lat, lon) pair, row by row: (lat x lon, width).

    Longitude uses integer wavenumbers of the full circle, so the date line is no seam; latitude uses integer half-waves from
    pole to pole. Positions are physical, so stages of different resolution share them.
    """
    quarter = width // 4
    wave = torch.arange(1, quarter + 1, dtype=torch.float64)
    lon = torch.deg2rad(lon_deg.double())[:, None] * wave
    lat = torch.deg2rad(lat_deg.double() + 90)[:, None] * wave
    lon_code = torch.cat([lon.cos(), lon.sin()], -1) / wave.sqrt().repeat(2)
    lat_code = torch.cat([lat.cos(), lat.sin()], -1) / wave.sqrt().repeat(2)
    n_lat, n_lon = len(lat_deg), len(lon_deg)
    both = [lat_code[:, None].expand(n_lat, n_lon, -1), lon_code[None].expand(n_lat, n_lon, -1)]
    code = torch.cat(both, -1).reshape(n_lat * n_lon, -1)
    return F.pad(code, (0, width - code.shape[-1])).float()


def rotary(frames: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of rotary angles for frame numbers (token,) -> two of (token, width), as `rotate` takes them."""
    frequency = 1.0 / (100.0 ** (torch.arange(0, width, 2, device=frames.device) / width))
    angle = frames.float()[:, None] * frequency
    return angle.cos().repeat(1, 2), torch.cat([-angle.sin(), angle.sin()], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + width / 2) of (..., width) by the angles of `rotary`, which broadcast; minus ``sin`` turns back."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


Sizes = Sequence[tuple[int, int]]


def split(rows: Tensor, sizes: Sizes) -> list[Tensor]:
    """Rows (row, ...) -> (batch, token, ...) of each part."""
    parts = rows.split([batch * tokens for batch, tokens in sizes])
    return [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=True)]


def join(parts: Sequence[Tensor]) -> Tensor:
    """Inverse of `split`."""
    rows = [part.flatten(0, 1) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _by_sample(vector: Tensor, sizes: Sizes) -> list[Tensor]:
    """Vectors of all windows (sample, width) -> (batch, 1, width) of each part."""
    return [v[:, None] for v in vector.split([batch for batch, _ in sizes])]


def modulate(rows: Tensor, sizes: Sizes, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale rows (row, width) by their windows' vectors (sample, width), in the vectors' precision."""
    # the rows come from a norm in float32; what follows is a matrix product, which would round them anyway
    parts = zip(split(rows.to(scale), sizes), _by_sample(shift, sizes), _by_sample(1 + scale, sizes), strict=True)
    return join([torch.addcmul(s, x, c) for x, s, c in parts])


def gated(rows: Tensor, sizes: Sizes, gate: Tensor, change: Tensor) -> Tensor:
    """Add a change to rows, weighted by their windows' gates (sample, width); the sum keeps the rows' precision."""
    parts = zip(split(rows, sizes), _by_sample(gate, sizes), split(change, sizes), strict=True)
    return join([x + g * y for x, g, y in parts])


class Stream(nn.Module):
    """One stream's half of a joint block: its projections, its MLP, its modulation."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads)
        self.k_norm = nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(approximate="tanh"), nn.Linear(mlp_ratio * width, width)
        )
        self.modulation = _zero_linear(width, 6 * width)

    def project(self, rows: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Queries, keys and values (row, 3, head, width / head) of modulated, normalised rows (row, width)."""
        qkv = self.qkv(rows).unflatten(-1, (3, self.heads, -1))
        return normalise(qkv, torch.stack([self.q_norm.weight, self.k_norm.weight]), angles)

    def finish(self, rows: Tensor, sizes: Sizes, attended: Tensor, m: Sequence[Tensor]) -> Tensor:
        """Add what was attended, then the MLP; m: gate of the first, shift, scale and gate of the second."""
        rows = gated(rows, sizes, m[0], self.out(attended))
        return gated(rows, sizes, m[3], self.mlp(modulate(self.norm(rows), sizes, m[1], m[2])))


class JointBlock(nn.Module):
    """MM-DiT block: field and forcing tokens keep their own weights and meet in one attention."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.field = Stream(width, heads, mlp_ratio)
        self.forcing = Stream(width, heads, mlp_ratio)

    def forward(self, x: Tensor, c: Tensor, vector: Tensor, layout: "Layout") -> tuple[Tensor, Tensor]:
        """Field rows x and forcing rows c (row, width), conditioning (sample, width) after its SiLU -> both, updated."""
        streams = (
            (self.field, x, layout.field, layout.field_angles),
            (self.forcing, c, layout.forcing, layout.forcing_angles),
        )
        m, projected = [], []
        for stream, rows, sizes, angles in streams:
            m.append(stream.modulation(vector).chunk(6, -1))
            qkv = stream.project(modulate(stream.norm(rows), sizes, *m[-1][:2]), angles)
            projected.append(split(qkv, sizes))
        joint = [attend(*torch.cat(pair, 1).unbind(2)) for pair in zip(*projected, strict=True)]
        ax = join([a[:, :n] for a, (_, n) in zip(joint, layout.field, strict=True)])
        ac = join([a[:, n:] for a, (_, n) in zip(joint, layout.field, strict=True)])
        return self.field.finish(x, layout.field, ax, m[0][2:]), self.forcing.finish(c, layout.forcing, ac, m[1][2:])


class CrossBlock(nn.Module):
    """Field tokens attend to one another, then to the forcing tokens, which stay as they are."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.field = Stream(width, heads, mlp_ratio)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = nn.RMSNorm(width // heads)
        self.k_norm = nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.modulation = _zero_linear(width, 3 * width)

    def forward(self, x: Tensor, c: Tensor, vector: Tensor, layout: "Layout") -> tuple[Tensor, Tensor]:
        """Field rows x and forcing rows c (row, width), conditioning (sample, width) after its SiLU -> x updated, c as it was."""
        sizes, m = layout.field, self.field.modulation(vector).chunk(6, -1)
        qkv = self.field.project(modulate(self.field.norm(x), sizes, m[0], m[1]), layout.field_angles)
        x = gated(x, sizes, m[2], self.field.out(join([attend(*each.unbind(2)) for each in split(qkv, sizes)])))
        x = self._cross(x, c, vector, layout)
        return gated(x, sizes, m[5], self.field.mlp(modulate(self.field.norm(x), sizes, m[3], m[4]))), c

    def _cross(self, x: Tensor, c: Tensor, vector: Tensor, layout: "Layout") -> Tensor:
        shift, scale, gate = self.modulation(vector).chunk(3, -1)
        q = self.q(modulate(self.norm(x), layout.field, shift, scale)).unflatten(-1, (1, self.heads, -1))
        kv = self.kv(self.norm(c)).unflatten(-1, (2, self.heads, -1))
        queries = split(normalise(q, self.q_norm.weight[None], layout.field_angles), layout.field)
        others = split(normalise(kv, self.k_norm.weight[None], layout.forcing_angles), layout.forcing)
        pairs = zip(queries, others, strict=True)
        return gated(x, layout.field, gate, self.out(join([attend(*a.unbind(2), *b.unbind(2)) for a, b in pairs])))


@dataclass(frozen=True)
class Layout:
    """Which rows are whose, and when they are.

    Attributes:
        field: (batch, tokens) of the field tokens of each part.
        forcing: The same of the forcing tokens.
        field_angles: Rotary cosine and signed sine of each field row (row, 1, 1, width / head).
        forcing_angles: The same of each forcing row.
    """

    field: Sizes
    forcing: Sizes
    field_angles: tuple[Tensor, Tensor]
    forcing_angles: tuple[Tensor, Tensor]


class _Normalise(torch.autograd.Function):
    """`normalise` with its gradient written out: as single operations these steps cost more than the matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, ctx.dtype, weight = len(weight), weight.dtype, weight[:, None].to(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        size = torch.linalg.vector_norm(x[:, :n], dim=-1, keepdim=True, dtype=wide)
        inverse = torch.rsqrt(size.square() / x.shape[-1] + torch.finfo(torch.float32).eps).to(x)
        unit = x[:, :n] * inverse
        ctx.save_for_backward(unit, inverse, weight, cos, sin)
        return torch.cat([rotate(unit * weight, cos, sin), x[:, n:]], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        unit, inverse, weight, cos, sin = ctx.saved_tensors
        n = len(weight)
        turned = rotate(grad[:, :n], cos, -sin)
        of_weight = (turned * unit).sum(0).sum(1)
        turned *= weight
        along = (turned * unit).mean(-1, keepdim=True)
        of_x = torch.addcmul(turned, unit, along, value=-1) * inverse
        return torch.cat([of_x, grad[:, n:]], 1), of_weight.to(ctx.dtype), None, None


def normalise(x: Tensor, weight: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Bring queries and keys to root mean square 1, weigh them and rotate them in time.

    Args:
        x: Projections (row, projection, head, width / head); the first n are changed, the others stay as they are.
        weight: Of the first n projections (n, width / head).
        angles: Rotary cosine and signed sine (row, 1, 1, width / head).
    """
    return _Normalise.apply(x, weight, *(each.to(x) for each in angles))


def _zero_linear(width: int, out: int) -> nn.Linear:
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
