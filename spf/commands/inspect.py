"""A checkpoint in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from climatesuite.forcing.plain import CO2
from spf import checkpoint
from spf.plain import from_dict
from spf.pyramid.spec import PyramidSpec


def describe(path: str | Path) -> str:
    """Text about a checkpoint, or a shipped emulator by its name, one fact a line.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is not a checkpoint.
    """
    content = checkpoint.load(path)
    config, codec, known = content["config"], content["codec"], content["provenance"]
    lat, lon = codec["grid"]["lat"], codec["grid"]["lon"]
    how, units = known["training"], codec["response"]["units"]
    timescales = from_dict(PyramidSpec, config["pyramid"]).timescales
    members = ", ".join(f"{e} ({len(m)} members)" for e, m in known["training_members"].items())
    facts = {
        "emulates": f"{known['source_id']}: {', '.join(codec['scales'])}; {', '.join(timescales)}",
        "grid": f"{len(lat)} x {len(lon)}",
        "trained on": f"{members}, {known['training_years'][0]}-{known['training_years'][1]}",
        **({"and on": _others(known["also"])} if known.get("also") else {}),
        "forcings": ", ".join(codec["forcing_mean"]),
        "forced response": _response(codec["response"]),
        "departure scale": ", ".join(f"{v} {s:.4g} {units[v]}" for v, s in codec["scales"].items()),
        "network": f"{known['parameters']:,} parameters, {config['network']}",
        "training": f"{how['steps']} steps, {how['seconds']} s, {how['precision']}, seed {known['seed']}",
        "sampling": f"{config['sampling']['solver']}, {config['sampling']['n_steps']} steps a stage",
        "hardware": known["hardware"],
        "versions": f"climatesuite-spf {known['version']}, torch {known['torch']}",
        **_inside(content),
        "licence of the data": known["license"],
        "sha256": checkpoint.sha256(path),
    }
    return "\n".join(f"{name:20s} {value}" for name, value in facts.items())


def _inside(content: Mapping[str, Any]) -> dict[str, str]:
    """What ``spf ship`` put in: scenarios and scores."""
    card = content.get("card", {})
    scores = ", ".join(f"{r['variable']} {r['timescale']} {r['crps_ratio']:.3f}" for r in card.get("scores", ()))
    found = {"scenarios inside": ", ".join(content.get("scenarios", ())), "CRPS over the floor": scores}
    if scores:
        found["CRPS over the floor"] += f" (on {card['tested_on']}, 1 is perfect)"
    return {k: v for k, v in found.items() if v}


def _others(also: Mapping[str, Mapping[str, Any]]) -> str:
    """Further Earth system models (``spf sample --source``)."""
    return "; ".join(f"{s}: " + ", ".join(f"{e} ({len(m)})" for e, m in runs.items()) for s, runs in also.items())


def _response(data: Mapping[str, Any]) -> str:
    """Which forced response, and which of its terms."""
    if data["kind"] == CO2:
        return f"one line on {data['lines']['predictors'][0]}"
    source, change = data["calibration"], data["pattern_change"]
    sets = ", ".join(layers["name"] for layers in source["sets"])
    terms = [f"common departure x {data['common']:g}"] if data["common"] else []
    if change is not None and data["kappa"]:
        terms.append(f"patterns of other models x {data['kappa']:g} for {', '.join(change['experiment_id'])}")
    beside = "; ".join(terms) or "no other terms"
    return f"energy balance of {source['source_id']}, {len(data['global_means'])} global means ({sets}); {beside}"
