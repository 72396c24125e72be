"""Small building blocks: position codes on the sphere, rotary time, attention over two streams of packed windows.

The tokens of several batches of windows lie one after the other in one tensor of rows (row, width); ``sizes`` says which rows
are whose: (batch, tokens) of each part. What works token by token runs once over all rows; attention stays inside a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Cosine and sine of rotary angles for frame numbers (token,) -> two of (token, width / 2)."""
    frequency = 1.0 / (100.0 ** (torch.arange(0, width, 2, device=frames.device) / width))
    angle = frames.float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary angles to (..., width), angles broadcast against (..., width / 2)."""
    first, second = x.chunk(2, -1)
    cos, sin = cos.to(x), sin.to(x)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


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


def attend(q: Sequence[Tensor], k: Sequence[Tensor], v: Sequence[Tensor]) -> list[Tensor]:
    """Attention inside every window: for each part (batch, token, head, width / head) -> (batch, token, width)."""
    heads_first = ([x.transpose(1, 2) for x in part] for part in zip(q, k, v, strict=True))
    return [F.scaled_dot_product_attention(a, b, c).transpose(1, 2).flatten(2) for a, b, c in heads_first]


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

    def project(self, rows: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (row, head, width / head), of modulated, normalised rows (row, width)."""
        qkv = self.qkv(rows).unflatten(-1, (3, self.heads, -1))
        # queries and keys in one go: these small steps cost more than the matrix products where memory is slow
        qk, v = qkv.split((2, 1), 1)
        weight = torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None]
        qk = _normalise(qk, weight, angles)
        q, k = qk.unbind(1)
        return q, k, v.squeeze(1)

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
            q, k, v = stream.project(modulate(stream.norm(rows), sizes, *m[-1][:2]), angles)
            projected.append([split(each, sizes) for each in (q, k, v)])
        both = ([torch.cat(pair, 1) for pair in zip(*each, strict=True)] for each in zip(*projected, strict=True))
        joint = attend(*both)
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
        projected = self.field.project(modulate(self.field.norm(x), sizes, m[0], m[1]), layout.field_angles)
        x = gated(x, sizes, m[2], self.field.out(join(attend(*(split(each, sizes) for each in projected)))))
        x = self._cross(x, c, vector, layout)
        return gated(x, sizes, m[5], self.field.mlp(modulate(self.field.norm(x), sizes, m[3], m[4]))), c

    def _cross(self, x: Tensor, c: Tensor, vector: Tensor, layout: "Layout") -> Tensor:
        shift, scale, gate = self.modulation(vector).chunk(3, -1)
        q = self.q(modulate(self.norm(x), layout.field, shift, scale)).unflatten(-1, (1, self.heads, -1))
        k, v = self.kv(self.norm(c)).unflatten(-1, (2, self.heads, -1)).split((1, 1), 1)
        q = _normalise(q, self.q_norm.weight, layout.field_angles)
        k = _normalise(k, self.k_norm.weight, layout.forcing_angles)
        queries, others = split(q.squeeze(1), layout.field), (split(each.squeeze(1), layout.forcing) for each in (k, v))
        return gated(x, layout.field, gate, self.out(join(attend(queries, *others))))


@dataclass(frozen=True)
class Layout:
    """Which rows are whose, and when they are.

    Attributes:
        field: (batch, tokens) of the field tokens of each part.
        forcing: The same of the forcing tokens.
        field_angles: Rotary cosine and sine of each field row (row, 1, 1, width / head / 2).
        forcing_angles: The same of each forcing row.
    """

    field: Sizes
    forcing: Sizes
    field_angles: tuple[Tensor, Tensor]
    forcing_angles: tuple[Tensor, Tensor]


def _normalise(x: Tensor, weight: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Root mean square 1 along the last axis of (row, projection, head, width / head), times weight, rotated in time."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = torch.rsqrt(size.square() / x.shape[-1] + torch.finfo(torch.float32).eps)
    return rotate(x * (inverse * weight).to(x), *angles)


def _zero_linear(width: int, out: int) -> nn.Linear:
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
