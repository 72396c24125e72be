"""What an ensemble and an emulator say about themselves: attributes for files, drivers beside fields, a page for notebooks."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from climatesuite.conventions import FORCINGS
from climatesuite.harmonise.calendars import YEARS_PER_DECADE
from spf.codec import FieldCodec
from spf.config import SamplingConfig
from spf.pyramid.spec import PyramidSpec

if TYPE_CHECKING:
    from spf.sampling.emulator import Emulator

METHOD = "climatesuite-spf: Spatiotemporal Pyramid Flows (arXiv 2512.02268) around a fitted forced response"
UNSCORED = "no scores in this checkpoint; see the scores.json of its run, or `spf ship` it with them"


def ensemble_attrs(
    emulator: "Emulator", template: xr.Dataset, forcings: xr.Dataset, how: SamplingConfig, seed: int
) -> dict[str, Any]:
    """Global attributes of an ensemble: what drew it from what, and by how far its scenario leaves what was learned from."""
    known, beyond = emulator.provenance, emulator.codec.beyond_training(forcings)
    return {
        "title": f"Emulated {known['source_id']} under {template.attrs.get('experiment_id', 'a scenario')}",
        "institution": "made with climatesuite-spf",
        "source": METHOD,
        "references": "https://arxiv.org/abs/2512.02268",
        "model": "spf",
        "license": known["license"],
        "training_sources": json.dumps({"source_id": known["source_id"], "members": known["training_members"]}),
        "checkpoint_sha256": emulator.digest,
        "seed": seed,
        "solver": f"{how.solver}, {_words(how.n_steps)} steps a stage, shift {_words(how.shift)}",
        "precision": emulator.precision,
        "comment": f"{emulator.how_members_hang_together} Negative precipitation is set to zero.",
        **({"extrapolation": "; ".join(beyond)} if beyond else {}),
    }


def how_windows_join(spec: PyramidSpec) -> str:
    """Whether windows see their neighbours, by timescale where that differs."""
    scales = list(dict.fromkeys(stage.timescale for stage in spec.stages().values()))
    seen, alone = ([s for s in scales if (spec.halo[s] > 0) == sees] for sees in (True, False))
    if not alone:
        return "Members are trajectories: windows see the steps of their neighbours."
    if not seen:
        return "Windows are drawn independently of each other given their parents."
    return (
        f"Windows see the steps of their neighbours where a step is a {' or '.join(seen)}; where it is a {' or '.join(alone)}, "
        "they are drawn independently of each other given their parents."
    )


def drivers(forcings: xr.Dataset, codec: FieldCodec, timescale: str, labels: Sequence[int]) -> dict[str, Any]:
    """Forcings on the steps of an ensemble, maps by their area mean: coordinates (time) with units."""
    year, days = forcings["year"].values, forcings["days"].values
    span = YEARS_PER_DECADE if timescale == "decade" else 1
    chosen = [(year >= first) & (year < first + span) for first in labels]
    rows, out = len(codec.grid.lat), dict[str, Any]()
    for name in codec.forcings:
        field, about = forcings[name], FORCINGS[name]
        if "lat" in field.dims:
            field = field.mean("lon", dtype=np.float64) @ xr.DataArray(
                codec.grid.row_weights().numpy() / rows, dims="lat"
            )
        values = np.asarray(field.values, dtype=np.float64)
        if timescale == "month":
            found = np.concatenate([values[c] for c in chosen])
        else:
            found = np.array([np.average(values[c], weights=days[c]) for c in chosen])
        long_name = f"area mean of {about.long_name}" if about.is_gridded else about.long_name
        out[name] = ("time", found, {"long_name": long_name, "units": about.units, "role": "forcing"})
    return out


def page(emulator: "Emulator") -> str:
    """HTML: what an emulator was trained on, its skill, its limits."""
    known, codec = emulator.provenance, emulator.codec
    runs = ", ".join(f"{e} ({len(m)} member{'s' * (len(m) > 1)})" for e, m in known["training_members"].items())
    ranges = "; ".join(f"{f} {a:.4g} to {b:.4g} {FORCINGS[f].units}" for f, (a, b) in codec.forcing_range.items())
    rows = {
        "Emulates": f"{known['source_id']}: {', '.join(codec.variables)}",
        "Timescales": ", ".join(emulator.backbone.spec.timescales),
        "Grid": f"{len(codec.grid.lat)} x {len(codec.grid.lon)}, calendar {codec.calendar}",
        "Trained on": f"{runs}, {'-'.join(str(y) for y in known.get('training_years', []))}",
        "Scenarios it carries": ", ".join(emulator.scenarios) or "none; give forcings",
        "Forcings seen in training": ranges,
        "Licence of the data": known["license"],
    }
    facts = "".join(
        f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items()
    )
    limits = "".join(f"<li>{escape(line)}</li>" for line in emulator.card.get("limits", []))
    return f"<b>Emulator of {escape(str(known['source_id']))}</b><table>{facts}</table>{_skill(emulator.card)}" + (
        f"<b>Limits</b><ul>{limits}</ul>" if limits else ""
    )


def _skill(card: Mapping[str, Any]) -> str:
    if not card.get("scores"):
        return f"<p>{escape(UNSCORED)}</p>"
    head = ("", "CRPS ÷ floor", "pattern scaling", "spread ÷ error")
    body = [
        (f"{r['variable']} {r['timescale']}", f"{r['crps_ratio']:.3f}", _number(r.get("pattern_scaling")),
         f"{r['spread_skill']:.2f}")
        for r in card["scores"]
    ]  # fmt: skip
    cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in [head, *body])
    return f"<b>Skill on {escape(str(card['tested_on']))}</b> (1 is a perfect ensemble)<table>{cells}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _words(value: float | tuple[float, ...]) -> str:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)
