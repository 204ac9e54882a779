"""Times several providers in interleaved rounds. A round runs each provider once, so changes of the machine's
speed affect all of them equally and the ratios stay valid."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import vreid_ext
from vreid_ext import backends


@dataclass(frozen=True)
class Row:
    """Times of one provider in milliseconds.

    per_ours: ratio to our time, see `compare`.
    resident_mb, beyond_mb: if measured, the peak resident memory of a separate process for this call: in
    total, and in excess of the memory before the call (inputs and libraries).
    """

    case: str
    provider: str
    q20: float
    median: float
    q80: float
    per_ours: float
    rounds: int = 0
    resident_mb: float | None = None
    beyond_mb: float | None = None
    cosine: float | None = None


def compare(
    case: str,
    providers: Mapping[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 3,
    once: Collection[str] = (),
) -> list[Row]:
    """Time every provider in `rounds` interleaved rounds. `providers` must contain "ours".

    `per_ours` is the median over the rounds of provider time / our time in the same round. Slow providers can
    be listed in `once`: they only run in the first round.
    """
    times: dict[str, list[float]] = {name: [] for name in providers}
    for round_ in range(-warmup, rounds):
        for name, run in providers.items():
            if name in once and round_ != 0:
                continue
            synchronize()
            start = perf_counter()
            run()
            synchronize()
            if round_ >= 0:
                times[name].append(1e3 * (perf_counter() - start))
    ours = torch.tensor(times["ours"])
    rows = []
    for name, values in times.items():
        t = torch.tensor(values)
        q20, median, q80 = t.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        rows.append(Row(case, name, q20, median, q80, (t / ours[: len(t)]).median().item(), len(t)))
    return rows


_PEAK = """
import importlib, json, re, sys
sys.path.insert(0, sys.argv[1])

def status(field):
    with open("/proc/self/status") as file:
        return int(re.search(field + r":\\s+(\\d+)", file.read())[1]) * 1024 / 1e6

call = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])(*json.loads(sys.argv[4]))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # resets the peak
before = status("VmRSS")
call()
print(json.dumps({"resident_mb": status("VmHWM"), "beyond_mb": status("VmHWM") - before}))
"""


def peak(module: str, prepare: str, *arguments: Any) -> dict[str, float]:
    """Measure `resident_mb` and `beyond_mb` of a row in a separate process (Linux only).

    `prepare` names a function in `module`, a module of this folder, that returns the function to measure.
    """
    command = [sys.executable, "-c", _PEAK, str(Path(__file__).parent), module, prepare]
    done = subprocess.run([*command, json.dumps(arguments)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, Any]:
    """Hardware and versions, which the figures depend on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    facts = {
        "date": date.today().isoformat(),
        "cpu": cpu,
        "isa": backends.build_info().get("native isa", "no native module"),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vreid_ext": vreid_ext.__version__,
    }
    if made_from := commit():
        facts["commit"] = made_from
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts


def show(rows: list[Row]) -> str:
    """A text table with one line per row."""
    heading = f"{'20 %':>9} {'median':>9} {'80 %':>9} {'/ ours':>8} {'rounds':>6}  peak MB"
    lines = [f"{'case':34} {'provider':22} {heading}"]
    for r in rows:
        memory = f"  {r.resident_mb:.0f} in total, {r.beyond_mb:.0f} for the call" if r.resident_mb else ""
        memory += f"  cosine {r.cosine:.5f}" if r.cosine is not None else ""
        times = f"{r.q20:9.3f} {r.median:9.3f} {r.q80:9.3f} {r.per_ours:8.2f} {r.rounds:6}"
        lines.append(f"{r.case:34} {r.provider:22} {times}{memory}")
    return "\n".join(lines)


def save(rows: list[Row], path: Path) -> None:
    path.write_text(json.dumps({"machine": machine(), "rows": [asdict(r) for r in rows]}, indent=1) + "\n")


def commit() -> str:
    """Commit of the benchmarks, with "-dirty" if files were modified; empty outside a repository."""
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
