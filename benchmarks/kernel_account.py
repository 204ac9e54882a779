"""What the main loop of each CUDA kernel costs, counted in its machine code, and the unit that bounds it.

    python benchmarks/kernel_account.py [--arch sm_80 sm_90] [--source mining.cu ...] [--step NAME]

Compiles each source with nvcc and disassembles it with nvdisasm; no GPU is needed. The main loop is the
innermost loop with most tensor instructions or, without any, the loop that itself has most bytes of 16-byte
loads, or else of all loads. Without --step the accounts are printed. With it they replace those of that step
in a file of benchmarks/results/kernels; `python benchmarks/tables.py` then writes the tables of
docs/gpu.md.

The model: a pass of the loop by all warps of a thread block takes as long as the busiest unit of its
multiprocessor. Without tensor instructions, a pass also takes at least as long as Little's law demands: a
multiprocessor has `in_flight` bytes on their way from memory, and gets them after the latency of the memory.
Bank conflicts, branches that are not taken and everything outside the loop are left out, so a share of the
peak is an upper bound.
"""

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import commit
from kernel_resources import Resources, command_line, compile_source, selected

RESULTS = Path(__file__).parent / "results" / "kernels"
WARPS, LANES = 8, 32  # warps of a thread block
LARGE = {"pool_clips": 24}  # of the kernels with larger blocks
WIDEST = 128  # bits of a load


@dataclass(frozen=True)
class Machine:
    """Rates of a GPU for one multiprocessor and cycle.

    Attributes:
        clock: boost clock in GHz, at which the data sheet quotes the peak.
        multiply_adds: of float16 and bfloat16 by the tensor cores at their peak; TF32 has half of it.
        mma: share of that peak that `mma.sync` reaches.
        lanes: results of each pipe: CUDA C++ Programming Guide, "Throughput of Native Arithmetic
            Instructions".
        dram: bytes from device memory.
        l2: bytes from the L2 cache.
        latency: of device memory under load, in ns.
    """

    name: str
    clock: float
    multiprocessors: int
    multiply_adds: int
    mma: float
    lanes: dict[str, int]
    dram: float
    l2: float
    latency: float
    registers: int = 65536
    shared: int = 0

    @property
    def needed(self) -> float:
        """Bytes that a multiprocessor needs on their way from device memory for all of the bandwidth."""
        return self.dram * self.latency * self.clock


def _lanes(floats: int) -> dict[str, int]:
    return {"float": floats, "integer": 64, "conversion": 16, "special": 16, "shuffle": 32, "issue": 128}


# Assumptions: the L2 cache gives 5,120 bytes per cycle (A100 whitepaper; NVIDIA states no figure for the
# H100), mma.sync reaches 62 % of Hopper's peak (arXiv:2402.13499; the rest needs wgmma), and a load from
# device memory takes 600 to 700 ns while the memory is busy.
MACHINES = {
    "sm_80": Machine(
        "A100", 1.41, 108, 1024, 1.0, _lanes(64), 2039 / 108 / 1.41, 5120 / 108, 600, shared=164
    ),
    "sm_90": Machine(
        "H100", 1.83, 132, 2048, 0.62, _lanes(128), 3350 / 132 / 1.83, 5120 / 132, 650, shared=228
    ),
}

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_LABEL = re.compile(r"(\.L_\w+):")


@dataclass(frozen=True)
class Instruction:
    name: str  # with its modifiers, e.g. LDG.E.128
    target: str | None  # label of a branch
    operands: str = ""

    @property
    def registers(self) -> list[int]:
        """The first register of each operand, the destination first."""
        return [int(number) for number in re.findall(r"\bR(\d+)", self.operands)]

    @property
    def loads(self) -> bool:
        return self.name.startswith("LDG.")

    @property
    def bits(self) -> int:
        """Width of a load or store of one lane."""
        if self.name.startswith("LDSM"):
            return 32 * int(self.name.rpartition(".")[2])
        parts = self.name.split(".")
        return next((int(width) for width in ("128", "64") if width in parts), self._narrow(parts))

    @staticmethod
    def _narrow(parts: list[str]) -> int:
        return next((int(part[1:]) for part in parts if part in ("U8", "S8", "U16", "S16")), 32)


