"""A small vision transformer in the manner of ClimaX: every map is cut into tokens of its own, which attention then gathers.

Written from the description by Nguyen et al. (2023), arXiv 2301.10343: tokens per variable, cross-attention over variables with a
learned query, a pre-norm transformer over places, a small MLP that draws each patch. Without its pretraining and its embedding of
lead time: one year's forcings give the same year's fields.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spf.network.backbone import patchify, unpatchify
from spf.network.layers import sphere_positions


class VariableTokens(nn.Module):
    """One token a variable and patch, each variable with its own projection, then one token a patch.

    Attention over variables keeps the cost of the transformer independent of their number.
    """

    def __init__(self, n_inputs: int, width: int, heads: int, patch: int) -> None:
        super().__init__()
        self.n_inputs, self.patch = n_inputs, patch
        self.weight = nn.Parameter(torch.empty(n_inputs, patch**2, width))
        self.name = nn.Parameter(torch.empty(n_inputs, width))
        self.query = nn.Parameter(torch.empty(1, width))
        self.gather = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.normal_(self.weight, std=1 / patch)
        for parameter in (self.name, self.query):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs, lat, lon) -> (batch, patch, width), patches row by row."""
        batch = x.shape[0]
        cut = patchify(x[:, :, None], self.patch).unflatten(-1, (self.n_inputs, -1))
        tokens = torch.einsum("bnvp,vpd->bnvd", cut, self.weight) + self.name
        query = self.query.expand(tokens.shape[0] * tokens.shape[1], -1, -1)
        every = tokens.flatten(0, 1)
        return self.gather(query, every, every, need_weights=False)[0].reshape(batch, -1, self.query.shape[-1])


class ClimaX(nn.Module):
    """Maps to maps. Untrained it answers zero.

    Args:
        n_inputs: Channels in.
        n_outputs: Channels out.
        lat_deg: Latitudes of the grid, ascending.
        lon_deg: Longitudes of the grid.
        width: Of a token.
        depth: Blocks of the transformer.
        heads: Attention heads.
        patch: Cells along an edge of a token.
        dropout: Share of activations dropped while training.

    Raises:
        ValueError: If patches do not tile the grid.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        lat_deg: Sequence[float],
        lon_deg: Sequence[float],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_patch(len(lat_deg), len(lon_deg), patch)
        self.n_outputs, self.patch = n_outputs, patch
        self.grid = (len(lat_deg) // patch, len(lon_deg) // patch)
        lat, lon = (
            torch.tensor(list(axis)).reshape(n, -1).mean(-1)
            for axis, n in zip((lat_deg, lon_deg), self.grid, strict=True)
        )
        self.embed = VariableTokens(n_inputs, width, heads, patch)
        self.place = nn.Parameter(sphere_positions(lat, lon, width))
        self.blocks = nn.Sequential(*(_block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, n_outputs * patch**2))
        for parameter in self.head[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs, lat, lon) -> (batch, n_outputs, lat, lon)."""
        tokens = self.norm(self.blocks(self.embed(x) + self.place))
        return unpatchify(self.head(tokens), self.patch, self.n_outputs, 1, self.grid)[:, :, 0]


def check_patch(n_lat: int, n_lon: int, patch: int) -> None:
    """Refuse a grid that patches do not tile.

    Raises:
        ValueError: Naming the grid and the patch.
    """
    if n_lat % patch or n_lon % patch:
        raise ValueError(f"ClimaX: grid {n_lat}x{n_lon} is not divisible by patch {patch}; choose another data.grid")


def _block(width: int, heads: int, dropout: float) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
    )
