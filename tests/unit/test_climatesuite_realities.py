"""Every way in which real files differ or are wrong: the right numbers, or a refusal with file, variable and reason."""

import netCDF4
import numpy as np
import pytest

from climatesuite.archive.read import open_runs
from climatesuite.errors import DataContractError, RepairWarning
from climatesuite.harmonise.calendars import month_lengths
from worlds import cmip_realities as real
from worlds.cmip import credible

KEY = ("TEST-ESM", "ssp245")
TRUTH = credible("tas", real.MONTHS, *real.GRID)
DAYS_TO_2015 = 365 * 165  # noleap, since 1850
LENGTHS = month_lengths([2015, 2016], "noleap").ravel()
MIDDLES = np.cumsum(LENGTHS) - LENGTHS / 2


def same(ds):
    return ds


def set_time(values, units="days since 2015-01-01", **attrs):
    return lambda ds: real.replace(ds, "time", values, units=units, **attrs)


def set_bounds(change, **attrs):
    return lambda ds: real.replace(ds, "time_bnds", change(ds.time_bnds.values), **attrs)


def without(*names):
    def edit(ds):
        for variable in ds.variables.values():
            if variable.attrs.get("bounds") in names:
                del variable.attrs["bounds"]
        return ds.drop_vars(list(names))

    return edit


def both(*edits):
    def edit(ds):
        for one in edits:
            ds = one(ds)
        return ds

    return edit


def repeated_bounds(ds):
    """lat_bnds once a time step, as SAM0-UNICON has them."""
    bounds = ds.lat_bnds.expand_dims(time=ds.sizes["time"])
    return ds.drop_vars("lat_bnds").assign(lat_bnds=bounds)


READ_WITHOUT_A_WORD = {
    "as it is": same,
    "hours": real.retime("hours since 1850-01-01 0:0:0.0", 24.0),
    "seconds, whole numbers": real.retime("seconds since 1850-01-01", 86400.0, dtype="i8"),
    "days in single precision from year 1": real.retime("days since 0001-01-01", shift=365.0 * 1849, dtype="f4"),
    "days since year 0": real.retime("days since  0000-01-01", shift=365.0 * 1850),
    "days since, with hyphens throughout": real.retime("days since 1850-01-01-00-00-00"),
    "time bounds of another name": lambda ds: ds.rename(time_bnds="time_bounds").assign_coords(
        time=("time", ds.time.values, {k: v for k, v in ds.time.attrs.items() if k != "bounds"})
    ),
    "descending latitudes": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "descending latitudes, bounds as pairs from the north": lambda ds: ds.isel(lat=slice(None, None, -1)).assign(
        lat_bnds=(("lat", "bnds"), ds.lat_bnds.values[::-1, ::-1])
    ),
    "longitudes from -180": real.west(-180),
    "longitudes from -280": real.west(-280),
    "longitudes from -300": real.west(-300),
    "float64": lambda ds: real.replace(ds, "tas", ds.tas.values.astype("f8")),
    "a scalar height": lambda ds: ds.assign_coords(height=((), 2.0, {"units": "m"})),
    "a height of one level": real.with_dim("height", 1),
    "members of one": real.with_dim("member", 1),
    "coordinates named wrongly": lambda ds: real.replace(ds, "tas", ds.tas.values, coordinates="nowhere"),
}


@pytest.mark.parametrize("edit", READ_WITHOUT_A_WORD.values(), ids=READ_WITHOUT_A_WORD)
def test_what_is_only_written_differently_is_read_exactly(tmp_path, edit, recwarn):
    if edit is not None:
        path = real.change(real.sound(tmp_path), edit)
    ds = open_runs(path)[KEY]
    assert np.array_equal(ds.tas.values[0], TRUTH)
    assert ds.month.values.tolist() == [*range(1, 13)] * 2 and ds.year.values[[0, -1]].tolist() == [2015, 2016]
    assert ds.lat.values.tolist() == [-67.5, -22.5, 22.5, 67.5] and ds.lon.values.tolist() == [*range(0, 360, 60)]
    assert ds.lat_bnds.values[0].tolist() == [-90, -45] and ds.lon_bnds.values[0].tolist() == [-30, 30]
    assert ds.attrs["repairs"] == [] and not [w for w in recwarn if w.category is RepairWarning]


