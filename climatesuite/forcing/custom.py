"""Forcing of scenarios that nobody ran: a scenario of AR6's table, its parent, plus a difference computed by FaIR from emissions.

    forcing = ar6_forcing(parent) + [FaIR(emissions of the scenario) - FaIR(emissions of the parent)]

FaIR (Leach et al. 2021, doi 10.5194/gmd-14-3007-2021; the package ``fair``, an optional extra) turns yearly global emissions of
CO2, CH4, SO2 and BC into forcing. Only the difference is used, so what FaIR and the table disagree on in the past cancels, and
a scenario with its parent's emissions has its parent's forcing. The aerosol's difference is made as strong as the Earth system
model's own aerosol: it is multiplied by the model's forcing of 2014 over FaIR's for the parent.

Measured against the table's own differences between SSPs, with ssp370 as parent and CESM2's aerosol (largest error of any year;
test_climatesuite_custom_forcing.py): CO2 within 0.17 W m-2, aerosol within 0.33 W m-2, the rest within 0.4 W m-2 for ssp245 but
0.9 W m-2 for ssp126, because the ozone that NOx, CO and VOC make, N2O and halogenated gases are not among the four emissions.
The global mean of CESM2 is off by at most 0.32 K, where the parent alone would be off by 1.0 to 3.4 K: the closer the parent, the
less is missing.
FaIR runs here without network: its helpers that download scenarios are not used.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import FIRST_YEAR, Calibration, ThreeLayer, ar6_forcing

Array = NDArray[np.float64]
EMISSIONS = {"CO2_GtCO2_yr": "CO2", "CH4_Mt_yr": "CH4", "SO2_Mt_yr": "Sulfur", "BC_Mt_yr": "BC"}
"""Columns, which hold the unit, and FaIR's names. CO2 of fossil fuels, industry and land use together."""
CREDIBLE = {
    "CO2_GtCO2_yr": (-100.0, 300.0, 10.0),
    "CH4_Mt_yr": (0.0, 3000.0, 50.0),
    "SO2_Mt_yr": (0.0, 500.0, 3.0),
    "BC_Mt_yr": (0.0, 50.0, 1.0),
}
"""Least and most credible of a year, and what the largest year must reach: finds wrong units (Gt for Mt, kt for Mt)."""
CREDIBLE_1850 = {"co2_ppm_1850": (250.0, 320.0), "ch4_ppb_1850": (500.0, 1200.0)}
N2O_PPB = 273.0
SCENARIO_START = 2015
_AEROSOLS = ("Aerosol-radiation interactions", "Aerosol-cloud interactions")
_OTHER = ("CH4", "Ozone", "Stratospheric water vapour", "Light absorbing particles on snow and ice")
_AEROSOL_YEAR = 2014
LIMITS = (
    "Differences from the parent hold CO2, CH4, SO2 and BC with the ozone and water vapour that CH4 makes; N2O, halogenated gases, "
    "NOx, CO, VOC, NH3, OC, land use, contrails and natural forcing are the parent's. Where ozone precursors change with CH4, a "
    "third to a half of the change of ozone's forcing is seen."
)


@dataclass(frozen=True, eq=False)
class Emissions:
    """Global emissions of a scenario and where its atmosphere begins.

    Attributes:
        experiment_id: Name of the scenario.
        yearly: Columns of ``EMISSIONS``, indexed by year, every year from 1850 on; global totals.
        co2_ppm_1850: Concentration of CO2 in 1850.
        ch4_ppb_1850: Concentration of CH4 in 1850.
    """

    experiment_id: str
    yearly: pd.DataFrame
    co2_ppm_1850: float = 284.317
    ch4_ppb_1850: float = 808.249

    def __post_init__(self) -> None:
        """Refuse tables with gaps, missing columns or values, and units that cannot be right."""
        subject = f"emissions of {self.experiment_id}"
        absent = [name for name in EMISSIONS if name not in self.yearly]
        if absent:
            raise DataContractError(
                subject,
                f"no {', '.join(absent)}",
                f"{', '.join(EMISSIONS)}",
                "add them, zero is a value, absence is not",
            )
        years = self.years
        if not years.size or not np.array_equal(years, np.arange(FIRST_YEAR, FIRST_YEAR + years.size)):
            found = f"years {years[0]} to {years[-1]}, {years.size} of them" if years.size else "no years"
            raise DataContractError(
                subject,
                found,
                f"every year once from {FIRST_YEAR}",
                "interpolate, and put the history before the scenario",
            )
        for name, (least, most, reached) in CREDIBLE.items():
            values = self.yearly[name].to_numpy(np.float64)
            if not np.isfinite(values).all():
                raise DataContractError(subject, f"missing values in {name}", "finite values", "fill them")
            low, high = values.min(), values.max()
            if not (least <= low and reached <= high <= most):
                raise DataContractError(
                    subject, f"{name} from {low:.4g} to {high:.4g}", f"{least:g} to {most:g}, at its largest {reached:g} or more",
                    "is the unit right? the column's name says it",
                )  # fmt: skip
        for name, (least, most) in CREDIBLE_1850.items():
            if not least <= getattr(self, name) <= most:
                raise DataContractError(
                    subject, f"{name} {getattr(self, name):g}", f"{least:g} to {most:g}", "correct the unit"
                )

    @property
    def years(self) -> NDArray[np.int64]:
        """The years, in order."""
        return self.yearly.index.to_numpy(np.int64)


