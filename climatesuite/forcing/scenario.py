"""Scenarios: named ones from their forcing files, and one's own as departures from them, checked and with their history.

    import climatesuite

    mine = climatesuite.scenario("ssp370").with_forcings_of("ssp126", ["SO2", "BC"]).peak_co2(2060).named("clean-late")
    print(mine.summary())
    emulator.sample(mine, "year")  # or mine.save("inputs_clean-late.nc") and spf sample

Every method returns a new scenario. All departures are differences or ratios of yearly global totals to the named scenario they
started from, in one accounting (:mod:`climatesuite.forcing.accounting`), on its maps as patterns.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import accounting_of, check_same
from climatesuite.forcing.energy_balance import scenarios as ar6_scenarios
from climatesuite.forcing.forcings import fit_to, forcing_file, open_forcings
from climatesuite.forcing.layout import write_forcings
from climatesuite.forcing.reference import expected_response, reference_totals, with_radiative_forcing
from climatesuite.forcing.table import read_table
from climatesuite.forcing.totals import UNITS, with_totals, yearly_totals
from climatesuite.harmonise.grids import cos_weights, regrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA, DATA_DEFAULT = "CLIMATE_DATA", "../shared/data"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
LARGEST_AOD = 2.0
SAME = 1e-6
"""Share of the parent's largest total up to which a forcing is the parent's."""
SOURCE_ID = "CESM2"
"""Earth system model whose energy balance answers, where no other is named."""


@dataclass(frozen=True, eq=False, repr=False)
class Scenario:
    """Forcings of a scenario, where they come from, and how they differ from their parent: emissions and optical depth.

    Concentrations that a file may hold as well are left out, as they would not follow a change of emissions.

    Attributes:
        name: The ``experiment_id``.
        fields: Canonical monthly forcings on their own grid (see ``open_forcings``).
        parent: The named scenario it departs from; None for a named one.
        steps: What was done to the parent, in order, for people and provenance.
        folder: Where the named scenarios are: a folder, or their forcings by name.
    """

    name: str
    fields: xr.Dataset
    parent: "Scenario | None" = None
    steps: tuple[str, ...] = ()
    folder: "Path | Mapping[str, xr.Dataset]" = field(default=Path("."))

    @property
    def base(self) -> "Scenario":
        """The named scenario at its root, itself if it is one."""
        return self.parent or self

    @property
    def years(self) -> tuple[int, int]:
        """First and last year."""
        return int(self.fields.year.values[0]), int(self.fields.year.values[-1])

    @property
    def accounting(self) -> str:
        """How its emissions are counted."""
        return accounting_of(self.fields)

    @property
    def totals(self) -> pd.DataFrame:
        """Yearly global totals by forcing in ``totals.UNITS``, AOD its global mean."""
        return yearly_totals(self.fields)

    @cached_property
    def forcings(self) -> xr.Dataset:
        """Canonical monthly forcings, for ``emulator.sample``; a departure carries its radiative forcing for energy balances.

        Where that cannot be computed (no ``fair``, no table of emissions), the attribute ``no_radiative_forcing`` says why, and an
        emulator that needs it refuses with that reason.
        """
        if self.parent is None:
            return self.fields
        change = self.difference().drop(columns="CO2 cumulative", errors="ignore")
        departs = [
            n for n in change if np.abs(change[n]).max() > SAME * np.abs(self.base.totals.get(n, change[n])).max()
        ]
        return with_radiative_forcing(self, SOURCE_ID).assign_attrs(departs_in=", ".join(map(str, departs)))

    def difference(self) -> pd.DataFrame:
        """Yearly totals minus the parent's, and ``CO2 cumulative`` (Gt, at mid-year)."""
        first, last = self.years
        base = self.base.fields.isel(time=self.base.fields.year.values <= last)
        out = self.totals.sub(yearly_totals(base), fill_value=0.0)[list(self.totals)].loc[first:last]
        if "CO2" in out:
            mid = [ds["CO2"].values.reshape(-1, 12)[:, 5:7].mean(1) for ds in (self.fields, base)]
            out.insert(1, "CO2 cumulative", mid[0] - mid[1])
        return out

    def response(self, source_id: str = SOURCE_ID) -> xr.Dataset:
        """Global means that an energy balance expects, K above 1850-1900.

        Returns:
            ``scenario`` and ``parent (response, year)`` from 1850, one response for each parameter set of the balance.

        Raises:
            DataContractError: If the model has no calibration, the parent no radiative forcing or table of emissions, or
                ``fair`` is not installed.
        """
        return expected_response(self, source_id)

    def named(self, name: str) -> Self:
        """The same under another name.

        Raises:
            DataContractError: If the name is no file name, or that of a scenario of CMIP6, whose radiative forcing would be taken.
        """
        if not NAME.fullmatch(name) or (name in ar6_scenarios() and name != self.name):
            raise DataContractError(
                "name of a scenario", repr(name), "letters, digits, + - . and no name of CMIP6's", "choose another"
            )
        return replace(self, name=name, fields=self.fields.assign_attrs(experiment_id=name))

    def with_forcings_of(self, other: "str | Scenario", names: Sequence[str]) -> Self:
        """Some forcings of another scenario, e.g. ``with_forcings_of("ssp126", ["SO2", "BC"])``: ssp370 with ssp126 aerosols.

        Raises:
            DataContractError: If the other is not there, has not these forcings or years, or counts emissions differently.
        """
        given = other if isinstance(other, Scenario) else scenario(other, self.folder)
        names = [names] if isinstance(names, str) else list(names)
        check_same([self.fields, given.fields], f"{self.name} with forcings of {given.name}")
        absent = [n for n in names if n not in given.fields or n not in self.fields]
        if absent or not names:
            raise DataContractError(
                f"{self.name} with forcings of {given.name}", f"no {', '.join(absent) or 'names'} in both",
                f"some of {', '.join(self.totals)}", "correct the names",
            )  # fmt: skip
        _covers(given.years, self.years, given.name)
        first, last = self.years
        source = given.fields.isel(time=(given.fields.year.values >= first) & (given.fields.year.values <= last))[names]
        if any(FORCINGS[n].is_gridded for n in names) and not _same_grid(source, self.fields):
            source = regrid(source, self.fields)
        changed = self.fields.assign({n: self.fields[n].copy(data=source[n].values) for n in names})
        return self._departed(changed, f"{', '.join(names)} of {given.name}")

    def with_table(
        self,
        table: str | Path | pd.DataFrame,
        accounting: str | None = None,
        how: str = "difference",
        units: Mapping[str, str] | None = None,
        interpolate: bool = False,
    ) -> Self:
        """Yearly global emissions from a table (:func:`climatesuite.forcing.table.read_table`), applied to the parent's.

        Years before the table are the parent's, the scenario ends with the table.

        Args:
            table: CSV file or DataFrame.
            accounting: How the table counts, ``input4mips`` or ``rcmip``; by default the one in which its first year is the
                parent's to one percent.
            how: ``difference`` or ``ratio`` to the parent in that accounting.
            units: Of columns whose head states none.
            interpolate: Fill the years between anchor years.

        Raises:
            DataContractError: If the table is bad, leaves the parent's years, holds a forcing that the scenario has not, its
                accounting is unknown, or a total becomes negative.
        """
        read = read_table(table, units, interpolate)
        wanted, subject = read.yearly, f"{self.name} with {read.source}"
        absent = [n for n in wanted if n not in self.fields]
        if absent:
            raise DataContractError(subject, f"{', '.join(absent)}", f"some of {', '.join(self.totals)}", "delete it")
        first, last = int(wanted.index[0]), int(wanted.index[-1])
        _covers(self.years, (first, last), self.base.name)
        if how not in ("difference", "ratio"):
            raise DataContractError(subject, repr(how), "difference or ratio", "say one of them")
        counted, reference = reference_totals(self.base, wanted, accounting, subject)
        fields = self.fields.isel(time=self.fields.year.values <= last)
        own = yearly_totals(fields, list(wanted))
        base = yearly_totals(self.base.fields, list(wanted)).loc[own.index]
        new = own.copy()
        target = base + wanted - reference if how == "difference" else base * wanted / reference
        new.update(target.loc[first:last])
        changed = with_totals(fields, {n: new[n].to_numpy(np.float64) for n in wanted}, subject)
        said = (
            f"{', '.join(wanted)} of {read.source} as {how} to {self.base.name}, {first}-{last}, counted as {counted}"
        )
        return self._departed(changed, "; ".join([said, *read.notes]))

    def peak_co2(self, year: int, start: int | None = None, removal: float = 0.0) -> Self:
        """Cumulative CO2 that peaks in ``year``: emissions fall in a straight line from ``start`` to zero and stay there.

        Args:
            year: First year without emissions.
            start: Last year with the emissions it has now; by default 2025, or ten years before an earlier peak.
            removal: GtCO2 a year taken out from ten years after the peak on, growing evenly until then.

        Raises:
            DataContractError: If the years are not in order or outside the scenario, or removal is negative.
        """
        first, last = self.years
        begin = max(first, min(2025, year - 10)) if start is None else start
        if not first <= begin < year <= last or removal < 0:
            raise DataContractError(
                f"{self.name} with a peak of CO2", f"start {begin}, peak {year}, removal {removal:g}",
                f"{first} <= start < peak <= {last}, removal 0 or more", "correct them",
            )  # fmt: skip
        totals = self.totals["CO2"].copy()
        after = totals.index[totals.index >= begin]
        totals[after] = np.interp(after, [begin, year, year + 10], [totals[begin], 0.0, -removal])
        changed = with_totals(self.fields, {"CO2": totals.to_numpy(np.float64)}, self.name)
        taken = f", {removal:g} Gt a year removed from {year + 10} on" if removal else ""
        return self._departed(changed, f"CO2 emissions fall evenly from {begin} to zero in {year}{taken}")

    def with_aod(self, steps: Mapping[int, float], pattern: xr.DataArray | None = None) -> Self:
        """Stratospheric aerosol injection in steps, as optical depth at 550 nm: ``with_aod({2035: 0.1, 2045: 0.2, 2080: 0})``.

        Args:
            steps: Global mean added from a year on, until the next.
            pattern: ``(lat)`` or ``(lat, lon)`` on the scenario's grid, any scale; by default the same everywhere.

        Raises:
            DataContractError: If a year lies outside, a value is not credible, or the pattern does not fit.
        """
        first, last = self.years
        years = sorted(steps)
        bad = [y for y in years if not first <= y <= last or not 0 <= steps[y] <= LARGEST_AOD]
        if bad or not years:
            found = f"{steps[bad[0]]:g} from {bad[0]} on" if bad else "no steps"
            raise DataContractError(
                f"AOD of {self.name}",
                found,
                f"0 to {LARGEST_AOD:g} from a year of {first}-{last} on",
                "correct the steps",
            )
        series = pd.Series(steps).sort_index().reindex(range(first, last + 1)).ffill().fillna(0.0)
        monthly = xr.DataArray(np.repeat(series.to_numpy(np.float64), 12), dims="time")
        added = (monthly * self._pattern(pattern)).transpose("time", "lat", "lon")
        before = self.fields["AOD"] if "AOD" in self.fields else 0.0
        about = FORCINGS["AOD"]
        attrs = {"long_name": about.long_name, "units": about.units, "role": "forcing"}
        values = (added + before).astype(np.float32).transpose("time", "lat", "lon")
        changed = self.fields.assign(AOD=(("time", "lat", "lon"), values.values, attrs))
        shape = "" if pattern is None else ", of the pattern given"
        return self._departed(changed, "AOD " + ", ".join(f"{steps[y]:g} from {y}" for y in years) + shape)

    def _pattern(self, pattern: xr.DataArray | None) -> xr.DataArray:
        grid = self.fields
        whole = xr.ones_like(grid["lat"] * grid["lon"])
        if pattern is None:
            return whole
        if set(pattern.dims) - {"lat", "lon"} or any(pattern.sizes[d] != grid.sizes[d] for d in pattern.dims):
            raise DataContractError(
                f"AOD of {self.name}", f"a pattern {dict(pattern.sizes)}", f"lat {grid.sizes['lat']} (lon {grid.sizes['lon']})",
                "put it on the scenario's grid",
            )  # fmt: skip
        spread = whole * pattern.drop_vars(["lat", "lon"], errors="ignore")
        mean = float(spread.weighted(cos_weights(grid["lat"])).mean())
        if not (np.isfinite(spread).all() and (spread >= 0).all() and mean > 0):
            raise DataContractError(
                f"AOD of {self.name}", "a pattern with missing or negative values", "0 or more", "fill it"
            )
        return spread / mean

    def _departed(self, fields: xr.Dataset, step: str) -> Self:
        name = self.name if self.parent else f"{self.name}-custom"
        fields = fields.assign_attrs(experiment_id=name, accounting=self.accounting, parent_scenario=self.base.name)
        return replace(self, name=name, fields=fields, parent=self.base, steps=(*self.steps, step))

    def on(self, names: Sequence[str], grid: xr.Dataset, calendar: str) -> xr.Dataset:
        """The forcings an emulator takes, on its grid and in its calendar; see :func:`climatesuite.forcing.forcings.fit_to`."""
        return fit_to(self.forcings, names, grid, calendar)

    def save(self, path: str | Path) -> Path:
        """Write it in ClimateBench's input layout, whole or not at all; :func:`scenario` and ``spf sample`` read it.

        Args:
            path: NetCDF file, or a folder, which gets ``inputs_<name>.nc``.
        """
        told = {"departures": "\n".join(self.steps)} if self.parent else {}
        return write_forcings(self.forcings, Path(path), told, repr(self))

    def summary(self) -> str:
        """What it is, how it differs from its parent, and what global mean an energy balance expects."""
        from climatesuite.forcing.scenario_text import summary

        return summary(self)

    def plot(self) -> "Sequence[Axes]":
        """Yearly totals beside the parent's, and the expected global mean; one Axes a panel."""
        from climatesuite.forcing.scenario_text import plot

        return plot(self)

    def __repr__(self) -> str:
        first, last = self.years
        made = "; ".join([self.base.name, *self.steps]) if self.parent else f"forcings {', '.join(self.totals)}"
        return f"Scenario {self.name}, {first}-{last}: {made}"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre style='font-family: monospace'>{escape(self.summary())}</pre>"


