"""Cells of curvilinear and unstructured grids in a file: their corners, checked against their centres."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.axes import TO_A_GRID, Axes, grid_kind
from climatesuite.archive.opening import unpack
from climatesuite.errors import DataContractError
from climatesuite.harmonise.curvilinear import CORNERS, cell_areas, holds

_NO_AREA = 1e-12  # steradians, 6 m by 6 m: a cell written with its corners in one point


def cells_of(ds: xr.Dataset, name: str, axes: Axes, file: str) -> dict[str, xr.Variable]:
    """Corners of a variable's cells.

    Args:
        ds: As stored.
        name: The variable.
        axes: With ``cells``.
        file: For messages.

    Returns:
        The coordinates ``lat_corners`` and ``lon_corners``, (cell, corner) in degrees, cells in C order of ``axes.cells``.

    Raises:
        DataContractError: If corners are absent, do not lie around their centres, or cannot be right.
    """
    corners = [_corners(ds, name, axes, which, file) for which in ("lat", "lon")]
    area = cell_areas(*corners, subject=f"corners of {name} in {file}")
    centres = [_degrees(ds, n, ds[n].transpose(*axes.cells), file).ravel() for n, _ in (axes.lat, axes.lon)]
    outside = int(((area > _NO_AREA) & ~holds(*corners, *centres)).sum())
    if outside:
        raise DataContractError(
            f"corners of {name} in {file}", f"{outside} of {area.size} cells whose centre lies outside their corners",
            "corners around their centre", TO_A_GRID,
        )  # fmt: skip
    return {n: xr.Variable(("cell", "corner"), c) for n, c in zip(CORNERS, corners, strict=True)}


def _corners(ds: xr.Dataset, name: str, axes: Axes, which: str, file: str) -> NDArray[np.float64]:
    """Degrees (cell, corner); NaN where they are missing."""
    centre, long_name = (axes.lat[0], "latitude") if which == "lat" else (axes.lon[0], "longitude")
    told = str(ds[centre].attrs.get("bounds", ""))
    usual = (f"{centre}_bnds", f"{centre}_bounds", f"{centre}_vertices", f"vertices_{long_name}", f"bounds_{which}")
    for n in (told, *usual):
        if n in ds.variables and ds[n].ndim == len(axes.cells) + 1 and set(axes.cells) < set(ds[n].dims):
            stored = ds[n].transpose(*axes.cells, ...)
            return _degrees(ds, centre, stored, file).reshape(-1, stored.shape[-1])
    raise DataContractError(
        f"{name} in {file}", f"{grid_kind(ds, name)} without corners of its cells", f"bounds of {centre}, (cell, corner)", TO_A_GRID
    )  # fmt: skip


def _degrees(ds: xr.Dataset, centre: str, stored: xr.DataArray, file: str) -> NDArray[np.float64]:
    """Numbers in the unit that they or their centres state."""
    values = unpack(stored, f"{stored.name} in {file}").astype(np.float64)
    units = str(stored.attrs.get("units", ds[centre].attrs.get("units", "")))
    return np.rad2deg(values) if units.startswith("radian") else values
