"""A checkpoint in words."""

from pathlib import Path

from spf import checkpoint


def describe(path: Path) -> str:
    """Text about a checkpoint, one fact a line.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is not a checkpoint.
    """
    content = checkpoint.load(path)
    config, codec, known = content["config"], content["codec"], content["provenance"]
    lat, lon = codec["grid"]["lat"], codec["grid"]["lon"]
    how = known["training"]
    members = ", ".join(f"{e} ({len(m)} members)" for e, m in known["training_members"].items())
    facts = {
        "emulates": f"{known['source_id']}: {', '.join(codec['scales'])}; decade, year, month",
        "grid": f"{len(lat)} x {len(lon)}",
        "trained on": f"{members}, {known['training_years'][0]}-{known['training_years'][1]}",
        "forcings": ", ".join(codec["forcing_mean"]),
        "departure scale": ", ".join(f"{v} {s:.4g} {codec['units'][v]}" for v, s in codec["scales"].items()),
        "network": f"{known['parameters']:,} parameters, {config['network']}",
        "training": f"{how['steps']} steps, {how['seconds']} s, {how['precision']}, seed {known['seed']}",
        "hardware": known["hardware"],
        "versions": f"climatesuite-spf {known['version']}, torch {known['torch']}",
        "licence of the data": known["license"],
        "sha256": checkpoint.sha256(path),
    }
    return "\n".join(f"{name:20s} {value}" for name, value in facts.items())
