"""The verb scenario: make a scenario of one's own, say what it is, write and draw it."""

from collections.abc import Sequence
from pathlib import Path

import climatesuite
from climatesuite.errors import DataContractError
from climatesuite.forcing.scenario import Scenario


def make(
    name: str,
    folder: Path | None = None,
    table: Path | None = None,
    accounting: str | None = None,
    how: str = "difference",
    interpolate: bool = False,
    forcings_of: Sequence[Sequence[str]] = (),
    peak_co2: int | None = None,
    aod: dict[int, float] | None = None,
    renamed: str | None = None,
) -> Scenario:
    """The scenario that the options of the command describe, in the order table, forcings of others, peak, AOD.

    Raises:
        DataContractError: As the methods of :class:`climatesuite.forcing.scenario.Scenario`.
    """
    made = climatesuite.scenario(name, folder)
    if table is not None:
        made = made.with_table(table, accounting, how, interpolate=interpolate)
    for other, *names in forcings_of:
        if not names:
            raise DataContractError(f"--with-forcings-of {other}", "no forcings", "e.g. ssp126 SO2 BC", "name them")
        made = made.with_forcings_of(other, names)
    if peak_co2 is not None:
        made = made.peak_co2(peak_co2)
    if aod:
        made = made.with_aod(aod)
    return made.named(renamed) if renamed else made


def write(made: Scenario, out: Path | None, picture: Path | None) -> list[Path]:
    """Write the forcing file and the picture that are asked for, and say which files were made."""
    written = [made.save(out)] if out is not None else []
    if picture is not None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        made.plot()
        pyplot.gcf().savefig(picture, dpi=120)
        written.append(picture)
    return written