REPAIRED = {
    "no calendar": (
        lambda ds: real.replace(ds, "time", ds.time.values, calendar=None), "no calendar stated", {"calendar": "standard"},
    ),
    "no time bounds": (without("time_bnds"), "no time bounds: months by their dates", {}),
    "months since": (real.retime("months since 2014-12", bounds=False), None, {}),
    "time bounds inverted": (set_bounds(lambda b: b[:, ::-1]), "time bounds inverted", {}),
    "time bounds of no width": (set_bounds(lambda b: b.mean(1, keepdims=True).repeat(2, 1)), "time bounds have no width", {}),
    "time bounds twenty days wide": (
        set_bounds(lambda b: b.mean(1, keepdims=True) + [[-10.0, 10.0]]), "time bounds are 20 days wide", {},
    ),
    "time bounds of fill values": (set_bounds(lambda b: np.full_like(b, 1e20)), "no time bounds", {}),
    "time bounds in another epoch that they state": (
        set_bounds(lambda b: b - DAYS_TO_2015, units="days since 2015-01-01"), "time bounds in units of their own", {},
    ),
    "time bounds in another epoch that nothing states": (
        set_bounds(lambda b: b - DAYS_TO_2015), "time bounds do not hold their dates", {},
    ),
    "no bounds of the grid": (without("lat_bnds", "lon_bnds"), "no bounds of lat: edges halfway", {}),
    "bounds of latitudes inverted": (
        lambda ds: real.replace(ds, "lat_bnds", ds.lat_bnds.values[:, ::-1]), "lat_bnds inverted", {},
    ),
    "bounds of latitudes at every step": (repeated_bounds, "lat_bnds repeated along time", {}),
    "bounds of latitudes of fill values": (
        lambda ds: real.replace(ds, "lat_bnds", np.full((4, 2), 1e20)), "lat_bnds holds fill values", {},
    ),
    "the first meridian twice": (real.cyclic(), "the meridian 0 written twice", {}),
    "other dimensions and names": (real.turned, "no bounds of latitude", {}),
    "a plain grid written out": (real.written_out, "no bounds of latitude", {}),
    "months in disorder": (lambda ds: ds.isel(time=[5, *range(5), *range(6, 24)]), "out of order", {}),
    "a month twice": (lambda ds: ds.isel(time=[*range(12), 11, *range(12, 24)]), "1 months are there twice with the same", {}),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "said", "settings"), REPAIRED.values(), ids=REPAIRED)
def test_what_can_be_set_right_is_right_and_said_aloud(tmp_path, edit, said, settings):
    if said is None:  # dates in months: middles are whole numbers and a half
        edit = both(without("time_bnds"), set_time(np.arange(24) + 0.5, "months since 2015-01"))
        said = "no time bounds"
    path = real.change(real.sound(tmp_path, **settings), edit)
    with pytest.warns(RepairWarning, match=said):
        ds = open_runs(path)[KEY]
    assert np.array_equal(ds.tas.values[0], TRUTH)
    assert ds.month.values.tolist() == [*range(1, 13)] * 2 and ds.year.values[[0, -1]].tolist() == [2015, 2016]
    assert ds.lat_bnds.values[0].tolist() == [-90, -45] and ds.lon_bnds.values[0].tolist() == [-30, 30]
    assert any(said in text and text.startswith(path.name) for text in ds.attrs["repairs"])


def test_dates_written_as_numbers_of_eight_digits_are_read(tmp_path):
    dates = [10000 * y + 100 * m + 15.5 for y in (2015, 2016) for m in range(1, 13)]
    edit = both(without("time_bnds"), set_time(dates, "day as %Y%m%d.%f"))
    with pytest.warns(RepairWarning, match="no time bounds"):
        ds = open_runs(real.change(real.sound(tmp_path), edit))[KEY]
    assert ds.month.values.tolist() == [*range(1, 13)] * 2 and np.array_equal(ds.tas.values[0], TRUTH)


