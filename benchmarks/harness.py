"""Times rivals side by side: one round runs each of them once, so that a machine whose speed drifts
changes all of them alike and the ratios hold."""

import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import vreid_ext


@dataclass(frozen=True)
class Row:
    """Times of one provider in milliseconds, and how many times ours goes into each of its rounds."""

    case: str
    provider: str
    q20: float
    median: float
    q80: float
    per_ours: float


def compare(case: str, providers: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 3) -> list[Row]:
    """Time every provider in `rounds` interleaved rounds; "ours" must be among them.

    `per_ours` is the median over the rounds of provider time / our time in the same round.
    """
    times: dict[str, list[float]] = {name: [] for name in providers}
    for round_ in range(warmup + rounds):
        for name, run in providers.items():
            synchronize()
            start = perf_counter()
            run()
            synchronize()
            if round_ >= warmup:
                times[name].append(1e3 * (perf_counter() - start))
    ours = torch.tensor(times["ours"])
    rows = []
    for name, values in times.items():
        t = torch.tensor(values)
        q20, median, q80 = t.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        rows.append(Row(case, name, q20, median, q80, (t / ours).median().item()))
    return rows


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    facts = {
        "date": date.today().isoformat(),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vreid_ext": vreid_ext.__version__,
    }
    if commit := _commit():
        facts["commit"] = commit
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts


def show(rows: list[Row]) -> str:
    """A table, one line a row."""
    lines = [f"{'case':34} {'provider':22} {'20 %':>9} {'median':>9} {'80 %':>9} {'/ ours':>8}"]
    lines += [
        f"{r.case:34} {r.provider:22} {r.q20:9.3f} {r.median:9.3f} {r.q80:9.3f} {r.per_ours:8.2f}"
        for r in rows
    ]
    return "\n".join(lines)


def save(rows: list[Row], path: Path) -> None:
    path.write_text(json.dumps({"machine": machine(), "rows": [asdict(r) for r in rows]}, indent=1) + "\n")


def _commit() -> str:
    """Of the benchmarks, marked where files differ from it; empty outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
