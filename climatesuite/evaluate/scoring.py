"""Scoring of ensembles, whoever made them: prediction files and truth files in, rows of ``scores.json`` out.

:func:`score` takes files, :func:`score_datasets` takes Datasets; both write a floor and the references into every table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from climatesuite.evaluate.baselines import Baseline, Climatology, PatternScaling, field_names
from climatesuite.evaluate.rows import Comparison, Row
from climatesuite.evaluate.scores import area_mean
from climatesuite.export import open_ensemble
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor
from climatesuite.harmonise.coarsen import to_decade, to_year

MEMBER_DIMS = ("member", "realization", "sample", "ensemble")
FACTS = ("seed", "runtime_s", "params", "commit")
"""Global attributes of an ensemble file that go into its rows."""
Runs = Mapping[tuple[str, str], xr.Dataset]
"""Canonical Datasets by (source_id, experiment_id), as ``archive.read.open_runs`` returns them."""


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
    start = _decade_start(given) if decade_start is None else decade_start
    truths = {t: truth_at(truth, t, start) for t in ({p.timescale for p in given} or timescales)}
    comparisons: dict[tuple[str, bytes], Comparison] = {}

    def comparison(timescale: str, cut: xr.Dataset) -> Comparison:
        key = (timescale, protocol.labels(cut).tobytes())
        if key not in comparisons:
            comparisons[key] = Comparison(timescale, cut, references, bootstrap, anomaly_base, commit)
        return comparisons[key]

    tables: dict[tuple[Comparison, str], list[Row]] = {}  # in order of appearance
    for prediction in given:
        fields, cut = protocol.align(prediction.fields, truths[prediction.timescale])
        shared = comparison(prediction.timescale, cut)
        for name in _names(variables, [fields, cut], prediction.model):
            protocol.check_pair(name, fields, cut, prediction.model)
            rows = shared.prediction_rows(prediction.model, fields, name, prediction.facts)
            tables.setdefault((shared, name), []).extend(rows)
    if not given:
        tables = {(comparison(t, ds), n): [] for t, ds in truths.items() for n in _names(variables, [ds], "the truth")}
    return _ordered([row for (shared, name), rows in tables.items() for row in shared.reference_rows(name) + rows])


def _decade_start(predictions: Sequence[Prediction]) -> int | None:
    decades = [p.fields for p in predictions if p.timescale == "decade"]
    return int(decades[0].attrs.get("decade_start", decades[0]["year"].values[0])) if decades else None


def _names(variables: Sequence[str] | None, datasets: Sequence[xr.Dataset], subject: str) -> tuple[str, ...]:
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


def _ordered(rows: list[Row]) -> list[Row]:
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


def fit_baselines(
    training: Mapping[str, xr.Dataset],
    predictors: Mapping[str, xr.DataArray] | None = None,
    target: xr.DataArray | None = None,
    *,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    timescales: Sequence[str] = TIMESCALES,
) -> list[Baseline]:
    """Climatology, and CO2 pattern scaling where predictors are given.

    Args:
        training: Canonical Datasets by training scenario (months; years without pattern scaling).
        predictors: Annual-mean cumulative CO2 ``(year)`` by training scenario.
        target: The same of the test scenario.
        variables: Names; all fields if None.
        decade_start: First year of a decade.
        timescales: Which to fit.
    """
    out: list[Baseline] = [Climatology.fit(training, variables, decade_start, timescales)]
    if predictors is not None and target is not None:
        out.append(PatternScaling.fit(training, predictors, target, variables, decade_start, timescales))
    return out


def score(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path] | Runs,
    reference_files: Sequence[str | Path] | Runs = (),
    forcings: str | Path | None = None,
    *,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    seed: int | None = None,
    bootstrap: int = 1000,
    commit: str | None = None,
) -> list[Row]:
    """Score ensemble files against CMIP files; the function behind ``climatesuite score``.

    Args:
        prediction_files: Ensemble NetCDF files (dims member, realization, sample or ensemble), decades, years or months.
            None at all gives the floor and the references alone.
        truth_files: CMIP files of the test scenario (months), all members; or such runs, already opened.
        reference_files: CMIP files of the training scenarios (they give climatology and, with ``forcings``, CO2 pattern
            scaling) and ensemble files of rivals (one scored row each, named by the file); or training runs, opened.
        forcings: Directory of ``inputs_<experiment_id>.nc`` with cumulative CO2.
        variables: Variables to score; all shared ones if None.
        decade_start: First year of a decade; taken from a decadal prediction, else the truth's first year.
        seed: Seed to write into the rows of predictions whose files state none.
        bootstrap: Draws of the block bootstrap.
        commit: Code commit to write into the rows.

    Returns:
        Rows of ``scores.json``; see :func:`score_datasets`.

    Raises:
        DataContractError: If files, labels, grids or units do not fit, or the training runs contain the test scenario.
    """
    predictions = [_open_prediction(Path(f), seed) for f in prediction_files]
    rivals: list[Prediction] = []
    if not isinstance(reference_files, Mapping):
        paths = [Path(f) for f in reference_files if is_ensemble_file(Path(f))]
        rivals = [replace(_open_prediction(path, None), model=path.stem) for path in paths]
        reference_files = [f for f in reference_files if Path(f) not in paths]
    truth = _truth_run(_opened(truth_files, variables), predictions + rivals)
    if decade_start is None:
        decade_start = _decade_start(predictions + rivals) or int(truth["year"].values[0])
    references: list[Baseline] = []
    base: dict[str, float] = {}
    if reference_files:
        training = _training(_opened(reference_files, variables), truth)
        predictors, target = _predictors(forcings, list(training), truth.attrs["experiment_id"])
        names = [n for n in field_names(training, variables) if n in truth]
        timescales = sorted({p.timescale for p in predictions + rivals}) or TIMESCALES
        references = fit_baselines(
            training, predictors, target, variables=names, decade_start=decade_start, timescales=timescales
        )
        base = anomaly_base(training, names)
    return score_datasets(
        predictions + rivals, truth, references, variables=variables, decade_start=decade_start, bootstrap=bootstrap,
        anomaly_base=base, commit=commit,
    )  # fmt: skip


def is_ensemble_file(path: Path) -> bool:
    """Whether a path is a NetCDF file of an ensemble (with a member dimension) rather than one or many CMIP runs."""
    if path.is_dir():
        return False
    with xr.open_dataset(path, decode_times=False) as ds:
        return any(dim in ds.dims for dim in MEMBER_DIMS)


def _open_prediction(path: Path, seed: int | None) -> Prediction:
    ds = open_ensemble(path)
    facts = {key: ds.attrs[key] for key in FACTS if key in ds.attrs}
    if "seed" not in facts and seed is not None:
        facts["seed"] = seed
    return Prediction(str(ds.attrs.get("model") or path.stem), ds, facts)


def _opened(files: Sequence[str | Path] | Runs, variables: Sequence[str] | None) -> Runs:
    return files if isinstance(files, Mapping) else open_runs([Path(f) for f in files], variables=variables)


def _truth_run(runs: Runs, predictions: Sequence[Prediction]) -> xr.Dataset:
    """The run of the predictions' scenario; the only run if they state none."""
    by_scenario = _one_source(runs, "the truth")
    stated = {str(p.fields.attrs["experiment_id"]) for p in predictions if p.fields.attrs.get("experiment_id")}
    if len(stated) > 1:
        raise DataContractError("predictions", f"scenarios {sorted(stated)}", "one scenario", "score one at a time")
    wanted = stated.pop() if stated else next(iter(by_scenario)) if len(by_scenario) == 1 else None
    if wanted is None or wanted not in by_scenario:
        expected = wanted or "one scenario, as the predictions state none"
        raise DataContractError(
            "the truth", f"scenarios {sorted(by_scenario)}", expected, "give truth files of that scenario"
        )
    return by_scenario[wanted]


