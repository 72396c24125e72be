"""Shared fixtures: where the real data lies, and one small trained model for the whole session."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def climate_data() -> Path:
    """The folder of real CMIP data; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("CLIMATE_DATA", ROOT / "../shared/data"))
    path = path if path.is_absolute() else ROOT / path
    if not (path / "CMIP6").is_dir():
        pytest.skip(f"real data not found at {path}; set CLIMATE_DATA to run this test")
    return path
