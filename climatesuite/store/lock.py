"""One writer at a time, and a full disk said in one sentence."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from climatesuite.errors import DataContractError
from climatesuite.store.place import BUILDING, Place

PARTIAL = ".partial"
"""What a local store is called until it is whole."""
_LOCK = f"{BUILDING}lock.json"
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
def only_writer(target: Place) -> Iterator[None]:
    """Be the only one who writes a store.

    On a local disk the lock is the kernel's and ends with its process, so that a kill never blocks the next build and a running
    one is never taken for dead. Elsewhere it is an object, refreshed while its writer lives.

    Raises:
        DataContractError: If another process is writing it.
    """
    if target.is_local:
        with _file_lock(target.path):
            yield
    else:
        with _object_lock(target):
            yield


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
def _object_lock(target: Place) -> Iterator[None]:
    mine, done = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid4().hex}, Event()

    def beat() -> None:
        target.write(_LOCK, json.dumps({**mine, "at": time.time()}).encode())

    def keep_beating() -> None:
        while not done.wait(_BEAT):
            beat()

    def holder() -> dict:
        try:
            return json.loads(target.read(_LOCK))
        except (FileNotFoundError, ValueError):
            return {}

    other = holder()
    if other and _is_alive(other):
        raise _refuse(target.url, f"process {other['pid']} on {other['host']}")
    beat()
    if holder().get("token") != mine["token"]:
        raise _refuse(target.url)
    thread = Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if target.exists(_LOCK):
            target.remove([_LOCK])


def _is_alive(other: dict) -> bool:
    if time.time() - other["at"] > _STALE:
        return False
    is_elsewhere = other["host"] != socket.gethostname() or not Path("/proc").exists()
    return is_elsewhere or Path(f"/proc/{other['pid']}").exists()
