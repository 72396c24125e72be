"""Calibration by region and season on known worlds."""

import geopandas
import numpy as np
import pytest
import shapely

from climatesuite.errors import DataContractError
from climatesuite.evaluate import masks
from climatesuite.evaluate.answers import FIELDS
from climatesuite.evaluate.by_region import DIAGNOSES, HOTTEST, exceedance_curves, region_rows, summary
from climatesuite.evaluate.questions import ask
from climatesuite.harmonise.coarsen import to_year
from worlds.fake_ensemble import fake_ensemble


def world(seed: int, size: int, timescale: str = "month", **changes):
    return fake_ensemble(timescale, range(size), (2015, 2044), (12, 18), seed=seed, **changes)


@pytest.fixture(scope="module")
def truth():
    return world(1, 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three regions in a file: fewer than SREX, as a test needs no more."""
    squares = {"AMZ": (-70, -40, -20, 5), "EAS": (95, 125, 25, 50), "MED": (-10, 40, 30, 45)}
    table = geopandas.GeoDataFrame(
        {"Acronym": list(squares)}, geometry=[shapely.box(w, s, e, n) for w, e, s, n in squares.values()]
    )
    path = tmp_path_factory.mktemp("regions") / "three.geojson"
    table.to_file(path)
    return path


@pytest.fixture(scope="module")
def rows(truth, three):
    return region_rows(ask(world(2, 8), truth, regions=three), draws=10)


def share(rows, name: str) -> float:
    judged = [r["agrees"] for r in rows if r["name"] == name and r["agrees"] is not None]
    return judged.count(False) / len(judged)


def test_every_diagnosis_is_there_for_every_region_and_season(rows):
    assert all(tuple(r) == FIELDS for r in rows)
    assert [*dict.fromkeys(r["question"] for r in rows)] == [*DIAGNOSES, "return level"]
    regions = {r["region"] for r in rows}
    assert {masks.GLOBE, masks.LAND, "AMZ", "MED"} <= regions
    assert {r["season"] for r in rows} == {"annual", "DJF", "JJA", HOTTEST}
    assert {r["units"] for r in rows if r["question"] == "tail"} == {"K", "mm day-1"}


def test_members_of_the_same_world_are_rarely_outside(rows):
    assert share(rows, "spread–skill") < 0.3 and share(rows, "reliability index") < 0.3


def test_too_wide_an_ensemble_is_seen_nearly_everywhere(truth, three):
    found = region_rows(ask(to_year(world(2, 8, spread=2.0)), truth, regions=three), draws=10)
    tas = [r for r in found if r["variable"] == "tas"]
    assert share(tas, "spread–skill") > 0.8
    assert all(r["value"] > 1.3 for r in tas if r["name"] == "spread–skill")
    line = next(r for r in summary(found) if r["name"] == "spread–skill" and r["variable"] == "tas")
    assert line["value"] > 80.0 and line["reference"] == 10.0 and "above" in line["note"]


def test_a_bias_in_one_region_is_found_there(truth, three):
    ensemble = to_year(world(2, 8))
    amazon = masks.reference_regions(ensemble, three).sel(region="AMZ") > 0
    moved = ensemble.assign(
        tas=(ensemble.tas + 2.0 * amazon).drop_vars("region").astype("float32").assign_attrs(units="K")
    )
    found = region_rows(ask(moved, to_year(truth), regions=three), draws=10)
    by_region = {r["region"]: r for r in found if r["name"] == "mean rank" and r["variable"] == "tas"}
    assert by_region["AMZ"]["value"] < 0.1 and by_region["AMZ"]["agrees"] is False
    assert by_region["EAS"]["value"] == pytest.approx(0.5, abs=0.15)
    tails = {r["region"]: r["value"] for r in found if r["question"] == "tail" and r["variable"] == "tas"}
    assert tails["AMZ"] == pytest.approx(2.0, abs=0.4)


def test_the_reliability_diagram_of_a_region_holds_all_of_its_weight(truth, three):
    curves = exceedance_curves(ask(world(2, 8), truth, regions=three), "AMZ", "JJA")
    for weight, share in curves.values():
        assert weight.size == 9 and weight.sum() == pytest.approx(1.0)
        assert float(weight @ np.arange(9) / 8) == pytest.approx(
            0.1, abs=0.01
        )  # a tenth of all members and steps exceed
        assert np.nanmin(share) >= 0.0 and np.nanmax(share) <= 1.0


def test_three_members_against_two_are_refused(truth):
    with pytest.raises(DataContractError, match="3 members; expected 4 or more"):
        region_rows(ask(world(2, 3), truth))


def test_values_are_finite_or_none(rows):
    assert all(
        r[k] is None or np.isfinite(r[k]) for r in rows for k in ("value", "reference", "reference_lo", "reference_hi")
    )
