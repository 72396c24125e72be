"""What the verbs do: run, train."""

import logging
import time
from pathlib import Path

from spf.commands.outcome import judge, report, score
from spf.commands.steps import hardware, ingest, sample, train
from spf.commands.widths import set_widths
from spf.commands.workspace import open_workspace
from spf.config import load_config

log = logging.getLogger("spf")


def run(experiment: Path, folder: Path | None) -> int:
    """Archive to report; steps that are done are kept.

    Returns:
        0, or 1 if the experiment has a quality gate and fails it.
    """
    config = load_config(experiment)
    work = open_workspace(config, folder or Path("runs") / config.name)
    begin = time.monotonic()
    log.info("%s on %s -> %s", config.name, hardware(), work.folder)
    ingest(work)
    train(work)
    set_widths(work)
    seconds = sample(work)
    rows = score(work, seconds)
    checks = judge(work, rows) if config.gate else []
    page = report(work, rows, checks, seconds, f"spf run {experiment}")
    log.info("done in %.1f minutes", (time.monotonic() - begin) / 60)
    files = [page, work.folder / "scores.json", *(work.ensemble(t) for t in config.sampling.members), work.checkpoint]
    print("\n".join(str(f) for f in files))
    for check in checks:
        print(check)
    print(f"next: open {page} in a browser, or draw another ensemble with `spf sample {work.checkpoint} --help`")
    if any(not check.passed for check in checks):
        print("FAIL: the quality gate was not passed")
        return 1
    return 0


def train_only(experiment: Path, folder: Path | None) -> int:
    """Ingest and train."""
    config = load_config(experiment)
    work = open_workspace(config, folder or Path("runs") / config.name)
    ingest(work)
    train(work)
    set_widths(work)
    print(work.checkpoint)
    return 0
