"""One writer at a time, on disks and elsewhere; a full disk in one sentence."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from climatesuite.errors import DataContractError
from climatesuite.store import lock
from climatesuite.store.lock import clear_about_room, only_writer
from climatesuite.store.place import Place


@pytest.fixture
def memory(request):
    place = Place(f"memory://locks-{request.node.name}")
    yield place
    place.remove(list(place.sizes()))


def test_two_processes_do_not_write_one_store(tmp_path):
    lines = ["from climatesuite.store.place import Place", "from climatesuite.store.lock import only_writer"]
    code = "\n".join([*lines, f"with only_writer(Place({str(tmp_path / 's')!r})): pass"])
    with only_writer(Place(str(tmp_path / "s"))):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process is building it" in done.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_build_goes_on(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with only_writer(Place(str(tmp_path / "s"))):
        pass


def test_where_there_are_no_file_locks_an_object_says_who_writes(memory):
    with only_writer(memory):
        (name,) = memory.sizes()
        held = json.loads(memory.read(name))
        assert held["pid"] == os.getpid()
        with pytest.raises(DataContractError, match=f"process {os.getpid()} on .* is building it"), only_writer(memory):
            pass
    assert memory.sizes() == {}


def hold(place, **other):
    held = {"host": "elsewhere", "pid": 1, "at": time.time(), **other}
    place.write(".building/locks/other.json", json.dumps(held).encode())


def test_a_writer_elsewhere_is_alive_while_it_refreshes_its_lock(memory):
    hold(memory)
    with pytest.raises(DataContractError, match="process 1 on elsewhere is building it"), only_writer(memory):
        pass
    hold(memory, at=time.time() - 600)
    with only_writer(memory):
        pass


def test_of_two_writers_that_begin_together_at_most_one_writes(memory, monkeypatch):
    """Whichever comes next: each looks, says that it is there, and looks again."""
    write, begun = Place.write, []

    def meanwhile(place, *about):
        if not begun:  # the other one has looked as well, and goes on before this one has said anything
            begun.append(True)
            hold(memory)
        return write(place, *about)

    monkeypatch.setattr(Place, "write", meanwhile)
    with pytest.raises(DataContractError, match="process 1 on elsewhere is building it"), only_writer(memory):
        pass
    assert list(memory.sizes()) == [".building/locks/other.json"]


@pytest.mark.parametrize("beats", [False, True])
def test_a_writer_that_was_taken_for_dead_does_not_publish_and_never_takes_the_lock_back(memory, beats, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.01 if beats else 60.0)
    with only_writer(memory) as still_alone:
        still_alone()
        memory.remove(memory.sizes())
        with pytest.raises(DataContractError, match="another process, as this one was silent for 120 s, is building"):
            still_alone()
        hold(memory)
        time.sleep(0.1)
        assert list(memory.sizes()) == [".building/locks/other.json"]
        with pytest.raises(DataContractError, match="process 1 on elsewhere is building it"):
            still_alone()
    assert list(memory.sizes()) == [".building/locks/other.json"]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes cannot be looked up without /proc")
def test_a_killed_writer_of_this_machine_blocks_nobody(memory):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    hold(memory, host=lock.socket.gethostname(), pid=gone.pid)
    with only_writer(memory):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_no_room_is_one_clear_error(number):
    with pytest.raises(DataContractError, match="cannot be written .*a folder with enough room.*goes on"):
        with clear_about_room(Place("s")):
            raise OSError(number, os.strerror(number))


def test_other_errors_of_the_system_stay_what_they_are():
    with pytest.raises(OSError, match="Input/output"), clear_about_room(Place("s")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
