"""Units: a table of accepted spellings first, then a units library, then a check that the numbers fit the label."""

import numpy as np
import xarray as xr

from climatesuite.conventions import FORCINGS, SECONDS_PER_DAY, VARIABLES
from climatesuite.errors import DataContractError

SPELLINGS: dict[str, dict[str, tuple[float, float]]] = {
    "K": {"K": (1.0, 0.0), "kelvin": (1.0, 0.0), "degC": (1.0, 273.15), "celsius": (1.0, 273.15), "C": (1.0, 273.15)},
    "kg m-2 s-1": {
        "kg m-2 s-1": (1.0, 0.0), "kg/m2/s": (1.0, 0.0), "kg m^-2 s^-1": (1.0, 0.0), "kg/(m^2*s)": (1.0, 0.0),
        "mm day-1": (1 / SECONDS_PER_DAY, 0.0), "mm/day": (1 / SECONDS_PER_DAY, 0.0), "mm d-1": (1 / SECONDS_PER_DAY, 0.0),
        "mm s-1": (1.0, 0.0), "mm/s": (1.0, 0.0),
    },
    "Gt": {"Gt": (1.0, 0.0), "GtCO2": (1.0, 0.0), "Gt CO2": (1.0, 0.0), "GtC": (44.009 / 12.011, 0.0)},
    "Gt year-1": {
        "Gt year-1": (1.0, 0.0), "GtCH4/yr": (1.0, 0.0), "GtCH4": (1.0, 0.0), "Gt yr-1": (1.0, 0.0), "Gt/yr": (1.0, 0.0),
        "Mt year-1": (1e-3, 0.0), "Mt CH4/yr": (1e-3, 0.0), "Mt/yr": (1e-3, 0.0),
    },
    "1e-6": {"1e-6": (1.0, 0.0), "1.e-6": (1.0, 0.0), "ppm": (1.0, 0.0), "umol mol-1": (1.0, 0.0)},
    "1e-9": {"1e-9": (1.0, 0.0), "1.e-9": (1.0, 0.0), "ppb": (1.0, 0.0), "nmol mol-1": (1.0, 0.0)},
    "1": {"1": (1.0, 0.0), "": (1.0, 0.0), "dimensionless": (1.0, 0.0)},
}  # fmt: skip
"""Spelling -> (factor, offset) to the canonical unit. Water of 1 kg m-2 is 1 mm deep."""


def conversion(units: str, canonical: str, subject: str) -> tuple[float, float]:
    """Factor and offset that turn ``units`` into the canonical unit.

    Args:
        units: As the file states it.
        canonical: Unit of `conventions`.
        subject: For the message.

    Raises:
        DataContractError: If the unit is unknown or of another kind.

    >>> conversion("degC", "K", "tas")
    (1.0, 273.15)
    """
    text = " ".join(str(units).split())
    table = SPELLINGS.get(canonical, {})
    if text in table:
        return table[text]
    import cf_units

    try:
        known = cf_units.Unit(text)
        if known.is_convertible(canonical):
            zero, one = (float(known.convert(float(x), canonical)) for x in (0.0, 1.0))
            return one - zero, zero
    except ValueError:
        pass
    raise DataContractError(
        subject, f"units {str(units)!r} are unknown", f"one of {', '.join(filter(None, table)) or canonical}",
        "correct the attribute, or add the spelling to climatesuite.harmonise.units.SPELLINGS",
    )  # fmt: skip


def to_canonical(field: xr.DataArray, name: str, subject: str) -> xr.DataArray:
    """A field or forcing in its canonical unit, with canonical attributes; fields in float32.

    Args:
        field: With the attribute ``units``; lazy or in memory.
        name: Key of `conventions.VARIABLES` or `FORCINGS`.
        subject: For messages, e.g. a file name.

    Raises:
        DataContractError: If the units are absent, unknown or of another kind.
    """
    if "units" not in field.attrs:
        raise DataContractError(subject, "no attribute units", "a unit", "write the attribute")
    if name in VARIABLES:
        about = VARIABLES[name]
        attrs = {
            "standard_name": about.standard_name,
            "long_name": about.long_name,
            "units": about.units,
            "role": "field",
        }
        attrs["cell_methods"] = "area: time: mean"
    else:
        driver = FORCINGS[name]
        attrs = {"long_name": driver.long_name, "units": driver.units, "role": "forcing"}
    factor, offset = conversion(field.attrs["units"], attrs["units"], subject)
    if (factor, offset) != (1.0, 0.0):
        field = field.astype(np.float64) * factor + offset
    if name in VARIABLES:
        field = field.astype(np.float32)
    return field.assign_attrs(attrs).drop_attrs(deep=False).assign_attrs(attrs)


def check_range(values: np.ndarray, name: str, subject: str, area_weights: np.ndarray | None = None) -> None:
    """Refuse numbers that cannot be what their unit says.

    Args:
        values: Canonical unit, (..., lat, lon).
        name: Variable.
        subject: For the message.
        area_weights: Weight of each row; given for global fields, whose mean is checked as well.

    Raises:
        DataContractError: If a value or the global mean is not credible; a wrong unit label is the usual cause.
    """
    about = VARIABLES[name]
    low, high = float(values.min()), float(values.max())
    if not (about.valid_range[0] <= low and high <= about.valid_range[1]):
        raise DataContractError(
            subject, f"values from {low:.4g} to {high:.4g} {about.units}",
            f"{about.valid_range[0]:g} to {about.valid_range[1]:g}", "is the unit label right, and is this a monthly mean?",
        )  # fmt: skip
    if area_weights is None:
        return
    mean = float(np.average(values.mean(axis=-1).reshape(-1, values.shape[-2]).mean(0), weights=area_weights))
    if not about.mean_range[0] <= mean <= about.mean_range[1]:
        raise DataContractError(
            subject, f"a global mean of {mean:.4g} {about.units}",
            f"{about.mean_range[0]:g} to {about.mean_range[1]:g}", "is the unit label right?",
        )  # fmt: skip
