"""One writer at a time: see `vreid_ext._lock`."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vreid_ext import _lock
from vreid_ext._lock import InUseError, alone, one_writer

HOLD = """
import os, runpy, sys, time
one_writer = runpy.run_path(sys.argv[4])["one_writer"]  # without the package, which imports torch
with one_writer("out", sys.argv[1], inside=sys.argv[2] == "True"):
    if sys.argv[3] == "False":
        print(os.getpid(), None, flush=True)
    elif os.fork() == 0:
        print(os.getppid(), os.getpid(), flush=True)  # it has let the lock go by now
    time.sleep(600)
"""


@pytest.fixture
def holder():
    """Starts a process that holds a lock, and gives its number and its child's."""
    started = []

    def hold(target, inside=False, child=False):
        command = [sys.executable, "-c", HOLD, target, str(inside), str(child), _lock.__file__]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        forked = process.stdout.readline().split()[1]
        return process, None if forked == "None" else int(forked)

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("inside", [False, True])
def test_a_second_process_is_told_who_writes_there(holder, tmp_path, inside):
    target = tmp_path / "new" / "run"
    process, _ = holder(target, inside)
    says = (
        rf"^out: '{target}' is being written by process {process.pid} on .*; wait for it, or choose another"
    )
    with pytest.raises(InUseError, match=says), one_writer("out", target, inside=inside):
        pass
    with one_writer("out", tmp_path / "other", inside=inside):
        pass


def test_the_lock_of_a_killed_process_is_free_though_its_child_lives(holder, tmp_path):
    process, child = holder(tmp_path / "run", True, child=True)
    process.kill()
    process.wait()
    try:
        assert (tmp_path / "run" / ".lock").exists()
        os.kill(child, 0)
        with one_writer("out", tmp_path / "run", inside=True):
            assert f"process {os.getpid()} on" in (tmp_path / "run" / ".lock").read_text()
    finally:
        os.kill(child, signal.SIGKILL)
    assert not (tmp_path / "run" / ".lock").exists()


def test_nothing_is_left_of_a_lock(tmp_path):
    with one_writer("out", tmp_path / "a" / "b", inside=True):
        assert (tmp_path / "a" / "b" / ".lock").is_file()
    with one_writer("out", tmp_path / "c" / "d"):
        assert (tmp_path / "c" / ".d.lock").is_file()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    with one_writer("out", tmp_path / "old", inside=True), one_writer("out", tmp_path / "new", inside=True):
        (tmp_path / "new" / "result").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}


def test_a_thread_may_enter_again_and_another_may_not(tmp_path, monkeypatch):
    @alone("out")
    def write(value, *, out):
        return value

    monkeypatch.chdir(tmp_path)
    answers = []

    def other():
        try:
            write(2, out=tmp_path / "run")
        except InUseError as error:
            answers.append(str(error))

    with one_writer("out", "run"):
        assert write(1, out=tmp_path / "run") == 1
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in answers[0]
    assert write(3, out="run") == 3


def test_of_many_that_try_one_writes(tmp_path):
    """Locks come and go, their files with them; two holders at once would make the folder twice."""
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code, end = 0, time.monotonic() + 2
            while time.monotonic() < end:
                try:
                    with one_writer("out", tmp_path / "run"):
                        (tmp_path / "inside").mkdir()
                        (tmp_path / "inside").rmdir()
                except InUseError:
                    pass
                except OSError:
                    code = 1
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    import fcntl

    def fails(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fails)
    with (
        pytest.warns(UserWarning, match="cannot be locked .Function not implemented.*no other process"),
        one_writer("out", tmp_path / "run", inside=True),
    ):
        pass