def test_one_month_whose_time_is_a_scalar_is_read(tmp_path):
    path = real.sound(tmp_path, months=("2015-03", "2015-03"), values=TRUTH[:1])
    ds = open_runs(real.change(path, lambda ds: ds.isel(time=0)))[KEY]
    assert (ds.year.item(), ds.month.item()) == (2015, 3) and np.array_equal(ds.tas.values[0], TRUTH[:1])


def test_each_file_is_unpacked_with_its_own_scale(tmp_path):
    halves = ("2015-01", "2015-12"), ("2016-01", "2016-12")
    for i, (months, scale) in enumerate(zip(halves, (0.002, 0.004), strict=True)):
        part = TRUTH[12 * i : 12 * i + 12]
        real.change(real.sound(tmp_path, months=months, values=part), real.pack(scale, 270.0 + i))
    found = open_runs(tmp_path)[KEY].tas.values[0]
    assert np.abs(found[:12] - TRUTH[:12]).max() <= 0.00102 and np.abs(found[12:] - TRUTH[12:]).max() <= 0.00204


@pytest.mark.parametrize(("labels", "names"), [([1, 3], ["r1i1p1f1", "r3i1p1f1"]), (["r1i1p1f2", "r2i1p1f2"],) * 2])
def test_several_members_in_one_file_are_told_apart(tmp_path, labels, names):
    ds = open_runs(real.of_members(real.sound(tmp_path), labels))[KEY]
    assert ds.member.values.tolist() == names
    for i in range(2):
        assert np.array_equal(ds.tas.values[i], credible("tas", real.MONTHS, *real.GRID, seed=i))


def test_members_in_groups_are_told_apart(tmp_path):
    ds = open_runs(real.in_groups(real.sound(tmp_path, file_name="mine.nc"), ("r1i1p1f1", "r2i1p1f1")))[KEY]
    assert ds.member.values.tolist() == ["r1i1p1f1", "r2i1p1f1"]
    assert np.array_equal(ds.tas.values[1], credible("tas", real.MONTHS, *real.GRID, seed=1))


@pytest.mark.parametrize(
    ("units", "factor"),
    [("mm day-1", 86400), ("mm/day", 86400), ("kg m**-2 s**-1", 1), ("mm s-1", 1), ("m s-1", 1e-3), ("mm h-1", 3600),
     ("cm day-1", 8640), ("inch/day", 86400 / 25.4)],
)  # fmt: skip
def test_rates_of_rain_become_fluxes(tmp_path, units, factor):
    truth = credible("pr", real.MONTHS, *real.GRID)
    ds = open_runs(real.sound(tmp_path, "pr", values=truth * np.float64(factor), units=units))[KEY]
    assert ds.pr.values[0] == pytest.approx(truth, rel=1e-6)


def test_amounts_a_month_are_divided_by_the_days_of_each_month(tmp_path):
    truth = credible("pr", real.MONTHS, *real.GRID)
    path = real.sound(tmp_path, "pr", values=truth * (86400.0 * LENGTHS[:, None, None]), units="mm month-1")
    with pytest.warns(RepairWarning, match="divided by the days of each month"):
        assert open_runs(path)[KEY].pr.values[0] == pytest.approx(truth, rel=1e-6)


