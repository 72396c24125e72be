"""The report: one file that needs nothing else, failures first, every score in its table, any column may be missing."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from climatesuite.baselines.names import CLIMATOLOGY, FLOOR, PATTERN_SCALING
from climatesuite.errors import DataContractError
from climatesuite.evaluate import page, plots, report, report_figures, tables
from climatesuite.export import write_cf
from worlds.fake_ensemble import fake_ensemble, member_by_member

YEARS = {"decade": (2015, 2044), "year": (2015, 2034), "month": (2015, 2027)}
ABOUT = {
    "experiment": "fake", "command": "spf run fake.yaml --seed 0", "seed": 0, "hardware": "2 cores",
    "licences": ["CC0-1.0", "CC BY 4.0"], "timings": {"train": 12.34}, "created": "today",
}  # fmt: skip


def row(model: str, variable: str = "tas", timescale: str = "year", **more) -> dict:
    base = {
        "model": model,
        "variable": variable,
        "units": "K",
        "timescale": timescale,
        "scenario": "ssp370",
        "M": 8,
        "N": 2,
    }
    scores = {
        "rmse": 0.4,
        "crps": 0.3,
        "crps_floor": 0.25,
        "crps_ratio": 1.2,
        "spread_skill": 0.95,
        "bias": -0.01,
        "seed": 0,
    }
    return {**base, "window": "full", "target": "member", **scores, **more}


ROWS = [
    row(FLOOR, crps=0.25, crps_ratio=1.0),
    row(CLIMATOLOGY, M=None, crps_ratio=2.4),
    row(PATTERN_SCALING, M=None, crps_ratio=1.4, stderr={"crps_ratio": 0.01}),
    row("SPF", crps_ratio_lo=1.12, crps_ratio_hi=1.29, stderr={"crps_ratio": 0.04}),
]


class Outline(HTMLParser):
    """Collects tags, checks that they close, and gathers addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(tmp_path, **changes) -> str:
    ensembles = {
        ts: fake_ensemble(ts, members=range(4), years=YEARS[ts], grid=(8, 12)) for ts in changes.pop("scales", ["year"])
    }
    truth = {ts: fake_ensemble(ts, ("r1i1p1f1", "r2i1p1f1"), years=YEARS[ts], seed=9) for ts in ensembles}
    given = {"title": "A fake", "rows": ROWS, "ensembles": ensembles, "truth": truth, "about": ABOUT, **changes}
    if not changes.pop("several", False):
        given["ensembles"] = {"SPF": given["ensembles"]}
    return report.write_report(tmp_path / "report.html", **given).read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """Figures of few pixels: here they are counted, not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "DPI", 30)
        yield


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    """A report of yearly means."""
    return write(tmp_path_factory.mktemp("report"))


def test_report_is_one_wellformed_file_that_reaches_for_nothing(tmp_path):
    html = write(tmp_path, scales=["year", "month"])
    outline = Outline(html)
    assert outline.open == [] and list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in outline.sources)
    assert not {"script", "link", "iframe"} & set(outline.seen) and "http" not in re.sub(r"base64,[^\"]*", "", html)
    assert all(re.search(f'id="{anchor[1:]}"', html) for anchor in outline.sources if anchor.startswith("#"))
    # two timescales, two variables: plume, ranks, two changes, two spreads, an error (two seasons of months), a spectrum
    assert outline.seen.count("figure") == 2 + 2 * (8 + 9)
    assert html.count("Emulator minus truth") == 0 and html.count('alt="Map of the error of pr June–August"') == 1


def test_page_fits_a_narrow_screen(html):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert html.count("<table>") == html.count('<div class="scroll"') and "figure img { width: 100%" in html


def test_failed_checks_come_before_everything_else(tmp_path):
    gate = [
        {"name": "bias", "value": 0.01, "limits": (None, 0.1), "passed": True},
        SimpleNamespace(name="spread", value=0.7, limits=(0.8, 1.25), passed=False),
        {"name": "units", "value": "K", "limits": "K", "passed": np.bool_(True)},
    ]
    html = write(tmp_path, gate=gate, scales=[])
    assert (
        html.index("1 of 3 checks failed")
        < html.index("0.8 to 1.25")
        < html.index("2 checks passed")
        < html.index("<nav")
    )
    assert "FAILED" in html and "at most 0.1" in html
    passed = write(tmp_path, gate=[gate[0], gate[2]], scales=[])
    assert "All 2 checks passed" in passed and "FAILED" not in passed


def test_report_without_gate_claims_no_verdict(html):
    assert "checks passed" not in html and "checks failed" not in html


def test_headline_table_has_floor_references_and_emulator_side_by_side(html):
    head = html[html.index("<thead>") : html.index("</thead>")]
    assert re.findall(r">([^<]+)</th>", head) == ["floor (CRPS)", "SPF", CLIMATOLOGY, PATTERN_SCALING]
    assert "<strong>1.20 [1.12, 1.29]</strong>" in html and "0.250<small>K</small>" in html and "RMSE 0.400" in html


def test_spread_is_explained_and_provenance_ends_the_page(html):
    assert (
        "internal variability of one Earth system model (FAKE-ESM) plus the uncertainty of its forced response" in html
    )
    assert "not the structural uncertainty between models" in html
    assert html.index("All scores") < html.index("12.3") < html.index("CC0-1.0<br>CC BY 4.0")
    assert html.index("CC BY 4.0") < html.index("<pre>spf run fake.yaml --seed 0</pre>")


def test_rows_and_sources_that_lack_almost_everything_do_not_break_it(tmp_path):
    bare = [
        {"model": "rival", "variable": "tas", "timescale": "year"},
        {"model": FLOOR, "variable": "huss", "timescale": "day"},
    ]
    assert "rival" in write(tmp_path, rows=bare, about={}, scales=[])
    assert "Scores beside" not in write(tmp_path, rows=[], about={}, scales=[])


def test_timescale_without_truth_gets_its_plume_only(tmp_path):
    html = write(tmp_path, truth={}, rows=[])
    assert html.count("<figure>") == 2 and "from the ensemble&#x27;s mean in 2015–2024" in html


@pytest.mark.parametrize(("timescale", "years"), [("year", (2015, 2034)), ("decade", (2015, 2034))])
def test_single_members_on_either_side_are_drawn_without_what_they_cannot_show(tmp_path, timescale, years):
    one = {timescale: fake_ensemble(timescale, (0,), years=years)}
    html = write(tmp_path, ensembles=one, truth=one)
    assert "Map of the spread" not in html and "Dots:" not in html
    assert ("departures from the trend" in html) == (timescale == "year")


def test_ensembles_may_be_files_and_long_ones_say_how_they_were_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(report_figures, "MAX_VALUES", 4 * 12 * 5 * 96)
    ds = fake_ensemble("month", members=range(4), years=YEARS["month"])
    attrs = {"institution": "none", "source": "fake", "references": "none"}
    path = write_cf(tmp_path / "in" / "e.nc", member_by_member(ds), ds, attrs)
    html = write(
        tmp_path, ensembles={"month": path}, truth={"month": fake_ensemble("month", ("r1",), years=YEARS["month"])}
    )
    assert "Years used: one in 3." in html and "Months from 2018 on are drawn." in html


def test_known_truth_is_compared_by_timescale_or_listed(tmp_path):
    ds = fake_ensemble("year", members=range(4))
    mean, std = ds[["tas", "pr"]].mean("member"), ds[["tas", "pr"]].std("member")
    moments = xr.Dataset({**{f"{n}_mean": mean[n] for n in mean}, **{f"{n}_std": std[n] for n in std}})
    html = write(tmp_path, ensembles={"year": ds}, truth={}, known={"year": moments, "sensitivity (K)": 3.2})
    assert "Against the known truth" in html and "spread ÷ true spread" in html and "sensitivity (K)" in html


def test_structure_of_members_is_a_table_that_names_what_lies_outside(tmp_path):
    row = {"name": "decade seam", "variable": "tas", "value": 2.5, "real_mean": 1.0, "real_lo": 0.8, "real_hi": 1.2,
           "inside": False, "units": "1", "M": 8, "N": 9}  # fmt: skip
    open_ended = {**row, "name": "copies among years", "real_mean": None, "inside": True}
    html = write(tmp_path, structure={"SPF": [row, open_ended]})
    assert "Structure of members" in html and "decade seam, tas" in html and "0.800 to 1.200" in html
    assert html.count("OUTSIDE") == 1
    assert "Structure of members" not in write(tmp_path)


def test_title_and_command_are_escaped(tmp_path):
    html = write(tmp_path, title="a < b & c", about={"command": "x <y> && z"}, rows=[], scales=[])
    assert "<h1>a &lt; b &amp; c</h1>" in html and "<pre>x &lt;y&gt; &amp;&amp; z</pre>" in html


def test_failure_keeps_the_older_report_and_leaves_no_part(tmp_path):
    before = write(tmp_path, scales=[])
    with pytest.raises(DataContractError, match=r"timescales \['week'\]; expected some of decade, year, month"):
        write(tmp_path, ensembles={"week": fake_ensemble()})
    with pytest.raises(FileNotFoundError, match="no such file"):
        write(tmp_path, ensembles={"year": tmp_path / "none.nc"})
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before and len(list(tmp_path.iterdir())) == 1


def test_scores_are_written_whole_with_null_for_nan(tmp_path):
    rows = [
        {
            "model": "a",
            "crps": np.float64(0.1),
            "rmse": float("nan"),
            "window": (2015, np.int64(2099)),
            "stderr": {"crps": np.nan},
        }
    ]
    path = report.write_scores(tmp_path / "new" / "scores.json", rows)
    assert json.loads(path.read_text()) == [
        {"model": "a", "crps": 0.1, "rmse": None, "window": [2015, 2099], "stderr": {"crps": None}}
    ]
    with pytest.raises(TypeError):
        report.write_scores(path, [{"model": object()}])
    assert json.loads(path.read_text())[0]["model"] == "a" and len(list(path.parent.iterdir())) == 1


def test_periods_are_read_from_either_column_and_headline_leads():
    rows = [
        row("SPF", window=[2015, 2099], period="full"),
        row("SPF", window=[2017, 2099], period="headline", crps_ratio=1.1),
    ]
    assert tables.main_period(rows) == "headline" and tables.period_of(row("x", window="headline")) == "headline"
    shown = tables.headline_table(rows)
    assert "1.10" in shown and "full period 1.20" in shown


def test_rows_that_deserve_a_second_look_are_named():
    rows = [
        row("leak", crps_ratio=0.8, stderr={"crps_ratio": 0.05}),
        row("poor", skill=-0.2, skill_hi=-0.1),
        row("narrow", spread_skill=0.5),
        row("wide", spread_skill=1.5, flag="odd"),
        row(CLIMATOLOGY, spread_skill=0.1),
    ]
    found = tables.warnings_of(rows)
    assert [s.split(",")[0] for s in found] == ["leak", "poor", "narrow", "wide", "wide"]
    assert "leakage" in found[0] and "worse than CO2 pattern scaling" in found[1] and "too narrow" in found[2]


def test_several_scenarios_are_told_apart_and_ordered_by_variable_and_timescale():
    groups = tables.grouped([row("a", "pr", "year"), row("a", "tas", "month"), row("a", "tas", "decade")], "full")
    assert [g[2:] for g in groups] == [("tas", "decade"), ("tas", "month"), ("pr", "year")]
    two = tables.grouped([row("a"), row("a", scenario="ssp126")], "full")
    assert list(tables.group_names(list(two)).values()) == ["tas, year, ssp126", "tas, year, ssp370"]


def test_published_rows_stand_apart():
    rows = [row("SPF"), row("paper's SPF", source="published", ref="Table 1")]
    assert "paper" not in tables.headline_table(rows) and "Table 1" in str(tables.published_table(rows))
    assert tables.published_table(ROWS) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (float("nan"), "–"), (1.23456, "1.235"), (-0.5, "−0.500"), (0.0001, "0.0001"), (123.456, "123.5"), (7, "7"),
     (0.0, "0.000"), (True, "True"), ("a", "a")],
)  # fmt: skip
def test_numbers_are_written_for_people(value, expected):
    assert page.number(value) == expected


def test_units_have_raised_exponents():
    assert page.unit("mm day-1") == "mm day<sup>−1</sup>" and page.unit("K") == "K" and page.unit(None) == "–"


def test_what_members_get_wrong_is_said_in_words_at_the_top():
    row = {"name": "zonal power", "variable": "tas", "value": 1.9, "real_lo": 0.97, "real_hi": 1.03, "inside": False}
    fine, unjudged = {**row, "inside": True}, {**row, "inside": None}
    (sentence,) = tables.structure_warnings([row, fine, unjudged])
    assert sentence == (
        "Members differ from real members in 1 of 2 statistics of structure: zonal power, tas: 1.90 (real 0.97 to 1.03)."
    )
    assert tables.structure_warnings([fine, unjudged]) == []
