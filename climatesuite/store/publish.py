"""A folder appears under its name whole or not at all: one writer, a staging folder beside it, flushed to disk, renamed."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from climatesuite.errors import DataContractError

_FLUSHES = 16
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to fill; it becomes ``target`` when the block ends, and goes away if the block raises.

    What a killed process left behind is removed first. The lock is the kernel's and ends with its process, so that a kill
    never blocks the next build and a running one is never taken for dead, whichever machine it runs on.

    Args:
        target: Final name; its parents are made.

    Yields:
        The empty staging folder.

    Raises:
        DataContractError: If ``target`` exists, another process is writing it, or the disk is full or not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(target) as is_alone:
            if target.exists():
                raise DataContractError(str(target), "already there", "a new name", "choose another name")
            if is_alone:
                _clear_stale(target)
            staging = target.with_name(f"{_prefix(target)}{uuid4().hex[:12]}")
            try:
                staging.mkdir()
                yield staging
                _flush(staging)
                os.rename(staging, target)
                _flush_entry(target.parent)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise DataContractError(
                str(target), "it appeared while it was being built", "one build at a time", "look at it, then build again"
            ) from error  # fmt: skip
        if error.errno in _NO_ROOM:
            raise DataContractError(
                str(target), f"cannot be written ({error.strerror})", "a folder with enough room", "free space or choose another"
            ) from error  # fmt: skip
        raise


def _prefix(target: Path) -> str:
    return f"{target.name}.staging-"


@contextmanager
def _only_writer(target: Path) -> Iterator[bool]:
    """Hold ``<target>.lock``; False where the file system has no locks, and stale folders cannot be told from live ones."""
    path, handle = target.with_name(f"{target.name}.lock"), -1
    while handle < 0:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise DataContractError(
                str(target), "another process is building it", "one build at a time", "wait until it is done"
            ) from error
        except OSError as error:
            os.close(handle)
            if error.errno not in _NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
            yield False
            return
        if not path.exists() or path.stat().st_ino != os.fstat(handle).st_ino:
            os.close(handle)  # the writer before removed the file between our opening and locking it
            handle = -1
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _clear_stale(target: Path) -> None:
    for folder in target.parent.iterdir():
        if folder.name.startswith(_prefix(target)) and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Everything under a folder on disk; together, for a disk takes many requests in little more time than one."""
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(_flush_entry, [folder, *folder.rglob("*")]):
            pass


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
