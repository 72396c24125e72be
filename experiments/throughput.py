"""How fast networks with random weights train and draw on this machine, and the memory it takes (see `cost.py`)."""

import math
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from spf.config import NetworkConfig, SamplingConfig
from spf.cost import CostModel
from spf.interfaces import Condition
from spf.network.backbone import Backbone, Part
from spf.precision import native_precision
from spf.pyramid.coupling import white_coupling
from spf.pyramid.noise import SeededNoise
from spf.pyramid.spec import PyramidSpec, Stage
from spf.pyramid.windows import Segment, Tile, calendar_ids
from spf.sampling.plan import plan_windows
from spf.sampling.sampler import cascade, windows_in

N_FIELDS, N_FORCINGS, FORCING_POOLING = 2, 4, 4
YEARS, CALLS = (2015, 2024), 20
"""What is drawn, and calls of each stage where methods are compared."""


@dataclass(frozen=True)
class Setting:
    """A grid and a network.

    Attributes:
        grid: Rows and columns.
        network: Size.
    """

    grid: tuple[int, int]
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(patch=(6, 6, 12)))

    def model(self, spec: PyramidSpec) -> CostModel:
        """What counts its operations."""
        return CostModel(spec, self.network, self.grid, forcing_pooling=FORCING_POOLING)

    def backbone(self) -> Backbone:
        """The network with random weights."""
        torch.manual_seed(0)
        spec, (n_lat, n_lon) = PyramidSpec(), self.grid
        couplings = {
            key: white_coupling(s, N_FIELDS, (n_lat // s.pooling, n_lon // s.pooling))
            for key, s in spec.stages().items()
        }
        lat = [-90 + (i + 0.5) * 180 / n_lat for i in range(n_lat)]
        lon = [i * 360 / n_lon for i in range(n_lon)]
        net = Backbone(self.network, spec, couplings, lat, lon, N_FIELDS, N_FORCINGS, forcing_pooling=FORCING_POOLING)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.02)
        return net

    def windows(self, stage: Stage, steps: int, batch: int = 1) -> Part:
        """Random windows and their conditions."""
        n_lat, n_lon = self.grid
        cells = (n_lat // stage.pooling, n_lon // stage.pooling)
        forcings = torch.randn(batch, N_FORCINGS, steps, n_lat // FORCING_POOLING, n_lon // FORCING_POOLING)
        calendar = calendar_ids(stage.timescale, 0, steps, 0).expand(batch, steps)
        return (
            torch.randn(batch, N_FIELDS, steps, *cells), torch.rand(batch), stage, Condition(forcings, calendar),
        )  # fmt: skip

    def forcing_tokens(self) -> int:
        """Of one step."""
        return math.prod(n // (FORCING_POOLING * self.network.forcing_patch) for n in self.grid)


def counter() -> FlopCounterMode:
    """Counts operations as torch does, and those of attention on the CPU, which torch's counter does not see."""
    ops = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            ops._scaled_dot_product_flash_attention_for_cpu: _attention,
            ops._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(
    grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


def autocast() -> AbstractContextManager[Any]:
    """The precision in which networks run on this machine."""
    return torch.autocast("cpu", torch.bfloat16, native_precision() == "bf16-mixed")


def compute_dtype() -> torch.dtype:
    """Of the matrix products."""
    return torch.bfloat16 if native_precision() == "bf16-mixed" else torch.float32


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def segments_of(spec: PyramidSpec, timescale: str) -> tuple[Segment, ...]:
    """The stages' segments of the ten years."""
    return plan_windows(spec, timescale, YEARS, YEARS, YEARS[0], (CALLS,) * len(spec.pooling)).segments


def training(setting: Setting, windows: int = 12, steps: int = 5, size: int = 2048) -> dict[str, Any]:
    """Forward, backward and AdamW on month windows with their halo, and matrix products alternately with them.

    Operations are those counted, the scores that attention's gradient computes anew among them.

    Args:
        setting: Grid and network.
        windows: In a batch.
        steps: Optimiser steps that are timed.
        size: Of the square matrices whose product gives the machine's peak.
    """
    net, stage = setting.backbone().train(), PyramidSpec().stages()["2-month"]
    length = PyramidSpec().core["month"] + 2 * PyramidSpec().halo["month"]
    part, optimizer = setting.windows(stage, length, windows), torch.optim.AdamW(net.parameters(), lr=1e-4)
    target, (a, b) = torch.randn_like(part[0]), torch.randn(2, size, size).to(compute_dtype())

    def step() -> None:
        with autocast():
            loss = (net(*part) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def product() -> Tensor:
        return torch.mm(a, b)

    with counter() as counted:
        step()
    product()
    pairs = [(timed(step), min(timed(product) for _ in range(3))) for _ in range(steps)]
    duration, fastest = statistics.median(s for s, _ in pairs), min(p for _, p in pairs)
    fields = windows * length * setting.model(PyramidSpec()).frame_tokens(1)
    flops, peak = counted.get_total_flops() / duration, 2 * size**3 / fastest
    return {
        "windows": windows, "steps_of_a_window": length, "precision": native_precision(), "seconds_a_step": duration,
        "field_tokens_per_s": fields / duration,
        "tokens_per_s": (fields + windows * length * setting.forcing_tokens()) / duration,
        "gflop_a_step": counted.get_total_flops() / 1e9, "gflop_per_s": flops / 1e9, "mm_gflop_per_s": peak / 1e9,
        "share_of_mm": flops / peak, "peak_bytes": peak_bytes(),
    }  # fmt: skip


@torch.inference_mode()
def sampling(setting: Setting, members: int = 2) -> dict[str, Any]:
    """Ten years of months, solved as `SamplingConfig` says, noise and jumps included; a field is a variable's map of a month."""
    net, spec, how = setting.backbone().eval(), PyramidSpec(), SamplingConfig()
    segments, stages = segments_of(spec, "month"), spec.path("month")

    def condition(stage: Stage, segment: Segment, group: Sequence[Tile]) -> Condition:
        return setting.windows(stage, group[0].end - group[0].begin, len(group))[3]

    def draw() -> None:
        with autocast():
            cascade(
                spec, "month", segments, net.velocity, SeededNoise(0), condition, range(members),
                (N_FIELDS, *setting.grid), how.steps(len(stages)), how.batch,
            )  # fmt: skip

    duration = timed(draw)
    n = members * N_FIELDS * 120
    return {
        "members": members, "solver": how.solver, "n_steps": how.n_steps, "batch": how.batch,
        "windows": windows_in(spec, "month", segments), "fields": n, "seconds": duration, "fields_per_s": n / duration,
        "peak_bytes": peak_bytes(),
    }  # fmt: skip


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