def read_emissions(path: str | Path, scenario: str) -> Emissions:
    """Emissions of a scenario from a CSV table.

    Args:
        path: Columns ``scenario, year``, those of ``EMISSIONS``, and ``CO2_ppm, CH4_ppb``, of which 1850 is taken.
        scenario: The rows wanted.

    Raises:
        DataContractError: If a column or the scenario is not there, or its emissions break the contract of :class:`Emissions`.
    """
    table, file = pd.read_csv(path), Path(path).name
    absent = [name for name in ("scenario", "year", "CO2_ppm", "CH4_ppb") if name not in table]
    if absent:
        raise DataContractError(file, f"no column {', '.join(absent)}", "scenario, year, CO2_ppm, CH4_ppb", "add them")
    rows = table[table["scenario"] == scenario].set_index("year").sort_index()
    if rows.empty:
        known = ", ".join(sorted(map(str, set(table["scenario"]))))
        raise DataContractError(f"emissions of {scenario}", f"not in {file}", f"one of {known}", "correct the name")
    start = rows.iloc[0]
    yearly = rows[[name for name in EMISSIONS if name in rows]]
    return Emissions(scenario, yearly, float(start["CO2_ppm"]), float(start["CH4_ppb"]))


def custom_forcing(
    parent: str,
    parent_emissions: Emissions,
    emissions: Emissions,
    calibration: Calibration,
    start: int = SCENARIO_START,
) -> xr.Dataset:
    """Effective radiative forcing of a scenario of one's own, by component.

    Args:
        parent: Scenario of the forcing table that is closest.
        parent_emissions: Its emissions, of the same inventory as ``emissions``: inventories differ by more than scenarios.
        emissions: Those of the scenario; equal to the parent's before ``start``. The result ends with them.
        calibration: Of the Earth system model; scales the aerosol, and its first set warms FaIR's carbon cycle.
        start: First year in which the scenario may differ; 1850 for a counterfactual history.

    Returns:
        As :func:`ar6_forcing`: components ``(year)`` from 1850, W m-2. Attributes name the scenario (``experiment_id``), its
        ``parent_experiment_id``, the ``aerosol_ratio`` and the limits (``comment``).

    Raises:
        DataContractError: If the parent is not in the table or its emissions are another scenario's, the history differs, the
            scenario ends after the parent or the table, or ``fair`` is not installed.
    """
    forcing = ar6_forcing(parent, calibration)
    _check(parent, parent_emissions, emissions, int(forcing["year"].values[-1]), start)
    version, (base, other) = _fair([parent_emissions, emissions], emissions.years, calibration.sets[0])
    own = float(forcing["aerosol"].sel(year=_AEROSOL_YEAR))
    ratio = own / (base["aerosol"][_AEROSOL_YEAR - FIRST_YEAR] - base["aerosol"][0])
    out = forcing.sel(year=emissions.years)
    for name, factor in (("co2", 1.0), ("other", 1.0), ("aerosol", ratio)):
        out[name] = out[name] + factor * (other[name] - base[name])
    out.attrs = {
        "experiment_id": emissions.experiment_id,
        "parent_experiment_id": parent,
        "source": f"{forcing.attrs['source']}; FaIR {version}, scenario minus parent",
        "aerosol_ratio": float(ratio),
        "comment": LIMITS,
    }
    return out


