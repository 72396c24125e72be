"""Scoring of ensembles, whoever made them: prediction files and truth files in, rows of ``scores.json`` out."""

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
from climatesuite.evaluate.baselines import FLOOR, PATTERN_SCALING, Baseline, Climatology, PatternScaling, field_names
from climatesuite.evaluate.rows import Bootstrap, Row, floor_row, score_row
from climatesuite.evaluate.scores import area_mean
from climatesuite.evaluate.series import ScoreSeries, TruthSeries, ensemble_series, pool_series, truth_series
from climatesuite.export import open_ensemble
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor
from climatesuite.harmonise.coarsen import to_decade, to_year

MEMBER_DIMS = ("member", "realization", "sample", "ensemble")


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


@dataclass(frozen=True)
class _Settings:
    bootstrap: int
    weights: str
    anomaly_base: Mapping[str, float]
    commit: str | None


class _Comparison:
    """Truth and references on one stretch of one timescale; each read once, for all predictions on that stretch."""

    def __init__(self, timescale: str, truth: xr.Dataset, references: Sequence[Baseline], settings: _Settings) -> None:
        self.timescale, self.truth, self.settings = timescale, truth, settings
        self.references = references
        self.spans = protocol.periods(truth, timescale)
        self.year = np.asarray(truth["year"].values, dtype=np.int64)
        first, last = protocol.LATE_WINDOW
        self.late = np.flatnonzero((self.year >= first) & (self.year <= last) & (timescale == "year"))
        self._truth: dict[str, TruthSeries] = {}
        self._pools: dict[tuple[str, str], dict[str, ScoreSeries]] = {}

    def truth_of(self, name: str) -> TruthSeries:
        if name not in self._truth:
            self._truth[name] = truth_series(self.truth, name, self.spans, self.settings.weights)
        return self._truth[name]

    def pools_of(self, name: str) -> dict[str, dict[str, ScoreSeries]]:
        """Series of the references by model and period."""
        for baseline in self.references:
            if (baseline.name, name) in self._pools:
                continue
            ensemble = baseline.ensemble(self.timescale, self.truth)
            for each in (n for n in ensemble.variables if n in self.truth):  # one ensemble serves all its variables
                self._pools[baseline.name, each] = {
                    span.name: pool_series(ensemble, self.truth, each, span, self.late, self.settings.weights)
                    for span in self.spans
                }
        return {model: s for (model, variable), s in self._pools.items() if variable == name}

    def head(self, model: str, facts: Mapping[str, Any]) -> Row:
        attrs = self.truth.attrs
        return {
            "model": model, "source": "ours", "timescale": self.timescale, "esm": attrs.get("source_id"),
            "scenario": attrs.get("experiment_id"), "weights": self.settings.weights, "commit": self.settings.commit, **facts,
        }  # fmt: skip

    def rows(
        self, model: str, name: str, scored: Mapping[str, ScoreSeries] | None, facts: Mapping[str, Any]
    ) -> list[Row]:
        """Rows of all periods from the series of each; rows of the floor if ``scored`` is None."""
        truth, reference, out = self.truth_of(name), self.pools_of(name).get(PATTERN_SCALING, {}), []
        head = self.head(model, facts)
        for span in self.spans:
            draws = None
            if self.settings.bootstrap:
                n_members = self.truth.sizes["member"]
                draws = Bootstrap.draw(self.year[span.steps], int(self.year[0]), n_members, self.settings.bootstrap)
            if scored is None:
                out.append(floor_row(head, name, truth, span, draws))
                continue
            row = score_row(head, name, scored[span.name], truth, span, draws, reference.get(span.name))
            out.append(row | self._nrmse(name, scored[span.name], truth) if span.name == "full" else row)
        return out

    def _nrmse(self, name: str, scored: ScoreSeries, truth: TruthSeries) -> Row:
        """ClimateBench's normalised errors of the years from 2080, anomalies from the training scenarios' 2015-2024."""
        if not self.late.size or name not in self.settings.anomaly_base:
            return {}
        scale = abs(float(truth.mean[self.late].mean()) - self.settings.anomaly_base[name])
        spatial = float(np.sqrt(scored.late_square)) / scale
        in_time = float(np.sqrt((scored.mean_error[self.late] ** 2).mean())) / scale
        window = [int(self.year[self.late[0]]), int(self.year[self.late[-1]])]
        total = spatial + 5.0 * in_time
        return {
            "nrmse_s": spatial, "nrmse_g": in_time, "nrmse_t": total, "nrmse_window": window,
            "nrmse_base": "training scenarios 2015-2024",
        }  # fmt: skip


