"""Several batches of different stages in one optimiser step."""

import copy
from collections.abc import Iterator

from torch.utils.data import IterableDataset

from spf.learning.data import Batch, WindowStream


class PackedStream(IterableDataset[tuple[Batch, ...]]):
    """An endless stream of steps of ``parts`` batches; step i holds the stream's batches i parts ... (i + 1) parts - 1.

    So step i depends on (seed, rank, i) alone, as a batch of the stream does, and a resumed stream is the same stream. A batch
    holds at least one window: where a window has more tokens than a part may, the step exceeds the budget.

    Args:
        stream: Makes the batches, from now on of ``tokens_per_step / parts`` tokens.
        parts: Batches in a step.
    """

    def __init__(self, stream: WindowStream, parts: int) -> None:
        super().__init__()
        self.parts, self.start_step, self.rank = parts, stream.start_step, stream.rank
        self._stream = copy.copy(stream)
        self._stream.tokens_per_step = stream.tokens_per_step // parts

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> tuple[Batch, ...]:
        """The batches of step number ``step``."""
        self._stream.rank = self.rank
        return tuple(self._stream.batch(step * self.parts + part) for part in range(self.parts))
