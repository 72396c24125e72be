"""Who does the parts of a build: threads, processes, or a dask cluster, behind the one interface of `concurrent.futures`."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

from climatesuite.errors import DataContractError

PATIENCE = 20.0
"""Seconds to wait for a dask scheduler."""
SCHEDULERS = ("threads", "processes", "dask")


@contextmanager
def executor(scheduler: str | Executor, workers: int | None = None) -> Iterator[Executor]:
    """An executor for some time.

    Args:
        scheduler: ``threads``; ``processes``; ``dask``, a cluster of this machine; the address of a dask scheduler such as
            ``tcp://10.0.0.1:8786`` (also of one that dask-jobqueue started); or any executor, which stays open.
        workers: How many, where they are started here; default the cores this process may use.

    Raises:
        DataContractError: If the scheduler is unknown, not reachable, or dask.distributed is not installed, or workers are less
            than one.
    """
    if workers is not None and workers < 1:
        raise DataContractError("workers", str(workers), "one at least", "correct it, or leave it out for all cores")
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    if isinstance(scheduler, Executor):
        yield scheduler
    elif scheduler == "threads":
        with ThreadPoolExecutor(count) as pool:
            yield pool
    elif scheduler == "processes":  # spawned: a forked child would inherit the locks of HDF5 and of zarr's event loop
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=spawn, initializer=_end_with_parent) as pool:
            yield pool
    elif scheduler == "dask" or "://" in scheduler:
        with _cluster(scheduler, count) as pool:
            yield pool
    else:
        raise DataContractError(
            "scheduler", repr(scheduler), f"{', '.join(SCHEDULERS)}, or an address such as tcp://host:8786", "correct it"
        )  # fmt: skip


def _end_with_parent() -> None:
    """End this worker when its parent is gone, killed perhaps: what it still wrote would be outside the lock."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - a worker has one

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """For some time SIGTERM does what SIGINT does: parts at work are finished, the journal and the lock are left in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _cluster(scheduler: str, workers: int) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise DataContractError(
            f"scheduler {scheduler}", "dask.distributed is not installed", "the extra cluster",
            'pip install "climatesuite-spf[cluster]"',
        ) from error  # fmt: skip
    try:
        client = (
            Client(n_workers=workers, threads_per_worker=1)
            if scheduler == "dask"
            else Client(scheduler, timeout=PATIENCE)
        )
    except OSError as error:  # distributed raises it when nobody answers
        raise DataContractError(
            f"scheduler {scheduler}", f"not reachable ({error})", "the address of a dask scheduler", "start it, or correct it"
        ) from error  # fmt: skip
    with client:
        sys.stderr.write(f"dask dashboard: {client.dashboard_link}\n")
        yield client.get_executor(pure=False)
