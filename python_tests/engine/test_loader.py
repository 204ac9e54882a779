import os
import re
import signal
import subprocess
import sys

import pytest

from vreid_ext.data import DatasetError
from vreid_ext.engine.loader import load


class Clips:
    def __init__(self, what):
        self.what = what

    def __getitem__(self, index):
        if isinstance(self.what, Exception):
            raise self.what
        os.kill(os.getpid(), self.what)


class UnsendableError(Exception):
    """Cannot be made again from its message, nor pickled."""

    def __init__(self):
        super().__init__("of two arguments")
        self.held = lambda: None

    def __reduce__(self):
        raise TypeError("not to be pickled")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (
            RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
            "2 workers need more shared memory than /dev/shm has .*No space left.*set train.workers=0$",
        ),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: Success (0)"),
            "2 workers need more shared memory",
        ),
        (signal.SIGBUS, ".*shared memory"),
        (OSError(24, "Too many open files"), "2 workers need more open files .*raise `ulimit -n`"),
        (RuntimeError("received 0 items of ancdata"), "2 workers need more open files"),
        (signal.SIGKILL, "DataLoader worker .*(killed by signal|exited unexpectedly)"),
        (ZeroDivisionError("a transform's"), "a worker failed: ZeroDivisionError: a transform's"),
        (ValueError("first\nCaught DatasetError: second"), "a worker failed: ValueError: first; set"),
        (UnsendableError(), "a worker failed: .*UnsendableError: of two arguments"),
    ],
)
def test_what_a_worker_dies_of_is_one_line_with_a_way_out(what, says):
    with pytest.raises(RuntimeError) as caught:
        list(load(Clips(what), [[0], [1]], 2))
    assert re.match(f"train.workers: {says}", str(caught.value))
    assert "\n" not in str(caught.value)
    assert "train.workers=0" in str(caught.value)


def test_an_image_that_cannot_be_read_is_the_same_line_from_a_worker():
    for workers in (0, 1):
        for message in ("a.jpg: cannot be read", "DatasetError: a.jpg: cannot be read", "a.jpg:\n two lines"):
            with pytest.raises(DatasetError) as caught:
                list(load(Clips(DatasetError(message)), [[0]], workers))
            assert str(caught.value) == message
    with pytest.raises(ZeroDivisionError):
        list(load(Clips(ZeroDivisionError()), [[0]], 0))


def test_workers_with_little_shared_memory(with_a_mount, mars_root, tiny, tmp_path):
    """Batches of 3 MiB through a /dev/shm of 1 MiB."""
    size = ("input.height=256", "input.width=32", "input.frames=8", "train.workers=2")
    command = [sys.executable, "-m", "vreid_ext", "train", "synth_sta", f"dataset.root={mars_root}"]
    result = subprocess.run(
        [*with_a_mount("/dev/shm", 1), *command, *tiny, *size, "--out", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    *progress, line = result.stderr.splitlines()
    assert all(re.match(r"train|\s*$", each) for each in progress), progress
    says = "2 workers need more shared memory than /dev/shm has .*, or set train.workers=0"
    assert re.fullmatch(f"vreid: error: train.workers: {says}", line)
