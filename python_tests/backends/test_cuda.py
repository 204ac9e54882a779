"""The CUDA module: what is built and what it refuses. Its kernels against the reference: test_cuda_ops.py.

What every compiled module keeps (no torch symbol, one exported name) is in test_packaging.py.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vreid_ext import backends

backend = backends.load("cuda")
GPU = torch.device("cuda")
MODULE = importlib.util.find_spec("vreid_ext._cuda")

needs_module = pytest.mark.skipif(MODULE is None, reason="vreid_ext._cuda is not built")


def cuobjdump() -> str | None:
    """The toolkit's program, or the one that Triton brings."""
    triton = importlib.util.find_spec("triton")
    places = ["/usr/local/cuda/bin"]
    if triton is not None and triton.origin is not None:
        places.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    return shutil.which("cuobjdump") or shutil.which("cuobjdump", path=os.pathsep.join(places))


def test_unavailable_says_why(monkeypatch):
    def reason(op: str, device: torch.device = GPU, dtype: torch.dtype = torch.float32) -> str | None:
        return backends.reason(op, "cuda", device, dtype)

    assert reason("top_k") == "it has no kernel for top_k"
    assert reason("sta_pool", torch.device("cpu")) == "CUDA kernels need a CUDA device, not cpu"
    assert "not torch.float64" in reason("sta_pool", dtype=torch.float64)
    monkeypatch.setattr(backend, "_missing", lambda: "no module")
    assert reason("sta_pool") == "no module"
    monkeypatch.setattr(backend, "_missing", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reason("sta_pool") == "torch sees no CUDA device"


def test_without_the_module_the_package_imports_and_says_so():
    code = """
import sys
sys.modules["vreid_ext._cuda"] = None
import torch, vreid_ext
from vreid_ext import backends
cuda = backends.load("cuda")
print(backends.reason("sta_pool", "cuda", torch.device("cuda"), torch.float32), cuda.build_info())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("vreid_ext._cuda cannot be loaded")
    assert result.stdout.endswith("`VREID_CUDA=1 pip install .` builds it None\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ("cudaErrorNoKernelImageForDevice", "no kernel image"),
            "not for 75 of cuda:1; rebuild with `VREID_CUDA=1 VREID_CUDA_ARCHS=75",
        ),
        (
            ("cudaErrorInsufficientDriver", "too old"),
            "needs a driver for CUDA 13.0 or newer; this one is older (too old)",
        ),
        (("cudaErrorUnknown", "who knows"), "cannot run on cuda:1: cudaErrorUnknown: who knows"),
    ],
)
def test_a_device_that_cannot_run_the_kernels(monkeypatch, error, message):
    class Module:
        def unusable(self, index: int) -> tuple[str, str]:
            return error

        def build_info(self) -> dict[str, str]:
            return {"architectures": "80-real", "runtime": "13.0"}

    monkeypatch.setattr(backend, "_missing", lambda: None)
    monkeypatch.setattr(backend, "_module", Module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    reason = backends.reason("sta_pool", "cuda", torch.device("cuda:1"), torch.float32)
    assert reason is not None
    assert message in reason


@needs_module
def test_module_is_loaded_on_first_use_only():
    code = """
import sys
import torch, vreid_ext
from vreid_ext import backends
backends.choose("sta_pool", "auto", torch.device("cpu"), torch.float32)
assert "vreid_ext._cuda" not in sys.modules
assert backends.load("cuda").build_info()["compiler"]
assert "vreid_ext._cuda" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_module
def test_no_kernel_of_the_module_has_a_stack_or_spills():
    program = cuobjdump()
    if program is None:
        pytest.skip("needs cuobjdump (CUDA toolkit)")
    command = [program, "--dump-resource-usage", MODULE.origin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) \S+ LOCAL:(\d+)", text)
    assert all(any(part in name for name, *_ in kernels) for part in ("channel_sums", "mine_tiles"))
    assert [name for name, _, stack, local in kernels if (stack, local) != ("0", "0")] == []


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("arch", "sources"),
    [
        ("sm_90", ["mining.cu", "mined_distance.cu"]),
        *(pytest.param(arch, [], marks=pytest.mark.slow) for arch in ("sm_80", "sm_90", "sm_100", "sm_120")),
    ],
)
def test_every_kernel_compiles_without_stack_or_spills(arch, sources):
    """In all sources where none is named."""
    script = Path(__file__).parents[2] / "benchmarks" / "kernel_resources.py"
    command = [sys.executable, str(script), "--arch", arch, *(["--source", *sources] if sources else [])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "mine_tiles<true, float, 4>" in result.stdout


@pytest.mark.parametrize(("capability", "first"), [((9, 0), "cuda"), ((8, 0), "triton")])
def test_auto_follows_the_table_of_op_and_architecture(monkeypatch, capability, first):
    table = {"batch_hard": {9: "cuda", None: "triton"}}
    monkeypatch.setattr(backends, "_FIRST_ON_GPU", table)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    asked = []

    def reason(op: str, name: str, device: str, dtype: torch.dtype) -> str | None:
        asked.append(name)
        return None if name == "reference" else "not now"

    monkeypatch.setattr(backends, "reason", reason)
    backends._resolve.cache_clear()
    try:
        assert backends.choose("batch_hard", "auto", GPU, torch.float32) == "reference"
    finally:
        backends._resolve.cache_clear()
    second = "triton" if first == "cuda" else "cuda"
    assert asked == [first, second, "reference"]


@needs_module
def test_bad_arguments_are_exceptions():
    from vreid_ext import _cuda

    with pytest.raises(ValueError, match="x: expected the address of 1 elements, got null"):
        _cuda.sta_pool((0, 0, *[1] * 8), 0, 1, *[0] * 9, None, 0, 0)
    with pytest.raises(ValueError, match="pooled: expected the address of 2 elements, got null"):
        _cuda.sta_pool((16, 0, *[1] * 8), 0, 1, *[0] * 9, None, 0, 0)
    with pytest.raises(ValueError, match="dtype: expected the code of float32, bfloat16 or float16, got"):
        _cuda.pieces((16, 1, *[1] * 8), 1)
    with pytest.raises(ValueError, match="x: expected stride 1 of cells or of channels, got 2 and 2"):
        _cuda.pieces((16, 0, 1, 1, 2, 2, 4, 4, 2, 2), 1)
    with pytest.raises(ValueError, match="blocks: expected a divisor of 3 cells, got 2"):
        _cuda.pieces((16, 0, 1, 1, 1, 3, 3, 3, 3, 1), 2)


@needs_module
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks about a machine without a GPU")
def test_without_a_gpu_a_launch_is_an_error_with_its_name():
    from vreid_ext import _cuda

    name, text = _cuda.unusable(0)
    assert name.startswith("cudaError")
    assert text
    with pytest.raises(RuntimeError, match="sta_pool on cuda:0: cudaError"):
        _cuda.sta_pool((16, 0, *[1] * 8), 0, 1, *[16] * 9, None, 0, 0)


@pytest.mark.gpu
@needs_module
def test_forward_and_backward_can_be_captured_in_a_graph():
    x = torch.randn(4, 4, 256, 16, 8, device="cuda")
    grad = torch.ones(4, 512, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        pooled, *saved = torch.ops.vreid_ext.sta_pool(x, None, 4, "cuda")
        gradient = torch.ops.vreid_ext.sta_pool_backward(grad, None, None, x, None, *saved, "cuda")
        return pooled, gradient

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    x.copy_(x.flip(0))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