def truth_at(
    truth: xr.Dataset | Mapping[str, xr.Dataset], timescale: str, decade_start: int | None = None
) -> xr.Dataset:
    """The truth at a timescale: as given, or coarsened from a finer one.

    Raises:
        DataContractError: If only coarser data is there.
    """
    given = (
        dict(truth)
        if isinstance(truth, Mapping) and not isinstance(truth, xr.Dataset)
        else {protocol.timescale_of(truth, "the truth"): truth}
    )
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
    timescales: Sequence[str] | None = None,
    decade_start: int | None = None,
    weights: str = "coslat",
    bootstrap: int = 1000,
    anomaly_base: Mapping[str, float] | None = None,
    commit: str | None = None,
) -> list[Row]:
    """Score ensembles and references against single members of the truth.

    Args:
        predictions: Ensembles, each of one timescale, on the truth's grid in canonical units; may be lazy.
        truth: Canonical Dataset of N members (months, years or decades), or one by timescale.
        references: Fitted baselines, scored exactly on the steps of every prediction.
        variables: Variables to score; all that prediction and truth share if None.
        timescales: Timescales whose floor and references are wanted even without a prediction; those of the
            predictions if None, all if there is none.
        decade_start: First year of a decade where the truth is coarsened.
        weights: ``coslat`` (published scores) or ``cell``.
        bootstrap: Draws of the block bootstrap; 0 for no intervals.
        anomaly_base: Area mean of the training scenarios 2015-2024 by variable (:func:`anomaly_base`), for nrmse.
        commit: Code commit to write into the rows.

    Returns:
        Rows with the fields ``rows.FIELDS``, absent ones None: by timescale, variable and period the floor first, then the
        references, then the predictions. pr in mm day-1.

    Raises:
        DataContractError: If labels, grids, units or values do not fit, or there is nothing to score.
    """
    settings = _Settings(bootstrap, weights, anomaly_base or {}, commit)
    truths: dict[str, xr.Dataset] = {}
    comparisons: dict[tuple[str, bytes], _Comparison] = {}
    rows: list[Row] = []

    def compare(timescale: str, fields: xr.Dataset | None, subject: str) -> tuple[xr.Dataset | None, _Comparison]:
        if timescale not in truths:
            start = decade_start
            if start is None and timescale == "decade" and fields is not None:
                start = int(fields.attrs.get("decade_start", fields["year"].values[0]))
            truths[timescale] = truth_at(truth, timescale, start)
        cut = truths[timescale]
        if fields is not None:
            fields, cut = protocol.align(fields, cut)
        key = (timescale, protocol.labels(cut).tobytes())
        if key not in comparisons:
            comparisons[key] = new = _Comparison(timescale, cut, references, settings)
            for name in _names(variables, fields, cut, subject):
                rows.extend(new.rows(FLOOR, name, None, {}))
                for model, scored in new.pools_of(name).items():
                    rows.extend(new.rows(model, name, scored, {}))
        return fields, comparisons[key]

    found = False
    for prediction in predictions:
        found = True
        fields, comparison = compare(
            protocol.timescale_of(prediction.fields, prediction.model), prediction.fields, prediction.model
        )
        for name in _names(variables, fields, comparison.truth, prediction.model):
            protocol.check_pair(name, fields, comparison.truth, prediction.model)
            scored = ensemble_series(
                fields, comparison.truth, name, comparison.spans, comparison.late, weights, prediction.model
            )
            by_period = {span.name: scored for span in comparison.spans}
            rows.extend(comparison.rows(prediction.model, name, by_period, prediction.facts))
    for timescale in timescales if timescales is not None else () if found else TIMESCALES:
        if not any(key[0] == timescale for key in comparisons):
            compare(timescale, None, "the truth")
    return _ordered(rows)