Code = list[str | Instruction]  # labels and instructions in the order of the machine code


def read(disassembly: str) -> dict[str, Code]:
    """The code of each kernel in the output of `nvdisasm -c`."""
    kernels: dict[str, Code] = {}
    code: Code = []
    for line in disassembly.splitlines():
        if line.startswith(".text.") and line.endswith(":"):
            code = kernels.setdefault(line[len(".text.") : -1], [])
        elif label := _LABEL.match(line):
            code.append(label[1])
        elif found := _INSTRUCTION.search(line):
            if "@!PT" in line:  # never executed; ptxas places three such LDS before each cp.async
                code.append(Instruction("NOP", None))
                continue
            target = re.search(r"`\((\.L_\w+)\)", found[2]) if found[1].startswith("BRA") else None
            code.append(Instruction(found[1], target[1] if target else None, found[2]))
    return kernels


def loops(code: Code) -> list[tuple[int, int]]:
    """First and last place of each loop: a branch back to a label."""
    place = {item: i for i, item in enumerate(code) if isinstance(item, str)}
    ends: dict[int, int] = {}
    for i, item in enumerate(code):
        if isinstance(item, Instruction) and item.target is not None and place.get(item.target, i) < i:
            ends[place[item.target]] = i
    return sorted(ends.items())


@dataclass
class Counts:
    """Instructions of one warp, and the bytes that they move."""

    instructions: float = 0
    tensor: float = 0
    multiply_adds: float = 0  # by the tensor cores
    tensor_cycles: float = 0  # in units of a float16 m16n8k16
    floats: float = 0
    integers: float = 0
    conversions: float = 0
    special: float = 0
    shuffles: float = 0
    shared_loads: float = 0
    shared_stores: float = 0
    shared_bytes: float = 0
    global_loads: float = 0
    global_bytes: float = 0
    wide_loads: float = 0  # of 16 bytes per lane
    stored_bytes: float = 0  # to global memory
    wide_stores: float = 0
    barriers: float = 0

    def add(self, instruction: Instruction, times: float) -> None:
        name, bytes_moved = instruction.name.partition(".")[0], times * LANES * instruction.bits / 8
        self.instructions += times
        if name == "HMMA":
            rows, columns, depth = _shape(instruction.name)
            self.tensor += times
            self.multiply_adds += times * rows * columns * depth
            self.tensor_cycles += times * rows * columns * depth * (2 if "TF32" in instruction.name else 1)
        elif name in ("FFMA", "FADD", "FMUL"):
            self.floats += times
        elif name in ("F2F", "F2FP", "F2I", "I2F", "I2FP"):
            self.conversions += times
        elif name == "MUFU":
            self.special += times
        elif name == "SHFL":
            self.shuffles += times
        elif name in ("LDS", "LDSM"):
            self.shared_loads += times
            self.shared_bytes += bytes_moved
        elif name == "STS":
            self.shared_stores += times
            self.shared_bytes += bytes_moved
        elif name in ("LDG", "LDGSTS"):
            self.global_loads += times
            self.global_bytes += bytes_moved
            self.wide_loads += times * (instruction.bits == WIDEST)
            if name == "LDGSTS":
                self.shared_stores += times
                self.shared_bytes += bytes_moved
        elif name == "STG":
            self.stored_bytes += bytes_moved
            self.wide_stores += times * (instruction.bits == WIDEST)
        elif name == "BAR":
            self.barriers += times
        elif name not in ("BRA", "NOP", "RED", "BSSY", "BSYNC", "EXIT", "LDGDEPBAR", "DEPBAR"):
            self.integers += times

    @property
    def streamed(self) -> float:
        """Bytes of the loads of 16 bytes, if any: narrower ones are then of small tables, in a cache."""
        return self.wide_loads * LANES * WIDEST / 8 or self.global_bytes

    @property
    def written(self) -> float:
        """Bytes of the stores that go with `streamed`: narrower ones are then of a single lane."""
        return self.wide_stores * LANES * WIDEST / 8 if self.wide_loads else self.stored_bytes

    def cycles(self, machine: Machine, warps: int = WARPS) -> dict[str, float]:
        """Cycles of each unit of a multiprocessor for one pass by all warps of a thread block."""
        pipes = {
            "float": self.floats,
            "integer": self.integers,
            "conversion": self.conversions,
            "special": self.special,
            "shuffle": self.shuffles,
            "issue": self.instructions,
        }
        found = {unit: warps * LANES * count / machine.lanes[unit] for unit, count in pipes.items()}
        found["tensor"] = warps * self.tensor_cycles / (machine.multiply_adds * machine.mma)
        found["shared"] = warps * self.shared_bytes / 128
        if self.tensor:
            found["L2"] = warps * self.global_bytes / machine.l2
        else:
            found["memory"] = warps * (self.streamed + self.written) / machine.dram
        return found


