"""Training runs of several Earth system models: numbered, and seen in marginals of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from spf.codec import FieldCodec
from spf.learning.data import TrainingRun, Windows, open_training_runs
from spf.learning.measure import measure_marginals
from spf.pyramid.spec import PyramidSpec, Stage
from spf.sources import UNKNOWN, Scenarios, Source


def open_runs(scenarios: Mapping[str, Scenarios], codecs: Mapping[str, FieldCodec]) -> tuple[TrainingRun, ...]:
    """All members of all sources as training runs.

    Args:
        scenarios: Canonical monthly Datasets by source_id and scenario.
        codecs: Of `fit_codecs`.

    Returns:
        Runs with sources numbered from 1 in the order of ``codecs``; a single source has no number.
    """
    first = 1 if len(codecs) > 1 else UNKNOWN
    numbered = enumerate(codecs.items(), first)
    return tuple(run for number, (s, codec) in numbered for run in open_training_runs(scenarios[s], codec, number))


@dataclass(frozen=True)
class WindowsOfSources(Windows):
    """Windows of runs of several sources, each in the marginals of its source.

    Attributes:
        of: Windows of each source by its number; ``marginals`` are those of the first.
    """

    of: Mapping[int, Windows]

    def fields(self, run: TrainingRun, stage: Stage, start: int, steps: int, anchor: int) -> tuple[Tensor, Tensor]:
        """Normalised fields and their repeated parents, (var, step, lat, lon) each."""
        return self.of[run.source].fields(run, stage, start, steps, anchor)


def measure_windows(
    runs: Sequence[TrainingRun], spec: PyramidSpec, row_weights: Tensor, progress: bool = False, growth: bool = True
) -> Windows:
    """Windows with marginals measured on the runs, source by source: departures of each are about standard normal in every cell."""
    numbers = sorted({run.source for run in runs})
    by_source = {n: [r for r in runs if r.source == n] for n in numbers}
    of = {
        n: Windows(spec, row_weights, measure_marginals(own, spec, row_weights, progress, growth))
        for n, own in by_source.items()
    }
    first = of[numbers[0]]
    return first if numbers == [UNKNOWN] else WindowsOfSources(spec, row_weights, first.marginals, of)


def learned_sources(codecs: Mapping[str, FieldCodec], windows: Windows, runs: Sequence[TrainingRun]) -> list[Source]:
    """What a checkpoint keeps of each numbered source; nothing where sources have no numbers.

    Args:
        codecs: By source_id, in the order of the numbers.
        windows: Of `measure_windows`.
        runs: All of them, also those that are held out.

    Raises:
        ValueError: If there are other codecs than numbers.
    """
    of = windows.of if isinstance(windows, WindowsOfSources) else {}
    if sorted(of) != list(range(1, len(codecs) + 1)) and (of or len(codecs) > 1):
        raise ValueError(f"{len(codecs)} codecs ({', '.join(codecs)}) for runs of the sources numbered {sorted(of)}")
    return [
        Source(source_id, codec, dict(of[number].marginals), members_of(runs, number))
        for number, (source_id, codec) in enumerate(codecs.items(), 1)
        if of
    ]


def members_of(runs: Sequence[TrainingRun], source: int) -> dict[str, list[str]]:
    """Members of a source by scenario."""
    members: dict[str, list[str]] = {}
    for run in runs:
        if run.source == source:
            members.setdefault(run.scenario, []).append(run.member)
    return members
