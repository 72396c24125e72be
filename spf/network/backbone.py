"""The one network of all stages and timescales: a stage-conditioned MM-DiT over field and forcing tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spf.config import NetworkConfig
from spf.interfaces import Condition
from spf.network.layers import CrossBlock, JointBlock, Layout, join, modulate, rotary, sinusoid, sphere_positions, split
from spf.pyramid.coupling import Coupling
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.prior import Prior
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import CALENDAR_IDS

TIMESCALES = tuple(MONTHS_IN)

Part = tuple[Tensor, Tensor, Stage, Condition]
"""A batch of windows of one stage: state (batch, var, time, lat, lon), flow time (batch,), stage, condition."""


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
        n_sources: Number of Earth system models that are told apart; 0 tells none apart.
        forcing_pooling: Factor between the forcings' grid and the full grid.

    Raises:
        ValueError: If patches do not tile their grids.
    """

    kind = "pyramid"
    """Named in checkpoints, so that no emulator of another kind reads them."""

    def __init__(
        self,
        config: NetworkConfig,
        spec: PyramidSpec,
        couplings: dict[str, Coupling],
        lat_deg: Sequence[float],
        lon_deg: Sequence[float],
        n_fields: int,
        n_forcings: int,
        n_sources: int = 0,
        forcing_pooling: int = 4,
    ) -> None:
        super().__init__()
        self.config, self.spec, self.n_fields = config, spec, n_fields
        self.patches = config.patches(len(spec.pooling))
        tiled = [("patch", p, f) for p, f in zip(self.patches, spec.pooling, strict=True)]
        for name, patch, factor in [*tiled, ("forcing_patch", config.forcing_patch, forcing_pooling)]:
            grid = (len(lat_deg) // factor, len(lon_deg) // factor)
            if grid[0] % patch or grid[1] % patch:
                coarsest = "coarsest grid" if factor == spec.pooling[0] else "grid"
                which = "forcings' grid" if name == "forcing_patch" else coarsest
                raise ValueError(
                    f"network.{name} {patch} does not tile the {which} {grid[0]}x{grid[1]}; choose a divisor"
                )
        self.priors = nn.ModuleDict({key: Prior(stage, couplings[key]) for key, stage in spec.stages().items()})
        width, q = config.width, config.forcing_patch
        lat, lon = torch.tensor(lat_deg), torch.tensor(lon_deg)
        # constants of the grids: they follow the module to its device and stay out of checkpoints
        blocks = {f"place_{k}": f * p for k, (f, p) in enumerate(zip(spec.pooling, self.patches, strict=True))}
        for name, block in {**blocks, "place": forcing_pooling * q}.items():
            code = sphere_positions(lat.reshape(-1, block).mean(-1), lon.reshape(-1, block).mean(-1), width)
            self.register_buffer(name, code, persistent=False)
        self.place: Tensor
        sizes = sorted(set(self.patches))
        self.embed = nn.ModuleDict({str(p): nn.Linear(n_fields * p * p, width) for p in sizes})
        self.embed_forcing = nn.Linear(n_forcings * q * q, width)
        self.calendar = nn.Embedding(CALENDAR_IDS, width)
        self.stage = nn.Embedding(len(spec.pooling), width)
        self.timescale = nn.Embedding(len(TIMESCALES), width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.source = nn.Embedding(n_sources + 1, width) if n_sources else None
        block_type = CrossBlock if config.attention == "cross" else JointBlock
        self.blocks = nn.ModuleList(block_type(width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.head = nn.ModuleDict({str(p): nn.Linear(width, n_fields * p * p) for p in sizes})
        for parameter in (*self.final.parameters(), *self.head.parameters()):
            nn.init.zeros_(parameter)
        if self.source is not None:
            nn.init.zeros_(self.source.weight)

    def forward(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition) -> Tensor:
        """State (batch, var, time, lat, lon), flow time (batch,) -> path target of the same shape, float32."""
        return self.packed([(x, t, stage, condition)])[0]

    def packed(self, parts: Sequence[Part]) -> list[Tensor]:
        """The answers to several batches of windows, of any stages and lengths, in one call.

        Token-wise layers run once over the tokens of all parts, without padding; windows do not see each other.

        Returns:
            The path target of each part, float32.
        """
        with torch.autocast(parts[0][0].device.type, enabled=False):
            priors = [self.priors[stage.key](x.float(), t, c.phase) for x, t, stage, c in parts]
        return [prior + out.float() for prior, out in zip(priors, self._corrections(parts), strict=True)]

    def velocity(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition | None) -> Tensor:
        """dx/dt for the sampler (the `Velocity` protocol)."""
        if condition is None:
            raise ValueError("the learned velocity needs forcings")
        return noise_fall(stage) * self(x, t, stage, condition)

    def _corrections(self, parts: Sequence[Part]) -> list[Tensor]:
        fields, forcings = self._field_tokens(parts), self._forcing_tokens(parts)
        layout = self._layout(parts, fields, forcings)
        x, c = join(fields), join(forcings)
        vector = nn.functional.silu(torch.cat([self._vector(t, stage, condition) for _, t, stage, condition in parts]))
        recompute = self.config.checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:
                x, c = checkpoint(block, x, c, vector, layout, use_reentrant=False)
            else:
                x, c = block(x, c, vector, layout)
        shift, scale = self.final(vector).chunk(2, -1)
        outs = split(modulate(self.norm(x), layout.field, shift, scale), layout.field)
        answers = []
        for out, (state, _, stage, _) in zip(outs, parts, strict=True):
            p = self.patches[stage.index]
            grid = (state.shape[3] // p, state.shape[4] // p)
            answers.append(unpatchify(self.head[str(p)](out), p, self.n_fields, state.shape[2], grid))
        return answers

    def _field_tokens(self, parts: Sequence[Part]) -> list[Tensor]:
        """Embedded fields with their place and calendar, (batch, time x token, width) of each part."""
        tokens = []
        for x, _, stage, condition in parts:
            p = self.patches[stage.index]
            cut = self.embed[str(p)](patchify(x, p)).unflatten(1, (x.shape[2], -1))
            tokens.append((cut + getattr(self, f"place_{stage.index}") + self._when(condition)).flatten(1, 2))
        return tokens

    def _forcing_tokens(self, parts: Sequence[Part]) -> list[Tensor]:
        """Embedded forcings with their place, (batch, time x token, width) of each part."""
        cut = [patchify(c.forcings, self.config.forcing_patch) for *_, c in parts]
        tokens = split(self.embed_forcing(join(cut)), [(len(each), each.shape[1]) for each in cut])
        frames = [c.forcings.shape[2] for *_, c in parts]
        return [(x.unflatten(1, (n, -1)) + self.place).flatten(1, 2) for x, n in zip(tokens, frames, strict=True)]

    def _when(self, condition: Condition) -> Tensor:
        return self.calendar(condition.calendar)[:, :, None]

    def _layout(self, parts: Sequence[Part], fields: Sequence[Tensor], forcings: Sequence[Tensor]) -> Layout:
        sizes = [[(each.shape[0], each.shape[1]) for each in stream] for stream in (fields, forcings)]
        frames = [x.shape[2] for x, *_ in parts]
        return Layout(sizes[0], sizes[1], *(self._angles(each, frames, fields[0].device) for each in sizes))

    def _angles(
        self, sizes: Sequence[tuple[int, int]], frames: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Rotary cosine and signed sine of each row, by its frame in its window."""
        each = zip(sizes, frames, strict=True)
        steps = [torch.arange(n, device=device).repeat_interleave(size[1] // n).repeat(size[0]) for size, n in each]
        cos, sin = rotary(torch.cat(steps), self.config.width // self.config.heads)
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        return cos[:, None, None].to(dtype), sin[:, None, None].to(dtype)

    def _vector(self, t: Tensor, stage: Stage, condition: Condition) -> Tensor:
        """What a window's tokens are modulated by (batch, width)."""
        level = self.level(sinusoid(1000 * noise_level(t, stage).to(self.place.device), self.config.width))
        vector = level + self.stage.weight[stage.index] + self.timescale.weight[TIMESCALES.index(stage.timescale)]
        if self.source is None:
            return vector
        unknown = torch.zeros(len(t), dtype=torch.long, device=vector.device)
        return vector + self.source(unknown if condition.source is None else condition.source)


def drop_sources(source: Tensor, generator: torch.Generator, share: float = 0.1) -> Tensor:
    """Numbers of Earth system models (batch,), a share of them set to 0, unknown, so that the network also learns to do without."""
    drawn = torch.rand(source.shape, generator=generator, device=generator.device).to(source.device)
    return source.where(drawn >= share, 0)


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
