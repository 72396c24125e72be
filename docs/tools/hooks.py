"""Parts of pages that are written from the packages themselves, so that the two cannot drift apart: commands, cards, tables."""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.utils import get_relative_url

import climatesuite.__main__
import spf.__main__
from climatesuite.baselines.names import CLIMATOLOGY, ENERGY_BALANCE, PATTERN_SCALING

ROOT = Path(__file__).resolve().parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What a mark stands for, in its place."""
    for mark, text in MARKS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, text())
    return markdown


def commands() -> str:
    """The help of every command."""
    os.environ["COLUMNS"] = "100"
    parts = []
    for parser in (climatesuite.__main__.parser(), spf.__main__.parser()):
        parts.append(f"## {parser.prog}\n\n{parser.description}\n")
        (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        for name, verb in verbs.choices.items():
            parts.append(f"### {parser.prog} {name}\n\n```text\n{verb.format_help().strip()}\n```\n")
    return "\n".join(parts)


def shipped() -> str:
    """The cards of the emulators that come with the package, one level down."""
    cards = sorted((ROOT / "spf" / "shipped").glob("*.md"))
    return "\n\n".join(re.sub(r"^#", "##", card.read_text(), flags=re.M) for card in cards)


SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
"""What the theme loads from elsewhere where pages are opened from disk; `frame-worker.js` does the same from here."""


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Nothing is loaded from elsewhere."""
    return output.replace(SHIM, f'<script src="{get_relative_url("frame-worker.js", page.url)}"></script>')


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """Nor by the page that says there is no such page."""
    return output_content.replace(SHIM, "")


def scores() -> str:
    """CRPS over the floor and spread over error of the committed run, headline period."""
    rows = [r for r in _results()["rows"] if r["period"] == "headline"]
    models = ("spf", ENERGY_BALANCE, PATTERN_SCALING, CLIMATOLOGY)
    lines = ["| | " + " | ".join(("SPF", *models[1:])) + " |", "|---|" + "---|" * len(models)]
    for name, timescale in dict.fromkeys((r["variable"], r["timescale"]) for r in rows):
        of = {r["model"]: r for r in rows if (r["variable"], r["timescale"]) == (name, timescale)}
        cells = (f"{of[m]['crps_ratio']:.3f} ({of[m]['spread_skill']:.2f})" if m in of else "–" for m in models)
        lines.append(f"| {name} {timescale} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def structure() -> str:
    """Statistics of the committed run's members that lie outside the interval of real members."""
    lines = ["| statistic | variable | emulator | real members |", "|---|---|---|---|"]
    for row in _results()["structure"]:
        if not row["inside"] and "training" not in row["name"]:
            units = "" if row["units"] == "1" else f" {row['units']}"
            interval = f"{row['real_lo']:.3g} to {row['real_hi']:.3g}{units}"
            lines.append(f"| {row['name']} | {row['variable']} | {row['value']:.3g} | {interval} |")
    return "\n".join(lines)


def _results() -> dict[str, Any]:
    return json.loads((ROOT / "experiments" / "results" / "cesm2-ssp370.json").read_text())


MARKS = {
    "<!-- commands -->": commands, "<!-- shipped -->": shipped, "<!-- scores -->": scores, "<!-- structure -->": structure,
}  # fmt: skip
