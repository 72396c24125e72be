"""Scoring of ensembles, whoever made them: prediction files and truth files in, rows of ``scores.json`` out.

:func:`score` takes files, :func:`score_datasets` takes Datasets; both write a floor and the references into every table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.baselines.reference import Baseline, field_names
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.evaluate.rows import Comparison, Row
from climatesuite.evaluate.scores import area_mean
from climatesuite.evaluate.time_axis import check_time_shift
from climatesuite.harmonise.coarsen import to_decade, to_year


@dataclass(frozen=True)
class Prediction:
    """An ensemble to be scored.

    Attributes:
        model: Name of its rows.
        fields: Canonical Dataset of one timescale, members 0 to M - 1.
        facts: Fields of the rows known beforehand: seed, runtime_s, params, source, commit.
    """

    model: str
    fields: xr.Dataset
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def timescale(self) -> str:
        """Timescale of its fields."""
        return protocol.timescale_of(self.fields, self.model)


def truth_at(
    truth: xr.Dataset | Mapping[str, xr.Dataset], timescale: str, decade_start: int | None = None
) -> xr.Dataset:
    """The truth at a timescale: as given, or coarsened from a finer one.

    Args:
        truth: Canonical Dataset, or one by timescale.
        timescale: The one wanted.
        decade_start: First year of a decade; the truth's first year if None.

    Raises:
        DataContractError: If only coarser data is there.
    """
    given = {protocol.timescale_of(truth, "the truth"): truth} if isinstance(truth, xr.Dataset) else dict(truth)
    if timescale in given:
        return given[timescale]
    if timescale == "year" and "month" in given:
        return to_year(given["month"])
    if timescale == "decade" and ("year" in given or "month" in given):
        yearly = truth_at(given, "year")
        return to_decade(yearly, int(yearly["year"].values[0]) if decade_start is None else decade_start)
    raise DataContractError(
        "the truth", f"timescales {sorted(given)}", timescale, "give the truth at this timescale or finer"
    )


def score_datasets(
    predictions: Iterable[Prediction],
    truth: xr.Dataset | Mapping[str, xr.Dataset],
    references: Sequence[Baseline] = (),
    *,
    variables: Sequence[str] | None = None,
    timescales: Sequence[str] = TIMESCALES,
    decade_start: int | None = None,
    bootstrap: int = 1000,
    anomaly_base: Mapping[str, float] | None = None,
    commit: str | None = None,
) -> list[Row]:
    """Score ensembles and references against single members of the truth.

    Args:
        predictions: Ensembles, each of one timescale, on the truth's grid in canonical units; may be lazy. They are compared
            on the years (and months) that they share with the truth.
        truth: Canonical Dataset of N members (months, years or decades), or one by timescale.
        references: Fitted baselines, scored exactly on the steps of every prediction.
        variables: Variables to score; all that prediction and truth share if None.
        timescales: Timescales of the floor and the references where there is no prediction at all.
        decade_start: First year of a decade where the truth is coarsened; from a decadal prediction if None.
        bootstrap: Draws of the block bootstrap; 0 for no intervals.
        anomaly_base: Area mean of the training scenarios 2015-2024 by variable (:func:`anomaly_base`), for nrmse.
        commit: Code commit to write into the rows.

    Returns:
        Rows with the fields ``rows.FIELDS``, absent ones None: by timescale, variable and period the floor first, then the
        references, then the predictions. pr in mm day-1.

    Raises:
        DataContractError: If labels, grids, units or values do not fit, or there is nothing to score.
    """
    given = list(predictions)
    start = decade_start_of(given) if decade_start is None else decade_start
    truths = {t: truth_at(truth, t, start) for t in ({p.timescale for p in given} or timescales)}
    comparisons: dict[tuple[str, bytes], Comparison] = {}

    def comparison(timescale: str, cut: xr.Dataset) -> Comparison:
        key = (timescale, protocol.labels(cut).tobytes())
        if key not in comparisons:
            comparisons[key] = Comparison(timescale, cut, references, bootstrap, anomaly_base, commit)
        return comparisons[key]

    tables: dict[tuple[Comparison, str], list[Row]] = {}  # in order of appearance
    for prediction in given:
        prediction, cut = cut_to_truth(prediction, truths[prediction.timescale])
        fields, shared = prediction.fields, comparison(prediction.timescale, cut)
        names = names_in(variables, [fields, cut], prediction.model)
        check_cases(names, fields, cut, prediction.model)
        for name in names:
            rows = shared.prediction_rows(prediction.model, fields, name, prediction.facts)
            tables.setdefault((shared, name), []).extend(rows)
    if not given:
        tables = {
            (comparison(t, ds), n): [] for t, ds in truths.items() for n in names_in(variables, [ds], "the truth")
        }
    return ordered([row for (shared, name), rows in tables.items() for row in shared.reference_rows(name) + rows])


def cut_to_truth(prediction: Prediction, truth: xr.Dataset) -> tuple[Prediction, xr.Dataset]:
    """Prediction and truth on the steps they share; the flag of its rows says what was left out.

    Raises:
        DataContractError: If nothing is shared, a step inside the common stretch is missing, or source, scenario or calendar
            of the prediction is stated and another.
    """
    _check_origin(prediction, truth)
    fields, cut = protocol.align(prediction.fields, truth)
    sizes = fields.sizes["time"], prediction.fields.sizes["time"], truth.sizes["time"]
    facts = dict(prediction.facts)
    if len(set(sizes)) > 1:
        years = [
            f"{int(ds['year'].values[0])}-{int(ds['year'].values[-1])}" for ds in (fields, prediction.fields, truth)
        ]
        facts["flag"] = (
            f"scored on {sizes[0]} shared steps ({years[0]}) of its {sizes[1]} ({years[1]}) and the truth's {sizes[2]} ({years[2]})"
        )
    return replace(prediction, fields=fields, facts=facts), cut


def _check_origin(prediction: Prediction, truth: xr.Dataset) -> None:
    ours, theirs = prediction.fields.attrs, truth.attrs
    for name in ("source_id", "experiment_id"):
        if ours.get(name) and theirs.get(name) and ours[name] != theirs[name]:
            raise DataContractError(
                prediction.model,
                f"{name} {ours[name]}",
                f"{theirs[name]}, the truth's",
                "score it against its own truth",
            )
    # integer years without a calendar are read as standard, so that word is no statement
    calendars = str(ours.get("calendar", "standard")), str(theirs.get("calendar", "standard"))
    if "standard" not in calendars and calendars.count("360_day") == 1:
        raise DataContractError(
            prediction.model, f"calendar {calendars[0]}", f"{calendars[1]}, the truth's: months of 30 days are other months",
            "write the times in the truth's calendar",
        )  # fmt: skip


def check_cases(names: Sequence[str], fields: xr.Dataset, truth: xr.Dataset, model: str) -> None:
    """Check the variables of an aligned prediction: units, grid, and for months the season of tas (of another, without it).

    Raises:
        DataContractError: If they differ, or the seasonal cycle stands months away from its labels.
    """
    for name in names:
        protocol.check_pair(name, fields, truth, model)
    if "month" in truth.coords and set(truth["month"].values.tolist()) == set(range(1, 13)):
        clock = "tas" if "tas" in names else names[0]
        check_time_shift(fields[clock].rename(f"{clock} in {model}"), truth[clock])


def decade_start_of(predictions: Sequence[Prediction]) -> int | None:
    decades = [p.fields for p in predictions if p.timescale == "decade"]
    return int(decades[0].attrs.get("decade_start", decades[0]["year"].values[0])) if decades else None


def names_in(variables: Sequence[str] | None, datasets: Sequence[xr.Dataset], subject: str) -> tuple[str, ...]:
    """The variables asked for, or all known ones in every Dataset."""
    if variables is not None:
        return tuple(variables)
    names = tuple(n for n in VARIABLES if all(n in ds for ds in datasets))
    if not names:
        has = sorted(map(str, datasets[0].data_vars))
        raise DataContractError(
            subject, f"variables {has}", f"some of {', '.join(VARIABLES)} in it and the truth", "rename its variables"
        )
    return names


def ordered(rows: list[Row]) -> list[Row]:
    """By timescale, variable, period and window; within these the order of making (floor, references, predictions)."""
    names = list(VARIABLES)
    return sorted(
        rows,
        key=lambda r: (
            TIMESCALES.index(r["timescale"]), names.index(r["variable"]), r["period"] != "headline", r["window"]
        ),
    )  # fmt: skip


def anomaly_base(runs: Mapping[str, xr.Dataset], variables: Sequence[str] | None = None) -> dict[str, float]:
    """Area mean of 2015-2024 over all training runs, score units, by variable; nothing where a run lacks these years."""
    out = {}
    for name in field_names(runs, variables):
        means = []
        for ds in runs.values():
            year = ds["year"].values
            part = ds.isel(time=np.flatnonzero((year >= 2015) & (year <= 2024)))
            if part.sizes["time"] == 0:
                return {}
            means += list(area_mean(part[name]).weighted(part["days"]).mean("time").values)
        out[name] = float(np.mean(means)) * VARIABLES[name].score_factor
    return out
