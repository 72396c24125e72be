"""Names, units and ranges: the one home of what a variable is called and measured in."""

from dataclasses import dataclass

TIMESCALES = ("decade", "year", "month")
ENSEMBLE_FILES = {"decade": "ensemble_decadal.nc", "year": "ensemble_yearly.nc", "month": "ensemble_monthly.nc"}
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Variable:
    """A climate field.

    Attributes:
        name: CMIP ``variable_id``.
        standard_name: CF standard name.
        long_name: Text for people.
        units: Canonical CF unit, as stored and exported.
        score_units: Unit of every score and figure.
        score_factor: Score value = canonical value x score_factor.
        valid_range: Smallest and largest credible monthly cell value, canonical unit.
        mean_range: Smallest and largest credible monthly global mean, canonical unit; finds wrong unit labels.
        is_nonnegative: Whether values below zero are impossible.
    """

    name: str
    standard_name: str
    long_name: str
    units: str
    score_units: str
    score_factor: float
    valid_range: tuple[float, float]
    mean_range: tuple[float, float]
    is_nonnegative: bool = False


@dataclass(frozen=True)
class Forcing:
    """A driver of the climate: ``is_gridded`` says (time, lat, lon), otherwise (time)."""

    name: str
    long_name: str
    units: str
    is_gridded: bool


VARIABLES = {
    "tas": Variable(
        "tas", "air_temperature", "Near-Surface Air Temperature", "K", "K", 1.0, (150.0, 350.0), (265.0, 305.0)
    ),
    "pr": Variable(
        "pr",
        "precipitation_flux",
        "Precipitation",
        "kg m-2 s-1",
        "mm day-1",
        SECONDS_PER_DAY,
        (-1e-7, 2.5e-3),
        (1e-5, 7e-5),
        is_nonnegative=True,
    ),
}

FORCINGS = {
    "CO2": Forcing("CO2", "cumulative anthropogenic CO2 emissions since 1850", "Gt", False),
    "CH4": Forcing("CH4", "anthropogenic CH4 emissions", "Gt year-1", False),
    "SO2": Forcing("SO2", "anthropogenic SO2 emissions", "kg m-2 s-1", True),
    "BC": Forcing("BC", "anthropogenic black carbon emissions", "kg m-2 s-1", True),
    "CO2_ppm": Forcing("CO2_ppm", "global mean mole fraction of CO2", "1e-6", False),
    "CH4_ppb": Forcing("CH4_ppb", "global mean mole fraction of CH4", "1e-9", False),
    "AOD": Forcing("AOD", "stratospheric aerosol optical depth at 550 nm", "1", True),
}
