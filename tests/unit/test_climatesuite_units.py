"""Units: labels become numbers in the canonical unit, and numbers that do not fit their label are refused."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import area_weights, target_grid
from climatesuite.harmonise.units import SPELLINGS, WATER, check_range, conversion, to_canonical

FLUX, WEIGHTS = 3e-5, area_weights(target_grid((4, 6))).values


def field(value: float, units: str | None) -> xr.DataArray:
    return xr.DataArray(
        np.full((2, 4, 6), value), dims=("time", "lat", "lon"), attrs={} if units is None else {"units": units}
    )


@pytest.mark.parametrize(
    ("name", "value", "units", "expected"),
    [
        ("tas", 288.0, "K", 288.0),
        ("tas", 14.85, "degC", 288.0),
        ("tas", 14.85, " celsius ", 288.0),
        ("tas", 58.73, "degF", 288.0),
        ("pr", FLUX * 86400, "mm day-1", FLUX),
        ("pr", FLUX * 86400, "mm/day", FLUX),
        ("pr", FLUX, "mm  s-1", FLUX),
        ("pr", FLUX * 1e3, "g m-2 s-1", FLUX),
        ("CO2", 100.0, "GtC", 366.41),
        ("CO2", 1000.0, "Mt", 1.0),
        ("CH4", 370.0, "Mt CH4/yr", 0.37),
        ("CH4", 370.0, "Tg year-1", 0.37),
        ("AOD", 10.0, "%", 0.1),
    ],
)
def test_values_are_converted(name, value, units, expected):
    assert to_canonical(field(value, units), name, "f.nc").values == pytest.approx(expected, rel=2e-5)


def test_every_spelling_that_a_unit_library_knows_means_the_same_there():
    import cf_units

    for canonical, table in {**SPELLINGS, "mm s-1": WATER}.items():
        for text, (factor, offset) in table.items():
            try:
                unit = cf_units.Unit(text)
            except ValueError:
                continue
            if text and unit.is_convertible(canonical) and not unit.is_unknown():
                assert unit.convert(1.0, canonical) == pytest.approx(factor + offset, rel=1e-9)


def test_fields_and_forcings_get_their_canonical_attributes():
    out = to_canonical(field(10.0, "degC").assign_attrs(comment="old"), "tas", "f.nc")
    assert out.dtype == np.float32 and out.attrs["units"] == "K" and out.attrs["role"] == "field"
    assert out.attrs["standard_name"] == "air_temperature" and "comment" not in out.attrs
    forcing = to_canonical(field(1.0, "Gt"), "CO2", "f.nc")
    assert forcing.attrs == {"long_name": FORCINGS["CO2"].long_name, "units": "Gt", "role": "forcing"}


def test_lazy_fields_stay_lazy():
    assert to_canonical(field(10.0, "degC").chunk(), "tas", "f.nc").chunks is not None


@pytest.mark.parametrize("units", ["furlong", "m", "", "kelvins per day"])
def test_an_unknown_unit_or_one_of_another_kind_is_refused(units):
    with pytest.raises(DataContractError, match=f"f.nc: units '{units}' are unknown; expected one of K, kelvin"):
        to_canonical(field(1.0, units), "tas", "f.nc")


def test_a_length_is_not_a_rain_rate():
    with pytest.raises(DataContractError, match="units 'mm' are unknown"):
        conversion("mm", VARIABLES["pr"].units, "f.nc")


@pytest.mark.parametrize(("name", "units"), [("SO2", "mm/day"), ("BC", "m s-1"), ("tas", "mm/day"), ("CO2", "m s-1")])
def test_depths_of_water_measure_nothing_but_rain(name, units):
    with pytest.raises(DataContractError, match=f"units '{units}' are unknown"):
        to_canonical(field(1.0, units), name, "f.nc")


def test_a_field_without_units_is_refused():
    with pytest.raises(DataContractError, match="f.nc: no attribute units"):
        to_canonical(field(1.0, None), "tas", "f.nc")


def test_credible_fields_pass():
    check_range(field(288.0, "K").values, "tas", "f.nc", WEIGHTS)
    check_range(field(FLUX, "kg m-2 s-1").values, "pr", "f.nc", WEIGHTS)


@pytest.mark.parametrize(("name", "value"), [("tas", 15.0), ("pr", 3.0), ("pr", -1e-6)])
def test_celsius_called_kelvin_and_millimetres_called_flux_are_found(name, value):
    with pytest.raises(DataContractError, match="f.nc: values from .* is the unit label right"):
        check_range(field(value, None).values, name, "f.nc")


@pytest.mark.parametrize(("name", "value"), [("tas", 320.0), ("pr", 1e-4), ("pr", 1e-6)])
def test_an_incredible_global_mean_is_found_in_global_fields_only(name, value):
    check_range(field(value, None).values, name, "f.nc")
    with pytest.raises(DataContractError, match="f.nc: a global mean of"):
        check_range(field(value, None).values, name, "f.nc", WEIGHTS)
