"""Which members a process draws when several draw one ensemble, and how long it waits for the others."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from climatesuite.errors import DataContractError

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 3600.0
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
"""Not SLURM_NTASKS: a batch script has it too, where a command without srun is one process, not the first of several."""


@dataclass(frozen=True)
class Share:
    """One of ``world`` processes that draw one ensemble; they share its members by number.

    Attributes:
        rank: Of this process, 0 to ``world`` - 1; rank 0 makes and publishes the file.
        world: Number of processes on all nodes.
        local_rank: Of this process on its node; picks the accelerator.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.local_rank < 0:
            raise DataContractError(
                "RANK, WORLD_SIZE and LOCAL_RANK", f"{self.rank}, {self.world} and {self.local_rank}",
                "ranks that count from 0 to WORLD_SIZE - 1", "start with torchrun or srun, or unset them",
            )  # fmt: skip

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Share":
        """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK, or srun in its own variables; alone without either.

        Raises:
            DataContractError: If the rank is set and the others do not fit it.
        """
        told = os.environ if environ is None else environ
        if "RANK" not in told and not all(name in told for name in SRUN[:2]):
            return ALONE
        rank, world, local = names = TORCHRUN if "RANK" in told else SRUN
        texts = (told[rank], told.get(world, ""), told.get(local, "0"))
        if not all(text.isdigit() for text in texts):
            raise DataContractError(
                "{}, {} and {}".format(*names), ", ".join(map(repr, texts)), "three whole numbers",
                "start with torchrun or srun, or unset them",
            )  # fmt: skip
        return cls(*map(int, texts))

    def of(self, groups: Sequence[Sequence[int]]) -> list[int]:
        """The members that this process draws; those that go through the network together stay together."""
        return [m for group in groups[self.rank :: self.world] for m in group]

    def device(self) -> torch.device:
        """This process's accelerator, the processor where there is none; processes beyond the accelerators double up."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())


ALONE = Share()


def wait_for(left: Callable[[], Sequence[str]], subject: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until nothing is left.

    Args:
        left: What other processes still owe, in words.
        subject: Of the error.
        patience: Seconds without any change after which waiting ends.

    Raises:
        DataContractError: If nothing changed for so long.
    """
    before, since = list(left()), time.monotonic()
    while before:
        time.sleep(POLL_SECONDS)
        now = list(left())
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            some = ", ".join(now[:5]) + (f" and {len(now) - 5} more" if len(now) > 5 else "")
            raise DataContractError(
                subject, f"nothing new for {patience / 60:g} minutes, without {some}", "these from the other processes",
                "see what stopped them; the same command goes on where this one stopped",
            )  # fmt: skip
