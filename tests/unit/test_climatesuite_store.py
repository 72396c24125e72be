"""The store gives back what was written, lazily, and says where it comes from."""

import json
import math
import os

import numpy as np
import pytest
import xarray as xr
import zarr

from climatesuite.errors import DataContractError
from climatesuite.harmonise.statistics import merge, month_statistics
from climatesuite.store import provenance
from climatesuite.store.describe import Store, describe
from climatesuite.store.layout import SHARD_BYTES, chunks_of, shards_of
from climatesuite.store.open import list_runs, only, open_run, open_statistics
from climatesuite.store.provenance import (
    changed_files,
    provenance_name,
    read_provenance,
    settings_digest,
    source_record,
    unmatched,
)
from worlds.canonical import (
    MEMBERS,
    SCENARIO,
    SOURCE,
    canonical_forcings,
    canonical_month,
    edit_provenance,
    scales,
    write_store,
)

DIMS = ("member", "time", "lat", "lon")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "s.zarr")


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", "proleptic_gregorian", "julian"])
def test_what_is_opened_is_bit_for_bit_what_was_written(tmp_path, calendar):
    store = write_store(tmp_path / "s", calendar=calendar)
    written = [scales(canonical_month(seed, calendar=calendar)) for seed in range(len(MEMBERS))]
    forcings = scales(canonical_forcings(calendar=calendar))
    for timescale in ("month", "year", "decade"):
        opened = open_run(store, SOURCE, SCENARIO, timescale).load()
        for member, by_timescale in zip(MEMBERS, written, strict=True):
            found = only(opened, ("tas", "pr")).sel(member=member).drop_vars("member")
            xr.testing.assert_identical(found, by_timescale[timescale])
        for name in ("CO2", "SO2"):
            xr.testing.assert_identical(opened[name].variable, forcings[timescale][name].variable)


def test_a_run_is_lazy_and_canonical(store):
    ds = open_run(store, SOURCE, SCENARIO, "month")
    assert ds.tas.chunks is not None and ds.tas.dims == DIMS and ds.tas.dtype == np.float32
    assert ds.tas.chunks[1][0] == 12 and ds.tas.chunks[0] == (1, 1)
    axes = {"member", "time", "year", "month", "days", "lat", "lon"}
    assert set(ds.coords) == axes | {"time_bnds", "lat_bnds", "lon_bnds"}
    assert ds.year.dtype == np.int64 and ds.month.dtype == np.int64 and ds.days.dtype == np.float64
    assert ds.member.values.tolist() == list(MEMBERS)
    assert {ds[v].attrs["role"] for v in ("tas", "pr")} == {"field"}
    assert {ds[v].attrs["role"] for v in ("CO2", "SO2")} == {"forcing"}
    assert {k: ds.attrs[k] for k in ("source_id", "experiment_id", "timescale", "calendar", "license")} == {
        "source_id": SOURCE, "experiment_id": SCENARIO, "timescale": "month", "calendar": "noleap", "license": "CC0",
    }  # fmt: skip


def test_a_decade_is_named_by_its_first_year_and_only_whole_ones_are_kept(store):
    ds = open_run(store, SOURCE, SCENARIO, "decade")
    assert ds.year.values.tolist() == [2015, 2025]
    assert ds.attrs["decade_start"] == 2015
    assert "month" not in ds.coords


def test_any_reader_of_zarr_finds_coordinates_and_dates(store):
    ds = xr.open_zarr(str(store), group=f"{SOURCE}/{SCENARIO}/year", consolidated=False)
    assert set(ds.data_vars) == {"tas", "pr", "CO2", "SO2"}
    assert ds.time.values[0].year == 2015 and ds.time.encoding["calendar"] == "noleap"


def test_chunks_are_training_windows_and_a_shard_is_whole_chunks_under_256_mb():
    for cells in ((48, 72), (192, 288), (720, 1440)):
        shape = (3, 1980, *cells)
        chunk, shard = chunks_of(shape, DIMS, "month"), shards_of(shape, DIMS, "month", 4)
        assert chunk == (1, 12, *cells) and shard is not None
        assert shard[1] % 12 == 0 and (shard[0], *shard[2:]) == (1, *cells)
        assert math.prod(shard) * 4 <= SHARD_BYTES or shard == chunk
    assert shards_of((3, 1020, 48, 72), DIMS, "month", 4) == (1, 1020, 48, 72)


def test_a_chunk_of_one_window_needs_no_shard():
    assert shards_of((2, 8, 4, 6), DIMS, "decade", 4) is None


def test_a_flipped_bit_is_an_error_and_never_a_value(tmp_path):
    store = write_store(tmp_path / "s")
    victim = next((store / SOURCE / SCENARIO / "month/tas/c").rglob("0"))
    victim = victim if victim.is_file() else next(p for p in victim.rglob("*") if p.is_file())
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="(?i)checksum|crc"):
        open_run(store, SOURCE, SCENARIO, "month").tas.load()


