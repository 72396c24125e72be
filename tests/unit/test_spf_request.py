"""What a user may ask an emulator for: scenarios in any form, years, lazy ensembles, calendars; and what comes with them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import spf
from climatesuite.ensemble_file import open_ensemble
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import relabel
from spf import checkpoint
from spf.carried import pack
from spf.config import SamplingConfig
from spf.learning.learn import learn
from spf.sampling import request
from worlds import tiny

KNOWN = {
    "source_id": "TINY", "license": "CC0", "training_members": {"low": ["r1i1p1f1"]}, "training_years": [2015, 2044],
    "version": "0", "torch": "2", "hardware": "none",
}  # fmt: skip
FAST = SamplingConfig(solver="euler", n_steps=1, batch=3)  # a group is one member of yearly windows
CARD = {
    "tested_on": "mid", "limits": ["Not below 500 km."],
    "scores": [{"variable": "tas", "timescale": "year", "crps_ratio": 1.031, "spread_skill": 0.96, "pattern_scaling": 1.141}],
}  # fmt: skip


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    codec, runs = tiny.learned()
    path = learn(tiny.config(max_steps=2), codec, runs, KNOWN, folder, progress=False)
    content = {**checkpoint.load(path), "card": CARD, "scenarios": {"mid": pack(tiny.forcings(), codec)}}
    return spf.load(checkpoint.save(folder / "shipped.pt", content))


def draw(emulator, scenario="mid", **how):
    return emulator.sample(scenario, **{"members": 2, "timescale": "year", "sampling": FAST, **how})


def test_a_scenario_is_a_name_a_file_a_dataset_or_anything_with_forcings(emulator, tmp_path, monkeypatch):
    forcings = tiny.forcings()
    plain = draw(emulator, forcings)
    xr.testing.assert_equal(draw(emulator, SimpleNamespace(forcings=forcings)), plain)
    np.testing.assert_allclose(draw(emulator, "mid").tas, plain.tas, atol=1e-3)  # carried as area means, in float32
    (tmp_path / "forcings").mkdir()
    bare = forcings.drop_vars([n for n in forcings.coords if n not in ("time", "lat", "lon")])
    bare.rename(lat="latitude", lon="longitude").assign_attrs(experiment_id="other").to_netcdf(
        tmp_path / "forcings" / "inputs_other.nc"
    )
    monkeypatch.setenv("CLIMATE_DATA", str(tmp_path))
    for scenario in ("other", tmp_path / "forcings" / "inputs_other.nc"):
        drawn = draw(emulator, scenario)
        np.testing.assert_allclose(drawn.tas, plain.tas, atol=1e-3)
        assert drawn.attrs["experiment_id"] == "other"


def test_forcings_of_another_grid_and_calendar_are_brought_to_the_emulator(emulator):
    fine = tiny.forcings().isel(lat=np.repeat(np.arange(8), 2))
    edges = np.linspace(-90, 90, 17)
    fine = fine.assign_coords(
        lat=(edges[1:] + edges[:-1]) / 2, lat_bnds=(("lat", "bnds"), np.stack([edges[:-1], edges[1:]], 1))
    )
    other = relabel(fine, "standard")
    assert other.days.max() == 31 and other.attrs["calendar"] == "standard"
    drawn = draw(emulator, other)
    np.testing.assert_allclose(drawn.tas, draw(emulator, tiny.forcings()).tas, atol=1e-3)
    assert drawn.attrs["calendar"] == "noleap"


def test_years_are_a_slice_with_both_ends_a_pair_or_one(emulator):
    for years in (slice(2020, 2023), (2020, 2023), range(2020, 2024)):
        assert draw(emulator, years=years, members=1).year.values.tolist() == [2020, 2021, 2022, 2023]
    assert draw(emulator, years=2020, members=1).year.values.tolist() == [2020]
    assert draw(emulator, years=slice(2040, None), members=1).year.values.tolist() == [2040, 2041, 2042, 2043, 2044]
    assert draw(emulator, members=1).sizes["time"] == 30


def test_a_large_ensemble_is_lazy_and_the_same(emulator, monkeypatch):
    eager = draw(emulator, members=4)
    assert eager.chunks == {}
    monkeypatch.setattr(request, "EAGER_BYTES", 1000)
    lazy = draw(emulator, members=4)
    assert lazy.tas.chunks is not None and len(lazy.tas.chunks[0]) > 1
    xr.testing.assert_identical(lazy.compute().drop_attrs(deep=False), eager.drop_attrs(deep=False))
    assert {**lazy.attrs, "history": ""} == {**eager.attrs, "history": ""}
    drawn = []
    real = type(emulator).draw
    monkeypatch.setattr(
        type(emulator), "draw", lambda self, f, t, m, *rest: drawn.extend(m) or real(self, f, t, m, *rest)
    )
    lazy.tas.isel(member=-1).compute()
    assert 3 in drawn and len(drawn) < 4  # only the group that is read


def test_one_variable_can_be_asked_for(emulator):
    both, one = draw(emulator), draw(emulator, variables=["pr"])
    assert list(one.data_vars) == ["pr"]
    xr.testing.assert_equal(one.pr, both.pr)


def test_an_ensemble_carries_its_forcings_and_where_it_comes_from(emulator):
    drawn, forcings = draw(emulator, seed=4, years=(2020, 2029)), tiny.forcings()
    for year in (2020, 2029):
        month = forcings.sel(time=forcings.year == year)
        at = drawn.isel(time=year - 2020)
        assert float(at.CO2) == pytest.approx(np.average(month.CO2, weights=month.days))
        assert float(at.SO2) == pytest.approx(float(month.SO2[0].mean()), rel=1e-6)
    assert drawn.CO2.attrs["units"] == "Gt" and drawn.SO2.attrs["long_name"].startswith("area mean of")
    decades = draw(emulator, timescale="decade")
    np.testing.assert_allclose(decades.CO2, draw(emulator).CO2.coarsen(time=10).mean(), rtol=1e-12)
    known = drawn.attrs
    assert (known["seed"], known["checkpoint_sha256"], known["license"]) == (4, emulator.digest, "CC0")
    assert known["Conventions"] == "CF-1.11"
    assert json.loads(known["training_sources"])["members"] == KNOWN["training_members"]


@pytest.mark.filterwarnings("error::UserWarning")
def test_an_ensemble_goes_to_netcdf_and_back_as_xarray_has_it(emulator, tmp_path):
    drawn = draw(emulator, years=(2020, 2029))
    drawn.to_netcdf(tmp_path / "mine.nc")
    back = open_ensemble(tmp_path / "mine.nc")
    np.testing.assert_array_equal(back.tas, drawn.tas)
    assert back.year.values.tolist() == drawn.year.values.tolist() and back.attrs["seed"] == drawn.attrs["seed"]


@pytest.mark.parametrize("timescale", ["decade", "year", "month"])
def test_another_calendar_relabels_the_same_values(emulator, timescale):
    own = draw(emulator, timescale=timescale, years=(2015, 2034), members=1)
    other = draw(emulator, timescale=timescale, years=(2015, 2034), members=1, calendar="standard")
    np.testing.assert_array_equal(other.tas, own.tas)
    assert other.time.values[0].calendar == "standard" == other.attrs["calendar"]
    assert (
        other.year.values.tolist() == own.year.values.tolist()
        and str(other.time_bnds.values[-1, 1])[:10] == "2035-01-01"
    )
    assert other.days.sum() == own.days.sum() + 5  # leap days of 2016, 2020, 2024, 2028, 2032
    with pytest.raises(DataContractError, match="calendar 'mayan'"):
        draw(emulator, members=1, calendar="mayan")


def test_it_introduces_itself_in_a_notebook(emulator):
    page = emulator._repr_html_()
    for fact in (
        "TINY: tas, pr",
        "low (1 member), 2015-2044",
        "CO2 1500 to",
        "CC0",
        "mid",
        "1.031",
        "1.141",
        "Not below 500 km.",
    ):
        assert fact in page
    bare = spf.sampling.about.page(emulator.__class__(**{**vars(emulator), "card": {}, "scenarios": {}}))
    assert "no scores in this checkpoint" in bare and "none; give forcings" in bare
