"""The documentation is built whole, needs nothing from elsewhere, and what it tells people to type runs."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot as plt

import spf
from worlds.fake_ensemble import fake_ensemble

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FEWER = {"members=20": "members=2", "members=8": "members=2"}
SHORTER = {
    "2099": "2044",
    "2090": "2035",
    "2059": "2044",
    "2060": "2044",
    "2080": "2042",
    "2050": "2040",
    "2045": "2038",
}
"""Years of the session's small emulator for those of the examples."""


def examples(page: str) -> list[str]:
    """Python blocks of a page, in its order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)


def run(page: str, names: dict) -> dict:
    for block in examples(page):
        for asked, less in (SHORTER | FEWER).items():
            block = block.replace(asked, less)
        exec(compile(block, page, "exec"), names)
        plt.close("all")
    return names


@pytest.fixture
def as_shipped(trained, monkeypatch, tmp_path):
    """The small emulator under the name of the shipped one, and its scenarios, in an empty folder."""
    from spf import shipped

    monkeypatch.setattr(
        shipped, "find", lambda path: trained.folder / "emulator.pt" if str(path) == "cesm2" else Path(path)
    )
    monkeypatch.setenv("CLIMATE_DATA", str(trained.folder / "archive"))
    monkeypatch.chdir(tmp_path)
    return spf.load("cesm2")


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path / "site")]
    environment = {"PATH": "", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    html = {p: p.read_text() for p in (tmp_path / "site").rglob("*.html")}
    assert len(html) >= len(PAGES)
    loaded = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|<link[^>]+stylesheet[^>]+href="?(?:https?:)?//'
    )
    assert not [str(p) for p, text in html.items() if loaded.search(text)]


def test_every_verb_is_on_the_page_of_commands(tmp_path):
    sys.path.insert(0, str(ROOT / "docs" / "tools"))
    try:
        import hooks
    finally:
        sys.path.pop(0)
    text = hooks.on_page_markdown("<!-- commands -->")
    for verb in ("climatesuite build", "climatesuite compare", "spf sample", "spf scenario", "spf run"):
        assert f"### {verb}\n" in text
    assert "--timescale" in text


def test_the_examples_of_plots_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    years = fake_ensemble(members=range(4), years=(2015, 2064), grid=(24, 36))
    assert len(examples("howto/plots.md")) == 1
    run("howto/plots.md", {"years": years, "low": years, "high": years})
    assert (tmp_path / "warming.gif").stat().st_size > 1000


def test_the_first_lines_and_those_of_scenarios_run(as_shipped):
    run("index.md", {})
    (Path.cwd() / "mine.csv").write_text("year,CO2 (GtCO2/yr)\n2025,46.0\n2026,45.0\n2027,44.0\n")
    names = run("howto/scenarios.md", {"emulator": as_shipped, "spf": spf})
    assert (Path.cwd() / "inputs_mine.nc").exists() and names["mine"].years == (2015, 2027)


def test_the_tutorial_runs_from_the_first_ensemble_to_the_map(as_shipped):
    from spf.__main__ import main

    text = (ROOT / "docs" / "tutorial.md").read_text()
    table = re.search(r"```text\n(.*?)```", text, re.S)[1]
    rows = [row for row in table.splitlines() if row[:4] in ("year", "2025", "2030", "2040")]
    (Path.cwd() / "mine.csv").write_text("\n".join([*rows, "2044,20.0"]))
    for line in re.findall(r"^(spf .*)$", text, re.M):
        assert main(line.replace("--members 20", "--members 2").split()[1:]) == 0
    run("tutorial.md", {})
    assert (Path.cwd() / "mine.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT / "docs")))
def test_a_page_names_only_what_is_there(page):
    text = page.read_text()
    for path in re.findall(r"`((?:experiments|notebooks|catalogs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        compile(block, str(page), "exec")


def test_figures_are_those_of_the_script(tmp_path):
    done = subprocess.run(
        [sys.executable, "docs/tools/draw.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    committed = ROOT / "docs" / "images"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in committed.glob("*.png")}
    assert all(p.stat().st_size < 150_000 for p in committed.iterdir())
