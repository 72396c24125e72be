"""Units: a table of accepted spellings first, then a units library, then a check that the numbers fit the label."""

import numpy as np
import xarray as xr

from climatesuite.conventions import FORCINGS, SECONDS_PER_DAY, VARIABLES
from climatesuite.errors import DataContractError

_SAME, _CELSIUS, _DAILY = (1.0, 0.0), (1.0, 273.15), (1 / SECONDS_PER_DAY, 0.0)
SPELLINGS: dict[str, dict[str, tuple[float, float]]] = {
    "K": {
        **dict.fromkeys(("K", "kelvin", "Kelvin", "degK", "deg K", "deg_K", "degrees_K", "degree_Kelvin"), _SAME),
        **dict.fromkeys(("degC", "celsius", "Celsius", "C", "deg C", "deg_C", "degrees_C", "degreesC", "°C", "degree_Celsius",
                         "degrees_Celsius", "degree_C", "deg_c"), _CELSIUS),
    },
    "kg m-2 s-1": {
        **dict.fromkeys(("kg m-2 s-1", "kg/m2/s", "kg m^-2 s^-1", "kg/(m^2*s)", "kg m**-2 s**-1", "kg m-2 sec-1", "kg/m^2/s",
                         "kg/m**2/s", "kg/(m2 s)", "kg.m-2.s-1", "kg s-1 m-2"), _SAME),
        **dict.fromkeys(("kg m-2 day-1", "kg m-2 d-1", "kg/m2/day"), _DAILY),
    },
    "Gt": {"Gt": _SAME, "GtCO2": _SAME, "Gt CO2": _SAME, "GtC": (44.009 / 12.011, 0.0)},
    "Gt year-1": {
        **dict.fromkeys(("Gt year-1", "GtCH4/yr", "GtCH4", "Gt yr-1", "Gt/yr"), _SAME),
        **dict.fromkeys(("Mt year-1", "Mt CH4/yr", "Mt/yr"), (1e-3, 0.0)),
    },
    "1e-6": {"1e-6": _SAME, "1.e-6": _SAME, "ppm": _SAME, "umol mol-1": _SAME},
    "1e-9": {"1e-9": _SAME, "1.e-9": _SAME, "ppb": _SAME, "nmol mol-1": _SAME},
    "1": {"1": _SAME, "": _SAME, "dimensionless": _SAME},
}  # fmt: skip
"""Spelling -> (factor, offset) to the canonical unit."""
WATER = {
    **dict.fromkeys(("mm s-1", "mm/s", "mm/sec"), _SAME),
    **dict.fromkeys(("mm day-1", "mm/day", "mm d-1", "mm/d", "mm d**-1", "mm day^-1"), _DAILY),
    **dict.fromkeys(("mm h-1", "mm/h", "mm/hr", "mm hr-1", "mm hour-1"), (1 / 3600, 0.0)),
    **dict.fromkeys(("m s-1", "m/s", "m s**-1"), (1000.0, 0.0)),
    **dict.fromkeys(("m day-1", "m/day"), (1000 / SECONDS_PER_DAY, 0.0)),
}
"""Depths of water a time -> (factor, offset) to kg m-2 s-1: 1 kg m-2 is 1 mm deep. Nothing but precipitation is measured so."""
PER_MONTH = dict.fromkeys(
    ("mm month-1", "mm/month", "mm mon-1", "mm/mon", "mm months-1", "kg m-2 month-1", "kg/m2/month"), "mm day-1"
)
"""Amounts a month, and the daily rate that they are once divided by the days of the month."""


def per_month(units: str) -> str | None:
    """The unit of the daily rate, where a unit is an amount a month; otherwise None."""
    return PER_MONTH.get(" ".join(str(units).split()))


def conversion(units: str, canonical: str, subject: str, is_water: bool = True) -> tuple[float, float]:
    """Factor and offset that turn ``units`` into the canonical unit.

    Args:
        units: As the file states it.
        canonical: Unit of `conventions`.
        subject: For the message.
        is_water: Whether depths of water are accepted for mass on area: of precipitation, not of emissions.

    Raises:
        DataContractError: If the unit is unknown or of another kind.

    >>> conversion("degC", "K", "tas")
    (1.0, 273.15)
    """
    text = " ".join(str(units).split())
    is_water = is_water and canonical == "kg m-2 s-1"
    table = {**SPELLINGS.get(canonical, {}), **(WATER if is_water else {})}
    if text in table:
        return table[text]
    import cf_units

    try:
        known = cf_units.Unit(text)
        for target in (canonical, *(["mm s-1"] if is_water else [])):  # it does not know what water weighs
            if known.is_convertible(target):
                zero, one = (float(known.convert(float(x), target)) for x in (0.0, 1.0))
                return one - zero, zero
    except ValueError:
        pass
    usual = [*filter(None, table)][:3] or [canonical]
    raise DataContractError(
        subject, f"units {str(units)!r} are unknown", f"one of {', '.join(usual)} ...",
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
    factor, offset = conversion(field.attrs["units"], attrs["units"], subject, is_water=name in VARIABLES)
    if (factor, offset) != (1.0, 0.0):
        field = field.astype(np.float64) * factor + offset
    out = (field.astype(np.float32, copy=False) if name in VARIABLES else field).copy(deep=False)
    out.attrs = attrs
    return out


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
