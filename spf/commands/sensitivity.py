"""The verb sensitivity: does the forcing matter to an emulator? Counterfactuals of a scenario beside it, with the same noise."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import climatesuite
from climatesuite.conventions import VARIABLES
from climatesuite.evaluate.answers import MEMBERS, Row, answer_table, row
from climatesuite.evaluate.diagnostics import global_mean
from climatesuite.evaluate.report import write_json
from climatesuite.forcing.energy_response import EnergyBalanceResponse
from climatesuite.forcing.scenario import Scenario
from climatesuite.forcing.variants import AS_IT_IS, CO2_ONLY, LESS_CO2, MORE_CO2, NO_AEROSOL, variants
from spf.commands.spread import open_emulator
from spf.sampling.emulator import Emulator

log = logging.getLogger("spf")
YEARS = 20
TCRE = (0.27e-3, 0.63e-3)
"""K per Gt CO2, likely range (IPCC AR6 WG1, SPM D.1.1: 0.27 to 0.63 K per 1000 Gt CO2)."""
AEROSOL_COOLING = (0.0, 0.8)
"""K, of other human drivers than greenhouse gases, mainly aerosol, in 2010-2019 (IPCC AR6 WG1, SPM A.1.3)."""
LEAST = 0.05
"""K; where no range is known, a smaller response is none."""
QUESTION = "does the forcing matter"
WHOLE, SKELETON = "response", "response of the forced mean alone"


def sensitivity(
    checkpoint: Path, scenario: str | Path, members: int, timescale: str, seed: int, out: Path, folder: Path | None = None,
    source_id: str = "",
) -> tuple[str, list[str]]:  # fmt: skip
    """Draw a scenario and its counterfactuals, and write the rows.

    Args:
        checkpoint: ``emulator.pt`` of a run.
        scenario: Name, or file of forcings.
        members: How many of each.
        timescale: ``decade``, ``year`` or ``month``.
        seed: Of the noise, the same for all.
        out: JSON to make.
        folder: With ``inputs_<scenario>.nc``.
        source_id: Which Earth system model; empty takes the first.

    Returns:
        The table, and a warning for everything that the emulator does not feel.

    Raises:
        DataContractError: As :func:`sensitivity_rows`.
    """
    emulator = open_emulator(checkpoint)
    emulator = emulator.of(source_id) if source_id else emulator
    rows = sensitivity_rows(emulator, climatesuite.scenario(scenario, folder), members, timescale, seed)
    write_json(out, rows)
    return answer_table(rows), warnings_of(rows)


def sensitivity_rows(
    emulator: Emulator, scenario: Scenario, members: int = 8, timescale: str = "decade", seed: int = 0
) -> list[Row]:
    """Global-mean responses to counterfactual forcings in the last 20 years, variant minus scenario, member by member.

    Noise is the same on both sides, so the internal variability of a member largely cancels.

    Args:
        emulator: Any.
        scenario: Its departures are made by :func:`climatesuite.forcing.variants.variants`.
        members: How many.
        timescale: ``decade``, ``year`` or ``month``.
        seed: Of the noise.

    Returns:
        Rows ``name`` (the counterfactual), ``variable``, ``region`` (``response``, or of the forced mean alone, which is what
        the network did not add); for tas with the range of IPCC AR6 as ``reference`` where there is one. ``agrees`` is False where
        the emulator is insensitive or goes the other way, and ``note`` says so.

    Raises:
        DataContractError: If the scenario lacks a forcing that the emulator takes, or is of fewer than 10 years.
    """
    numbers = list(range(members))
    made = _felt(emulator, scenario)
    plain = _on(emulator, made.pop(AS_IT_IS))
    control = emulator.sample(plain, timescale, numbers, seed=seed)
    forced = _skeleton(emulator, control, plain)
    years = (int(plain.year.values[0]), int(plain.year.values[-1]))
    rows = []
    for name, other in made.items():
        forcings = _on(emulator, other)
        drawn = emulator.sample(forcings, timescale, numbers, seed=seed)
        log.info("%s: drawn %d members", name, members)
        alone = _skeleton(emulator, control, forcings)
        for variable in emulator.codec.variables:
            about: dict[str, Any] = {
                "question": QUESTION, "name": name, "variable": variable, "units": VARIABLES[variable].score_units,
                "timescale": timescale, "window": years, "M": members,
            }  # fmt: skip
            found = _late(global_mean(drawn, variable)) - _late(global_mean(control, variable))
            expected = _expected(name, plain, forcings) if variable == "tas" else None
            rows.append(_row(found, expected, **about, region=WHOLE))
            rows.append(row(**about, region=SKELETON, value=alone[variable] - forced[variable]))
    return rows


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """One sentence for every response that the emulator does not show."""
    return [f"{r['name']}: {r['note']}" for r in rows if r["agrees"] is False]


def _felt(emulator: Emulator, scenario: Scenario) -> dict[str, Scenario]:
    """Counterfactuals in forcings that the emulator takes; others are its parent to it, which is said."""
    takes, made = emulator.codec.forcings, variants(_taken(scenario, emulator.codec.forcings))
    for name in (CO2_ONLY, NO_AEROSOL):
        if name not in made:
            log.warning("%s: this emulator takes %s alone, so nothing would change", name, ", ".join(takes))
    return made


def _taken(scenario: Scenario, names: Sequence[str]) -> Scenario:
    """The scenario with the forcings that an emulator takes, and CO2."""
    kept = scenario.fields.drop_vars([n for n in scenario.fields.data_vars if n not in (*names, "CO2")])
    return replace(scenario, fields=kept)


def _on(emulator: Emulator, scenario: Scenario) -> xr.Dataset:
    """Forcings as the emulator takes them; with their radiative forcing, which takes FaIR some seconds, where it needs one."""
    needs = isinstance(emulator.codec.response, EnergyBalanceResponse)
    return emulator.forcings(scenario if needs else scenario.fields)


def _late(series: xr.DataArray) -> np.ndarray:
    """Mean of the last 20 years, or of the last half of fewer: ``(member, time) -> [member]``."""
    year = np.asarray(series["year"].values)
    span = 10 if series.sizes["time"] > 1 and np.all(np.diff(year) == 10) else 1
    whole = int(year[-1]) + span - int(year[0])
    last = year > int(year[-1]) + span - 1 - min(YEARS, max(span, whole // 2))
    return np.asarray(series.isel(time=np.flatnonzero(last)).mean("time").values)


def _skeleton(emulator: Emulator, like: xr.Dataset, forcings: xr.Dataset) -> dict[str, float]:
    """Late global mean of the forced response alone by variable, on the steps of an ensemble, score units."""
    codec, one = emulator.codec, like.isel(member=[0])
    years = np.unique(like["year"].values).astype(int).tolist()
    fields = codec.forced(codec.predictor(forcings), str(like.attrs["timescale"]), years).numpy()
    alone = one.assign({v: one[v].copy(data=f[None]) for v, f in zip(codec.variables, fields, strict=True)})
    return {v: float(_late(global_mean(alone, v))[0]) for v in codec.variables}


def _expected(name: str, plain: xr.Dataset, changed: xr.Dataset) -> tuple[float, float] | None:
    """Range of the warming in the last 20 years, K; None where no assessment gives one."""
    if name == NO_AEROSOL:
        return AEROSOL_COOLING
    if name not in (MORE_CO2, LESS_CO2):
        return None
    late = plain["year"].values > int(plain["year"].values[-1]) - YEARS
    change = float((changed["CO2"] - plain["CO2"]).values[late].mean())
    low, high = sorted(change * k for k in TCRE)
    return low, high


def _row(found: np.ndarray, expected: tuple[float, float] | None, **about: Any) -> Row:
    value = float(found.mean())
    lo, hi = np.percentile(found, [5.0, 95.0]) if found.size > 1 else (None, None)
    out: dict[str, Any] = {"value": value, "lo": lo, "hi": hi, "interval": MEMBERS}
    if about["variable"] != "tas":
        return row(**about, **out)
    limit = LEAST if expected is None or not all(expected) else min(LEAST, 0.5 * min(abs(e) for e in expected))
    if expected is not None:
        out |= {"reference": sum(expected) / 2.0, "reference_lo": expected[0], "reference_hi": expected[1],
                "reference_kind": "IPCC AR6"}  # fmt: skip
    if abs(value) < limit:
        out["note"] = f"INSENSITIVE: {value:+.3f} K, less than {limit:.3f} K"
    elif expected is not None and np.sign(value) != np.sign(sum(expected)):
        out["note"] = f"GOES THE OTHER WAY: {value:+.3f} K, expected {expected[0]:+.3f} to {expected[1]:+.3f} K"
    return row(**about, **out, agrees="note" not in out)
