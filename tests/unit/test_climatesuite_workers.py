"""Workers end with the process that began them, however it ends."""

import os
import signal
import subprocess
import sys

import pytest

from climatesuite.building.workers import terminated_as_interrupted

BUILD = """
import time
from climatesuite.building.workers import executor, terminated_as_interrupted
with executor("processes", 1) as pool, {around}:
    pool.submit(int).result()
    parts = [pool.submit(time.sleep, {seconds}) for _ in range(2)]
    print("at work", flush=True)
    time.sleep(60)
"""


def begin(**how):
    """A process with a worker at work and one part more to do; its output ends when the last of both has ended."""
    code = BUILD.format(**how)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"at work\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_do_not_outlive_a_build_that_is_killed(number):
    process = begin(around="open('/dev/null')", seconds=60)
    process.send_signal(number)
    process.communicate(timeout=20)


def test_a_build_that_is_terminated_ends_as_one_that_is_interrupted():
    """What is at work is finished first."""
    process = begin(around="terminated_as_interrupted()", seconds=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT


def test_afterwards_sigterm_is_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
