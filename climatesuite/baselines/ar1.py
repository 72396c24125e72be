"""Pattern scaling whose residuals remember: an autoregressive process of order one per cell, with whole fields as shocks.

Resampled residuals have no persistence. Here the residual of a step is ``phi`` times the one before plus a shock; ``phi`` is
fitted per cell (and calendar month) on the training residuals, and shocks are drawn among those that the fit leaves, all cells
and variables of one step together. Marginal variances are those of the training residuals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.baselines.names import AR1
from climatesuite.baselines.pattern_scaling import PatternScaling, response_on
from climatesuite.baselines.reference import Array, decades_of_years, known, on_steps
from climatesuite.errors import DataContractError


@dataclass(frozen=True)
class AutoregressiveScaling:
    """Pattern scaling with autoregressive residuals; drawn, as its steps depend on each other.

    Attributes:
        scaling: Fitted pattern scaling; its residual pools of years or months are what the process is fitted on.
        name: Name of the row.
    """

    scaling: PatternScaling
    name: str = AR1

    def draw(self, timescale: str, like: xr.Dataset, members: int, seed: int) -> xr.Dataset:
        """Members on the labels of ``like``: consecutive months or years; decades are means of drawn years.

        Args:
            timescale: ``month``, ``year`` or ``decade``.
            like: Canonical Dataset of that timescale.
            members: How many; member i is the same whatever is drawn beside it.
            seed: Seed.

        Returns:
            ``(member, time, lat, lon)``, float32, canonical units.

        Raises:
            DataContractError: If the pattern scaling was not fitted for the timescale (years, for decades).
        """
        if timescale == "decade":
            return decades_of_years(lambda years: self.draw("year", years, members, seed), like)
        pool = known(self.scaling.residuals, timescale, self.name)
        names = tuple(map(str, pool.data_vars))
        forced = response_on(self.scaling.response, self.scaling.predictor, timescale, like, names)
        process, means = Process.fit(pool, names), [forced[n].values for n in names]
        month = (
            np.asarray(like["month"].values) - 1 if timescale == "month" else np.zeros(like.sizes["time"], dtype=int)
        )
        fields = {n: np.empty((members, *forced[n].shape), dtype=np.float32) for n in names}
        for m in range(members):
            rng = np.random.default_rng([seed, m])
            for t, state in enumerate(process.run(month, rng)):
                for v, n in enumerate(names):
                    fields[n][m, t] = means[v][t] + state[v]
        return on_steps(fields, like, {n: forced[n].attrs for n in names})


@dataclass(frozen=True)
class Process:
    """x(t) = phi x(t - 1) + shock, with one phi per season, variable and cell; a season is a calendar month, or the year.

    Attributes:
        phi: ``[season, var, lat, lon]``.
        shocks: ``[season, sample, var, lat, lon]``.
        start: ``[season, sample, var, lat, lon]`` residuals to begin with.
    """

    phi: Array
    shocks: NDArray[np.float32]
    start: NDArray[np.float32]

    @classmethod
    def fit(cls, pool: xr.Dataset, names: Sequence[str]) -> "Process":
        """Least squares on successive steps of a residual pool, which holds runs one after the other.

        Raises:
            DataContractError: If the pool has no two successive years.
        """
        dims = ("calendar_month", "sample", "lat", "lon")
        values = [pool[n] if "calendar_month" in pool.dims else pool[n].expand_dims("calendar_month") for n in names]
        x = np.stack([v.transpose(*dims).values for v in values], axis=2)
        follows = np.flatnonzero(np.diff(np.asarray(pool["year"].values)) == 1)
        if follows.size == 0:
            raise DataContractError(
                AR1, "no two successive years of residuals", "runs of years", "give longer training runs"
            )
        n_seasons = x.shape[0]
        phi, shocks = np.empty((n_seasons, *x.shape[2:])), []
        for season in range(n_seasons):
            if season > 0:
                before, after = x[season - 1], x[season]
            else:  # the step before lies in the year before
                before, after = x[-1, follows], x[0, follows + 1]
            before, after = before.astype(np.float64), after.astype(np.float64)
            phi[season] = (before * after).sum(axis=0) / (before**2).sum(axis=0)
            shocks.append((after - phi[season] * before).astype(np.float32))
        shortest = min(len(s) for s in shocks)
        return cls(phi, np.stack([s[:shortest] for s in shocks]), x)

    def run(self, season: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Array]:
        """States ``[var, lat, lon]`` along a series of seasons."""
        state: Array = self.start[season[0], rng.integers(self.start.shape[1])].astype(np.float64)
        yield state
        for s in season[1:]:
            state = self.phi[s] * state + self.shocks[s, rng.integers(self.shocks.shape[1])]
            yield state
