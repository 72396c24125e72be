"""The command report: any files of any emulators become one page, and every number of it is in the JSON and CSV beside it."""

import csv
import json
import re

import numpy as np
import pytest

from climatesuite.__main__ import main
from climatesuite.archive.read import open_runs
from climatesuite.archive.synthetic import write_archive
from climatesuite.evaluate import plots
from climatesuite.evaluate.report_files import DIAGNOSTICS
from climatesuite.export import write_cf
from climatesuite.harmonise.coarsen import to_year
from worlds.browser import looked_at
from worlds.fake_ensemble import member_by_member

ABOUT = {"institution": "-", "source": "-", "references": "-"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two emulators, one of years and months, one of years alone; exit code and folder."""
    base = tmp_path_factory.mktemp("report")
    write_archive(base, members=2, years=(2015, 2034), grid=(6, 8))
    months = open_runs([base / "CMIP6"])["SYNTHETIC-A", "ssp370"].load()
    rng = np.random.default_rng(0)
    files = []
    for model, noise, timescales in (("warm", 0.3, ("year", "month")), ("cool <b>", 1.0, ("year",))):
        ds = months.isel(member=[0, 1, 0, 1, 0]).assign_coords(member=np.arange(5))
        tas = ds.tas + noise * rng.standard_normal(ds.tas.shape).astype(np.float32)
        ds = ds.assign(tas=tas.assign_attrs(ds.tas.attrs))
        for timescale in timescales:
            drawn = to_year(ds) if timescale == "year" else ds
            files.append(base / f"{len(files)}.nc")
            write_cf(files[-1], member_by_member(drawn), drawn, {**ABOUT, "model": model})
    cmip = {s: [str(p) for p in sorted((base / "CMIP6").rglob(f"*_{s}_*.nc"))] for s in ("ssp126", "ssp370", "ssp585")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "DPI", 30)
        given = ["--truth", *cmip["ssp370"], "--reference", *cmip["ssp126"], *cmip["ssp585"]]
        given += ["--forcings", str(base / "forcings"), "--bootstrap", "20", "--out", str(base / "out" / "page.html")]
        code = main(["report", *map(str, files), *given])
    return code, base / "out"


@pytest.fixture(scope="module")
def html(made):
    return (made[1] / "page.html").read_text(encoding="utf-8")


def test_one_command_makes_the_page_and_its_numbers(made, html):
    code, folder = made
    kept = json.loads((folder / "page.json").read_text())
    assert code == 0 and not list(folder.glob("*.part"))
    assert {"warm", "cool <b>", "climatology"} <= {r["model"] for r in kept["scores"]}
    for name in ("scores", "differences", "structure"):
        with (folder / f"page_{name}.csv").open() as file:
            table = list(csv.DictReader(file))
        assert len(table) == len(kept[name]) > 0
    crps = {r["crps"] for r in csv.DictReader((folder / "page_scores.csv").open())}
    assert {str(r["crps"]) for r in kept["scores"]} == crps, "the same numbers, digit for digit"
    shown = re.sub("<[^>]+>", " ", html)
    for row in kept["scores"]:
        if row["period"] == "headline":
            assert f"{row['rmse']:.3f}" in shown


def test_emulators_stand_side_by_side_and_what_is_their_own_is_folded_away(html):
    head = html[html.index("<thead>") : html.index("</thead>")]
    assert {"floor (CRPS)", "warm", "cool &lt;b&gt;", "climatology"} <= set(re.findall(r">([^<]+)</th>", head))
    assert html.count("<summary>warm</summary>") == 2 and html.count("<summary>cool &lt;b&gt;</summary>") == 2
    assert 'alt="Map of the change of tas, truth"' in html and "cool <b>" not in html
    assert (
        "Paired differences" in html
        and "2 emulators" in html
        and "not the structural uncertainty between models" in html
    )


def test_every_diagnostic_is_there_for_every_emulator(made, html):
    kept = json.loads((made[1] / "page.json").read_text())
    for title, _ in DIAGNOSTICS:
        assert title in html
        (rows,) = [v for k, v in kept.items() if title.lower().replace(",", "").startswith(k.replace("_", " "))]
        assert {r["model"] for r in rows} == {"warm", "cool <b>"}


def test_a_browser_finds_nothing_missing_no_error_and_nothing_beyond_the_edge_of_a_telephone(made, html, tmp_path):
    found = looked_at(made[1] / "page.html", tmp_path, width=400)
    assert found["images"] == html.count("<img") > 20 and found["missing"] == 0
    assert found["errors"] == [] and found["wide"] == [] and found["links"] == 0
    assert found["content"] <= found["width"] == 400