def test_statistics_are_those_of_each_member_and_merge_exactly(store):
    stored = open_statistics(store, SOURCE, SCENARIO)
    assert stored.member.values.tolist() == list(MEMBERS)
    assert stored.tas_mean.dims == ("member", "calendar_month", "lat", "lon") and stored.tas_m2.dtype == np.float64
    for seed, member in enumerate(MEMBERS):
        made = month_statistics(canonical_month(seed), ("tas", "pr"))
        for name in made.data_vars:
            np.testing.assert_array_equal(stored[name].sel(member=member), made[name])
    both = merge([stored.sel(member=m) for m in MEMBERS])
    values = np.concatenate([canonical_month(s).tas.values[canonical_month(s).month.values == 7] for s in (0, 1)])
    np.testing.assert_allclose(both.tas_mean.sel(calendar_month=7), values.astype(float).mean(0), rtol=1e-12)
    variance = both.tas_m2.sel(calendar_month=7) / both.tas_count.sel(calendar_month=7)
    np.testing.assert_allclose(variance, values.astype(float).var(0), rtol=1e-9)


def test_runs_are_listed_and_described(store):
    assert list_runs(store) == [(SOURCE, SCENARIO)]
    text = describe(store)
    for words in ("TEST-ESM ssp245: tas, pr; 2 members; 2015-2034; 4 x 6; noleap; forcings CO2, SO2",
                  "240 months, 20 years, 2 decades from 2015", "r9i1p1f1, r10i1p1f1", "licences: CC0", "MB"):  # fmt: skip
        assert words in text


def test_in_a_notebook_a_store_is_a_table_and_gives_out_what_it_holds(store):
    opened = Store(store)
    html = opened._repr_html_()
    assert html.count("<tr>") == 2 and "<td>240 months, 20 years, 2 decades from 2015</td>" in html
    assert repr(opened) == describe(store) and opened.runs == [(SOURCE, SCENARIO)]
    xr.testing.assert_identical(opened.open(SOURCE, SCENARIO, "decade"), open_run(store, SOURCE, SCENARIO, "decade"))
    xr.testing.assert_identical(opened.statistics(SOURCE, SCENARIO), open_statistics(store, SOURCE, SCENARIO))


def test_what_a_store_says_of_itself_cannot_be_html(tmp_path):
    store = write_store(tmp_path / "s")
    edit_provenance(store, licenses=["<script>"])
    assert "<script>" not in Store(store)._repr_html_() and "&lt;script&gt;" in Store(store)._repr_html_()


@pytest.mark.parametrize("names", [("OTHER", SCENARIO, "month"), (SOURCE, "ssp119", "month"), (SOURCE, SCENARIO, "monthly"),
                                   (SOURCE, SCENARIO, "statistics")])  # fmt: skip
def test_what_is_not_in_the_store_is_said_with_what_is(store, names):
    with pytest.raises(DataContractError, match=r"no .*, only TEST-ESM/ssp245 \(month, year, decade\)"):
        open_run(store, *names)


def test_statistics_of_a_run_that_is_not_there_are_refused(store):
    with pytest.raises(DataContractError, match="no TEST-ESM/ssp119/statistics"):
        open_statistics(store, SOURCE, "ssp119")


def test_no_store_or_a_half_one_or_a_newer_one_is_refused(tmp_path):
    with pytest.raises(DataContractError, match="no store there"):
        list_runs(tmp_path / "nowhere")
    (tmp_path / "file.nc").write_bytes(b"x")
    with pytest.raises(DataContractError, match="no store there"):
        list_runs(tmp_path / "file.nc")
    root = zarr.create_group(str(tmp_path / "half"))
    with pytest.raises(DataContractError, match="schema None"):
        list_runs(tmp_path / "half")
    root.attrs["schema"] = 99
    with pytest.raises(DataContractError, match="schema 99.*update climatesuite"):
        list_runs(tmp_path / "half")


def test_provenance_names_versions_settings_and_every_file(store):
    known = read_provenance(store)
    assert known["settings_sha256"] == settings_digest(known["settings"])
    assert {"numpy", "xarray", "zarr"} <= set(known["libraries"])
    files = {p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()}
    assert set(known["files"]) == files - {"zarr.json", provenance_name(store)}
    assert changed_files(store, deep=True) == {}


def test_the_digest_of_settings_ignores_their_order_and_nothing_else():
    assert settings_digest({"a": 1, "b": [2, 3]}) == settings_digest({"b": [2, 3], "a": 1})
    assert settings_digest({"a": 1, "b": [2, 3]}) != settings_digest({"a": 1, "b": [3, 2]})


def test_damaged_provenance_is_refused(tmp_path):
    for text, found in (("{", "damaged"), ("[]", "no settings, sources and files"), (None, "no provenance.json")):
        if text is not None:
            (tmp_path / "provenance.json").write_text(text)
        else:
            (tmp_path / "provenance.json").unlink()
        with pytest.raises(DataContractError, match=found):
            read_provenance(tmp_path)


def test_an_input_is_the_same_if_time_stamp_or_content_is(tmp_path, monkeypatch):
    path = tmp_path / "x.nc"
    path.write_bytes(b"abc")
    record = source_record(path, {"tracking_id": "hdl:1", "license": ""})
    assert record["bytes"] == 3 and record["tracking_id"] == "hdl:1" and "license" not in record
    with monkeypatch.context() as patched:
        patched.setattr(provenance, "digest", lambda p: pytest.fail("a stamp that agrees needs no reading"))
        assert unmatched([record], [path]) == []
    os.utime(path, ns=(1, 1))
    assert unmatched([record], [path.rename(tmp_path / "y.nc")]) == []
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert unmatched([record], [path]) == ["x.nc"]
    path.unlink()
    assert unmatched([record], [path]) == ["x.nc"]


def test_provenance_is_json_for_people(store):
    text = (store / provenance_name(store)).read_text()
    assert text.endswith("}\n") and json.loads(text)["licenses"] == ["CC0"]
