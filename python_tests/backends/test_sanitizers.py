"""The tests of the ops with the native module built under AddressSanitizer, UndefinedBehaviorSanitizer and
ThreadSanitizer. That each of them would find a mistake is shown with mistakes made on purpose.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

native = pytest.importorskip("vreid_ext._native", reason="vreid_ext._native is not built")

TESTS = Path(__file__).parents[1]

# Threads of a region that write where others read, with and without what orders them.
PROBES = {
    "barrier": False,
    "barrier after a dynamic loop": False,
    "no barrier": True,
    "no barrier after a dynamic loop": True,
    "sum by reduction": False,
    "sum without reduction": True,
    "scratch of each thread": False,
    "scratch of all": True,
}


@pytest.mark.parametrize(("probe", "race"), PROBES.items())
def test_races_are_told_from_order(openmp_probes, probe, race):
    result = subprocess.run([openmp_probes, probe], capture_output=True, text=True, check=False)
    assert (result.returncode != 0) == race, result.stderr
    assert ("WARNING: ThreadSanitizer: data race" in result.stderr) == race


LOADED = """
import runpy, sys, threading, torch
runpy.run_path("conftest.py")
native = sys.modules["vreid_ext._native"]
"""
# One float more than there are; an address between two; two threads of Python that write to the same place.
MISTAKES = {
    "asan": ("x = torch.ones(101)\nnative.read_probe(x.data_ptr(), 102, 1)", "heap-buffer-overflow"),
    "ubsan": (
        "x, i = torch.ones(2, 4), torch.zeros(5, dtype=torch.int64)\n"
        "native.inter_frame_distance(0, 1, 2, 4, 1, x.data_ptr(), i.data_ptr() + 4, x.data_ptr(), 1)",
        "misaligned address",
    ),
    "tsan": (
        "x, y = torch.ones(2**20), torch.ones(2**20)\n"
        "arguments = x.data_ptr(), y.data_ptr(), len(x), 2\n"
        "threads = [threading.Thread(target=native.copy_probe, args=arguments) for _ in range(2)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]",
        "data race",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("isa", native.build_info()["usable_isas"])
def test_a_mistake_ends_the_process(sanitized, isa):
    code, message = MISTAKES[Path(sanitized["VREID_TEST_NATIVE"]).name]
    environment = os.environ | sanitized | {"VREID_ISA": isa}
    result = subprocess.run(
        [sys.executable, "-c", LOADED + code],
        env=environment,
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("isa", native.build_info()["usable_isas"])
def test_ops(sanitized, isa):
    files = TESTS / "ops", TESTS / "backends" / "test_native_threads.py"
    # ThreadSanitizer does not follow threads into a forked process.
    chosen = "native and not fork and not loader"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *files],
        env=os.environ | sanitized | {"VREID_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout.splitlines()[-1])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
