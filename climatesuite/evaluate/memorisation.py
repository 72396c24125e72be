"""Does a sampler copy its training data? Distance to the nearest training field, sampled members against held-out ones.

A field is a departure of one step from the forced response or a smooth trend, divided in each cell (and calendar month) by
the training members' standard deviation and scaled to an area-mean square of 1: then too little or too much variance neither
hides a copy nor passes for one. The distance of two fields is the root of the area-mean squared difference,
sqrt(2 (1 - pattern correlation)): 0 for a copy, sqrt(2) for fields without relation. Held-out members say how near a new
member of the same Earth system comes by chance (El Niño years resemble each other).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics, structure
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.protocol import timescale_of
from climatesuite.evaluate.structure_table import (
    Forced,
    check_alike,
    field_names,
    forced_fields,
    interval_row,
    structure_table,
)
from climatesuite.harmonise.coarsen import to_year
from climatesuite.harmonise.grids import cos_weights
from climatesuite.store.open import only

COPY_FRACTION = 0.5
"""A field nearer to a training field than this share of the nearest held-out distance is called a copy."""
SIGNIFICANCE = 0.001
"""Smallest probability of as many sampled fields nearer than every held-out one that still passes."""


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training field, of one variable.

    Attributes:
        variable: Name; timescale: ``year`` or ``month``.
        sampled: ``[members, steps]`` of the sampled members.
        held_out: One ``[steps]`` for each held-out member.
    """

    variable: str
    timescale: str
    sampled: Array
    held_out: tuple[Array, ...]

    @property
    def nearest_held_out(self) -> float:
        """The smallest distance of any held-out field."""
        return float(min(distances.min() for distances in self.held_out))

    @property
    def copies(self) -> float:
        """Share of sampled fields nearer than half of the nearest held-out distance; 0 expected."""
        return float(np.mean(self.sampled < COPY_FRACTION * self.nearest_held_out))

    @property
    def p_value(self) -> float:
        """Probability of as many sampled fields nearer than every held-out one, were all drawn alike and independent.

        Of m sampled and n held-out distances in random order the k smallest are all sampled with probability
        prod_(i < k) (m - i) / (m + n - i).
        """
        m, n = self.sampled.size, sum(distances.size for distances in self.held_out)
        first = np.arange(np.count_nonzero(self.sampled < self.nearest_held_out))
        return float(np.exp(np.sum(np.log((m - first) / (m + n - first)))))

    @property
    def passed(self) -> bool:
        """Whether there is no copy and no more near fields than chance allows.

        Fields much smoother than real ones also come nearer than chance: look at the zonal power before blaming memory.
        """
        return self.copies == 0.0 and self.p_value >= SIGNIFICANCE

    def rows(self) -> list[dict[str, Any]]:
        """Rows as in the structure table: median and smallest distance beside the held-out members', copies, and p."""
        about = {"units": "1", "M": self.sampled.shape[0], "N": len(self.held_out)}
        rows = []
        for name, statistic in (("median", np.median), ("smallest", np.min)):
            real = np.array([statistic(distances) for distances in self.held_out])
            value = float(np.mean([statistic(distances) for distances in self.sampled]))
            label = f"distance to the nearest training {self.timescale}, {name}"
            rows.append(interval_row(label, self.variable, value, real) | about)
        for name, value, low, high in (
            (f"copies among {self.timescale}s", self.copies, 0.0, 0.0),
            (f"p of so many near {self.timescale}s", self.p_value, SIGNIFICANCE, 1.0),
        ):
            limits = {"real_mean": None, "real_lo": low, "real_hi": high, "inside": low <= value <= high}
            rows.append({"name": name, "variable": self.variable, "value": value, **limits, **about})
        return rows


def memorisation(
    sampled: xr.Dataset,
    training: xr.Dataset | Iterable[xr.Dataset],
    held_out: xr.Dataset | Iterable[xr.Dataset],
    name: str,
    *,
    forced: Forced | None = None,
) -> Memorisation:
    """Distance of every sampled field to the nearest training field, and the same of held-out members.

    Members are read one at a time; the training fields are held once in float32 (months are compared with months of the same
    name only). Yearly fields are the usual choice: independent enough for the p-value, and 1,000 of 48 x 72 cells take 14 MB.

    Args:
        sampled: Canonical Dataset ``(member, time, lat, lon)``; may be lazy.
        training: The members the sampler has learned from, one Dataset a scenario.
        held_out: Members it has never seen, best of the sampled scenario.
        name: Variable.
        forced: Forced response of each Dataset; by default a parabola per member, cell and calendar month.

    Raises:
        DataContractError: If a side is empty, timescales or grids differ, or steps are missing.
    """
    known, unseen = _listed(training, "training members"), _listed(held_out, "held-out members")
    everything = [ds[[name]] if name in ds else ds for ds in (sampled, *known, *unseen)]
    check_alike(everything, f"memorisation of {name}")
    scales = sorted({timescale_of(ds, "memorisation") for ds in everything})
    if len(scales) > 1:
        raise DataContractError(f"memorisation of {name}", f"timescales {scales}", "one", "coarsen the finer ones")
    pool = _Pool(known, name, forced)
    ours = np.stack([pool.distances(a, month) for a, month in _departures([sampled], name, forced)])
    theirs = tuple(pool.distances(a, month) for a, month in _departures(unseen, name, forced))
    return Memorisation(name, scales[0], ours, theirs)


