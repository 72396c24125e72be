"""Scores of files: the functions behind ``climatesuite score``, ``compare`` and ``baseline``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.baselines.fit import Case, exact_baselines, fit_baseline
from climatesuite.baselines.reference import Baseline, coarse_runs, draw, field_names
from climatesuite.conventions import TIMESCALES
from climatesuite.ensemble_file import MEMBER_DIMS
from climatesuite.errors import DataContractError
from climatesuite.evaluate.compare import Compared, compare, distinct
from climatesuite.evaluate.rows import Row
from climatesuite.evaluate.scoring import Prediction, anomaly_base, decade_start_of, score_datasets
from climatesuite.export import open_ensemble, write_cf
from climatesuite.forcing.energy_response import open_patterns
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor

FACTS = ("seed", "runtime_s", "params", "commit")
"""Global attributes of an ensemble file that go into its rows."""
Runs = Mapping[tuple[str, str], xr.Dataset]
"""Canonical Datasets by (source_id, experiment_id), as ``archive.read.open_runs`` returns them."""


def score(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path] | Runs,
    reference_files: Sequence[str | Path] | Runs = (),
    forcings: str | Path | None = None,
    *,
    patterns: str | Path | None = None,
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
        patterns: NetCDF of multi-model warming patterns, for the energy balance.
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
    given = open_given(
        prediction_files, truth_files, reference_files, forcings, patterns=patterns, variables=variables,
        decade_start=decade_start, seed=seed,
    )  # fmt: skip
    return score_datasets(
        given.predictions, given.truth, given.references, variables=variables, decade_start=given.decade_start,
        bootstrap=bootstrap, anomaly_base=given.base, commit=commit,
    )  # fmt: skip


def compare_files(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path] | Runs,
    reference_files: Sequence[str | Path] | Runs = (),
    forcings: str | Path | None = None,
    *,
    patterns: str | Path | None = None,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    bootstrap: int = 1000,
    commit: str | None = None,
) -> Compared:
    """Score ensemble files on the steps they share, with paired differences; the function behind ``climatesuite compare``.

    The arguments are those of :func:`score`. Real members of the structure table are the truth's and the training runs'.

    Raises:
        DataContractError: As :func:`score`, and ``compare.compare``.
    """
    given = open_given(
        prediction_files, truth_files, reference_files, forcings, patterns=patterns, variables=variables,
        decade_start=decade_start,
    )  # fmt: skip
    return compare(
        distinct(given.predictions, given.paths), given.truth, given.references, [given.truth, *given.training.values()],
        variables=variables, decade_start=given.decade_start, bootstrap=bootstrap, anomaly_base=given.base, commit=commit,
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """Opened files of one scoring.

    Attributes:
        predictions: Ensembles, rivals last; paths: where each lies.
        truth: Run of the test scenario.
        training: Training runs by scenario.
        references: Baselines fitted on them.
        base: Area means 2015-2024 for nrmse.
        decade_start: First year of a decade.
    """

    predictions: list[Prediction]
    paths: list[Path]
    truth: xr.Dataset
    training: dict[str, xr.Dataset]
    references: list[Baseline]
    base: dict[str, float]
    decade_start: int


def open_given(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path] | Runs,
    reference_files: Sequence[str | Path] | Runs = (),
    forcings: str | Path | None = None,
    *,
    patterns: str | Path | None = None,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    seed: int | None = None,
) -> Given:
    """Open what :func:`score` is given and fit the baselines; arguments and errors are its own."""
    paths = [Path(f) for f in prediction_files]
    predictions = [_open_prediction(p, seed) for p in paths]
    if not isinstance(reference_files, Mapping):
        rivals = [Path(f) for f in reference_files if is_ensemble_file(Path(f))]
        predictions += [replace(_open_prediction(path, None), model=path.stem) for path in rivals]
        reference_files, paths = [f for f in reference_files if Path(f) not in rivals], paths + rivals
    truth = _truth_run(_opened(truth_files, variables), predictions)
    start = decade_start or decade_start_of(predictions) or int(truth["year"].values[0])
    if not reference_files:
        return Given(predictions, paths, truth, {}, [], {}, start)
    training = _training(_opened(reference_files, variables), truth)
    test = truth.attrs["experiment_id"]
    names = [n for n in field_names(training, variables) if n in truth]
    timescales = sorted({p.timescale for p in predictions}) or TIMESCALES
    predictors = None if forcings is None else cumulative_co2(forcings, [*training, test])
    near = None if patterns is None else open_patterns(patterns, truth)
    references = exact_baselines(Case(training, test, predictors, names, start, timescales, near))
    return Given(predictions, paths, truth, training, references, anomaly_base(training, names), start)


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


def cumulative_co2(forcings: str | Path, scenarios: Sequence[str]) -> dict[str, xr.DataArray]:
    """Annual-mean cumulative CO2 ``(year)`` by scenario from a folder of ``inputs_<experiment_id>.nc``."""
    return {s: annual_predictor(open_forcings(forcings, ["CO2"], experiment_id=s)) for s in scenarios}


def write_baseline(
    name: str,
    reference_files: Sequence[str | Path] | Runs,
    scenario: str,
    timescale: str,
    out: str | Path,
    forcings: str | Path | None = None,
    *,
    patterns: str | Path | None = None,
    variables: Sequence[str] | None = None,
    decade_start: int | None = None,
    members: int = 20,
    seed: int = 0,
) -> Path:
    """Draw an ensemble of a baseline and write it as CF NetCDF; the function behind ``climatesuite baseline``.

    Args:
        name: One of ``baselines.fit.BASELINES``.
        reference_files: CMIP files of the training scenarios, or such runs, opened.
        scenario: experiment_id to be predicted, on the years of the training runs.
        timescale: ``decade``, ``year`` or ``month``.
        out: File to make.
        forcings: Directory of ``inputs_<experiment_id>.nc`` with cumulative CO2.
        patterns: NetCDF of multi-model warming patterns, for the energy balance.
        variables: Fields; all if None.
        decade_start: First year of a decade; the runs' first year if None.
        members: How many; member i is the same whatever is drawn beside it.
        seed: Seed.

    Raises:
        DataContractError: If the name is unknown, or the baseline lacks what it needs.
    """
    training = _one_source(_opened(reference_files, variables), "reference files")
    if scenario in training:
        raise DataContractError(
            "reference files", f"runs of {scenario}, the scenario to be predicted", "training scenarios only",
            "leave them out",
        )  # fmt: skip
    first = next(iter(training.values()))
    predictors = None if forcings is None else cumulative_co2(forcings, [*training, scenario])
    near = None if patterns is None else open_patterns(patterns, first)
    names = field_names(training, variables)
    needs = sorted({timescale, "year"} - {"decade"}) if name == "ar1" and timescale == "decade" else [timescale]
    fitted = fit_baseline(name, Case(training, scenario, predictors, names, decade_start, needs, near))
    like = next(iter(coarse_runs(training, decade_start, [timescale])[timescale].values()))
    like = like.assign_attrs(experiment_id=scenario, timescale=timescale)
    drawn = draw(fitted, timescale, like, members, seed)
    about = {
        "title": f"{fitted.name}: {first.attrs.get('source_id', 'an unnamed model')} under {scenario}",
        "institution": "climatesuite", "source": f"{fitted.name}, fitted on {', '.join(training)}",
        "references": "climatesuite/baselines", "model": f"{fitted.name}, drawn", "seed": seed,
        "license": first.attrs.get("license"),
    }  # fmt: skip
    return write_cf(out, ((m, drawn.isel(member=m, drop=True)) for m in range(members)), like, about)
