"""Examples in docstrings say what is true."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for package in ("climatesuite", "spf")
    for p in (ROOT / package).rglob("*.py")
    if ">>> " in p.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_hold(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_there_are_examples():
    assert len(WITH_EXAMPLES) >= 5