def scenario(name: str | Path, folder: str | Path | Mapping[str, xr.Dataset] | None = None) -> Scenario:
    """A named scenario, or one that was saved.

    Args:
        name: ``ssp370`` or another of ``inputs_<name>.nc`` in the folder, or a file that :meth:`Scenario.save` wrote.
        folder: With the forcing files, itself or in ``forcings``; by default ``$CLIMATE_DATA``. Or canonical forcings by name, such
            as ``emulator.scenarios``, those that an emulator carries.

    Raises:
        DataContractError: If there is none, or its file breaks the contract of ``open_forcings``.
    """
    if isinstance(folder, Mapping):
        if str(name) in folder:
            given = folder[str(name)]
            kept = given.drop_vars([n for n in given.data_vars if n not in UNITS])
            attrs = {"accounting": accounting_of(given), "license": str(given.attrs.get("license", "not stated"))}
            return Scenario(str(name), kept.assign_attrs(experiment_id=str(name), **attrs), folder=folder)
        if not Path(name).suffix:
            raise DataContractError(
                f"scenario {name}", "not among those given", f"one of {', '.join(folder)}", "correct it"
            )
    where = folder if isinstance(folder, Mapping) else _folder(folder, str(name))
    path = Path(name)
    file = path if path.suffix == ".nc" or isinstance(where, Mapping) else forcing_file(_forcings_in(where), str(name))
    if not file.is_file():
        raise DataContractError(str(file), "no such file", "a file that Scenario.save wrote", "correct the path")
    with xr.open_dataset(file, decode_times=False) as ds:
        about: dict[str, Any] = dict(ds.attrs)
        names = [n for n in UNITS if n in ds.data_vars]
    said = about.get("experiment_id")
    fields = open_forcings(file, names, str(said) if said else None)
    fields = fields.drop_vars([n for n in fields.data_vars if n not in FORCINGS] + ["erf_year"], errors="ignore")
    fields.attrs["accounting"] = accounting_of(xr.Dataset(attrs=about))
    parent = about.get("parent_scenario")
    steps = tuple(s for s in str(about.get("departures", "")).split("\n") if s)
    return Scenario(
        str(fields.attrs["experiment_id"]), fields, scenario(parent, where) if parent else None, steps, where
    )


