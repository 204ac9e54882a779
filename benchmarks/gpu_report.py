"""Full report of a GPU in one run: builds the CUDA module, runs the tests, times all ops, and trains STA.

Baselines are eager torch, `torch.compile`, other packages if installed, and the limits of the machine.

    python benchmarks/gpu_report.py --out DIR [--minutes 8] [--no-build] [--no-tests]

Writes DIR/rows.json (machine, limits, rows, training), DIR/report.md and DIR/roofline.svg. The report also
lists the faster backend of each op, for the table in vreid_ext/backends, and the measurements that were
skipped for lack of time. `--device cpu --tiny` checks that the script runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from gpu_cases import Case, cases, metric_learning_is_installed
from gpu_timing import quantiles
from gpu_training import train
from harness import machine

ROOT = Path(__file__).parents[1]
BACKENDS = {"cuda": ("cuda", "triton"), "cpu": ("native",)}
ROUNDS = 15


@dataclass
class Row:
    """Milliseconds of one provider in one case. `of_limit`: lower bound of the time / median time."""

    op: str
    size: str
    phase: str
    provider: str
    q20: float
    median: float
    q80: float
    gigabytes_per_second: float
    teraflops: float
    of_limit: float


@dataclass
class Limits:
    """Bytes per second (read + written) of a large copy, and operations per second of a large product."""

    copy: float
    product: float


class Clock:
    """Remaining time of the run, and the list of skipped measurements."""

    def __init__(self, minutes: float) -> None:
        self.start, self.seconds = perf_counter(), 60 * minutes
        self.skipped: list[str] = []

    def left(self) -> float:
        return self.seconds - (perf_counter() - self.start)

    def allows(self, name: str, seconds: float) -> bool:
        """Whether there is enough time for a measurement; if not, it is added to `skipped`."""
        if self.left() >= seconds:
            return True
        self.skipped.append(name)
        return False


def measure_limits(device: str, tiny: bool) -> Limits:
    x = torch.randn(2**12 if tiny else 2**28, device=device)
    y, n = torch.empty_like(x), 64 if tiny else 8192
    a = torch.randn(n, n, device=device)
    found = quantiles({"copy": lambda: y.copy_(x), "product": lambda: a @ a}, device, 5)
    return Limits(2 * x.nbytes / found["copy"][1] * 1e3, 2 * n**3 / found["product"][1] * 1e3)


def with_backward(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    leaves = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in inputs)
    upstream = torch.randn_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, upstream, allow_unused=True)


def without_backward(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    return run


def measure(case: Case, device: str, limits: Limits, clock: Clock, problems: list[str]) -> list[Row]:
    """Rows of a case, forward and forward + backward, for every provider with a correct result."""
    functions = {name: case.ours(name) for name in BACKENDS[device]} | case.baselines
    if case.compiled and device == "cuda" and clock.allows(f"torch.compile of {case.op} {case.size}", 60):
        functions["compiled"] = torch.compile(case.baselines[case.compiled], dynamic=False)
    expected = case.ours("reference")(*case.inputs).double()
    good = {}
    for name, function in functions.items():
        try:
            result = function(*case.inputs)
            torch.testing.assert_close(
                result.double(), expected, rtol=5e-2, atol=2e-2 * float(expected.abs().max())
            )
        except Exception as error:  # report it, and time the other providers
            problems.append(f"{case.op} {case.size}, {name}: {error}")
            continue
        good[name] = function
    rows = []
    for phase, prepare, factor in (("forward", without_backward, 1), ("both", with_backward, 3)):
        if phase == "both" and not case.backward:
            continue
        runs = {name: prepare(function, case.inputs) for name, function in good.items()}
        product = case.product  # the backward pass of mining only uses the mined pairs: no product
        if case.op == "part_distance" and phase == "both":
            product *= 4
        least = 1e3 * max(factor * case.read / limits.copy, product / limits.product)
        for name, (q20, median, q80) in quantiles(runs, device, ROUNDS).items():
            rows.append(
                Row(
                    case.op, case.size, phase, name, q20, median, q80,
                    factor * case.read / median / 1e6, product / median / 1e9, least / median,
                )
            )  # fmt: skip
    return rows


def run_command(command: list[str], seconds: float) -> dict[str, Any]:
    start = perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
        )
        code, tail = done.returncode, (done.stdout + done.stderr)[-2000:]
    except subprocess.TimeoutExpired:
        code, tail = None, f"stopped after {seconds:.0f} s"
    return {"command": " ".join(command), "code": code, "seconds": perf_counter() - start, "tail": tail}


def build(seconds: float) -> dict[str, Any]:
    """Build the CUDA module for this GPU only."""
    major, minor = torch.cuda.get_device_capability()
    return run_command(
        [
            "env", "VREID_CUDA=1", f"VREID_CUDA_ARCHS={major}{minor}", "CMAKE_BUILD_PARALLEL_LEVEL=8",
            sys.executable, "-m", "pip", "install", "-q", "-e", ".", "--no-build-isolation", "--no-deps",
        ],
        seconds,
    )  # fmt: skip


def choices(rows: list[Row]) -> dict[str, str]:
    """The faster GPU backend, cuda or triton, for each op, by the geometric mean over its cases."""
    medians: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        medians.setdefault((row.op, row.size, row.phase), {})[row.provider] = row.median
    ratios: dict[str, list[float]] = {}
    for (op, *_), found in medians.items():
        if {"cuda", "triton"} <= found.keys():
            ratios.setdefault(op, []).append(found["cuda"] / found["triton"])
    return {
        op: "cuda" if torch.tensor(values).log().mean() < 0 else "triton" for op, values in ratios.items()
    }


def report(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    limits = content["limits"]
    lines = [
        "# GPU report", "", *(f"- {name}: {value}" for name, value in content["machine"].items()),
        f"- copy {limits['copy'] / 1e9:.0f} GB/s, float32 product {limits['product'] / 1e12:.1f} Tflop/s", "",
        "| op | size | phase | provider | ms 20 % | median | 80 % | GB/s | Tflop/s | of the limit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row['op']} | {row['size']} | {row['phase']} | {row['provider']} | {row['q20']:.4f} | "
        f"{row['median']:.4f} | {row['q80']:.4f} | {row['gigabytes_per_second']:.0f} | "
        f"{row['teraflops']:.2f} | {row['of_limit']:.0%} |"
        for row in content["rows"]
    ]
    lines += ["", "## Training", "", *(f"- {name}: {value}" for name, value in content["training"].items())]
    lines += [
        "",
        "## Faster of cuda and triton",
        "",
        *(f"- {op}: {b}" for op, b in content["choices"].items()),
    ]
    for title in ("problems", "skipped"):
        lines += ["", f"## {title.capitalize()}", "", *(f"- {each}" for each in content[title] or ["none"])]
    for name in ("build", "tests"):
        if content[name]:
            lines += ["", f"## {name.capitalize()}", "", "```", content[name]["tail"].strip(), "```"]
    return "\n".join(lines) + "\n"


def roofline(content: dict[str, Any], path: Path) -> None:
    """Roofline plot: operations per second of each provider over operations per byte, with both limits."""
    import matplotlib
    from matplotlib.figure import Figure

    from vreid_ext.report.style import COLORS, STYLE, save_figure

    limits = content["limits"]
    with matplotlib.rc_context(STYLE):
        figure = Figure((9, 5.5), layout="constrained")
        axes = figure.subplots()
        intensity = [10.0**e for e in range(-2, 5)]
        # Cases without a product are drawn at one operation (a sum) per number, that is per four bytes.
        roof = [min(limits["copy"] * each, limits["product"]) / 1e12 for each in intensity]
        axes.loglog(intensity, roof, color="black", label="limits")
        providers = list(dict.fromkeys(row["provider"] for row in content["rows"]))
        for color, provider in zip(COLORS * 2, providers):
            points = [
                (
                    1e3 * row["teraflops"] / row["gigabytes_per_second"] if row["teraflops"] else 0.25,
                    row["teraflops"] or row["gigabytes_per_second"] / 4e3,
                )
                for row in content["rows"]
                if row["provider"] == provider
            ]
            axes.loglog(*zip(*points), "o", color=color, label=provider)
        axes.set_xlabel("operations per byte")
        axes.set_ylabel("Tflop/s")
        axes.legend()
        save_figure(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit of the run")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes, to check that everything runs")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--no-tests", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device (use --device cpu --tiny to check that the script runs)")
    options.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(options.minutes)
    content: dict[str, Any] = {"build": None, "tests": None, "problems": [], "skipped": clock.skipped}
    on_gpu = options.device == "cuda"
    if on_gpu and not options.no_build:
        content["build"] = build(0.3 * clock.seconds)
    if on_gpu and not options.no_tests:
        # In a subprocess, so that the tests import the module that was just built.
        content["tests"] = run_command(
            [sys.executable, "-m", "pytest", "python_tests/backends", "-q", "-m", "gpu"], 0.35 * clock.seconds
        )
    content["machine"] = machine() | {"backend versions": str(_build_info())}
    limits = measure_limits(options.device, options.tiny)
    content["limits"] = asdict(limits)
    training_time = 0.15 * clock.seconds
    if not metric_learning_is_installed():
        clock.skipped.append("the baseline pytorch-metric-learning (not installed)")
    rows: list[Row] = []
    for case in cases(options.device, options.tiny):
        if clock.allows(f"{case.op} {case.size}", training_time + 5):
            rows += measure(case, options.device, limits, clock, content["problems"])
    content["rows"] = [asdict(row) for row in rows]
    content["choices"] = choices(rows)
    content["training"] = {}
    if clock.allows("training", 20):
        workers = 0 if options.tiny else min(16, os.cpu_count() or 1)
        with tempfile.TemporaryDirectory() as folder:
            content["training"] = train(
                Path(folder), options.device, options.tiny, min(training_time, clock.left() - 15), workers
            )
    content["seconds"] = perf_counter() - clock.start
    (options.out / "rows.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "report.md").write_text(report(content))
    roofline(content, options.out / "roofline.svg")
    print((options.out / "report.md").read_text())
    failed = any(part and part["code"] != 0 for part in (content["build"], content["tests"]))
    return 1 if failed or content["problems"] else 0


def _build_info() -> dict[str, str]:
    from vreid_ext import backends

    return backends.build_info()


if __name__ == "__main__":
    sys.exit(main())
