"""Calibration by region and season: rank histograms, spread-skill, exceedances, tails and return levels as rows.

Every number stands beside what a perfect ensemble of this size shows against as many members as the truth has
(``calibration.against_perfect``). Regions are those of :class:`questions.Asked`; of large ones at most 300 cells are looked at,
spread evenly.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate import calibration, diagnostics, structure
from climatesuite.evaluate.answers import Row, row
from climatesuite.evaluate.calibration import SMALL_IS_GOOD, Statistic, Verdict, against_perfect
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.questions import Asked, yearly_values

MAX_CELLS = 300
TAIL_YEARS = 30
"""Last years whose values make the tails: two members of them are the 60 blocks that a fitted return level needs."""
PERFECT = "own members as truth, 5–95 % of draws"
HOTTEST = "highest month"
DIAGNOSES: Mapping[str, tuple[Statistic, int | None]] = {
    "rank histogram": (calibration.rank_statistics, None),
    "spread–skill": (calibration.spread_statistics, None),
    "exceedance of 90 %": (calibration.exceedance_statistics, None),
    "tail": (calibration.tail_statistics, TAIL_YEARS),
}
"""Statistics of seasonal means, and how many last years they look at."""
RETURN: Mapping[str, tuple[Statistic, int | None]] = {"return level": (calibration.return_statistics, TAIL_YEARS)}


def region_rows(asked: Asked, draws: int = calibration.DRAWS, seed: int = 0) -> list[Row]:
    """Rows of every diagnosis, variable, season and region.

    Args:
        asked: Ensemble of M members and truth of N, M >= N + 2.
        draws: In which own members play the truth.
        seed: Of the draws.

    Returns:
        ``value`` of the ensemble against the truth, ``reference`` with ``reference_lo, reference_hi`` of a perfect ensemble;
        ``agrees``: whether the value lies between them (below the upper one, where small is good), which one in ten (twenty)
        does not by chance.

    Raises:
        DataContractError: If there are too few members.
    """
    size, n_truth = (ds.sizes["member"] for ds in asked.annual.both)
    if size < n_truth + 2:
        expected = f"{n_truth + 2} or more, two more than the truth has"
        raise DataContractError("calibration by region", f"{size} members", expected, "draw more members")
    cells, rows = _cells(asked.regions), []
    used = np.unique(np.concatenate([index for index, _ in cells.values()]))
    for name in asked.names:
        for season in [*asked.seasons, *([HOTTEST] if "month" in asked.sides else [])]:
            side = asked.annual if season == "annual" else asked.sides["month"]
            x, y = (_season(ds, name, season, used) for ds in side.both)
            diagnoses = RETURN if season == HOTTEST else DIAGNOSES
            about = {"variable": name, "season": season, "timescale": "year", "M": size, "N": n_truth}
            for region, (index, weights) in cells.items():
                place = np.searchsorted(used, index)
                for question, (statistic, last) in diagnoses.items():
                    part = slice(None if last is None else -last, None)
                    verdicts = against_perfect(
                        x[:, part][..., place], y[:, part][..., place], weights, statistic, draws, seed
                    )
                    window = (int(asked.year[part][0]), int(asked.year[-1]))
                    rows += [
                        _row(v, n, question=question, region=region, window=window, **about)
                        for n, v in verdicts.items()
                    ]
    order = [*DIAGNOSES, *RETURN]
    return sorted(rows, key=lambda r: order.index(r["question"]))


def _row(verdict: Verdict, name: str, **about: object) -> Row:
    in_units = about["question"] in ("tail", "return level")
    return row(
        **about, name=name, value=verdict.value, reference=verdict.perfect, reference_lo=verdict.low, reference_hi=verdict.high,
        reference_kind=PERFECT, agrees=verdict.agrees(name in SMALL_IS_GOOD),
        units=VARIABLES[str(about["variable"])].score_units if in_units else "1",
        note="ensemble minus truth" if in_units else None,
    )  # fmt: skip


def _cells(regions: xr.DataArray) -> dict[str, tuple[np.ndarray, Array]]:
    """Flat indices of the cells looked at and their weights, summing to 1, by region."""
    out = {}
    for region, weights in zip(regions["region"].values, regions.values.reshape(regions.shape[0], -1), strict=True):
        index = np.flatnonzero(weights)
        index = index[:: -(-index.size // MAX_CELLS)]
        out[str(region)] = (index, weights[index] / weights[index].sum())
    return out


def _season(ds: xr.Dataset, name: str, season: str, used: np.ndarray) -> Array:
    """Seasonal means, or the highest month, of every year in some cells: ``[member, T, cell]``, score units."""
    fields = []
    for field in diagnostics.members(ds, name):
        chosen = field.reshape(field.shape[0], -1)[:, used].T
        if season == HOTTEST:
            fields.append(chosen.reshape(used.size, -1, structure.MONTHS).max(axis=-1).T)
        else:
            fields.append(yearly_values(chosen, ds, season).T)
    return np.stack(fields)


def exceedance_curves(asked: Asked, region: str, season: str = "annual") -> dict[str, tuple[Array, Array]]:
    """Reliability diagrams of exceeding the local 90 % quantile by variable, see ``calibration.exceedance_curve``."""
    index, weights = _cells(asked.regions.sel(region=[region]))[region]
    side = asked.annual if season == "annual" else asked.sides["month"]
    pairs = {name: [_season(ds, name, season, index) for ds in side.both] for name in asked.names}
    return {name: calibration.exceedance_curve(x, y, weights) for name, (x, y) in pairs.items()}


def summary(rows: list[Row]) -> list[Row]:
    """How often a statistic lies outside what a perfect ensemble shows, by variable and season: rows in % of the regions.

    A calibrated ensemble has about 10, or 5 where small is good; regions are not independent, so only numbers far above say
    something.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for r in rows:
        if r["agrees"] is not None:
            groups.setdefault((r["question"], r["name"], r["variable"], r["season"]), []).append(r)
    out = []
    for (question, name, variable, season), found in groups.items():
        outside = [r for r in found if not r["agrees"]]
        above = sum(r["value"] > r["reference_hi"] for r in outside)
        out.append(row(
            question=question, name=name, variable=variable, season=season, value=100.0 * len(outside) / len(found),
            reference=5.0 if name in SMALL_IS_GOOD else 10.0,
            units="% of regions outside", M=found[0]["M"], N=found[0]["N"], reference_kind="calibrated",
            note=f"{above} above, {len(outside) - above} below: {', '.join(r['region'] for r in outside) or 'none'}",
        ))  # fmt: skip
    return out