def _names(
    variables: Sequence[str] | None, fields: xr.Dataset | None, truth: xr.Dataset, subject: str
) -> tuple[str, ...]:
    if variables is not None:
        return tuple(variables)
    names = tuple(n for n in VARIABLES if n in truth and (fields is None or n in fields))
    if not names:
        has = sorted(map(str, (truth if fields is None else fields).data_vars))
        raise DataContractError(
            subject, f"variables {has}", f"some of {', '.join(VARIABLES)} in it and the truth", "rename its variables"
        )
    return names


def _ordered(rows: list[Row]) -> list[Row]:
    """By timescale, variable, period and window; within these the order of making (floor, references, predictions)."""
    names = list(VARIABLES)
    key = [
        (TIMESCALES.index(r["timescale"]), names.index(r["variable"]), r["period"] != "headline", r["window"])
        for r in rows
    ]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: (*key[i], i))]


def anomaly_base(
    runs: Mapping[str, xr.Dataset], variables: Sequence[str] | None = None, weights: str = "coslat"
) -> dict[str, float]:
    """Area mean of the first ten years (2015-2024) over all training runs, score units, by variable."""
    out = {}
    for name in field_names(runs, variables):
        means = []
        for ds in runs.values():
            year = ds["year"].values
            part = ds.isel(time=np.flatnonzero((year >= 2015) & (year <= 2024)))
            if part.sizes["time"] == 0:
                return {}
            series = area_mean(part[name], protocol.weights_of(ds, weights))
            means += list(series.weighted(part["days"]).mean("time").values)
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


def is_ensemble_file(path: Path) -> bool:
    """Whether a NetCDF file holds an ensemble (a member dimension) rather than one CMIP run."""
    with xr.open_dataset(path, decode_times=False) as ds:
        return any(dim in ds.dims for dim in MEMBER_DIMS)


def _one_source(
    runs: Mapping[tuple[str, str], xr.Dataset], subject: str, source: str | None = None
) -> dict[str, xr.Dataset]:
    """Runs by scenario; raises where they come from several sources or another than the truth's."""
    sources = sorted({key[0] for key in runs})
    if len(sources) != 1 or source not in (None, sources[0]):
        expected = "one source_id" if source is None else f"only {source}, the source of the truth"
        raise DataContractError(
            subject, f"source_id {', '.join(sources) or 'none'}", expected, "score one Earth system model at a time"
        )
    return {scenario: ds for (_, scenario), ds in runs.items()}


def _select_truth(runs: Mapping[str, xr.Dataset], predictions: Sequence[Prediction]) -> xr.Dataset:
    """The run of the predictions' scenario."""
    stated = {p.fields.attrs.get("experiment_id") for p in predictions} - {None, ""}
    if len(stated) > 1:
        raise DataContractError(
            "predictions", f"scenarios {sorted(map(str, stated))}", "one scenario", "score scenarios one by one"
        )
    if not stated and len(runs) == 1:
        return next(iter(runs.values()))
    wanted = next(iter(stated), None)
    if wanted not in runs:
        raise DataContractError(
            "the truth", f"scenarios {sorted(runs)}", f"{wanted or 'one scenario'}", "give truth files of that scenario"
        )
    return runs[wanted]