def _shape(name: str) -> tuple[int, int, int]:
    """Rows, columns and depth of a matrix instruction, e.g. HMMA.16816.F32."""
    shape = name.split(".")[1]
    return {"1684": (16, 8, 4), "1688": (16, 8, 8), "16816": (16, 8, 16)}[shape]


def main_loop(code: Code, passes: int = 1) -> tuple[Counts, Counts, Code]:
    """Counts of the main loop and of the code outside it, and the loop itself without the loops inside.

    Args:
        passes: passes of a loop inside the main loop, for each of its own. A main loop has barriers if the
            kernel multiplies tiles, so it may contain another loop. Otherwise loops inside that load are left
            out: they are for sizes that are not usual.
    """
    found = loops(code)
    multiplies = any(isinstance(item, Instruction) and item.name.startswith("HMMA") for item in code)

    def weight(loop: tuple[int, int]) -> tuple[float, float, int]:
        if multiplies:
            counts = _counted(code, loop, found, passes)
            return (counts.tensor if counts.barriers else 0), 0, loop[0] - loop[1]
        own = _counted(code, loop, found, 0)
        return own.wide_loads, own.global_bytes, loop[0] - loop[1]

    outside = _counted(code, (0, len(code) - 1), [], 1)
    chosen = max(found, key=weight, default=None)
    if chosen is None or not any(weight(chosen)[:2]):
        return Counts(), outside, []
    for field, value in asdict(_counted(code, chosen, [], 1)).items():
        setattr(outside, field, getattr(outside, field) - value)
    inside = [loop for loop in found if _inside(loop, chosen)]
    rare = [loop for loop in inside if not multiplies and _counted(code, loop, [], 1).global_loads]
    body = ["" if any(a <= place <= b for a, b in rare) else item for place, item in enumerate(code)]
    return _counted(body, chosen, found, passes), outside, body[chosen[0] : chosen[1] + 1]


def _inside(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]


def _counted(code: Code, loop: tuple[int, int], found: list[tuple[int, int]], passes: int) -> Counts:
    counts = Counts()
    nested = [other for other in found if _inside(other, loop)]
    for place in range(loop[0], loop[1] + 1):
        item = code[place]
        if isinstance(item, Instruction):
            counts.add(item, passes if any(a <= place <= b for a, b in nested) else 1)
    return counts


