"""Many calls in processes of their own, in which a crash or a hang is a finding, too.

cd python_tests; python -m fuzz.campaign native 0 1000 10 /tmp/at     runs calls 1000 to 1009 of seed 0
"""

import faulthandler
import json
import os
import random
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fuzz import calls
from fuzz.calls import draw_call
from fuzz.judge import FindingError, judge

from vreid_ext.backends.native import memory


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh allocations are filled with NaN, so that an element no kernel writes shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def campaign(backend: str, seed: int, first: int, count: int, at: Path) -> None:
    """Judge calls, and print a line of JSON for each finding and the counts as the last one. The file `at`
    says which call is being made.
    """
    faulthandler.enable()
    torch.set_num_threads(1)
    if os.environ.get("VREID_FUZZ_KEPT"):  # small results, too, in memory that is used again
        memory._LARGE = 1
    counts: Counter[str] = Counter()
    with poisoned_memory(), at.open("wb", buffering=0) as place, warnings.catch_warnings(action="ignore"):
        for number in range(first, first + count):
            if number % 100 == 0:
                faulthandler.dump_traceback_later(HANG, exit=True)
            os.pwrite(place.fileno(), b"%20d" % number, 0)
            if str(number) == os.environ.get("VREID_FUZZ_DIES_AT"):
                os.abort()
            call = draw_call(random.Random(f"{seed} {number}"))
            try:
                judge(call, backend, counts)
            except Exception as error:
                what = str(error) if isinstance(error, FindingError) else traceback.format_exc()
                print(
                    json.dumps({"number": number, "op": call.op, "what": what, "call": str(call)}), flush=True
                )
    print(json.dumps(counts))


def some_calls(backend: str, names: list[str], floats: tuple[torch.dtype, ...], count: int) -> None:
    """Judge calls of a backend's ops in its dtypes."""
    calls.FLOATS = floats
    with poisoned_memory(), warnings.catch_warnings(action="ignore"):
        for number in range(count):
            r = random.Random(f"{backend} {number}")
            call = draw_call(r, r.choice(names))
            try:
                judge(call, backend, Counter())
            except FindingError as error:
                raise AssertionError(f"{number}: {error}\n{call}") from error


TESTS = str(Path(__file__).parents[1])
HANG = 300  # seconds for a hundred calls


def supervised(
    backend: str, seed: int, first: int, count: int, folder: Path, **environment: str
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """The counts and findings of a campaign in processes of their own; one that dies is a finding."""
    counts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    end, at = first + count, folder / "at"
    while first < end:
        command = [sys.executable, "-m", "fuzz.campaign", backend, *map(str, (seed, first, end - first, at))]
        path = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path} | environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == 0:
            counts.update(lines.pop())
            first = end
        else:
            number = int(at.read_bytes())
            what = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
            lines.append(
                {"number": number, "what": what, "call": str(draw_call(random.Random(f"{seed} {number}")))}
            )
            counts["deaths"] += 1
            first = number + 1
        findings += lines
    return counts, findings


def report(findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        print(finding["number"], finding["what"].partition("\n")[0])
    assert not findings, "\n\n".join(f"{f['number']}: {f['what']}\n{f['call']}" for f in findings[:5])


if __name__ == "__main__":
    campaign(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