def score(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path],
    reference_files: Sequence[str | Path] = (),
    forcings: str | Path | None = None,
    *,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    seed: int | None = None,
    bootstrap: int = 1000,
    weights: str = "coslat",
    commit: str | None = None,
) -> list[Row]:
    """Score ensemble files against CMIP files; the function behind ``climatesuite score``.

    Args:
        prediction_files: Ensemble NetCDF files (dims member, realization, sample or ensemble), decades, years or months.
        truth_files: CMIP files of the test scenario (months), all members.
        reference_files: CMIP files of the training scenarios (they give climatology and, with ``forcings``, CO2 pattern
            scaling) and ensemble files of rivals (one scored row each, named by the file).
        forcings: Directory of ``inputs_<experiment_id>.nc`` with cumulative CO2.
        variables: Variables to score; all shared ones if None.
        decade_start: First year of a decade; taken from a decadal prediction, else the truth's first year.
        seed: Seed to write into the rows of predictions whose files state none.
        bootstrap: Draws of the block bootstrap.
        weights: ``coslat`` or ``cell``.
        commit: Code commit to write into the rows.

    Returns:
        Rows of ``scores.json``; see :func:`score_datasets`.

    Raises:
        DataContractError: If files, labels, grids or units do not fit, or the training runs contain the test scenario.
    """
    rivals = [Path(f) for f in reference_files if is_ensemble_file(Path(f))]
    training_files = [Path(f) for f in reference_files if Path(f) not in rivals]
    predictions = [_open_prediction(Path(f), seed) for f in prediction_files]
    truth = _select_truth(_one_source(open_runs(list(truth_files), variables=variables), "the truth"), predictions)
    if decade_start is None:
        decades = [p.fields for p in predictions if protocol.timescale_of(p.fields, p.model) == "decade"]
        decade_start = int(decades[0]["year"].values[0]) if decades else int(truth["year"].values[0])
    timescales = sorted({protocol.timescale_of(p.fields, p.model) for p in predictions}) or list(TIMESCALES)
    references: list[Baseline] = []
    base: dict[str, float] = {}
    if training_files:
        training = _training(training_files, variables, truth)
        predictors, target = _predictors(forcings, list(training), truth.attrs["experiment_id"])
        names = [n for n in field_names(training, variables) if n in truth]
        references = fit_baselines(
            training, predictors, target, variables=names, decade_start=decade_start, timescales=timescales
        )
        base = anomaly_base(training, names, weights)
    predictions += [replace(_open_prediction(path, None), model=path.stem) for path in rivals]
    return score_datasets(
        predictions, truth, references, variables=variables, decade_start=decade_start, weights=weights, bootstrap=bootstrap,
        anomaly_base=base, commit=commit,
    )  # fmt: skip


def _open_prediction(path: Path, seed: int | None) -> Prediction:
    ds = open_ensemble(path)
    facts = {key: ds.attrs[key] for key in ("seed", "runtime_s", "commit", "params") if key in ds.attrs}
    if "seed" not in facts and seed is not None:
        facts["seed"] = seed
    return Prediction(str(ds.attrs.get("model") or path.stem), ds, facts)


def _training(files: Sequence[Path], variables: Sequence[str] | None, truth: xr.Dataset) -> dict[str, xr.Dataset]:
    training = _one_source(open_runs(list(files), variables=variables), "reference files", truth.attrs["source_id"])
    test = truth.attrs["experiment_id"]
    if test in training:
        raise DataContractError(
            "reference files", f"runs of {test}, the test scenario", "training scenarios only", "leave them out"
        )
    return training


def _predictors(
    forcings: str | Path | None, scenarios: Sequence[str], test: str
) -> tuple[dict[str, xr.DataArray] | None, xr.DataArray | None]:
    if forcings is None:
        return None, None
    made = {s: annual_predictor(open_forcings(forcings, ["CO2"], experiment_id=s)) for s in [*scenarios, test]}
    return {s: made[s] for s in scenarios}, made[test]
