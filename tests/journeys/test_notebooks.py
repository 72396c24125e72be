"""Notebooks run from top to bottom on the session's small model, and catalogs open what it built."""

import shutil
from pathlib import Path

import intake
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PICTURES = {"01": 6, "02": 7, "03": 5, "04": 6, "05": 3}
"""At least; what sliders draw is inside their widget where ipywidgets is installed."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_runs(path, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("SPF_RUN", str(trained.folder))
    monkeypatch.setenv("SPF_EMULATOR", str(trained.folder / "emulator.pt"))
    monkeypatch.setenv("CLIMATE_DATA", str(trained.folder / "archive"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= PICTURES[path.name[:2]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_can_be_read_in_one_sitting(path):
    cells = nbformat.read(path, as_version=4).cells
    assert sum(len(c.source.splitlines()) for c in cells if c.cell_type == "code") < 60
    assert cells[0].cell_type == "markdown"


@pytest.mark.parametrize("timescale", ["month", "year", "decade"])
def test_the_catalog_opens_the_store_beside_it(trained, tmp_path, timescale):
    (tmp_path / "catalogs").mkdir()
    shutil.copy(ROOT / "catalogs/quickstart.yaml", tmp_path / "catalogs")
    (tmp_path / "quickstart").symlink_to(trained.folder)
    catalog = intake.open_catalog(str(tmp_path / "catalogs/quickstart.yaml"))
    ds = catalog[f"ssp370_{timescale}"].read()
    assert ds.attrs["timescale"] == timescale
    assert ds.tas.dims == ("member", "time", "lat", "lon")
