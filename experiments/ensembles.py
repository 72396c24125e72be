"""What ensembles cost: wall time, peak memory, size of the file; and that a killed run ends with the file of one that was not.

``python experiments/ensembles.py EMULATOR [--small EMULATOR] --out FOLDER`` writes ``experiments/results/ensembles.json``. EMULATOR
is a name such as cesm2, or a run's emulator.pt; ``--small`` draws the largest ensemble, one Euler step a stage. Every ensemble is
a process of its own (``spf sample``), in whose peak everything counts; this one imports nothing large until all are measured, as
a child's peak begins at its parent's. What is measured already is kept: the same command goes on.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "ensembles.json"
YEARS = (2015, 2099)
FEW_CALLS = ("--solver", "euler", "--steps", "1", "--batch", "64")
PATIENCE_S = 4 * 3600
MADE_WHEN = ("history", "sampling_seconds")


@dataclass(frozen=True)
class Case:
    """An ensemble.

    Attributes:
        timescale: Of its steps.
        members: How many.
        small: Whether the small emulator draws it, with few network calls.
    """

    timescale: str
    members: int
    small: bool = False

    @property
    def name(self) -> str:
        """For rows and files."""
        return f"{self.timescale}-{self.members}{'-small' if self.small else ''}"


CASES = (
    Case("year", 10), Case("year", 100), Case("month", 5), Case("month", 20),
    Case("year", 10, small=True), Case("year", 100, small=True), Case("year", 1000, small=True),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is the same for all.

    Attributes:
        emulator: Draws the ensembles.
        small: Draws the small ones.
        scenario: Name or forcing file.
        folder: For the files, which are deleted once they are measured.
    """

    emulator: str
    small: str
    scenario: str
    folder: Path

    def command(self, case: Case, out: Path) -> list[str]:
        """The command that draws a case."""
        words = [
            self.small if case.small else self.emulator,
            "--scenario",
            self.scenario,
            "--timescale",
            case.timescale,
        ]
        words += ["--members", str(case.members), "--years", *map(str, YEARS), "--seed", "0", "--out", str(out)]
        return [sys.executable, "-m", "spf", "sample", *words, *(FEW_CALLS if case.small else ())]


def run(command: Sequence[str]) -> dict[str, float]:
    """Seconds and peak bytes of a process that must succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    unit = 1 if platform.system() == "Darwin" else 1024
    return {
        "seconds": round(time.monotonic() - begin, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * unit,
    }  # fmt: skip


def measure(setting: Setting, case: Case) -> dict[str, Any]:
    """A row of the table."""
    out = setting.folder / f"{case.name}.nc"
    out.unlink(missing_ok=True)
    found = run(setting.command(case, out))
    row = {**asdict(case), **found, "file_bytes": out.stat().st_size}
    out.unlink()
    return row


def killed(setting: Setting, case: Case) -> dict[str, Any]:
    """Draw a case at once, and again with a SIGKILL once some members are there: are the two files the same?"""
    whole, cut = (setting.folder / f"{case.name}-{word}.nc" for word in ("whole", "cut"))
    run(setting.command(case, whole))
    process = subprocess.Popen(setting.command(case, cut), stdout=subprocess.DEVNULL)
    begin = time.monotonic()
    while not list(setting.folder.glob(f".{cut.stem}.*.parts/*.npz")):
        if process.poll() is not None or time.monotonic() - begin > PATIENCE_S:
            raise SystemExit(f"no member of {cut} came to be killed after")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept, was_whole = len(list(setting.folder.glob(f".{cut.stem}.*.parts/*.npz"))), cut.exists()
    run(setting.command(case, cut))
    row = {**asdict(case), "members_kept": kept, "whole_before": was_whole, "differences": differences(whole, cut)}
    left = [p.name for p in setting.folder.iterdir() if p.name.startswith(f".{cut.stem}")]
    for file in (whole, cut):
        file.unlink()
    return {**row, "left_behind": left}


def differences(one: Path, other: Path) -> list[str]:
    """Variables and attributes in which two files differ, but for when they were made."""
    import netCDF4
    import numpy as np

    found: list[str] = []
    with netCDF4.Dataset(one) as a, netCDF4.Dataset(other) as b:
        for name in sorted({*a.variables, *b.variables}):
            if name not in a.variables or name not in b.variables:
                found.append(name)
            elif not all(np.array_equal(x, y) for x, y in _rows(a[name], b[name])):
                found.append(name)
        for name in sorted({*a.ncattrs(), *b.ncattrs()} - set(MADE_WHEN)):
            if name not in a.ncattrs() or name not in b.ncattrs() or a.getncattr(name) != b.getncattr(name):
                found.append(f"attribute {name}")
    return found


def _rows(a: Any, b: Any) -> Any:
    """Pairs of parts of two variables, one member at a time."""
    if a.shape != b.shape:
        return [(0, 1)]
    return [(a[...], b[...])] if a.ndim == 0 else ((a[i], b[i]) for i in range(a.shape[0]))


def main() -> None:
    """Measure what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emulator")
    parser.add_argument("--small", default="", help="emulator of a small network (default: the same)")
    parser.add_argument("--scenario", default="ssp370")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files while they are measured")
    parser.add_argument("--only", nargs="+", default=[c.name for c in CASES], help="cases, e.g. year-10 month-5")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(args.emulator, args.small or args.emulator, args.scenario, args.out)
    result = json.loads(args.result.read_text()) if args.result.exists() else {"rows": [], "killed": None}
    for case in (c for c in CASES if c.name in args.only):
        if not any(Case(r["timescale"], r["members"], r["small"]) == case for r in result["rows"]):
            result["rows"].append(measure(setting, case))
            args.result.write_text(json.dumps(result, indent=1) + "\n")
    if result["killed"] is None:
        result["killed"] = killed(setting, Case("year", 10, small=True))
        args.result.write_text(json.dumps(result, indent=1) + "\n")
    shutil.rmtree(args.out, ignore_errors=True)
    result |= about(args.emulator, args.small or args.emulator)
    args.result.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["rows"]:
        name = Case(row["timescale"], row["members"], row["small"]).name
        print(
            f"{name:18s} {row['seconds']:8.0f} s {row['peak_bytes'] / 1e9:6.2f} GB peak {row['file_bytes'] / 1e6:8.0f} MB file"
        )
    print("killed and resumed:", result["killed"]["differences"] or "identical")


def about(emulator: str, small: str) -> dict[str, Any]:
    """Which emulators, code and machine."""
    from climatesuite.store.provenance import code_commit
    from spf import checkpoint
    from spf.commands.steps import hardware

    sizes = {}
    for word, path in (("emulator", emulator), ("small", small)):
        known = checkpoint.load(path)["provenance"]
        sizes[word] = {
            "parameters": known["parameters"],
            "sha256": checkpoint.sha256(path),
            "source_id": known["source_id"],
        }
    return {
        "command": "python experiments/ensembles.py EMULATOR --small EMULATOR --out FOLDER", "commit": code_commit(),
        "hardware": hardware(), "threads": os.environ.get("OMP_NUM_THREADS", "all"), "years": list(YEARS), **sizes,
    }  # fmt: skip


if __name__ == "__main__":
    main()