def _training(runs: Runs, truth: xr.Dataset) -> dict[str, xr.Dataset]:
    training, test = _one_source(runs, "reference files", truth.attrs["source_id"]), truth.attrs["experiment_id"]
    if test in training:
        raise DataContractError(
            "reference files", f"runs of {test}, the test scenario", "training scenarios only", "leave them out"
        )
    return training


def _one_source(runs: Runs, subject: str, source: str | None = None) -> dict[str, xr.Dataset]:
    """Runs by scenario; raises where they come from several sources or another than the truth's."""
    sources = sorted({key[0] for key in runs})
    if len(sources) != 1 or source not in (None, sources[0]):
        expected = "one source_id" if source is None else f"only {source}, the source of the truth"
        raise DataContractError(
            subject, f"source_id {', '.join(sources) or 'none'}", expected, "score one Earth system model at a time"
        )
    return {scenario: ds for (_, scenario), ds in runs.items()}


def _predictors(
    forcings: str | Path | None, scenarios: Sequence[str], test: str
) -> tuple[dict[str, xr.DataArray] | None, xr.DataArray | None]:
    if forcings is None:
        return None, None
    made = {s: annual_predictor(open_forcings(forcings, ["CO2"], experiment_id=s)) for s in [*scenarios, test]}
    return {s: made[s] for s in scenarios}, made[test]
