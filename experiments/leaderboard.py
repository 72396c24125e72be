"""ClimateBench leaderboards of what is at hand: ``python experiments/leaderboard.py [--official FOLDER]``.

Writes ``experiments/results/leaderboard.json`` and ``.md``. CESM2 (real tas, pr and forcings in ClimateBench's layout, trained on
ssp126 and ssp585, tested on ssp370) and a synthetic set with all four variables; the official data where its folder is given.
``climatesuite leaderboard`` does the same for any of these folders and any tool's file.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from climatesuite.archive.read import open_runs
from climatesuite.evaluate.climatebench import write_layout
from climatesuite.evaluate.climatebench_synthetic import write_synthetic
from climatesuite.evaluate.leaderboard import Board, as_text, leaderboard
from climatesuite.evaluate.report import write_json
from climatesuite.forcing.forcings import open_forcings
from climatesuite.store.provenance import code_commit

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "experiments" / "results" / "leaderboard.json"
TRAIN, TEST, WINDOW = ("ssp126", "ssp585"), "ssp370", (2080, 2099)


def cesm2(data: Path) -> Board:
    """CESM2 through files in the official layout."""
    runs = {scenario: ds for (_, scenario), ds in open_runs(data / "CMIP6" / "CESM2").items()}
    forcings = {e: open_forcings(data / "forcings", ["CO2", "CH4", "SO2", "BC"], e) for e in runs}
    with tempfile.TemporaryDirectory() as folder:
        write_layout(runs, forcings, folder, training=TRAIN)
        return leaderboard(folder, scenario=TEST, window=WINDOW, training=TRAIN)


def synthetic() -> Board:
    """The synthetic set of five experiments, three members each."""
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(folder)
        return leaderboard(folder)


def main() -> None:
    """Score, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, help="folder of the official files")
    official = parser.parse_args().official
    data = ROOT / os.environ.get("CLIMATE_DATA", "../shared/data")
    boards: dict[str, Any] = {}
    text = ["# ClimateBench leaderboards\n\nMade by `python experiments/leaderboard.py`; numbers in leaderboard.json."]
    makers = {"CESM2": lambda: cesm2(data), "synthetic": synthetic}
    if official is not None:
        makers["official"] = lambda: leaderboard(official)
    for name, make in makers.items():
        begun = time.perf_counter()
        board = make()
        boards[name] = {**board.as_json(), "seconds": round(time.perf_counter() - begun, 1)}
        boards[name].pop("published" if not board.comparable else "", None)
        text.append(f"## {name}\n\n```\n{as_text(board)}\n```")
    write_json(OUT, {"command": "python experiments/leaderboard.py", "commit": code_commit(), **boards})
    OUT.with_suffix(".md").write_text("\n\n".join(text) + "\n")
    print("\n\n".join(text))


if __name__ == "__main__":
    main()