def member_rows(
    ensembles: Mapping[str, xr.Dataset],
    training: Iterable[xr.Dataset],
    held_out: xr.Dataset | Iterable[xr.Dataset],
    *,
    forced: Forced | None = None,
    decade_start: int | None = None,
) -> list[dict[str, Any]]:
    """The structure table against all real members, and with training members the memorisation test of every variable.

    Args:
        ensembles: Canonical Datasets by timescale (decades take no part). Years are tested for memory, months where no years
            are given.
        training: Canonical runs of months; none leaves the memorisation test out.
        held_out: Canonical runs of months with the members the sampler has never seen.
        forced: See ``structure_table``; decade_start: too.

    Raises:
        DataContractError: As ``structure_table`` and :func:`memorisation`.
    """
    known, unseen = list(training), _listed(held_out, "held-out members")
    rows = structure_table(ensembles, [*known, *unseen], forced=forced, decade_start=decade_start)
    if known:
        sampled = ensembles["year"] if "year" in ensembles else ensembles["month"]
        names = field_names(sampled)
        if "year" in ensembles:
            known, unseen = ([to_year(only(ds, names)) for ds in side] for side in (known, unseen))
        for name in names:
            rows += memorisation(sampled, known, unseen, name, forced=forced).rows()
    return rows


def nearest_distances(units: NDArray[np.float32], pool: NDArray[np.float32]) -> Array:
    """Distance to the nearest of a pool: ``[n, P], [K, P] -> [n]``, all fields of length 1 (or 0)."""
    alike = np.asarray((units @ pool.T).max(axis=1), dtype=np.float64)
    return np.sqrt(np.maximum(2.0 - 2.0 * alike, 0.0))


class _Pool:
    """Training fields of length 1 by calendar month (all in one group where there are none)."""

    def __init__(self, training: Sequence[xr.Dataset], name: str, forced: Forced | None) -> None:
        lat = training[0]["lat"]
        weights = np.asarray(cos_weights(lat).values, dtype=np.float64)
        self._root = np.sqrt(weights / (weights.sum() * training[0].sizes["lon"]))[:, None]
        squares: dict[int, Array] = {}
        counts: dict[int, int] = {}
        for a, month in _departures(training, name, forced):
            for m in np.unique(month):
                part = a[month == m]
                squares[m] = squares.get(m, 0.0) + (part**2).sum(axis=0)
                counts[m] = counts.get(m, 0) + part.shape[0]
        self._scale = {m: np.sqrt(square / counts[m]) for m, square in squares.items()}
        parts: dict[int, list[NDArray[np.float32]]] = {m: [] for m in self._scale}
        for a, month in _departures(training, name, forced):
            for m in np.unique(month):
                parts[m].append(self._units(a[month == m], m))
        self._fields = {m: np.concatenate(units) for m, units in parts.items()}

    def _units(self, departure: Array, month: int) -> NDArray[np.float32]:
        """Fields ``[n, lat, lon]`` standardised, weighted and scaled to length 1: ``[n, P]``; cells that never vary count 0."""
        scale = self._scale[month]
        z = np.divide(departure, scale, out=np.zeros_like(departure), where=scale > 0) * self._root
        flat = z.reshape(len(z), -1)
        length = np.sqrt((flat**2).sum(axis=1, keepdims=True))
        return np.divide(flat, length, out=np.zeros_like(flat), where=length > 0).astype(np.float32)

    def distances(self, departure: Array, month: NDArray[np.int64]) -> Array:
        """Distance of each step of a member ``[T, lat, lon]`` to the nearest training field of its calendar month."""
        out = np.empty(len(departure))
        for m in np.unique(month):
            if m not in self._fields:
                raise DataContractError(
                    "memorisation", f"month {m}", "a month of the training members", "give whole years"
                )
            out[month == m] = nearest_distances(self._units(departure[month == m], m), self._fields[m])
        return out


def _departures(
    datasets: Sequence[xr.Dataset], name: str, forced: Forced | None
) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    """Departures ``[T, lat, lon]`` and calendar months ``[T]`` (0 where there are none) of each member in turn."""
    for ds in datasets:
        is_month = "month" in ds.coords
        month = np.asarray(ds["month"].values, dtype=np.int64) if is_month else np.zeros(ds.sizes["time"], np.int64)
        response = None if forced is None else forced_fields(forced(ds), ds, [name])[name]
        for field in diagnostics.members(ds, name):
            yield (
                structure.departures(field, structure.MONTHS if is_month else 1)
                if response is None
                else field - response,
                month,
            )


def _listed(given: xr.Dataset | Iterable[xr.Dataset], what: str) -> list[xr.Dataset]:
    datasets = [given] if isinstance(given, xr.Dataset) else list(given)
    if not datasets or not all(ds.sizes.get("member", 0) for ds in datasets):
        raise DataContractError("memorisation", f"no {what}", "one or more", f"give canonical Datasets of {what}")
    return datasets
