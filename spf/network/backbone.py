"""The one network of all stages and timescales: a stage-conditioned MM-DiT over field and forcing tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spf.config import NetworkConfig
from spf.interfaces import Condition
from spf.network.layers import JointBlock, modulate, rotary, sinusoid, sphere_positions
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.prior import Coupling, Prior
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage

CALENDAR_IDS = 23  # decade 0, months 1-12, year in decade 13-22


class Backbone(nn.Module):
    """Predicts a stage's path target from the state, its noise level and its forcings.

    Args:
        config: Size.
        spec: The pyramid.
        couplings: Measured per stage key; the untrained network is the answer of a Gaussian world (see `prior`).
        lat_deg: Latitudes of the full grid, ascending.
        lon_deg: Longitudes of the full grid.
        n_fields: Number of variables.
        n_forcings: Number of forcing channels.

    Raises:
        ValueError: If patches do not tile the coarsest grid.
    """

    def __init__(
        self,
        config: NetworkConfig,
        spec: PyramidSpec,
        couplings: dict[str, Coupling],
        lat_deg: Sequence[float],
        lon_deg: Sequence[float],
        n_fields: int,
        n_forcings: int,
    ) -> None:
        super().__init__()
        coarse = (len(lat_deg) // spec.pooling[0], len(lon_deg) // spec.pooling[0])
        for name, patch in (("patch", config.patch), ("forcing_patch", config.forcing_patch)):
            if coarse[0] % patch or coarse[1] % patch:
                raise ValueError(
                    f"network.{name} {patch} does not tile the coarsest grid {coarse[0]}x{coarse[1]}; choose a divisor"
                )
        self.config, self.spec, self.n_fields = config, spec, n_fields
        self.priors = nn.ModuleDict({key: Prior(stage, couplings[key]) for key, stage in spec.stages().items()})
        self.lat, self.lon = torch.tensor(lat_deg), torch.tensor(lon_deg)
        self._codes: dict[tuple[int, int, int], Tensor] = {}  # constants, made once per shape
        width, p, q = config.width, config.patch, config.forcing_patch
        self.embed = nn.Linear(n_fields * p * p, width)
        self.embed_forcing = nn.Linear(n_forcings * q * q, width)
        self.calendar = nn.Embedding(CALENDAR_IDS, width)
        self.stage = nn.Embedding(len(spec.pooling), width)
        self.timescale = nn.Embedding(len(MONTHS_IN), width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(JointBlock(width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, n_fields * p * p)
        for layer in (self.final, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition) -> Tensor:
        """State (batch, var, time, lat, lon), flow time (batch,) -> path target of the same shape, float32."""
        with torch.autocast(x.device.type, enabled=False):
            prior = self.priors[stage.key](x.float(), t, condition.phase)
        return prior + self._correction(x, t, stage, condition).float()

    def velocity(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition | None) -> Tensor:
        """dx/dt for the sampler (the `Velocity` protocol)."""
        if condition is None:
            raise ValueError("the learned velocity needs forcings")
        return noise_fall(stage) * self(x, t, stage, condition)

    def _correction(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition) -> Tensor:
        p, q = self.config.patch, self.config.forcing_patch
        frames = x.shape[2]
        grid = (x.shape[3] // p, x.shape[4] // p)
        forcing_grid = (condition.forcings.shape[3] // q, condition.forcings.shape[4] // q)
        calendar = self.calendar(condition.calendar)
        tokens = self.embed(patchify(x, p)) + self._place(grid, frames, x.device)
        tokens = (tokens.unflatten(1, (frames, -1)) + calendar[:, :, None]).flatten(1, 2)
        forcing = self.embed_forcing(patchify(condition.forcings, q)) + self._place(forcing_grid, frames, x.device)
        vector = self._vector(t, stage, x.device)
        step = torch.arange(frames, device=x.device)
        head_width = self.config.width // self.config.heads
        x_angles = rotary(step.repeat_interleave(grid[0] * grid[1]), head_width)
        c_angles = rotary(step.repeat_interleave(forcing_grid[0] * forcing_grid[1]), head_width)
        for block in self.blocks:
            tokens, forcing = block(tokens, forcing, vector, x_angles, c_angles)
        shift, scale = self.final(nn.functional.silu(vector)).chunk(2, -1)
        out = self.head(modulate(self.norm(tokens), shift, scale))
        return unpatchify(out, p, self.n_fields, frames, grid)

    def _vector(self, t: Tensor, stage: Stage, device: torch.device) -> Tensor:
        level = self.level(sinusoid(1000 * noise_level(t, stage).to(device), self.config.width))
        stage_id = torch.tensor(stage.index, device=device)
        scale_id = torch.tensor(list(MONTHS_IN).index(stage.timescale), device=device)
        return level + self.stage(stage_id) + self.timescale(scale_id)

    def _place(self, grid: tuple[int, int], frames: int, device: torch.device) -> Tensor:
        """Position codes of all tokens, frame after frame: (time x token, width)."""
        key = (*grid, frames)
        if key not in self._codes:
            lat, lon = self.lat.reshape(grid[0], -1).mean(-1), self.lon.reshape(grid[1], -1).mean(-1)
            self._codes[key] = sphere_positions(lat, lon, self.config.width).repeat(frames, 1).to(device)
        return self._codes[key]


def patchify(x: Tensor, p: int) -> Tensor:
    """(batch, var, time, lat, lon) -> tokens (batch, time x lat/p x lon/p, var p p)."""
    b, v, t, h, w = x.shape
    x = x.reshape(b, v, t, h // p, p, w // p, p)
    return x.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, t * (h // p) * (w // p), v * p * p)


def unpatchify(tokens: Tensor, p: int, n_fields: int, frames: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`."""
    b = tokens.shape[0]
    x = tokens.reshape(b, frames, grid[0], grid[1], n_fields, p, p)
    return x.permute(0, 4, 1, 2, 5, 3, 6).reshape(b, n_fields, frames, grid[0] * p, grid[1] * p)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
