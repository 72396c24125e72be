"""The verb ship: from a finished run to a small checkpoint with scores, limits and scenarios inside, beside its model card."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import scenarios as ar6_scenarios
from climatesuite.forcing.plain import ENERGY_BALANCE
from spf import checkpoint
from spf.carried import pack
from spf.commands.card import card_text
from spf.commands.workspace import Workspace
from spf.config import RunConfig
from spf.plain import from_dict
from spf.sampling.emulator import Emulator

log = logging.getLogger("spf")
MOST_BYTES = 10_000_000
PERIODS = ("headline", "full")
"""Of the scores that are told, the first that is there."""
TOLD = (
    "variable", "timescale", "units", "window", "M", "N", "rmse", "crps", "crps_ratio", "crps_ratio_lo", "crps_ratio_hi",
    "spread_skill",
)  # fmt: skip
BESIDE = "pattern scaling (CO2)"


def ship(run: Path, out: Path, name: str = "") -> tuple[Path, Path]:
    """Write ``<name>.pt`` and ``<name>.md``.

    Args:
        run: Folder of a finished ``spf run``.
        out: Folder to write to; emulators that come with the package lie in ``spf/shipped``.
        name: By default the source_id in small letters.

    Returns:
        The checkpoint and its card.

    Raises:
        DataContractError: If the run has no scores, the checkpoint holds what may not be passed on, or it would be too large.
    """
    content = checkpoint.load(run / "emulator.pt")
    _check_licence(content)
    work = Workspace(from_dict(RunConfig, content["config"]), run)
    content["scenarios"] = _scenarios(Emulator.load(run / "emulator.pt"), work.forcing_files(), content)
    content["card"] = {
        **_scores(run / "scores.json"),
        "limits": [],
        "command": f"spf run experiments/{work.config.name}.yaml",
    }
    content["card"]["limits"] = limits(content)
    stem = out / (name or str(content["provenance"]["source_id"]).lower())
    out.mkdir(parents=True, exist_ok=True)
    new = checkpoint.save_compact(stem.with_suffix(".new.pt"), content)
    size, file = new.stat().st_size, stem.with_suffix(".pt")
    if size > MOST_BYTES:
        new.unlink()
        found = f"{size / 1e6:.1f} MB, with {content['provenance']['parameters']:,} parameters"
        most = f"{MOST_BYTES / 1e6:g} MB at most"
        raise DataContractError(str(file), found, most, "train a smaller network, e.g. network: {size: 1M}")
    new.replace(file)
    card = stem.with_suffix(".md")
    card.write_text(card_text(content, stem.name, size, checkpoint.sha256(file)))
    return file, card


def _check_licence(content: Mapping[str, Any]) -> None:
    change = content["codec"]["response"].get("pattern_change")
    if change is not None:
        raise DataContractError(
            "emulator", "it holds other models' warming patterns, from a source without a licence", "what may be passed on",
            "train it without data.patterns",
        )  # fmt: skip


def _scenarios(emulator: Emulator, folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """All of the folder that the forced response can be evaluated for."""
    found = {}
    for file in sorted(folder.glob("inputs_*.nc")):
        scenario = file.stem.removeprefix("inputs_")
        if content["codec"]["response"]["kind"] == ENERGY_BALANCE and scenario not in ar6_scenarios():
            continue
        found[scenario] = pack(emulator.open_forcings(file), emulator.codec)
    return found


def _scores(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise DataContractError(str(file), "no scores", "a finished run", "finish it with `spf run`")
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    period = next((p for p in PERIODS if any(r["period"] == p for r in rows)), "full")
    found = {(r["model"], r["variable"], r["timescale"]): r for r in rows if r["period"] == period}
    scores = []
    for (model, variable, timescale), row in found.items():
        if model == "spf":
            beside = found.get((BESIDE, variable, timescale), {})
            scores.append({k: row.get(k) for k in TOLD} | {"pattern_scaling": beside.get("crps_ratio")})
    return {"scores": scores, "tested_on": str(rows[0]["scenario"]), "period": period}


def limits(content: Mapping[str, Any]) -> list[str]:
    """What the emulator cannot do, in sentences."""
    known, card = content["provenance"], content["card"]
    grid, runs = content["codec"]["grid"], list(known["training_members"])
    said = [
        f"It knows {known['source_id']} alone: its sensitivity, its biases, its variability. It is no ensemble of models.",
        f"It was trained on {_and(runs)} ({'-'.join(str(y) for y in known['training_years'])}). Between their forcings it "
        "interpolates; beyond them it extrapolates and warns by how far.",
        f"A cell is a mean over {180 / len(grid['lat']):.3g} by {360 / len(grid['lon']):.3g} degrees and a month or longer: no "
        "weather, no local extremes.",
        "The monthly and the yearly file of a member are two draws below the same coarse years: they do not agree year by year.",
        "A scenario of your own can differ in the forcings it is driven by; land use, other gases and volcanoes stay the parent's.",
    ]
    worse = [f"{r['timescale']}s of {r['variable']}" for r in card["scores"] if _is_worse(r)]
    if worse:
        said.append(f"On {card['tested_on']} CO2 pattern scaling has the lower CRPS for {_and(worse)}.")
    return said


def _is_worse(row: Mapping[str, Any]) -> bool:
    return row.get("pattern_scaling") is not None and row["crps_ratio"] > row["pattern_scaling"]


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
