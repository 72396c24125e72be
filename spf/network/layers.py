"""Small building blocks: position codes on the sphere, rotary time, two-stream attention."""

import math

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
    """Apply rotary angles to (batch, head, token, width)."""
    first, second = x.chunk(2, -1)
    cos, sin = cos.to(x), sin.to(x)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens (batch, token, width) by per-sample vectors (batch, width)."""
    return x * (1 + scale[:, None]) + shift[:, None]


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
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def project(
        self, x: Tensor, shift: Tensor, scale: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (batch, head, token, width / head) of modulated, normalised tokens."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(modulate(self.norm(x), shift, scale)).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = (
            F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype)) for x, norm in ((q, self.q_norm), (k, self.k_norm))
        )
        return rotate(q, cos, sin), rotate(k, cos, sin), v


class JointBlock(nn.Module):
    """MM-DiT block: field and forcing tokens keep their own weights and meet in one attention."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.field = Stream(width, heads, mlp_ratio)
        self.forcing = Stream(width, heads, mlp_ratio)

    def forward(
        self, x: Tensor, c: Tensor, vector: Tensor, x_angles: tuple[Tensor, Tensor], c_angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Field tokens x (batch, token, width), forcing tokens c, conditioning vector (batch, width) -> both, updated."""
        mx = self.field.modulation(F.silu(vector)).chunk(6, -1)
        mc = self.forcing.modulation(F.silu(vector)).chunk(6, -1)
        qx, kx, vx = self.field.project(x, mx[0], mx[1], *x_angles)
        qc, kc, vc = self.forcing.project(c, mc[0], mc[1], *c_angles)
        joint = F.scaled_dot_product_attention(torch.cat([qx, qc], 2), torch.cat([kx, kc], 2), torch.cat([vx, vc], 2))
        joint = joint.transpose(1, 2).flatten(2)
        ax, ac = joint[:, : x.shape[1]], joint[:, x.shape[1] :]
        x = self._finish(self.field, x, ax, mx)
        c = self._finish(self.forcing, c, ac, mc)
        return x, c

    @staticmethod
    def _finish(stream: Stream, x: Tensor, attended: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        x = x + m[2][:, None] * stream.out(attended)
        return x + m[5][:, None] * stream.mlp(modulate(stream.norm(x), m[3], m[4]))
