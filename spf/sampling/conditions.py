"""What windows are conditioned on, and how many calls a stage takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spf.config import SamplingConfig
from spf.interfaces import Condition
from spf.pyramid.spec import Stage
from spf.pyramid.windows import ForcingSeries, Segment, Tile, calendar_ids
from spf.sampling.sampler import phase_of
from spf.sampling.solvers import CALLS_PER_STEP
from spf.sources import UNKNOWN


@dataclass(frozen=True)
class Conditions:
    """Conditions of windows from a scenario's encoded forcings, all of one source."""

    series: ForcingSeries
    device: torch.device
    source: int = UNKNOWN

    def __call__(self, stage: Stage, segment: Segment, found: Sequence[Tile]) -> Condition:
        """One row a window; all windows are of one shape and place in their parents' blocks."""
        forcings, ids = [], []
        for tile in found:
            start, steps = segment.start + tile.begin * segment.months, tile.end - tile.begin
            forcings.append(self.series.window(stage.timescale, start, steps))
            ids.append(calendar_ids(stage.timescale, start, steps, segment.anchor))
        phase = phase_of(stage, segment, found[0])
        source = torch.full((len(found),), self.source, device=self.device) if self.source else None
        return Condition(torch.stack(forcings).to(self.device), torch.stack(ids).to(self.device), source, phase)


def calls_of(how: SamplingConfig, n_stages: int) -> list[int]:
    """Network calls of each stage."""
    return [s.n_steps * CALLS_PER_STEP[s.solver] for s in how.steps(n_stages)]
