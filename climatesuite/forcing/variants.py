"""Counterfactuals of a scenario that show whether its forcings matter: CO2 alone, no aerosol, a tenth more or less CO2.

They are scenarios of one's own (:mod:`climatesuite.forcing.scenario`), so that they carry their radiative forcing where it can be
computed.
"""

from dataclasses import replace

import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.scenario import Scenario

AEROSOLS = ("SO2", "BC")
AS_IT_IS, CO2_ONLY, NO_AEROSOL, MORE_CO2, LESS_CO2 = "as it is", "CO2 only", "aerosols off", "CO2 +10 %", "CO2 -10 %"
CO2_SHARE = 0.1


def variants(base: Scenario) -> dict[str, Scenario]:
    """What is asked of an emulator, by name.

    - ``as it is``: what the others are compared with. It, too, is a scenario of one's own, so that whatever an emulator knows of
      named scenarios alone is missing on both sides.
    - ``CO2 only``: all other forcings stay at those of the first year, month by month.
    - ``aerosols off``: SO2 and BC are zero in every year; left out where there are none.
    - ``CO2 +10 %``, ``CO2 -10 %``: what is emitted from the first step on is scaled; the past stays.

    Raises:
        DataContractError: If there is no CO2.
    """
    fields = base.fields
    if "CO2" not in fields:
        raise DataContractError(f"variants of {base.name}", "no CO2", "CO2 among the forcings", "give them with CO2")
    others, aerosols = [n for n in fields.data_vars if n != "CO2"], [n for n in AEROSOLS if n in fields]
    out = {AS_IT_IS: _departed(base, fields, "nothing", "as-it-is")}
    if others:
        held = fields.assign({n: _held(fields[n]) for n in others})
        out[CO2_ONLY] = _departed(
            base, held, f"{', '.join(map(str, others))} held at {int(fields.year.values[0])}", "co2-only"
        )
    if aerosols:
        off = fields.assign({n: xr.zeros_like(fields[n]) for n in aerosols})
        out[NO_AEROSOL] = _departed(base, off, f"{', '.join(aerosols)} zero", "no-aerosol")
    for name, factor, short in ((MORE_CO2, 1.0 + CO2_SHARE, "more-co2"), (LESS_CO2, 1.0 - CO2_SHARE, "less-co2")):
        start = fields["CO2"].isel(time=0, drop=True)
        scaled = (start + factor * (fields["CO2"] - start)).assign_attrs(fields["CO2"].attrs)
        out[name] = _departed(base, fields.assign(CO2=scaled), f"CO2 emitted from then on times {factor:g}", short)
    return out


def _held(forcing: xr.DataArray) -> xr.DataArray:
    """The first year's twelve months in every year."""
    months = [i % 12 for i in range(forcing.sizes["time"])]
    return forcing.copy(data=forcing.isel(time=months).transpose(*forcing.dims).values)


def _departed(base: Scenario, fields: xr.Dataset, step: str, short: str) -> Scenario:
    name = f"{base.name}-{short}"
    about = {"experiment_id": name, "accounting": base.accounting, "parent_scenario": base.base.name}
    return replace(base, name=name, fields=fields.assign_attrs(about), parent=base.base, steps=(*base.steps, step))
