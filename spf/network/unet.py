"""A plain UNet on the latitude-longitude grid: maps in, maps out, no noise. The deterministic baseline."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_PER_GROUP = 16


class GlobeConv(nn.Conv2d):
    """A convolution (edge odd) that keeps the grid: periodic in longitude, zeros beyond the poles."""

    def __init__(self, n_in: int, n_out: int, edge: int = 3) -> None:
        super().__init__(n_in, n_out, edge, padding=(edge // 2, 0))
        self.margin = edge // 2

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, lat, lon) -> the same grid."""
        if self.margin:  # one copy; F.pad in circular mode took a quarter of the training time
            x = torch.cat([x[..., -self.margin :], x, x[..., : self.margin]], -1)
        return super().forward(x)


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU, convolution, added to the input.

    Norms stand on the branch only: the sum keeps the level of its input, which a spatially constant forcing lives in.
    """

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _norm(n_in), nn.SiLU(), GlobeConv(n_in, n_out),
            _norm(n_out), nn.SiLU(), nn.Dropout2d(dropout), GlobeConv(n_out, n_out),
        )  # fmt: skip
        self.skip = nn.Identity() if n_in == n_out else GlobeConv(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, lat, lon) -> (batch, n_out, lat, lon)."""
        return self.skip(x) + self.branch(x)


class UNet(nn.Module):
    """Maps to maps: blocks on grids halved ``levels - 1`` times and back, with a skip at every level.

    Untrained it answers zero. A roll of the inputs in longitude by a multiple of 2^(levels - 1) cells rolls the outputs.

    Args:
        n_inputs: Channels in.
        n_outputs: Channels out.
        width: Channels of the full grid; each level below has twice as many.
        levels: Grids.
        dropout: Share of channels dropped in each block while training.
    """

    def __init__(self, n_inputs: int, n_outputs: int, width: int = 32, levels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(levels)]
        self.levels = levels
        self.embed = GlobeConv(n_inputs, width)
        self.down = nn.ModuleList(
            ResidualBlock(n_in, n_out, dropout) for n_in, n_out in zip([width, *sizes[:-1]], sizes, strict=True)
        )
        self.up = nn.ModuleList(
            ResidualBlock(below + size, size, dropout) for below, size in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.head = GlobeConv(width, n_outputs)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs, lat, lon) -> (batch, n_outputs, lat, lon).

        Raises:
            ValueError: If the grid cannot be halved often enough.
        """
        check_grid(x.shape[-2], x.shape[-1], self.levels)
        x, kept = self.embed(x), []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], 1))
        return self.head(x)


def check_grid(n_lat: int, n_lon: int, levels: int) -> None:
    """Refuse a grid that cannot be halved ``levels - 1`` times; padding would break the circle of longitudes.

    Raises:
        ValueError: Naming the grid and what it must be divisible by.
    """
    factor = 2 ** (levels - 1)
    if n_lat % factor or n_lon % factor:
        raise ValueError(
            f"UNet of {levels} levels: grid {n_lat}x{n_lon} is not divisible by {factor}; choose another data.grid"
        )


def _norm(channels: int) -> nn.GroupNorm:
    groups = max(1, channels // CHANNELS_PER_GROUP)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)
