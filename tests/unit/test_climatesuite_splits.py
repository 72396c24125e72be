"""One series split into files in any way gives the identical run, and the identical store."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.archive.read import open_runs
from climatesuite.build import build
from climatesuite.store.provenance import read_provenance
from worlds import cmip_realities as real
from worlds.cmip import write_cmip

MONTHS, GRID, STEP = 36, (4, 6), 2.0**-6
KEY = ("TEST-ESM", "ssp245")


def exact() -> np.ndarray:
    """Values (36, 4, 6) that 16-bit integers of a step of 1/64 K hold without rounding."""
    return (270 + STEP * np.random.default_rng(0).integers(0, 2000, (MONTHS, *GRID))).astype(np.float32)


def plain(ds):
    return ds


EDITS = {
    "plain": plain,
    "south last": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "from -180": real.west(-180),
    "from -300": real.west(-300),
    "packed": real.pack(STEP, 280.0),
    "packed otherwise": real.pack(STEP / 2, 275.0),
    "float64": lambda ds: real.replace(ds, "tas", ds.tas.values.astype("f8")),
    "longitudes first": lambda ds: ds.transpose("lon", "lat", "time", ...),
    "time last": lambda ds: ds.transpose("lat", "lon", "time", ...),
    "hours": lambda ds: _hours(ds),
}


def _hours(ds):
    units = ds.time.attrs["units"].replace("days", "hours")
    return real.retime(units, 24.0)(ds)


def split(folder, cuts, settings_of, edits):
    """Write the series in files that begin at ``cuts``, each with its own epoch, calendar name and edit."""
    edges, values = [0, *sorted(cuts), MONTHS], exact()
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        months = tuple(f"{2015 + m // 12}-{m % 12 + 1:02d}" for m in (a, b - 1))
        path = write_cmip(folder, months=months, values=values[a:b], grid=GRID, **settings_of(i))
        real.change(path, EDITS[edits(i)])


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, MONTHS - 1), max_size=4, unique=True), data=st.data())
@pytest.mark.filterwarnings("error::climatesuite.errors.RepairWarning")
def test_any_split_in_any_dress_gives_the_same_run(tmp_path_factory, cuts, data):
    folder = tmp_path_factory.mktemp("split")

    def dress(_):
        epoch = data.draw(st.sampled_from(["1850-01-01", "2015-01-01", "0001-01-01 00:00:00"]))
        calendar = data.draw(st.sampled_from(["noleap", "365_day"]))
        return {"epoch": epoch, "calendar": calendar, "stamp": data.draw(st.sampled_from([0.0, 0.5, 1.0]))}

    split(folder, cuts, dress, lambda _: data.draw(st.sampled_from(sorted(EDITS))))
    ds = open_runs(folder)[KEY]
    assert np.array_equal(ds.tas.values[0], exact()) and ds.attrs["calendar"] == "noleap"
    assert (ds.year.values * 12 + ds.month.values - 1 - 12 * 2015).tolist() == [*range(MONTHS)]
    assert ds.lat.values.tolist() == [-67.5, -22.5, 22.5, 67.5] and ds.lon.values.tolist() == [*range(0, 360, 60)]
    assert ds.lat_bnds.values[0].tolist() == [-90, -45] and ds.lon_bnds.values[0].tolist() == [-30, 30]


def test_two_splits_give_the_identical_store(tmp_path):
    split(tmp_path / "a", [], lambda _: {}, lambda _: "plain")
    names = sorted(EDITS)
    split(tmp_path / "b", [5, 14, 30], lambda i: {"epoch": f"{1850 + i}-01-01", "stamp": 1.0}, lambda i: names[i])
    written = []
    for name in ("a", "b"):
        build(tmp_path / name, tmp_path / f"{name}.zarr", variables=["tas"], grid=(2, 3), progress=False)
        objects = read_provenance(tmp_path / f"{name}.zarr")["files"]
        written.append({n: about for n, about in objects.items() if not n.endswith("zarr.json")})
    assert written[0] == written[1] and written[0]
