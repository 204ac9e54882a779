"""Built kernels of the CUDA backend, and what the tests of the Triton kernels share: where they run, on what,
and what they compare.

Triton settles whether it interprets when kernels are defined, so its interpreter gets a process of its own:
`test_triton.py::test_in_the_interpreter` runs the test_triton*.py files again with TRITON_INTERPRET=1. There
`device` is the CPU; everywhere else it is a GPU, and the tests that ask for it are marked so.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    return request.param


# The interpreter's bfloat16 is unreliable.
@pytest.fixture(params=[torch.float32, torch.float16] + [torch.bfloat16] * (not INTERPRETED), ids=str)
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(params=["contiguous", "channels_last", "sliced", "cropped", "strided", "expanded"])
def layout(request) -> str:
    return request.param


@pytest.fixture
def feature_map() -> Callable[..., Tensor]:
    """Maps (B,T,C,H,W) as after a ReLU, in the memory layout named."""

    def make(
        shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32, layout: str = "contiguous"
    ) -> Tensor:
        generator = torch.Generator().manual_seed(sum(shape))
        b, t, c, h, w = shape
        stored = {
            "contiguous": shape,
            "channels_last": (b, t, h, w, c),
            "sliced": (b, t + 1, c + 2, h, w),
            "cropped": (b, t + 1, c + 2, h, w + 3),
            "strided": (b, t, h, 2 * w, c + 1),
            "expanded": (b, 1, c, h, w),
        }[layout]
        x = torch.randn(stored, generator=generator).relu().to(device, dtype)
        if layout == "channels_last":
            return x.permute(0, 1, 4, 2, 3)
        if layout == "sliced":
            return x[:, 1:, 1:-1]
        if layout == "cropped":
            return x[:, 1:, 1:-1, :, 1:-2]
        if layout == "strided":
            return x[:, :, :, ::2, 1:].permute(0, 1, 4, 2, 3)
        return x.expand(shape)

    return make


@pytest.fixture
def run() -> Callable[..., tuple[Tensor, ...]]:
    """Outputs of `function(backend, *inputs)`, and the gradients of the inputs from the outputs chosen."""

    def outputs_and_gradients(
        function, backend: str, inputs: tuple[Tensor, ...], which: list[int] | None = None
    ) -> tuple[Tensor, ...]:
        leaves = tuple(each.detach().requires_grad_() for each in inputs)
        outputs = function(backend, *leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        chosen = [outputs[i] for i in which] if which is not None else [y for y in outputs if y.requires_grad]
        generator = torch.Generator().manual_seed(1)
        upstream = [torch.randn(y.shape, generator=generator).to(y) for y in chosen]
        gradients = torch.autograd.grad(chosen, leaves, upstream, allow_unused=True, materialize_grads=True)
        return *outputs, *gradients

    return outputs_and_gradients


@pytest.fixture
def check(run) -> Callable[..., None]:
    """Values and gradients of `function(backend, *inputs)`, or of some outputs alone, against the reference.

    The rule for half precision: at most twice the error of the reference in that dtype, plus roundings.
    """

    def compare(function, inputs: tuple[Tensor, ...], which: list[int] | None = None) -> None:
        got, rival = run(function, "triton", inputs, which), run(function, "reference", inputs, which)
        exact = run(function, "reference", tuple(value.double() for value in inputs), which)
        for a, b, e in zip(got, rival, exact, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            rounding = torch.finfo(a.dtype).eps * e.abs().max().clamp(min=0.1)
            assert (a.double() - e).abs().max() <= 2 * (b.double() - e).abs().max() + 16 * rounding

    return compare


def build_in(folder: Path, *commands: list[str]) -> Path:
    """Configure and build in a folder, one process of pytest-xdist at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in commands:
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def simt() -> Path:
    """The folder of the CUDA kernels built for the host: a module `_cuda` and the program `simt_probes`."""
    pybind11 = pytest.importorskip("pybind11")
    build = ROOT / "build" / "simt"
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DVREID_MODULE=_simt",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    return build_in(build, configure, ["cmake", "--build", str(build), "--parallel", "2"])


@pytest.fixture(scope="session")
def preload() -> Callable[..., dict[str, str]]:
    """The environment of a process into which a sanitizer's runtime is loaded before everything else."""

    def environment(runtime: str, **options: str) -> dict[str, str]:
        found = [
            subprocess.run(
                ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in (runtime, "libstdc++.so")
        ]
        if not all(Path(each).is_absolute() for each in found):
            pytest.skip(f"needs GCC's {runtime}")
        return {"LD_PRELOAD": ":".join(found), **options}

    return environment


@pytest.fixture(scope="session")
def address_sanitizer(preload) -> dict[str, str]:
    """The environment of a process in which AddressSanitizer's runtime is the allocator."""
    return preload("libasan.so", ASAN_OPTIONS="detect_leaks=0")


@pytest.fixture(scope="session")
def build_preset() -> Callable[..., Path]:
    """Builds a preset of CMakePresets.json, all of it or a target, and gives its folder."""
    pybind11 = pytest.importorskip("pybind11")
    locations = f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"

    def build(preset: str, target: str = "all") -> Path:
        return build_in(
            ROOT / "build" / preset,
            ["cmake", "--preset", preset, *locations],
            ["cmake", "--build", "--preset", preset, "--target", target, "--parallel", "2"],
        )

    return build


@pytest.fixture(scope="session")
def openmp_probes(preload, build_preset) -> Path:
    preload("libtsan.so")  # or there is none
    return build_preset("tsan", "openmp_probes") / "openmp_probes"


@pytest.fixture(scope="session", params=["asan", "ubsan", "tsan"])
def sanitized(request, preload, build_preset) -> dict[str, str]:
    """The environment of a process whose native module is built under a sanitizer: the tests' conftest.py
    looks at VREID_TEST_NATIVE. What the sanitizer finds ends that process.
    """
    environment = {
        "asan": lambda: request.getfixturevalue("address_sanitizer"),
        "ubsan": lambda: {"UBSAN_OPTIONS": "print_stacktrace=1"},
        # torch and Python are not built for ThreadSanitizer: what they do among themselves is left out.
        "tsan": lambda: preload(
            "libtsan.so", TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1"
        ),
    }[request.param]()
    return environment | {"VREID_TEST_NATIVE": str(build_preset(request.param))}
