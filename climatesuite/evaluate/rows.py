"""Rows of ``scores.json``: series averaged over a period, with intervals from one paired block bootstrap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climatesuite.conventions import VARIABLES
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import BLOCK_YEARS, Period, plain_value
from climatesuite.evaluate.scores import rank_chi2, reliability_index
from climatesuite.evaluate.series import ScoreSeries, TruthSeries

Row = dict[str, Any]
BOOTSTRAP_SEED = 0
FIELDS = (
    "model", "params", "source", "ref", "variable", "units", "timescale", "esm", "scenario", "window", "period", "target",
    "M", "N", "seed", "weights", "crps_kind", "rmse", "mae", "bias", "crps", "crps_plain", "crps_floor", "crps_ratio",
    "crps_ratio_lo", "crps_ratio_hi", "skill", "skill_lo", "skill_hi", "spread_skill", "rank_chi2", "reliability_index",
    "var_ratio", "nrmse_s", "nrmse_g", "nrmse_t", "nrmse_window", "nrmse_base", "lsd", "trend_err", "q_err", "runtime_s",
    "stderr", "commit", "flag",
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
        row["reliability_index"] = reliability_index(scored.ranks[s].sum(axis=0))
        thinned = scored.thinned_ranks[s].sum(axis=0)
        row["rank_chi2"] = rank_chi2(thinned) / scored.size if thinned.sum() else None
    base = None if reference is None else float(reference.crps[:, s].mean())
    row["skill"] = None if base is None else (base - crps) / (base - floor)
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
    if np.isnan(floor).any():
        return out
    ratio = crps / floor
    out["crps_ratio_lo"], out["crps_ratio_hi"] = _interval(ratio)
    out["stderr"]["crps_ratio"] = ratio.std(ddof=1)
    if reference is not None and reference is not scored:
        base = draws.means(reference.crps[:, s])
        skill = (base - crps) / (base - floor)
        out["skill_lo"], out["skill_hi"] = _interval(skill)
        out["stderr"]["skill"] = skill.std(ddof=1)
    return out


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
        row["stderr"] = {"crps": draws.means(floor).std(ddof=1)}
    return finish(row)
