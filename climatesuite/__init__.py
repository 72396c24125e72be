"""ClimateSuite: CMIP-style archives in, analysis-ready Zarr, forced responses and scores out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from climatesuite.forcing.scenario import Scenario

__version__ = "0.1.0"


def scenario(name: str | Path, folder: "str | Path | Mapping[str, xr.Dataset] | None" = None) -> "Scenario":
    """A scenario by name (``ssp370``) or from a file, to sample or to depart from; see `climatesuite.forcing.scenario`.

    Raises:
        climatesuite.errors.DataContractError: If there is none of that name in the folder (default ``$CLIMATE_DATA``), or
            among forcings by name, such as ``emulator.scenarios``.
    """
    from climatesuite.forcing.scenario import scenario as find

    return find(name, folder)
