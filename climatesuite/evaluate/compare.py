"""Several ensembles on the same cases: rows, paired differences, members beside real members."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.baselines.reference import Baseline
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.evaluate.rows import Comparison, Row
from climatesuite.evaluate.scoring import Prediction, check_cases, cut_to_truth, names_in, ordered, truth_at
from climatesuite.evaluate.structure_table import MIN_YEARS, structure_table
from climatesuite.store.open import only


@dataclass(frozen=True)
class Compared:
    """What a comparison found; ``as_json`` is the content of ``compare.json``.

    Attributes:
        rows: Score rows of floor, references and ensembles, see ``rows.FIELDS``.
        differences: Paired differences in CRPS, see ``rows.DIFFERENCE_FIELDS``.
        structure: Rows of the structure table by ensemble.
    """

    rows: list[Row]
    differences: list[Row]
    structure: dict[str, list[Row]]

    def as_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        return {"rows": self.rows, "differences": self.differences, "structure": self.structure}


def compare(
    predictions: Iterable[Prediction],
    truth: xr.Dataset | Mapping[str, xr.Dataset],
    references: Sequence[Baseline] = (),
    real: Sequence[xr.Dataset] = (),
    *,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    bootstrap: int = 1000,
    anomaly_base: Mapping[str, float] | None = None,
    commit: str | None = None,
) -> Compared:
    """Score ensembles on the steps that all of a timescale share, and hold their members against real ones.

    Args:
        predictions: Ensembles, each of one timescale; a model may come with several.
        truth: Canonical Dataset of N members, or one by timescale.
        references: Fitted baselines, scored exactly on the same steps.
        real: Canonical runs of real members, of any scenarios, for the structure table; none leaves it out.
        variables: Variables to score; all shared ones if None.
        decade_start: First year of a decade where the truth is coarsened.
        bootstrap: Draws of the block bootstrap; 0 for no intervals.
        anomaly_base: See ``scoring.score_datasets``.
        commit: Code commit to write into the rows.

    Raises:
        DataContractError: If nothing is given, two ensembles of a timescale have one name, or labels, grids or units differ.
    """
    given = list(predictions)
    if not given:
        raise DataContractError("comparison", "no ensembles", "one or more", "name ensemble files")
    taken = {b.name for b in references} & {p.model for p in given}
    if taken:
        raise DataContractError(
            "comparison", f"an ensemble named {taken.pop()} like a reference", "a name of its own", "rename its model"
        )
    rows, differences = [], []
    for timescale in [t for t in TIMESCALES if any(p.timescale == t for p in given)]:
        group = _common([p for p in given if p.timescale == timescale])
        whole = truth_at(truth, timescale, decade_start)
        cuts = [cut_to_truth(p, whole) for p in group]
        group, cut = [p for p, _ in cuts], cuts[0][1]
        names = names_in(variables, [cut, *[p.fields for p in group]], "the ensembles")
        for p in group:
            check_cases(names, p.fields, cut, p.model)
        shared = Comparison(timescale, cut, references, bootstrap, anomaly_base, commit)
        for name in names:
            rows += shared.reference_rows(name)
            for p in group:
                rows += shared.prediction_rows(p.model, p.fields, name, p.facts)
            differences += shared.difference_rows(name)
    return Compared(ordered(rows), differences, _structure(given, real, decade_start) if real else {})


def _common(group: Sequence[Prediction]) -> list[Prediction]:
    """Ensembles of one timescale cut to the steps that all of them hold."""
    names = [p.model for p in group]
    if len(set(names)) < len(names):
        raise DataContractError(
            f"comparison, {group[0].timescale}", f"ensembles named {', '.join(names)}", "different names",
            "give each file another global attribute model",
        )  # fmt: skip
    first = group[0].fields
    for other in group[1:]:
        first, _ = protocol.align(first, other.fields)
    return [replace(p, fields=protocol.align(p.fields, first)[0]) for p in group]


def _structure(
    predictions: Sequence[Prediction], real: Sequence[xr.Dataset], decade_start: int | None
) -> dict[str, list[Row]]:
    """Structure rows of every model that has years or months enough."""
    ensembles: dict[str, dict[str, xr.Dataset]] = {}
    for p in predictions:
        if p.timescale != "decade" and np.unique(p.fields["year"].values).size >= MIN_YEARS:
            ensembles.setdefault(p.model, {})[p.timescale] = p.fields
    out = {}
    for model, by_timescale in ensembles.items():
        names = [n for n in VARIABLES if all(n in ds for ds in [*by_timescale.values(), *real])]
        out[model] = structure_table(by_timescale, [only(ds, names) for ds in real], decade_start=decade_start)
    return out


def distinct(predictions: Sequence[Prediction], paths: Sequence[Path]) -> list[Prediction]:
    """Ensembles opened from files, named by file where two of a timescale state one model."""
    keys = [(p.model, p.timescale) for p in predictions]
    return [
        replace(p, model=f"{p.model} ({path.stem})") if keys.count(key) > 1 else p
        for p, path, key in zip(predictions, paths, keys, strict=True)
    ]