REFUSED = {
    "a hole of NaN": (real.hole(np.nan), "tas in F: 1 missing values, the first in 2015-06"),
    "a hole of 1e20 without attribute": (real.hole(1e20), "tas in F: 1 missing values, the first in 2015-06"),
    "a hole of the library's fill value": (real.hole(9.96921e36), "tas in F: 1 missing values, the first in 2015-06"),
    "a hole of -1.7e38": (real.hole(-1.7014118e38), "tas in F: 1 missing values, the first in 2015-06"),
    "a hole of -999 that an attribute names": (
        lambda ds: real.replace(real.hole(-999.0)(ds), "tas", real.hole(-999.0)(ds).tas.values, missing_value=np.float64(-999)),
        "tas in F: 1 missing values, the first in 2015-06",
    ),
    "a hole of -999 that nothing names": (real.hole(-999.0), "tas in F: values from -999 to .*; expected 150 to 350"),
    "a hole in packed integers": (
        lambda ds: (packed := real.pack(0.002, 270.0)(ds), packed.tas.values.__setitem__((5, 1, 2), -32768))[0],
        "tas in F: 1 missing values, the first in 2015-06",
    ),
    "a fill value among latitudes": (
        lambda ds: real.replace(ds, "lat", [-67.5, 1e20, 22.5, 67.5]), "lat in F: 1 fill values among 4",
    ),
    "a fill value among longitudes": (
        lambda ds: real.replace(ds, "lon", [0, 60, 120, 180, 240, np.nan]), "lon in F: 1 fill values among 6",
    ),
    "bounds of cells that leave gaps": (
        lambda ds: real.replace(ds, "lat_bnds", ds.lat_bnds.values + [[0, 0], [5, 0], [0, 0], [0, 0]]),
        "lat_bnds in F: .* do not meet",
    ),
    "bounds of cells beside their centres": (
        lambda ds: real.replace(ds, "lon_bnds", ds.lon_bnds.values + 60), "lon_bnds in F: cell .* at centre 0",
    ),
    "two values of one meridian": (real.cyclic(0.5), "tas in F: longitudes 0 and 360 hold differing values"),
    "a curvilinear grid": (real.curved, r"tas in F: a curvilinear grid \(time 24, j 4, i 6\); .*grid_label gr"),
    "an unstructured grid": (real.scattered, r"tas in F: an unstructured grid \(time 24, cell 24\); .*grid_label gr"),
    "five levels": (real.with_dim("plev", 5), "tas in F: 5 of plev beside time, latitude and longitude"),
    "ten metres above ground": (
        lambda ds: ds.assign_coords(height=((), 10.0, {"units": "m"})), "tas in F: height 10 m; expected 1 to 3 m",
    ),
    "daily maxima": (
        lambda ds: real.replace(ds, "tas", ds.tas.values, cell_methods="area: mean time: maximum"), "tas in F: cell_methods",
    ),
    "no units": (lambda ds: real.replace(ds, "tas", ds.tas.values, units=None), "tas in F: no attribute units"),
    "a scale that is no number": (
        lambda ds: real.replace(ds, "tas", ds.tas.values, scale_factor="one"), "tas in F: scale_factor 'one'",
    ),
    "Celsius called kelvin": (
        lambda ds: real.replace(ds, "tas", ds.tas.values - 273.15), "tas in F: values from .* is the unit label",
    ),
    "kelvin called Celsius": (
        lambda ds: real.replace(ds, "tas", ds.tas.values, units="degC"), "tas in F: values from .* is the unit",
    ),
    "a month copied into the next": (
        lambda ds: real.replace(ds, "tas", ds.tas.values[[*range(8), 7, *range(9, 24)]]), "tas in F: 2015-09 repeats 2015-08",
    ),
    "a calendar that nobody knows": (
        lambda ds: real.replace(ds, "time", ds.time.values, calendar="martian"), "F: .*calendar 'martian'",
    ),
    "days of one calendar under the name of another": (
        lambda ds: real.replace(ds, "time", ds.time.values, calendar="standard"), "beside the first of a month",
    ),
    "a run that ends within a month": (
        set_bounds(lambda b: np.concatenate([b[:-1], b[-1:] - [[0, 12.0]]])),
        "F: no time axis that can be read: a time step of 19 days",
    ),
    "dates at the first of months, no bounds": (
        both(without("time_bnds"), set_time(np.cumsum(LENGTHS) - LENGTHS)),
        "F: no time axis that can be read: dates at the edge of months and no bounds",
    ),
    "dates of fill values": (set_time([*MIDDLES[:-1], 1e20]), "F: no time axis that can be read: missing values in the time axis"),
    "no units of time": (lambda ds: real.replace(ds, "time", ds.time.values, units=None), "F: no time axis that can be read"),
    "a month left out": (lambda ds: ds.isel(time=[*range(7), *range(8, 24)]), "a gap: 2015-07 is followed by 2015-09"),
    "a month twice, differing": (
        lambda ds: real.replace(
            ds.isel(time=[*range(12), 11, *range(12, 24)]), "tas", np.insert(ds.tas.values, 11, ds.tas.values[0], axis=0)
        ),
        "2015-12 is in F with values that differ by up to",
    ),
    "members that cannot be named": (
        lambda ds: both(real.with_dim("member", 2))(ds).drop_vars("member"), "F: 2 members along member without labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::climatesuite.errors.RepairWarning")
def test_what_cannot_be_right_is_refused_with_file_variable_and_reason(tmp_path, edit, message):
    path = real.change(real.sound(tmp_path), edit)
    with pytest.raises(DataContractError, match=message.replace("F", path.name)):
        open_runs(path)


@pytest.mark.parametrize(
    ("units", "stored"), [("kg m-2 s-1", 86400.0), ("mm day-1", 1.0), ("m s-1", 1.0), ("kg m-2 s-1", 1e-3)]
)
def test_a_wrong_label_of_rain_is_found_by_its_numbers(tmp_path, units, stored):
    path = real.sound(tmp_path, "pr", values=credible("pr", real.MONTHS, *real.GRID) * np.float64(stored), units=units)
    with pytest.raises(
        DataContractError, match=f"pr in {path.name}: (values from|a global mean of) .* is the unit label"
    ):
        open_runs(path)


def test_a_file_cut_after_the_scan_is_refused_and_not_read_as_zeros(tmp_path):
    from climatesuite.archive.read import read_variable
    from climatesuite.archive.scan import scan

    path = real.sound(tmp_path)
    entries = scan(path).entries
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataContractError, match=f"tas in {path.name}: not readable"):
        read_variable(entries, "tas", None)


