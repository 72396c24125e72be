"""The embedded archive: its truth is true, its files look like CMIP's, and it is the same every time."""

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from climatesuite.archive.synthetic import SOURCES, member_fields, spec_of, true_moments, write_archive
from climatesuite.archive.synthetic_scenarios import SCENARIO_NAMES, drivers
from climatesuite.archive.synthetic_world import area_mean, land, make_world, warming
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths

SMALL = spec_of("SYNTHETIC-A", (6, 8))
YEARS = (2015, 2034)
MEMBERS = 150


@pytest.fixture(scope="module")
def ensemble():
    return np.stack([list(member_fields(SMALL, "ssp370", m, YEARS).values()) for m in range(1, MEMBERS + 1)])


@pytest.mark.parametrize(("timescale", "span"), [("month", 1), ("year", 12), ("decade", 120)])
@pytest.mark.parametrize(("row", "name"), [(0, "tas"), (1, "pr")])
def test_the_known_moments_are_those_of_a_large_ensemble(ensemble, timescale, span, row, name):
    truth = true_moments(SMALL, "ssp370", timescale, YEARS)
    days = month_lengths(range(YEARS[0], YEARS[1] + 1), SMALL.calendar).ravel().reshape(-1, span).astype(float)
    weights = (days / days.sum(1, keepdims=True))[None, :, :, None, None]
    means = (ensemble[:, row].reshape(MEMBERS, -1, span, 6, 8) * weights).sum(2)
    z = (means.mean(0) - truth[f"{name}_mean"].values) / (truth[f"{name}_std"].values / np.sqrt(MEMBERS))
    assert np.sqrt((z**2).mean()) == pytest.approx(1, abs=0.25)
    ratio = means.std(0, ddof=1) / truth[f"{name}_std"].values
    assert ratio.mean() == pytest.approx(1, abs=0.03)


def test_the_energy_balance_is_the_solution_of_its_equations():
    forcing = np.sin(np.arange(240) / 30.0) + np.arange(240) / 60

    def tendency(t, state):
        f = forcing[min(int(t * 12), 239)]
        up, deep = state
        return [
            (f - SMALL.feedback * up - SMALL.uptake * (up - deep)) / 8.2,
            SMALL.uptake * (up - deep) / 109.0,
        ]

    exact = solve_ivp(tendency, (0, 20), [0, 0], t_eval=[20.0], max_step=1 / 48, rtol=1e-9, atol=1e-10).y[0, -1]
    assert warming(SMALL, forcing)[-1] == pytest.approx(exact, abs=2e-4)


def test_scenarios_warm_in_their_order_and_injected_aerosol_cools():
    means = {}
    for name in SCENARIO_NAMES:
        tas = true_moments(SMALL, name, "year", (2090, 2099)).tas_mean
        means[name] = float(area_mean(tas.values, SMALL).mean())
    assert means["ssp126"] < means["ssp245"] < means["ssp370"] < means["ssp585"]
    assert means["ssp585-sai"] < means["ssp585"] - 1


def test_land_and_the_arctic_warm_more():
    spec = spec_of("SYNTHETIC-A")
    pattern, dry = make_world(spec).pattern.mean(0), land(spec)
    assert pattern[dry > 0.9].mean() > 1.2 * pattern[(dry < 0.1)].mean()
    assert pattern[-4:].mean() > 1.5 * pattern.mean()
    assert area_mean(pattern, spec) == pytest.approx(1)


def test_precipitation_is_positive_and_skewed_and_everything_is_credible():
    fields = member_fields(spec_of("SYNTHETIC-C"), "ssp585", 1, (2015, 2099))
    anomaly = fields["pr"] / fields["pr"].mean(0) - 1
    assert fields["pr"].min() > 0
    assert (anomaly**3).mean() / (anomaly**2).mean() ** 1.5 > 0.5
    for name, field in fields.items():
        low, high = VARIABLES[name].valid_range
        assert low < field.min() and field.max() < high
        assert (
            VARIABLES[name].mean_range[0]
            < area_mean(field, spec_of("SYNTHETIC-C")).mean()
            < VARIABLES[name].mean_range[1]
        )


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp("archive")
    files = write_archive(out, sources=tuple(SOURCES), experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8))
    return out, files


def test_files_are_split_in_time_and_named_by_the_reference_syntax(archive):
    out, files = archive
    assert len(files) == 1 + 3 * 2 * 2
    names = sorted(p.name for p in files if "SYNTHETIC-B" in p.name and p.name.startswith("pr"))
    assert names == [
        "pr_Amon_SYNTHETIC-B_ssp245_r1i1p1f1_gn_201501-204412.nc",
        "pr_Amon_SYNTHETIC-B_ssp245_r1i1p1f1_gn_204501-205012.nc",
    ]
    assert (out / "CMIP6/ScenarioMIP/SYNTHETIC/SYNTHETIC-B/ssp245/r1i1p1f1/Amon/pr/gn/v20260101" / names[0]).exists()
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(("source", "days"), [("SYNTHETIC-A", 28), ("SYNTHETIC-B", 30), ("SYNTHETIC-C", 29)])
def test_each_source_keeps_its_calendar(archive, source, days):
    (path,) = [p for p in archive[1] if p.name.startswith(f"tas_Amon_{source}") and "204501" in p.name]
    with xr.open_dataset(path, decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as ds:
        bounds = ds.time_bnds.values
        february = [(b - a).days for a, b in bounds if (a.year, a.month) == (2048, 2)]
        assert february == [days]
        assert ds.attrs["source_id"] == source
        assert "synthetic" in ds.attrs["license"].lower()


def test_the_same_seed_writes_the_same_numbers_and_another_does_not(archive, tmp_path):
    again = write_archive(tmp_path, experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8))
    other = write_archive(tmp_path / "b", experiments={"ssp245": 1}, years=(2015, 2050), grid=(6, 8), seed=1)
    first = [p for p in archive[1] if "SYNTHETIC-A" in p.name]
    for a, b, c in zip(
        first, [p for p in again if "SYNTHETIC" in p.name], [p for p in other if "SYNTHETIC" in p.name], strict=True
    ):
        name = a.name.split("_")[0]
        x, y, z = (xr.open_dataset(p, decode_times=False)[name].values for p in (a, b, c))
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)


def test_forcings_come_in_the_layout_of_climatebench(archive):
    with xr.open_dataset(archive[0] / "forcings/inputs_ssp245.nc", decode_times=False) as ds:
        assert ds.CO2.dims == ds.CH4.dims == ("time",)
        for name in ("SO2", "BC", "AOD"):
            assert ds[name].dims == ("time", "latitude", "longitude")
        assert np.all(np.diff(ds.CO2.values) > 0)
        assert 1300 < ds.CO2.values[0] < 1700
        assert (ds.AOD == 0).all()


def test_cumulative_emissions_fall_where_emissions_turn_negative():
    co2 = drivers("ssp126", (2015, 2099))["CO2"]
    assert co2[-1] < co2.max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ["CESM2"]}, "not a synthetic model"),
        ({"experiments": ["ssp999"]}, "not one that the synthetic archive knows"),
        ({"variables": ["huss"]}, r"variables \['huss'\]"),
        ({"members": 0}, "no members"),
        ({"years": (2015, 2150)}, "years in 1851-2100"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, change, message):
    with pytest.raises(DataContractError, match=message):
        write_archive(tmp_path, **{"experiments": ["ssp245"], **change})
    assert not list(tmp_path.rglob("*.nc"))
