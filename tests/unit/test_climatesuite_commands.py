"""What the ``climatesuite`` command makes of paths, URLs and names before it begins."""

import pytest

from climatesuite.__main__ import main
from climatesuite.build import build
from climatesuite.store.open import list_runs
from worlds.cmip import write_cmip


def wrong_usage(capsys, *argv) -> str:
    """What is said of usage that is wrong."""
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, argv)))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_an_empty_path_is_not_this_folder(tmp_path, monkeypatch, capsys):
    write_cmip(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for argv in (("build", "", "s.zarr"), ("build", ".", ""), ("scan", ""), ("scan", ".", "--out", "")):
        assert "an empty path; a . is this folder" in wrong_usage(capsys, *argv)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a/b", "../ssp126", ".hidden", ""])
def test_forcings_are_of_an_experiment_that_can_name_a_file(tmp_path, capsys, name):
    argv = ("forcings", write_cmip(tmp_path), "--out", tmp_path / "out", "--experiment", name)
    assert f"{name!r} is no name such as ssp370" in wrong_usage(capsys, *argv)


def test_what_can_lie_on_this_machine_only_is_asked_for_as_a_path(tmp_path, capsys):
    argv = ("forcings", write_cmip(tmp_path), "--experiment", "ssp370", "--out", f"file://{tmp_path}/out")
    assert f"file://{tmp_path}/out is a URL, only stores lie behind such; give a path" in wrong_usage(capsys, *argv)


def test_a_store_that_is_built_by_a_file_url_is_named_where_it_lies(tmp_path):
    write_cmip(tmp_path / "in")
    for _ in range(2):  # made, and found again
        report = build(tmp_path / "in", f"file://{tmp_path}/s.zarr", variables=("tas",), progress=False)
        assert report.path == tmp_path / "s.zarr" and str(report).startswith(f"{tmp_path}/s.zarr ")
        assert list_runs(report.path) == [("TEST-ESM", "ssp245")]
