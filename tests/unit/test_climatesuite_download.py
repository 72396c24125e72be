"""Downloads against a server of our own: whole and checked, or gone on with, or refused with what to do."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from climatesuite.__main__ import main
from climatesuite.archive import download
from climatesuite.archive.download import RECORD, Product, fetch, missing, read_product
from climatesuite.errors import DataContractError

CONTENT = np.random.default_rng(0).bytes(400_000)


class Server(ThreadingHTTPServer):
    """Serves ``files``; can break off after ``cut`` bytes, know no ranges, fail ``failures`` times, and counts what it sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.failures, self.tag = {}, None, True, 0, '"one"'
        self.requests, self.sent, self.kind = [], 0, "application/octet-stream"

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, first = self.server, 0
        server.requests.append(dict(self.headers))
        body = server.files.get(self.path[1:])
        if server.failures or body is None:
            server.failures = max(0, server.failures - 1)
            self.send_error(503 if body is not None else 404)
            return
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - first))
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        rest = body[first:] if server.cut is None else body[first : first + server.cut]
        server.sent += len(rest)
        self.wfile.write(rest)


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; attempts follow each other at once."""
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def product(server, *names, unpack=(), **about):
    return Product(
        "toy", "Toy", "CC0", "nobody", "small", tuple({"name": n, "url": server.url(n), **about} for n in names), unpack
    )


def archive(files, kind="gz"):
    """A tar (or zip) of name -> bytes."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as zipped:
            for name, content in files.items():
                zipped.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode=f"w:{kind}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def left(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_file_comes_whole_and_its_digest_is_kept(server, tmp_path):
    server.files["a.nc"] = CONTENT
    (file,) = fetch(product(server, "a.nc"), tmp_path / "new", progress=False)
    assert file.read_bytes() == CONTENT and left(tmp_path / "new") == ["a.nc", RECORD]
    record = json.loads((tmp_path / "new" / RECORD).read_text())["files"]["a.nc"]
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest() and record["license"] == "CC0"
    assert record["url"] == server.url("a.nc")


def test_a_second_time_nothing_is_asked_for(server, tmp_path):
    server.files["a.nc"] = CONTENT
    for _ in range(2):
        fetch(product(server, "a.nc"), tmp_path, progress=False)
    assert len(server.requests) == 1


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.files["a.nc"], server.cut = CONTENT, 150_000
    (file,) = fetch(product(server, "a.nc"), tmp_path, progress=False)
    assert file.read_bytes() == CONTENT and server.sent == len(CONTENT)
    assert [r.get("Range") for r in server.requests] == [None, "bytes=150000-", "bytes=300000-"]


def test_the_next_run_goes_on_as_well(server, tmp_path):
    server.files["a.nc"], server.cut = CONTENT, 50_000
    with pytest.raises(
        DataContractError, match=r"a.nc: not all of it came .* 0.2 MB are kept; .*goes on where it stopped"
    ):
        fetch(product(server, "a.nc"), tmp_path, progress=False)
    server.cut = None
    (file,) = fetch(product(server, "a.nc"), tmp_path, progress=False)
    assert file.read_bytes() == CONTENT and server.sent == len(CONTENT)


def test_a_file_that_changed_in_between_is_not_patched_together(server, tmp_path):
    server.files["a.nc"], server.cut = CONTENT, 50_000
    with pytest.raises(DataContractError):
        fetch(product(server, "a.nc"), tmp_path, progress=False)
    server.files["a.nc"], server.tag, server.cut = CONTENT[::-1], '"two"', None
    (file,) = fetch(product(server, "a.nc"), tmp_path, progress=False)
    assert file.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("how", ["no ranges", "no tag"])
def test_a_server_that_cannot_go_on_begins_again(server, tmp_path, how):
    server.files["a.nc"], server.cut = CONTENT, 50_000
    server.ranges, server.tag = how != "no ranges", None if how == "no tag" else '"one"'
    with pytest.raises(DataContractError, match="not all of it came"):
        fetch(product(server, "a.nc"), tmp_path, progress=False)
    server.cut = None
    assert fetch(product(server, "a.nc"), tmp_path, progress=False)[0].read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_wrong_address_is_not(server, tmp_path):
    server.files["a.nc"], server.failures = CONTENT, 2
    assert fetch(product(server, "a.nc"), tmp_path, progress=False)[0].read_bytes() == CONTENT
    with pytest.raises(
        DataContractError, match="b.nc: http.* answers 404 Not Found; expected the file; is the address right"
    ):
        fetch(product(server, "b.nc"), tmp_path, progress=False)
    assert len(server.requests) == 4


def test_a_web_page_is_no_data(server, tmp_path):
    server.files["a.nc"], server.kind = b"<html>log in</html>", "text/html; charset=utf-8"
    with pytest.raises(DataContractError, match="a.nc: a web page at http.*; is a login or another address needed"):
        fetch(product(server, "a.nc"), tmp_path, progress=False)


@pytest.mark.parametrize("digest", ["sha256", "md5"])
def test_the_digest_of_a_catalog_must_be_met(server, tmp_path, digest):
    server.files["a.nc"] = CONTENT
    right = {digest: hashlib.new(digest, CONTENT).hexdigest()}
    assert fetch(product(server, "a.nc", **right), tmp_path / "right", progress=False)
    with pytest.raises(DataContractError, match="a.nc: sha256 .*; expected that of the catalog; it changed at http"):
        fetch(product(server, "a.nc", **{digest: "0" * 64}), tmp_path / "wrong", progress=False)
    assert left(tmp_path / "wrong") == []