def test_overlaps_that_differ_are_refused_until_one_is_said_to_hold(tmp_path):
    from climatesuite.archive.read import read_variable
    from climatesuite.archive.scan import scan

    other = TRUTH[11:].copy()
    other[0] += 1
    first = real.sound(tmp_path, months=("2015-01", "2015-12"), values=TRUTH[:12])
    last = real.sound(tmp_path, months=("2015-12", "2016-12"), values=other)
    entries = scan(tmp_path).entries
    with pytest.raises(
        DataContractError, match=f"2015-12 is in {first.name} and {last.name} with values that differ by up to 1;"
    ):
        read_variable(entries, "tas", None)
    for word, expected in (("first", TRUTH[11]), ("last", other[0])):
        ds = read_variable(entries, "tas", None, on_overlap=word)
        assert np.array_equal(ds.tas.values[11], expected) and ds.sizes["time"] == 24
        assert any(
            f"1 months differ between files (2015-12 to 2015-12): the {word} one kept" in r for r in ds.attrs["repairs"]
        )


def test_overlaps_that_agree_are_kept_once(tmp_path):
    real.sound(tmp_path, months=("2015-01", "2015-12"), values=TRUTH[:12])
    real.sound(tmp_path, months=("2015-06", "2016-12"), values=TRUTH[5:])
    with pytest.warns(RepairWarning, match="7 months are there twice with the same values"):
        assert np.array_equal(open_runs(tmp_path)[KEY].tas.values[0], TRUTH)


def test_a_dataset_with_repairs_is_written_and_read_again(tmp_path):
    with pytest.warns(RepairWarning):
        ds = open_runs(real.change(real.sound(tmp_path), without("time_bnds")))[KEY]
    for one in (ds, ds.assign_attrs(repairs=[])):
        one.drop_vars("member").to_netcdf(tmp_path / "out.nc")
        with netCDF4.Dataset(tmp_path / "out.nc") as file:
            assert "tas" in file.variables
