"""One writer at a time, and a full disk said in one sentence."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from climatesuite.errors import DataContractError
from climatesuite.store.place import BUILDING, Place

PARTIAL = ".partial"
"""What a local store is called until it is whole."""
_LOCKS = f"{BUILDING}locks"
_BEAT, _STALE = 20.0, 120.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def clear_about_room(target: Place) -> Iterator[None]:
    """Turn errors of a full or read-only target into one sentence.

    Raises:
        DataContractError: Instead of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise DataContractError(
            target.url, f"cannot be written ({error.strerror})", "a folder with enough room",
            "free space or choose another; the same build goes on with what is finished",
        ) from error  # fmt: skip


def is_no_room(error: BaseException) -> bool:
    """Whether the target is full, or not to be written."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


@contextmanager
def only_writer(target: Place) -> Iterator[Callable[[], None]]:
    """Be the only one who writes a store.

    On a local disk the lock is the kernel's and ends with its process, so that a kill never blocks the next build and a running
    one is never taken for dead. Elsewhere it is an object, refreshed while its writer lives; clocks of machines that build one
    store may differ by a minute.

    Yields:
        To be called before publishing: raises DataContractError if the place is no longer this writer's alone.

    Raises:
        DataContractError: If another process is writing it.
    """
    if target.is_local:
        with _file_lock(target.path):
            yield lambda: None
    else:
        with _object_lock(target) as still_alone:
            yield still_alone


def _refuse(target: str, who: str = "another process") -> DataContractError:
    return DataContractError(target, f"{who} is building it", "one build at a time", "wait until it is done")


@contextmanager
def _file_lock(target: Path) -> Iterator[None]:
    """Hold ``<target>.lock``; where the file system has no locks, go on without."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path, handle = target.with_name(f"{target.name}.lock"), -1
    while handle < 0:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise _refuse(str(target)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            break
        if not path.exists() or path.stat().st_ino != os.fstat(handle).st_ino:
            os.close(handle)  # the writer before removed the file between our opening and locking it
            handle = -1
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def _object_lock(target: Place) -> Iterator[Callable[[], None]]:
    """Hold an object of one's own in ``.building/locks``.

    A writer puts down its object before it looks for those of others, and goes where it finds a living one: of two that begin
    together at least one sees the other, so that they never both hold the place wherever a listing shows what was written
    before it (as those of S3, Google and Azure do). One that was silent for so long that another took over finds it out before it
    publishes.
    """
    locks, name, done = Place(f"{target.url.rstrip('/')}/{_LOCKS}"), f"{uuid4().hex}.json", Event()
    mine = {"host": socket.gethostname(), "pid": os.getpid()}

    def beat() -> None:
        locks.write(name, json.dumps({**mine, "at": time.time()}).encode())

    def keep_beating() -> None:
        while not done.wait(_BEAT):
            with suppress(OSError):  # the next may come through; if none does, another may take over
                if not locks.exists(name):
                    return
                beat()

    def others() -> dict[str, dict]:
        return {n: held for n in locks.sizes() if n != name and (held := _content(locks, n))}

    def alone() -> None:
        alive = next(filter(_is_alive, others().values()), None)
        if alive:
            raise _refuse(target.url, f"process {alive['pid']} on {alive['host']}")

    def still_alone() -> None:
        alone()
        if not locks.exists(name):
            raise _refuse(target.url, f"another process, as this one was silent for {_STALE:g} s,")

    alone()
    thread = Thread(target=keep_beating, daemon=True)
    try:
        beat()
        alone()
        locks.remove(others())  # of the dead
        thread.start()
        yield still_alone
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
        if locks.exists(name):
            locks.remove([name])


def _content(locks: Place, name: str) -> dict:
    """What a lock says; nothing where it has gone, or is being written by one who will then look for others."""
    try:
        return json.loads(locks.read(name))
    except (FileNotFoundError, ValueError):
        return {}


def _is_alive(other: dict) -> bool:
    if time.time() - other["at"] > _STALE:
        return False
    is_elsewhere = other["host"] != socket.gethostname() or not Path("/proc").exists()
    return is_elsewhere or Path(f"/proc/{other['pid']}").exists()
