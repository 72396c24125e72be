"""Rows of ``scores.json``: series averaged over a period, with intervals from one paired block bootstrap.

A :class:`Comparison` is a truth and its references on one stretch of one timescale; it makes the rows of everything scored there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.baselines.names import FLOOR, PATTERN_SCALING
from climatesuite.baselines.reference import Baseline
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import BLOCK_YEARS, LATE_WINDOW, Period, periods, plain_value
from climatesuite.evaluate.scores import rank_chi2, rank_p_value, reliability_index
from climatesuite.evaluate.series import ScoreSeries, TruthSeries, ensemble_series, pool_series, truth_series

Row = dict[str, Any]
BOOTSTRAP_SEED = 0
FIELDS = (
    "model", "params", "source", "ref", "variable", "units", "timescale", "esm", "scenario", "window", "period", "target",
    "M", "N", "seed", "weights", "crps_kind", "rmse", "mae", "bias", "crps", "crps_plain", "crps_lo", "crps_hi", "crps_floor",
    "crps_ratio", "crps_ratio_lo", "crps_ratio_hi", "skill", "skill_lo", "skill_hi", "spread_skill", "rank_chi2",
    "rank_p_value", "reliability_index", "var_ratio", "nrmse_s", "nrmse_g", "nrmse_t", "nrmse_window", "nrmse_base", "lsd",
    "trend_err", "q_err", "runtime_s", "stderr", "commit", "flag",
)  # fmt: skip
DIFFERENCE_FIELDS = (
    "model", "against", "variable", "units", "timescale", "esm", "scenario", "window", "period", "target", "M", "M_against",
    "N", "crps_difference", "crps_difference_lo", "crps_difference_hi", "ratio_difference", "ratio_difference_lo",
    "ratio_difference_hi", "better",
)  # fmt: skip


@dataclass(frozen=True)
class Bootstrap:
    """Redrawn weights of blocks of years and of truth members, equal for every row on the same steps: rows stay paired.

    Attributes:
        blocks: ``[B, blocks]`` how often each block is drawn.
        members: ``[B, N]`` how often each member is drawn.
        block_of: ``[T']`` block of each step of the period.
    """

    blocks: Array
    members: Array
    block_of: NDArray[np.int64]

    @classmethod
    def draw(
        cls, year: NDArray[np.int64], anchor: int, n_members: int, draws: int, seed: int = BOOTSTRAP_SEED
    ) -> "Bootstrap":
        """Blocks of 10 years counted from ``anchor``; single decades for decades."""
        _, block_of = np.unique((year - anchor) // BLOCK_YEARS, return_inverse=True)
        rng, n_blocks = np.random.default_rng(seed), int(block_of.max()) + 1
        blocks = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=draws).astype(np.float64)
        members = rng.multinomial(n_members, np.full(n_members, 1.0 / n_members), size=draws).astype(np.float64)
        return cls(blocks, members, block_of)

    def means(self, series: Array) -> Array:
        """Means of ``[N, T']`` under every draw: ``[B]``."""
        by_block = np.stack([np.bincount(self.block_of, row, minlength=self.blocks.shape[1]) for row in series])
        steps = self.blocks @ np.bincount(self.block_of, minlength=self.blocks.shape[1])
        return np.einsum("dn,nb,db->d", self.members, by_block, self.blocks) / (steps * series.shape[0])


def _interval(draws: Array) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def finish(row: Mapping[str, Any]) -> Row:
    """All fields in order, absent ones None, every number one that JSON can hold."""
    unknown = set(row) - set(FIELDS)
    if unknown:
        raise ValueError(f"unknown fields of a score row: {sorted(unknown)}")
    out = {name: plain_value(row.get(name)) for name in FIELDS}
    out["stderr"] = {k: plain_value(v) for k, v in (row.get("stderr") or {}).items()}
    return out


def score_row(
    head: Mapping[str, Any],
    name: str,
    scored: ScoreSeries,
    truth: TruthSeries,
    span: Period,
    draws: Bootstrap | None,
    reference: ScoreSeries | None = None,
) -> Row:
    """One row for one period.

    Args:
        head: Fields that say what it is (model, scenario, timescale, ...).
        name: Variable.
        scored: Its series.
        truth: The truth's series.
        span: The period.
        draws: Bootstrap on the steps of the period; no intervals if None.
        reference: Series of CO2 pattern scaling on the same steps, for the skill; None if absent.
    """
    s = span.steps
    crps, floor = float(scored.crps[:, s].mean()), float(truth.floor[:, s].mean())
    row: Row = {
        **head,
        **_identity(name, span, truth),
        "M": scored.size,
        "crps_kind": scored.kind,
        "rmse": np.sqrt(scored.mean_square[s].mean()),
        "mae": scored.absolute[:, s].mean(),
        "bias": scored.mean_error[s].mean(),
        "crps": crps,
        "crps_plain": None if scored.crps_plain is None else scored.crps_plain[:, s].mean(),
        "crps_floor": floor,
        "crps_ratio": crps / floor,
        "spread_skill": np.sqrt(scored.inflation * scored.variance[s].mean() / scored.square[:, s].mean()),
        "var_ratio": np.sqrt(scored.variability[span.name] / truth.variability[span.name]),
    }
    if scored.ranks is not None and scored.thinned_ranks is not None and scored.size and scored.size > 1:
        row["reliability_index"] = float(reliability_index(scored.ranks[s].sum(axis=0)))
        thinned = scored.thinned_ranks[s].sum(axis=0)
        if thinned.sum():
            row["rank_chi2"] = float(rank_chi2(thinned)) / scored.size
            row["rank_p_value"] = float(rank_p_value(thinned))
    base = None if reference is None else float(reference.crps[:, s].mean())
    if base is not None and base > floor:  # where CO2 scaling is as good as the floor there is nothing to gain
        row["skill"] = (base - crps) / (base - floor) + 0.0  # + 0.0: no negative zero for the reference itself
    if draws is not None:
        row.update(_uncertainty(scored, truth, s, draws, reference))
    if np.isnan(floor):
        row["flag"] = "one truth member: no floor, no ratio"
    return finish(row)


def _identity(name: str, span: Period, truth: TruthSeries) -> Row:
    units = VARIABLES[name].score_units
    return {
        "variable": name, "units": units, "window": list(span.window), "period": span.name, "target": "member",
        "N": truth.floor.shape[0],
    }  # fmt: skip


def _uncertainty(
    scored: ScoreSeries, truth: TruthSeries, s: NDArray[np.int64], draws: Bootstrap, reference: ScoreSeries | None
) -> Row:
    """Standard errors and 95% intervals; decades and members are redrawn for score, floor and reference alike."""
    crps, floor = draws.means(scored.crps[:, s]), draws.means(truth.floor[:, s])
    out: Row = {"stderr": {"crps": crps.std(ddof=1)}}
    out["crps_lo"], out["crps_hi"] = _interval(crps)
    if np.isnan(floor).any():
        return out
    ratio = crps / floor
    out["crps_ratio_lo"], out["crps_ratio_hi"] = _interval(ratio)
    out["stderr"]["crps_ratio"] = ratio.std(ddof=1)
    if reference is not None and reference is not scored:
        base = draws.means(reference.crps[:, s])
        if np.percentile(base - floor, 2.5) > 0:  # a ratio whose denominator may be zero has no interval
            skill = (base - crps) / (base - floor)
            out["skill_lo"], out["skill_hi"] = _interval(skill)
            out["stderr"]["skill"] = skill.std(ddof=1)
    return out


def difference_row(
    head: Mapping[str, Any],
    ours: ScoreSeries,
    theirs: ScoreSeries,
    truth: TruthSeries,
    span: Period,
    draws: Bootstrap | None,
) -> Row:
    """CRPS of one ensemble minus that of another on the same steps and members, in units and in floors; below 0 is better.

    Decades and members are redrawn for both alike, so what the two have in common does not widen the interval.
    """
    s = span.steps
    crps, floor = ours.crps[:, s] - theirs.crps[:, s], truth.floor[:, s]
    row: Row = {name: head.get(name) for name in DIFFERENCE_FIELDS} | {
        "M": ours.size, "M_against": theirs.size, "crps_difference": crps.mean(), "ratio_difference": crps.mean() / floor.mean()
    }  # fmt: skip
    if draws is not None:
        drawn, floors = draws.means(crps), draws.means(floor)
        row["crps_difference_lo"], row["crps_difference_hi"] = low, high = _interval(drawn)
        if not np.isnan(floors).any():
            row["ratio_difference_lo"], row["ratio_difference_hi"] = _interval(drawn / floors)
        row["better"] = head["model"] if high < 0 else head["against"] if low > 0 else "undecided"
    return {name: plain_value(value) for name, value in row.items()}


def floor_row(head: Mapping[str, Any], name: str, truth: TruthSeries, span: Period, draws: Bootstrap | None) -> Row:
    """The row of a perfect, infinite ensemble: its CRPS is the floor, its RMSE the noise left in the mean of N members."""
    floor, size = truth.floor[:, span.steps], truth.floor.shape[0]
    row: Row = {**head, **_identity(name, span, truth), "crps_kind": "fair"}
    if size < 2:
        return finish({**row, "flag": "one truth member: no floor, no ratio"})
    row |= {
        "crps": floor.mean(), "crps_floor": floor.mean(), "crps_ratio": 1.0, "spread_skill": 1.0, "bias": 0.0, "var_ratio": 1.0,
        "rmse": np.sqrt(truth.variance[span.steps].mean() / size),
    }  # fmt: skip
    if draws is not None:
        drawn = draws.means(floor)
        row["crps_lo"], row["crps_hi"] = _interval(drawn)
        row["stderr"] = {"crps": drawn.std(ddof=1)}
    return finish(row)


class Comparison:
    """Truth and references on one stretch of one timescale; each is read once, for all predictions on that stretch.

    Args:
        timescale: ``decade``, ``year`` or ``month``.
        truth: Canonical Dataset of that timescale, N members.
        references: Fitted baselines.
        bootstrap: Draws of the block bootstrap; 0 for no intervals.
        anomaly_base: Area mean of the training scenarios 2015-2024 by variable, score units, for nrmse.
        commit: Code commit to write into the rows.
    """

    def __init__(
        self, timescale: str, truth: xr.Dataset, references: Sequence[Baseline] = (), bootstrap: int = 1000,
        anomaly_base: Mapping[str, float] | None = None, commit: str | None = None,
    ) -> None:  # fmt: skip
        self.timescale, self.truth, self.references, self.bootstrap = timescale, truth, references, bootstrap
        self.anomaly_base, self.commit = anomaly_base or {}, commit
        self.spans = periods(truth, timescale)
        self.year = np.asarray(truth["year"].values, dtype=np.int64)
        is_late = (self.year >= LATE_WINDOW[0]) & (self.year <= LATE_WINDOW[1])
        self.late = np.flatnonzero(is_late & (timescale == "year"))
        self._truth: dict[str, TruthSeries] = {}
        self._pools: dict[tuple[str, str], dict[str, ScoreSeries]] = {}
        self._scored: dict[tuple[str, str], dict[str, ScoreSeries]] = {}

    def reference_rows(self, name: str) -> list[Row]:
        """Rows of the floor and of the references for one variable."""
        truth, out = self._truth_of(name), []
        for span in self.spans:
            out.append(floor_row(self._head(FLOOR, {}), name, truth, span, self._draws(span)))
        for model, by_period in self._pools_of(name).items():
            out += self._rows(model, name, by_period, {})
        return out

    def prediction_rows(self, model: str, fields: xr.Dataset, name: str, facts: Mapping[str, Any]) -> list[Row]:
        """Rows of an ensemble aligned with the truth; ``facts`` are fields of the rows known beforehand."""
        scored = ensemble_series(fields, self.truth, name, self.spans, self.late, model)
        by_period = self._scored[model, name] = {span.name: scored for span in self.spans}
        return self._rows(model, name, by_period, facts)

    def difference_rows(self, name: str) -> list[Row]:
        """Paired differences in CRPS of all predictions made rows of so far: to each other and to every reference."""
        ours = [(model, series) for (model, variable), series in self._scored.items() if variable == name]
        pairs = [(a, b) for i, a in enumerate(ours) for b in [*ours[i + 1 :], *self._pools_of(name).items()]]
        out = []
        for (model, by_period), (against, others) in pairs:
            for span in self.spans:
                head = {**self._head(model, {}), "against": against, **_identity(name, span, self._truth_of(name))}
                out.append(
                    difference_row(
                        head, by_period[span.name], others[span.name], self._truth_of(name), span, self._draws(span)
                    )
                )
        return out

    def _truth_of(self, name: str) -> TruthSeries:
        if name not in self._truth:
            self._truth[name] = truth_series(self.truth, name, self.spans)
        return self._truth[name]

    def _pools_of(self, name: str) -> dict[str, dict[str, ScoreSeries]]:
        """Series of the references by model and period."""
        for baseline in self.references:
            if (baseline.name, name) in self._pools:
                continue
            ensemble = baseline.ensemble(self.timescale, self.truth)
            for each in (n for n in ensemble.variables if n in self.truth):  # one ensemble serves all its variables
                self._pools[baseline.name, each] = {
                    span.name: pool_series(ensemble, self.truth, each, span, self.late) for span in self.spans
                }
        return {model: s for (model, variable), s in self._pools.items() if variable == name}

    def _head(self, model: str, facts: Mapping[str, Any]) -> Row:
        attrs = self.truth.attrs
        return {
            "model": model, "source": "ours", "timescale": self.timescale, "esm": attrs.get("source_id"),
            "scenario": attrs.get("experiment_id"), "weights": "coslat", "commit": self.commit, **facts,
        }  # fmt: skip

    def _draws(self, span: Period) -> Bootstrap | None:
        if not self.bootstrap:
            return None
        return Bootstrap.draw(self.year[span.steps], int(self.year[0]), self.truth.sizes["member"], self.bootstrap)

    def _rows(self, model: str, name: str, by_period: Mapping[str, ScoreSeries], facts: Mapping[str, Any]) -> list[Row]:
        truth, reference, out = self._truth_of(name), self._pools_of(name).get(PATTERN_SCALING, {}), []
        for span in self.spans:
            scored = by_period[span.name]
            row = score_row(
                self._head(model, facts), name, scored, truth, span, self._draws(span), reference.get(span.name)
            )
            row["trend_err"] = _slope_per_decade(self.year[span.steps], scored.mean_error[span.steps])
            out.append(row | self._nrmse(name, scored, truth) if span.name == "full" else row)
        return out

    def _nrmse(self, name: str, scored: ScoreSeries, truth: TruthSeries) -> Row:
        """ClimateBench's normalised errors of the years from 2080, anomalies from the training scenarios' 2015-2024."""
        if not self.late.size or name not in self.anomaly_base:
            return {}
        scale = abs(float(truth.mean[self.late].mean()) - self.anomaly_base[name])
        spatial = float(np.sqrt(scored.late_square)) / scale
        in_time = float(np.sqrt((scored.mean_error[self.late] ** 2).mean())) / scale
        return {
            "nrmse_s": spatial, "nrmse_g": in_time, "nrmse_t": spatial + 5.0 * in_time,
            "nrmse_window": [int(self.year[self.late[0]]), int(self.year[self.late[-1]])],
            "nrmse_base": "training scenarios 2015-2024",
        }  # fmt: skip


def _slope_per_decade(year: NDArray[np.int64], series: Array) -> float | None:
    """Least-squares slope over 10 years; None for fewer than 3 different years."""
    if np.unique(year).size < 3:
        return None
    t = year - year.mean()
    return float(10.0 * (t @ series) / (t @ t))