def test_the_digest_of_the_first_download_must_be_met_again(server, tmp_path):
    server.files["a.nc"] = CONTENT
    (file,) = fetch(product(server, "a.nc"), tmp_path, progress=False)
    file.unlink()
    server.files["a.nc"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataContractError, match="expected that of the first download, 20"):
        fetch(product(server, "a.nc"), tmp_path, progress=False)
    assert not file.exists()


def test_archives_are_laid_side_by_side_without_rubbish(server, tmp_path):
    server.files["train.tar.gz"] = archive({
        "train_val/inputs_a.nc": b"in", "train_val/outputs_a.nc": b"out", "train_val/._outputs_a.nc": b"mac",
        "__MACOSX/outputs_a.nc": b"mac", "train_val/README": b"text",
    })  # fmt: skip
    server.files["test.zip"] = archive({"deep/er/inputs_b.nc": b"in b"}, "zip")
    made = fetch(
        product(server, "train.tar.gz", "test.zip", unpack=("inputs_*.nc", "outputs_*.nc")), tmp_path, progress=False
    )
    assert [p.name for p in made] == ["inputs_a.nc", "inputs_b.nc", "outputs_a.nc"]
    assert left(tmp_path) == [RECORD, "inputs_a.nc", "inputs_b.nc", "outputs_a.nc"]
    (tmp_path / "outputs_a.nc").unlink()  # what is lost comes again, the rest is not asked for
    fetch(product(server, "train.tar.gz", "test.zip", unpack=("inputs_*.nc", "outputs_*.nc")), tmp_path, progress=False)
    assert (tmp_path / "outputs_a.nc").read_bytes() == b"out" and len(server.requests) == 3


BAD_ARCHIVES = {
    "cut short": (archive({"inputs_a.nc": CONTENT})[:200_000], "damaged archive"),
    "no archive": (b"text", "no archive; expected a tar or zip"),
    "other things": (archive({"readme.txt": b"x"}), "none of inputs_"),
    "one name twice": (archive({"a/inputs_a.nc": b"1", "b/inputs_a.nc": b"2"}), "inputs_a.nc twice in it"),
    "a way out of the folder": (archive({"../inputs_a.nc": b"x"}), "damaged archive"),
}


@pytest.mark.parametrize("what", BAD_ARCHIVES)
def test_bad_archives_leave_nothing_behind_under_a_name(server, tmp_path, what):
    server.files["a.tar.gz"], message = BAD_ARCHIVES[what]
    with pytest.raises(DataContractError, match=message):
        fetch(product(server, "a.tar.gz", unpack=("inputs_*.nc",)), tmp_path / "out", progress=False)
    assert not [n for n in left(tmp_path / "out") if not n.startswith(".")] and left(tmp_path) == ["out"]


def test_a_full_disk_is_found_before_it_is_full(server, tmp_path, monkeypatch):
    server.files["a.nc"] = CONTENT
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000})())
    with pytest.raises(
        DataContractError, match="a.nc: 0.0 GB free; expected 0.0 GB, for it and what it unpacks to; free space"
    ):
        fetch(product(server, "a.nc"), tmp_path, progress=False)


def test_two_at_once_are_one_too_many(server, tmp_path):
    with download._alone(tmp_path), pytest.raises(DataContractError, match="another process is fetching into it"):
        fetch(product(server, "a.nc"), tmp_path, progress=False)


def test_addresses_are_web_addresses(server, tmp_path):
    odd = Product("toy", "Toy", "CC0", "nobody", "small", ({"name": "a", "url": "file:///etc/hostname"},))
    with pytest.raises(DataContractError, match="address file:.*; expected http or https"):
        fetch(odd, tmp_path, progress=False)


# ---- the catalogs that come with the project


def test_climatebench_says_what_it_is_before_anything_is_downloaded(capsys):
    assert main(["fetch", "climatebench", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in (
        "NorESM2-LM",
        "licence  CC BY 4.0",
        "under 2 GB",
        "10.5281/zenodo.7064308",
        "ssp245 is the test scenario",
    ):
        assert part in said, part
    bench = read_product("climatebench")
    assert all(set(f) == {"name", "url"} for f in bench.files), "no digest that nobody has seen"
    assert missing(bench, "nowhere") == list(bench.expected)


def test_the_command_lays_out_what_climatebench_reads(server, tmp_path, capsys):
    import xarray as xr
    import yaml

    from climatesuite.evaluate.climatebench_files import open_inputs

    ds = xr.Dataset(
        {"CO2": ("time", np.arange(3.0) + 10), "CH4": ("time", np.full(3, 0.3))}, {"time": [2015, 2016, 2017]}
    )
    ds.to_netcdf(tmp_path / "inputs_ssp245.nc")
    server.files["test.tar.gz"] = archive({"test/inputs_ssp245.nc": (tmp_path / "inputs_ssp245.nc").read_bytes()})
    about = yaml.safe_load(download.catalog_file("climatebench").read_text())
    about["files"] = [{"name": "test.tar.gz", "url": server.url("test.tar.gz")}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(about))
    assert main(["fetch", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "bench")]) == 0
    said = capsys.readouterr()
    assert "inputs_ssp245.nc" in said.out and "not among them, though expected: inputs_historical.nc" in said.err
    assert open_inputs(tmp_path / "bench", "ssp245").CO2.values.tolist() == [10, 11, 12]


def test_a_catalog_that_is_none_is_refused(tmp_path, capsys):
    assert main(["fetch", "absent"]) == 1
    assert "catalog absent: no such file or name; expected a YAML file or one of" in capsys.readouterr().err
    (tmp_path / "odd.yaml").write_text("title: x\n")
    with pytest.raises(DataContractError, match="odd.yaml: no license, citation, size, files"):
        read_product(str(tmp_path / "odd.yaml"))