def _check(parent: str, parent_emissions: Emissions, emissions: Emissions, last: int, start: int) -> None:
    subject = f"forcing of {emissions.experiment_id}"
    if parent_emissions.experiment_id != parent:
        raise DataContractError(
            subject,
            f"emissions of {parent_emissions.experiment_id} for the parent",
            parent,
            "give the parent's emissions",
        )
    end, ends = int(emissions.years[-1]), min(last, int(parent_emissions.years[-1]))
    if not _AEROSOL_YEAR <= end <= ends:
        raise DataContractError(
            subject,
            f"emissions to {end}",
            f"to {_AEROSOL_YEAR}-{ends}, where the parent's forcing ends",
            "cut or extend them",
        )
    for name in EMISSIONS:
        own, other = (
            e.yearly[name].loc[: min(start - 1, end)].to_numpy(np.float64) for e in (emissions, parent_emissions)
        )
        differs = ~np.isclose(own, other, rtol=1e-6, atol=0)
        if differs.any():
            raise DataContractError(
                subject, f"{name} differs from {parent} in {FIRST_YEAR + int(differs.argmax())}", f"the same before {start}",
                "take both from one inventory, or say start",
            )  # fmt: skip


def _fair(paths: list[Emissions], years: NDArray[np.int64], layers: ThreeLayer) -> tuple[str, list[dict[str, Array]]]:
    """FaIR's version, and its forcing by component of every scenario ``(year)``, W m-2."""
    try:
        package, interface, properties_of = (import_module(f"fair{m}") for m in ("", ".interface", ".io"))
    except ImportError as error:
        raise DataContractError(
            "forcing of a custom scenario", "the package fair is not installed", "fair >=2.2,<3",
            "pip install climatesuite-spf[fair]",
        ) from error  # fmt: skip
    fill, initialise = interface.fill, interface.initialise
    names = [str(row) for row in range(len(paths))]
    model = package.FAIR(ghg_method="meinshausen2020", ch4_method="leach2021")
    model.define_time(int(years[0]), int(years[-1]) + 1, 1)
    model.define_scenarios(names)
    model.define_configs(["one"])
    species = [*EMISSIONS.values(), "N2O", *_AEROSOLS, *_OTHER[1:]]
    _, properties = properties_of.read_properties(species=species)
    properties["CO2"]["input_mode"], properties["N2O"]["input_mode"] = "emissions", "concentration"
    model.define_species(species, properties)
    model.allocate()
    model.fill_species_configs()
    for name, path in zip(names, paths, strict=True):
        for column, specie in EMISSIONS.items():
            values = path.yearly[column].loc[years].to_numpy(np.float64)
            fill(model.emissions, values[:, None], specie=specie, scenario=name)
    _begin(model, paths[0], layers, fill, initialise)
    model.run(progress=False)
    return str(package.__version__), [_by_component(model.forcing.sel(scenario=name, config="one")) for name in names]


def _begin(model: Any, first: Emissions, layers: ThreeLayer, fill: Any, initialise: Any) -> None:
    """1850: the concentrations given, layers at rest. What aerosol is counted from does not matter to a difference."""
    config = model.species_configs
    fill(config["baseline_emissions"], 0.0, specie="CH4")
    fill(model.concentration, N2O_PPB, specie="N2O")
    for name in ("baseline_concentration", "forcing_reference_concentration"):
        fill(config[name], first.co2_ppm_1850, specie="CO2")
    climate = model.climate_configs
    fill(climate["ocean_heat_capacity"], np.array(layers.heat_capacity)[None])
    fill(climate["ocean_heat_transfer"], np.array([layers.feedback, *layers.exchange])[None])
    fill(climate["deep_ocean_efficacy"], layers.efficacy)
    initialise(model.concentration, first.co2_ppm_1850, specie="CO2")
    initialise(model.concentration, first.ch4_ppb_1850, specie="CH4")
    for state in (model.forcing, model.temperature, model.cumulative_emissions, model.airborne_emissions):
        initialise(state, 0)


def _by_component(forcing: xr.DataArray) -> dict[str, Array]:
    """Calendar years from the values at their bounds. Aerosol at a bound is that of the emissions of the year before it."""

    def total(species: tuple[str, ...]) -> Array:
        return np.asarray(forcing.sel(specie=list(species)).sum("specie").values, dtype=np.float64)

    co2, other = total(("CO2",)), total(_OTHER)
    return {"co2": (co2[1:] + co2[:-1]) / 2, "other": (other[1:] + other[:-1]) / 2, "aerosol": total(_AEROSOLS)[1:]}