def _folder(given: str | Path | None, name: str) -> Path:
    where = Path(given or os.environ.get(DATA, DATA_DEFAULT))
    if not where.is_dir() and Path(name).suffix != ".nc":
        said = f"{DATA} is not set" if given is None and DATA not in os.environ else f"no folder {where}"
        raise DataContractError(
            f"scenario {name}", said, f"a folder with forcings/inputs_{name}.nc",
            f"set {DATA} to it, give it as folder, or give the forcings that an emulator carries: "
            f"climatesuite.scenario({name!r}, emulator.scenarios)",
        )  # fmt: skip
    return where


def _forcings_in(folder: Path) -> Path:
    return folder / "forcings" if (folder / "forcings").is_dir() else folder


def _covers(have: tuple[int, int], wanted: tuple[int, int], name: str) -> None:
    if wanted[0] < have[0] or wanted[1] > have[1]:
        raise DataContractError(
            f"forcings of {name}",
            f"years {have[0]}-{have[1]}",
            f"{wanted[0]}-{wanted[1]}",
            "narrow the years asked for",
        )


def _same_grid(one: xr.Dataset, other: xr.Dataset) -> bool:
    return all(one.sizes[a] == other.sizes[a] and np.allclose(one[a], other[a], atol=1e-5) for a in ("lat", "lon"))
