"""What the verbs do: run, train."""

import logging
import time
from pathlib import Path

from spf.commands.outcome import judge, report, score
from spf.commands.share import wait_for
from spf.commands.steps import hardware, ingest, sample, train
from spf.commands.widths import set_widths
from spf.commands.workspace import Workspace, open_workspace
from spf.config import load_config
from spf.learning.train import is_first_process

log = logging.getLogger("spf")


def run(experiment: Path, folder: Path | None) -> int:
    """Archive to report; steps that are done are kept. Of several processes that learn together the first one does the rest.

    Returns:
        0, or 1 if the experiment has a quality gate and fails it.
    """
    work = _workspace(experiment, folder)
    config = work.config
    begin = time.monotonic()
    log.info("%s on %s -> %s", config.name, hardware(), work.folder)
    if not _learned(work):
        return 0
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
    work = _workspace(experiment, folder)
    if _learned(work):
        print(work.checkpoint)
    return 0


def _workspace(experiment: Path, folder: Path | None) -> Workspace:
    """The experiment's folder, which the first process makes, or refuses; the others write nothing to it."""
    config = load_config(experiment)
    place = folder or Path("runs") / config.name
    if is_first_process():
        return open_workspace(config, place)
    wait_for(lambda: [] if (place / "experiment.yaml").exists() else ["experiment.yaml"], str(place))
    return Workspace(config, place)


def _learned(work: Workspace) -> bool:
    """Ingest, train, measure; whether what follows is this process's."""
    ingest(work)
    train(work)  # all others end in it, unless the checkpoint was there
    if is_first_process():
        set_widths(work)
    return is_first_process()
