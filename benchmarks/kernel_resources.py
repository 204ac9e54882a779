"""Resources of the CUDA kernels as reported by ptxas: registers, shared memory, stack and spills.

    python benchmarks/kernel_resources.py [--arch sm_90 ...] [--source mining.cu ...] [--markdown]

Compiles each source with nvcc for each architecture; no GPU is needed. The exit code is 1 if a kernel has a
stack frame or spills registers.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

CSRC = Path(__file__).parents[1] / "csrc"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


class Resources(NamedTuple):
    source: str
    arch: str
    symbol: str
    kernel: str
    registers: int
    shared: int
    stack: int
    spills: int


def compile_source(
    source: Path, arch: str, nvcc: str = "nvcc", output: Path | None = None
) -> list[Resources]:
    """The kernels of one source for one architecture. The machine code is written to `output`.

    Raises:
        RuntimeError: nvcc failed; the error contains its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc, "-std=c++17", "-O3", f"-arch={arch}", "-cubin", "-Xptxas=-v", f"-I{CSRC}",
            "-o", str(output or Path(folder, "kernels.cubin")), str(source),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{source.name} for {arch}:\n{result.stderr}")
    report = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes"
        r" spill loads.*?Used (\d+) registers([^\n]*)",
        result.stderr,
        re.DOTALL,
    )
    names = subprocess.run(
        ["c++filt"], input="\n".join(row[0] for row in report), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = []
    for name, (symbol, stack, stores, loads, registers, rest) in zip(names, report, strict=True):
        shared = re.search(r"(\d+) bytes smem", rest)
        rows.append(
            Resources(
                source.name, arch, symbol, _short(name), int(registers), int(shared[1]) if shared else 0,
                int(stack), int(stores) + int(loads),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: row.kernel)


def _short(name: str) -> str:
    """The name of a kernel without namespaces, argument types and return type."""
    name = re.sub(r"\(anonymous namespace\)::|vreid::|cuda::|^void ", "", name)
    return name.partition("(")[0]


def table(rows: list[Resources]) -> str:
    """Markdown with one line per kernel. For a template it has the range over the instantiations."""
    groups: dict[tuple[str, str], dict[str, list[Resources]]] = {}
    for row in rows:
        key = row.source, row.kernel.partition("<")[0]
        groups.setdefault(key, {}).setdefault(row.arch, []).append(row)
    archs = list(dict.fromkeys(row.arch for row in rows))
    lines = [
        "| source | kernel | variants | shared bytes | " + " | ".join(f"registers {a}" for a in archs) + " |",
        "|---" * (4 + len(archs)) + "|",
    ]
    for (source, kernel), variants in groups.items():
        some = next(iter(variants.values()))
        cells = [
            source, f"`{kernel}`", str(len(some)), _range([row.shared for row in some]),
            *(_range([row.registers for row in variants.get(arch, [])]) for arch in archs),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def command_line(description: str, archs: Sequence[str], **of_arch: Any) -> argparse.ArgumentParser:
    """A parser with the options --arch and --source, which `selected` reads.

    of_arch: further arguments of `add_argument` for --arch.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", default=archs, **of_arch)
    parser.add_argument(
        "--source", nargs="+", default=sorted(path.name for path in (CSRC / "cuda").glob("*.cu"))
    )
    return parser


def selected(options: argparse.Namespace) -> list[tuple[Path, str]]:
    """Every source and architecture that the options name."""
    return [(CSRC / "cuda" / source, arch) for source in options.source for arch in options.arch]


def main() -> int:
    parser = command_line(__doc__ or "", ARCHITECTURES)
    parser.add_argument("--markdown", action="store_true", help="print a table instead of a line per kernel")
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args()
    rows = [row for source, arch in selected(options) for row in compile_source(source, arch, options.nvcc)]
    print(table(rows) if options.markdown else "\n".join(map(str, rows)))
    bad = [row for row in rows if row.stack or row.spills]
    for row in bad:
        print("stack or spills:", row, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
