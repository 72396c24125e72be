"""Shared fixtures: where the real data lies, and one small trained model for the whole session."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores

from dataclasses import dataclass
from pathlib import Path

import pytest

from spf.commands.run import run as run_command
from worlds.small import write_experiment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def climate_data() -> Path:
    """The folder of real CMIP data; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("CLIMATE_DATA", ROOT / "../shared/data"))
    path = path if path.is_absolute() else ROOT / path
    if not (path / "CMIP6").is_dir():
        pytest.skip(f"real data not found at {path}; set CLIMATE_DATA to run this test")
    return path


@dataclass(frozen=True)
class Trained:
    """A finished small run.

    Attributes:
        experiment: Its YAML file.
        folder: Archive, store, checkpoint, ensembles, scores, report.
        code: Exit code of the run.
    """

    experiment: Path
    folder: Path
    code: int


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One small run from archive to report, shared by all tests and notebooks of the session."""
    base = tmp_path_factory.mktemp("trained")
    experiment = write_experiment(base)
    return Trained(experiment, base / "run", run_command(experiment, base / "run"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay on one process; all tests of the trained model share one."""
    for item in items:
        uses_model = "trained" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("trained" if uses_model else str(item.path)))
