"""Time whole calls of two versions of the package: `python benchmarks/compare.py BASE`.

BASE is a commit. It is compared with the working tree, or with the commit of `--head`. The native module of
each version is built from its own sources in build/compare, where it is kept for the next comparison. Each
version runs in a process of its own. A round calls both, in alternating order, so a change of the machine's
speed affects both.

    base / new    median of the ratio of the times within a round, with its 20 % and 80 % quantiles.
                  1: equally fast; 2: the new version takes half the time
    slower        the new version was slower by more than --tolerance in at least 80 % of the rounds, also
                  when the case was repeated

`--isa avx2 avx512` instead of BASE compares two instruction sets of the working tree.

`--case TEXT` selects the cases whose name contains the text, and `--list` shows all. On a shared machine
`--threads 1` gives narrower quantiles. Requires git, cmake and ninja.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from whole_calls import CASES

ROOT = Path(__file__).parents[1]
SOURCES = ("CMakeLists.txt", "csrc", "python_tests/backends/native_checks", "vreid_ext")


class Ratio(NamedTuple):
    """Times of a case in both versions (medians in milliseconds), and quantiles of BASE / new version."""

    base: float
    head: float
    q20: float
    median: float
    q80: float


class Worker:
    """A process that times calls of the package in a folder."""

    def __init__(self, folder: Path, threads: int, isa: str | None = None) -> None:
        settings = {
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not slow down the other process
        }
        if isa is not None:
            settings["VREID_ISA"] = isa
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("whole_calls.py"))],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.info = self._answer()
        found = Path(self.info["package"]).parents[1]
        if found != folder:
            self.close()
            raise RuntimeError(f"package: expected the one in {folder}, got the one in {found}")

    def time(self, case: str) -> float:
        """Time of one call in milliseconds.

        Raises:
            LookupError: the version has no such call.
        """
        assert self.process.stdin is not None
        print(case, file=self.process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            raise LookupError(answer["error"])
        return float(answer["ms"])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with exit status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def ratio(workers: Sequence[Worker], case: str, rounds: int, warmup: int = 3) -> Ratio:
    """Time a case in both workers, BASE first."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-warmup, rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            elapsed = workers[side].time(case)
            if number >= 0:
                times[side].append(elapsed)
    base, head = map(torch.tensor, times)
    quantiles = (base / head).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return Ratio(base.median().item(), head.median().item(), *quantiles)


def commit(revision: str) -> Path:
    """Folder with the files of a commit."""
    name = git("rev-parse", "--verify", f"{revision}^{{commit}}").strip()
    folder = ROOT / "build" / "compare" / name
    if not folder.exists():
        partial = folder.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", name], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(partial)], input=archive.stdout, check=True)
        partial.rename(folder)
    return folder


def working_tree() -> Path:
    """Folder with the sources of the working tree, untracked ones included, with their times of change."""
    folder = ROOT / "build" / "compare" / "working_tree"
    for name in SOURCES[1:]:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in git("ls-files", "-co", "--exclude-standard", "--", *SOURCES).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def build(folder: Path) -> None:
    """Build the native module from the sources in a folder, and put it next to its package."""
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    target = folder / "build"
    options = {
        "VREID_MODULE": "_native",
        "CMAKE_BUILD_TYPE": "Release",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11,
    }
    run("cmake", "-S", folder, "-B", target, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items()))
    run("cmake", "--build", target)
    for old in (folder / "vreid_ext").glob("_native*.so"):
        old.unlink()
    for module in target.glob("_native*.so"):
        shutil.copy2(module, folder / "vreid_ext")


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout


def report(workers: Sequence[Worker], cases: Iterable[str], rounds: int, tolerance: float) -> list[str]:
    """Print a row for each case. Returns the cases that are slower than in BASE."""
    print(f"{'case':48} {'base ms':>9} {'new ms':>9}  base / new (20 % to 80 %)")
    slower = []
    for case in cases:
        try:
            row = ratio(workers, case, rounds)
            if row.q80 < 1 - tolerance:
                row = ratio(workers, case, 2 * rounds)
        except LookupError as error:
            print(f"{case:48} not in both versions: {error}", flush=True)
            continue
        spread = f"{row.median:.2f} ({row.q20:.2f} to {row.q80:.2f})"
        is_slower = row.q80 < 1 - tolerance
        slower += [case] if is_slower else []
        print(f"{case:48} {row.base:9.3f} {row.head:9.3f}  {spread}{'  slower' * is_slower}", flush=True)
    return slower


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", nargs="?", metavar="BASE", help="commit to compare with")
    parser.add_argument("--head", help="commit to compare, instead of the working tree")
    parser.add_argument("--isa", nargs=2, metavar=("BASE", "NEW"), help="instruction sets to compare")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tolerance", type=float, default=0.03)
    parser.add_argument("--case", default="", help="part of the names of the cases")
    parser.add_argument("--list", action="store_true", help="list the cases")
    arguments = parser.parse_args()
    cases = [name for name in CASES if arguments.case in name]
    if not cases:
        parser.error(f"--case: expected part of the name of a case, got {arguments.case!r}; see --list")
    if arguments.list:
        print("\n".join(cases))
        return
    if (arguments.base is None) == (arguments.isa is None):
        parser.error("BASE: expected a commit, or --isa with two instruction sets")
    new = commit(arguments.head) if arguments.head else working_tree()
    base = new if arguments.isa else commit(arguments.base)
    workers: list[Worker] = []
    try:
        for folder, isa in zip((base, new), arguments.isa or (None, None), strict=True):
            if not workers or folder != base:
                build(folder)
            workers.append(Worker(folder, arguments.threads, isa))
        sets = " and ".join(dict.fromkeys(worker.info["isa"] for worker in workers))
        tested = arguments.head or "the working tree"
        print(f"base: {arguments.base or tested}; new: {tested}; {sets}")
        slower = report(workers, cases, arguments.rounds, arguments.tolerance)
    finally:
        for worker in workers:
            worker.close()
    print(f"{len(slower)} of {len(cases)} cases are slower than in base")


if __name__ == "__main__":
    main()
