"""The model card of an emulator that is shipped, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from climatesuite.conventions import FORCINGS

CREDITS = {
    "CESM2": """
- Climate data: Danabasoglu, G. (2019): NCAR CESM2 model output prepared for CMIP6 ScenarioMIP, Earth System Grid Federation,
  doi 10.22033/ESGF/CMIP6.2201; the model: Danabasoglu et al. (2020), doi 10.1029/2019MS001916. Averaged here to 48 x 72 cells.
  Licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). With thanks to NCAR and CMIP6.
- Forcings: input4MIPs (CC BY 4.0), emissions of the SSPs by Gidden et al. (2019), doi 10.5194/gmd-12-1443-2019, in the layout of
  ClimateBench (doi 10.1029/2021MS002954). The checkpoint carries area means of blocks of cells, not the files.
- Radiative forcing: data of IPCC AR6 WG1 chapter 7 (MIT). Energy balance: calibrations of fair-calibrate (MIT)."""
}
"""Attribution by Earth system model."""

CARD = """# Model card: `spf.load("{name}")`

```python
import spf

years = spf.load("{name}").sample("{scenario}", members=100, timescale="year", seed=0)
```

| | |
|---|---|
{facts}

## Scores

{scores}

## Limits

{limits}

## Licence and attribution

The numbers of the emulator derive from data under: {license}. They may be shared and changed under CC BY 4.0 with this attribution.
The code is Apache-2.0.
{credits}
"""

SCORES = """On {tested_on}, which it has not seen, against {held_out} held-out members. CRPS over the floor, a perfect ensemble's
expected CRPS: 1 is perfect. In brackets 95 % of a bootstrap over decades.

| | years | members | RMSE of the mean | CRPS ÷ floor | CO2 pattern scaling | spread ÷ error |
|---|---|---|---|---|---|---|
{rows}"""


def card_text(content: Mapping[str, Any], name: str, size: int, digest: str) -> str:
    """The card.

    Args:
        content: Of the checkpoint, with ``card`` and ``scenarios``.
        name: Under which it is loaded.
        size: Of the file in bytes.
        digest: Its sha256.
    """
    known, card = content["provenance"], content["card"]
    facts = _facts(content) | {
        "file": f"{size / 1e6:.1f} MB: 16-bit numbers, patterns in 8 bits with a scale a map (`spf/compact.py`)",
        "sha256": f"`{digest}`",
        "made by": f"`{card['command']}`, then `spf ship runs/{content['config']['name']} --out spf/shipped --name {name}`",
    }
    return CARD.format(
        name=name,
        scenario=card["tested_on"],
        facts="\n".join(f"| {k} | {v} |" for k, v in facts.items()),
        scores=_scores(card),
        limits="\n".join(f"- {line}" for line in card["limits"]),
        license=known["license"],
        credits=CREDITS.get(known["source_id"], ""),
    )


def _facts(content: Mapping[str, Any]) -> dict[str, str]:
    known, codec, grid = content["provenance"], content["codec"], content["codec"]["grid"]
    how = known["training"]
    runs = ", ".join(f"{e} ({', '.join(m)})" for e, m in known["training_members"].items())
    return {
        "emulates": f"{known['source_id']}: {', '.join(codec['scales'])}, as decades, years and months",
        "grid": f"{len(grid['lat'])} x {len(grid['lon'])}",
        "trained on": f"{runs}, {known['training_years'][0]}–{known['training_years'][1]}",
        "driven by": "; ".join(f"{f} ({FORCINGS[f].long_name}, {FORCINGS[f].units})" for f in codec["forcing_mean"]),
        "scenarios inside": ", ".join(content["scenarios"]),
        "network": f"{known['parameters']:,} parameters",
        "training": f"{how['steps']} steps in {how['seconds'] / 60:.1f} minutes, seed {known['seed']}, {known['hardware']}",
    }


def _scores(card: Mapping[str, Any]) -> str:
    rows: Sequence[Mapping[str, Any]] = card["scores"]
    if not rows:
        return "None."
    return SCORES.format(
        tested_on=card["tested_on"], held_out=rows[0]["N"], rows="\n".join("| " + " | ".join(_row(r)) + " |" for r in rows)
    )  # fmt: skip


def _row(r: Mapping[str, Any]) -> list[str]:
    beside = "–" if r["pattern_scaling"] is None else f"{r['pattern_scaling']:.3f}"
    bounds = "" if r["crps_ratio_lo"] is None else f" [{r['crps_ratio_lo']:.2f}, {r['crps_ratio_hi']:.2f}]"
    years = "–".join(str(y) for y in r["window"] or ())
    return [
        f"{r['variable']} {r['timescale']}", years, str(r["M"]), f"{r['rmse']:.3g} {r['units']}",
        f"{r['crps_ratio']:.3f}{bounds}", beside, f"{r['spread_skill']:.2f}",
    ]  # fmt: skip