def loads_in_flight(loop: Code) -> float:
    """The most bytes that a warp has requested by its widest loads before it needs one of them.

    Loads arrive in their order. The loop runs twice, because a pass may load for the next one.
    """
    steps = [item for item in loop if isinstance(item, Instruction)]
    widest = max((item.bits for item in steps if item.loads), default=0)
    pending: list[set[int]] = []  # the registers of each load on its way
    most = 0
    for item in steps * 2:
        needed = [i for i, registers in enumerate(pending) if registers.intersection(item.registers)]
        del pending[: max(needed, default=-1) + 1]
        if item.loads and item.bits == widest:
            first = item.registers[0]
            pending.append(set(range(first, first + max(1, widest // 32))))
            most = max(most, len(pending))
    return most * LANES * widest / 8


def products(kernel: str) -> int:
    """Matrix products that a kernel computes for one."""
    return 1 if re.search(r"\b(__nv_bfloat16|__half)\b", kernel) else 3


def account(row: Resources, code: Code, passes: int = 1) -> dict[str, Any]:
    """Counts of a kernel, cycles of each unit, the busiest one, and the share of the peak that it permits."""
    machine, (loop, outside, body) = MACHINES[row.arch], main_loop(code, passes)
    warps = LARGE.get(row.kernel.partition("<")[0], WARPS)
    cycles = loop.cycles(machine, warps)
    entry: dict[str, Any] = row._asdict()
    entry |= {"gpu": machine.name, "loop": asdict(loop), "outside": outside.instructions, "cycles": cycles}
    fits = [machine.registers // (math.ceil(row.registers / 8) * 8 * warps * LANES), 2048 // warps // LANES]
    if row.shared:
        fits.append(machine.shared * 1024 // (row.shared + 1024))  # the system takes 1 KB of a block
    entry["blocks"] = min(fits)
    if not any(cycles.values()):
        return entry
    if not loop.tensor:
        entry["in_flight"] = entry["blocks"] * warps * loads_in_flight(body)
        cycles["latency"] = warps * loop.streamed * machine.needed / machine.dram / entry["in_flight"]
    bound = max(cycles, key=lambda unit: cycles[unit])
    entry["bound"] = bound
    if loop.tensor:
        useful = warps * loop.multiply_adds / products(row.kernel)
        rate = useful / cycles[bound]
        entry |= {
            "products": products(row.kernel),
            "share": rate / machine.multiply_adds,
            "teraflops": 2 * rate * machine.multiprocessors * machine.clock / 1e3,
        }
    else:
        entry["share"] = cycles["memory"] / cycles[bound]
    return entry


def tool(name: str) -> str | None:
    """A program of the CUDA toolkit, or the one that Triton brings."""
    triton = find_spec("triton")
    places = [Path("/usr/local/cuda/bin")]
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    found = [shutil.which(name), *(shutil.which(name, path=str(place)) for place in places)]
    return next(filter(None, found), None)


def accounts(source: Path, arch: str, passes: int = 1) -> list[dict[str, Any]]:
    """The accounts of all kernels of a source.

    Raises:
        RuntimeError: nvcc or nvdisasm failed, or there is no nvdisasm.
    """
    program = tool("nvdisasm")
    if program is None:
        raise RuntimeError("expected nvdisasm on PATH, in /usr/local/cuda/bin or in Triton, got none")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernels.cubin")
        rows = compile_source(source, arch, output=cubin)
        result = subprocess.run([program, "-c", str(cubin)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"nvdisasm of {source.name}: {result.stderr}")
    code = read(result.stdout)
    return [account(row, code[row.symbol], passes) for row in rows]


def main() -> int:
    parser = command_line(__doc__ or "", list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--step", help="write the accounts to the results under this name")
    parser.add_argument("--file", default="account.json", help="the file of the results")
    parser.add_argument("--passes", type=int, default=1, help="passes of a loop inside the main loop")
    options = parser.parse_args()
    found = [row for source, arch in selected(options) for row in accounts(source, arch, options.passes)]
    if options.step is None:
        for row in found:
            print({name: value for name, value in row.items() if name not in ("symbol", "cycles")})
            print("   ", {unit: round(value) for unit, value in row["cycles"].items() if value})
        return 0
    file = RESULTS / options.file
    content = json.loads(file.read_text()) if file.exists() else {"steps": []}
    steps = [step for step in content["steps"] if step["name"] != options.step]
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\S+),", nvcc)
    rows = [{name: value for name, value in row.items() if name != "symbol"} for row in found]
    steps.append(
        {
            "name": options.step,
            "commit": commit(),
            "date": str(date.today()),
            "nvcc": release[1] if release else "",
            "rows": rows,
        }
    )
    file.write_text(json.dumps({"steps": steps}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
