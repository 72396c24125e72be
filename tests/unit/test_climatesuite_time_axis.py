"""Values that stand beside wrong labels are found by their seasonal cycle; real data are not accused."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.errors import DataContractError
from climatesuite.evaluate.time_axis import check_time_shift, time_shift
from climatesuite.harmonise.coarsen import to_year
from worlds.fake_ensemble import fake_ensemble


def months(m=3, seed=1, years=(2015, 2024), **options):
    return fake_ensemble("month", range(m), years, seed=seed, **options).tas


def moved(field, steps):
    """Values later by some steps under the same labels."""
    return field.copy(data=np.roll(field.values, steps, axis=field.dims.index("time")))


@pytest.mark.parametrize("lag", [-5, -1, 0, 1, 3, 6])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_shift_of_months_is_found_with_its_sign(lag, lazy):
    x, y = moved(months(), lag), months(2, seed=2)
    got = time_shift(x.chunk(time=7) if lazy else x, y)
    assert got.attrs["lag"] == lag and got.attrs["reliable"]
    assert int(got.lag[got.argmax("lag")]) == lag and got.sizes["lag"] == 12


def test_the_fit_of_a_sine_moved_by_one_month_is_the_cosine_of_thirty_degrees():
    y = months(1, spread=0.0, warming=0.0)
    got = time_shift(moved(y, 1), y)
    np.testing.assert_allclose(got.sel(lag=[1, 0, 2, 4]), np.cos(np.radians([0.0, 30.0, 30.0, 90.0])), atol=1e-6)


def test_months_that_are_shifted_are_refused_and_others_pass():
    y = months(2, seed=2)
    for lag, text in ((1, "1 month later than the truth's"), (-2, "2 months earlier than the truth's")):
        with pytest.raises(DataContractError, match=rf"tas: seasonal cycle: {text} \(correlation .* unshifted\)"):
            check_time_shift(moved(months(), lag), y)
    assert check_time_shift(months(), y).attrs["lag"] == 0


def test_fields_without_a_seasonal_cycle_are_not_accused():
    rng = np.random.default_rng(0)
    x, y = (f.copy(data=rng.normal(size=f.shape)) for f in (months(), months(2)))
    assert check_time_shift(x, y).attrs["lag"] is None
    assert check_time_shift(0 * x, y).attrs["lag"] is None


def test_a_shift_by_whole_years_of_months_cannot_be_seen():
    assert time_shift(moved(months(), 12), months(2, seed=2)).attrs["lag"] == 0


def years(signal, m=3, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    values = signal[None, :, None, None] + noise * rng.normal(size=(m, signal.size, 3, 4))
    coords = {"year": ("time", 1981 + np.arange(signal.size)), "lat": [-60.0, 0.0, 60.0], "lon": np.arange(4) * 90.0}
    return xr.DataArray(values, coords, ("member", "time", "lat", "lon"), name="tas", attrs={"units": "K"})


def test_years_are_dated_by_an_eruption_but_only_as_a_hint():
    eruption = np.where(np.isin(np.arange(30), [10, 11]), [-1.0], [0.0]) + 0.02 * np.arange(30)
    late = check_time_shift(moved(years(eruption), 1), years(eruption, seed=1))  # never refused
    assert late.attrs["lag"] == 1 and not late.attrs["reliable"]
    assert time_shift(years(eruption), years(eruption, seed=1)).attrs["lag"] == 0


def test_years_that_only_warm_have_no_clock():
    warming = 0.03 * np.arange(60)
    assert time_shift(moved(years(warming, noise=0.5), 1), years(warming, seed=1, noise=0.5)).attrs["lag"] is None


def test_what_cannot_be_compared_is_refused():
    y = months(2)
    with pytest.raises(DataContractError, match="all twelve; give whole years"):
        time_shift(y.isel(time=slice(6)), y.isel(time=slice(6)))
    with pytest.raises(DataContractError, match="coordinate time"):
        time_shift(y.isel(time=slice(12)), y.isel(time=slice(12, 24)))
    short = years(np.zeros(8))
    with pytest.raises(DataContractError, match="8 steps; expected 13 or more"):
        time_shift(short, short)
    y[0, 5, 1, 1] = np.nan
    with pytest.raises(DataContractError, match="1 of .* values are NaN"):
        time_shift(y, y)


def test_real_members_are_not_accused_and_are_found_out_when_moved(climate_data):
    runs = open_runs(sorted((climate_data / "CMIP6/CESM2").glob("*_ssp370_*.nc")))
    ds = runs["CESM2", "ssp370"]
    for name in ("tas", "pr"):
        one, other = ds[name].isel(member=[0]), ds[name].isel(member=[1])
        assert check_time_shift(one, other).attrs["lag"] == 0
        assert float(check_time_shift(one, other).sel(lag=0)) > 0.99
        assert check_time_shift(one.isel(time=slice(12)), other.isel(time=slice(12))).attrs["lag"] == 0  # a single year
        with pytest.raises(DataContractError, match="1 month later"):
            check_time_shift(moved(one, 1), other)
    annual = to_year(ds).tas
    got = check_time_shift(annual.isel(member=[0]), annual.isel(member=[1]))
    assert got.attrs["lag"] is None and float(got.max()) > 0.5  # the best of many lags, and a wrong one
