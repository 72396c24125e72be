"""The official files fetched from a server: resumed, measured, hashed, unpacked; nothing broken gets a name."""

import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from climatesuite.errors import DataContractError
from climatesuite.evaluate.climatebench_download import SUMS, download


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Server(HTTPServer):
    """Serves bytes by name, with ranges; `breaks_after` bytes of an answer it hangs up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.breaks_after: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        content = server.files.get(self.path.rsplit("/", 1)[-1])
        if content is None:
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = None if server.breaks_after is None else start + server.breaks_after
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


FILES = {"outputs_ssp245.nc": b"fields" * 500, "inputs_ssp245.nc": b"drivers" * 500, "README": b"no"}


def test_files_come_flat_whole_and_only_once(server, tmp_path):
    server.files["a.tar.gz"] = tar(**FILES, top__folder__outputs_ssp126__nc=b"x")
    made = download(tmp_path, server.url, ["a.tar.gz"])
    assert sorted(p.name for p in made) == ["inputs_ssp245.nc", "outputs_ssp245.nc"]
    assert (tmp_path / "outputs_ssp245.nc").read_bytes() == FILES["outputs_ssp245.nc"]
    assert not (tmp_path / "README").exists() and not list(tmp_path.glob("*.part"))
    assert download(tmp_path, server.url, ["a.tar.gz"]) == made and len(server.ranges) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.files["a.tar.gz"] = content = tar(**FILES)
    server.breaks_after = 100
    with pytest.raises(DataContractError, match="give the command again"):
        download(tmp_path, server.url, ["a.tar.gz"])
    assert (tmp_path / "a.tar.gz.part").read_bytes() == content[:100] and not (tmp_path / "a.tar.gz").exists()
    server.breaks_after = None
    download(tmp_path, server.url, ["a.tar.gz"])
    assert server.ranges == [None, "bytes=100-"] and (tmp_path / "a.tar.gz").read_bytes() == content


def test_a_transfer_killed_after_its_last_byte_is_complete(server, tmp_path):
    server.files["a.tar.gz"] = content = tar(**FILES)
    (tmp_path / "a.tar.gz.part").write_bytes(content)
    download(tmp_path, server.url, ["a.tar.gz"])
    assert (tmp_path / "a.tar.gz").read_bytes() == content


def test_other_bytes_than_the_first_time_are_refused(server, tmp_path):
    server.files["a.tar.gz"] = tar(**FILES)
    download(tmp_path, server.url, ["a.tar.gz"])
    assert "a.tar.gz" in (tmp_path / SUMS).read_text()
    (tmp_path / "a.tar.gz").unlink()
    server.files["a.tar.gz"] = tar(**{"outputs_ssp245.nc": b"forged"})
    with pytest.raises(DataContractError, match="a.tar.gz: sha256 .* of the first download"):
        download(tmp_path, server.url, ["a.tar.gz"])
    assert (tmp_path / "outputs_ssp245.nc").read_bytes() == FILES["outputs_ssp245.nc"], "nothing was unpacked"


def test_an_absent_file_an_absent_server_and_a_file_that_is_no_archive_are_named(server, tmp_path):
    with pytest.raises(DataContractError, match="answer 404"):
        download(tmp_path, server.url, ["a.tar.gz"])
    with pytest.raises(DataContractError, match="expected the whole file"):
        download(tmp_path, "http://127.0.0.1:9", ["b.tar.gz"])
    server.files["c.tar.gz"] = b"<html>busy</html>"
    with pytest.raises(DataContractError, match="c.tar.gz: not readable"):
        download(tmp_path, server.url, ["c.tar.gz"])
