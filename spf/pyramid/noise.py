"""Noise that belongs to a member and a window, never to a batch: member i is the same whatever is drawn beside it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf.pyramid.spec import Stage


@dataclass(frozen=True)
class SeededNoise:
    """Unit Gaussian noise keyed by (seed, stage, timescale, member, first label of the window)."""

    seed: int

    def __call__(self, shape: Sequence[int], stage: Stage, keys: Sequence[tuple[int, int]]) -> Tensor:
        """One field of ``shape`` per (member, window start), stacked: (len(keys), *shape), float32."""
        return torch.stack([torch.randn(tuple(shape), generator=self._generator(stage, key)) for key in keys])

    def _generator(self, stage: Stage, key: tuple[int, int]) -> torch.Generator:
        text = f"{self.seed}|{stage.key}|{key[0]}|{key[1]}".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
