"""The CUDA kernels against the reference: on a GPU (`-m gpu`), and without one in their build for the host.

`test_on_the_host` runs this file again in a process where that build (csrc/simt) stands in the place of
`vreid_ext._cuda` and AddressSanitizer's runtime is the allocator; there the other tests exist for the CPU.
Races, barriers that not all threads reach and accesses outside every allocation are errors of the launch.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vreid_ext import ops
from vreid_ext.backends import cuda as backend

SIMT = os.environ.get("VREID_TEST_SIMT")
if SIMT:
    (_path,) = Path(SIMT).glob("_cuda.*.so")
    _spec = importlib.util.spec_from_file_location("vreid_ext._cuda", _path)
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["vreid_ext._cuda"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["vreid_ext._cuda"])
    backend.DEVICE = "cpu"

DEVICES = ["cpu"] if SIMT else [pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "sliced", "strided", "expanded"]
# (B, T, C, H, W), K: 16-byte accesses and single ones, blocks longer than a warp's reach, K that is no power
# of two, more channels than one thread block passes, one of everything.
SHAPES = [
    ((2, 3, 40, 16, 8), 4),
    ((1, 2, 17, 9, 5), 9),
    ((1, 1, 1, 1, 1), 1),
    ((1, 2, 130, 6, 32), 3),
    ((1, 2, 3, 64, 24), 2),
]
VALID = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


def feature_map(
    shape: tuple[int, ...], device: str, dtype=torch.float32, layout: str = "contiguous"
) -> Tensor:
    """Maps as after a ReLU, in the memory layout named."""
    generator = torch.Generator().manual_seed(sum(shape))
    b, t, c, h, w = shape
    stored = {
        "contiguous": shape,
        "channels_last": (b, t, h, w, c),
        "sliced": (b, t + 1, c + 2, h, w),
        "strided": (b, t, h, 2 * w, c + 1),
        "expanded": (b, 1, c, h, w),
    }[layout]
    x = torch.randn(stored, generator=generator).relu().to(device, dtype)
    if layout == "channels_last":
        return x.permute(0, 1, 4, 2, 3)
    if layout == "sliced":
        return x[:, 1:, 1:-1]
    if layout == "strided":
        return x[:, :, :, ::2, 1:].permute(0, 1, 4, 2, 3)
    return x.expand(shape)


def run(
    function, name: str, inputs: tuple[Tensor, ...], which: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Outputs of `function(name, *inputs)`, and the gradients of the inputs from the outputs chosen."""
    leaves = tuple(each.detach().requires_grad_() for each in inputs)
    outputs = function(name, *leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    chosen = [outputs[i] for i in which] if which is not None else [y for y in outputs if y.requires_grad]
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(y) for y in chosen]
    gradients = torch.autograd.grad(chosen, leaves, upstream, allow_unused=True)
    return *outputs, *(each for each in gradients if each is not None)


def check(function, inputs: tuple[Tensor, ...], which: list[int] | None = None, roundings: int = 8) -> None:
    """Values and gradients against the reference, every element written, the same bits again.

    At most twice the error of the reference in the inputs' dtype, plus `roundings` of the largest number. On
    the host the second run has blocks and threads in another order.
    """
    got, rival = run(function, "cuda", inputs, which), run(function, "reference", inputs, which)
    exact = run(function, "reference", tuple(value.double() for value in inputs), which)
    for a, b, e in zip(got, rival, exact, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if not a.is_floating_point():
            assert torch.equal(a, e)
            continue
        eps = torch.finfo(a.dtype).eps
        allowed = 2 * (b.double() - e).abs().max() + roundings * eps * e.abs().max()
        assert (a.double() - e).abs().max() <= allowed
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VREID_SIMT_ORDER", "3")
        again = run(function, "cuda", inputs, which)
    assert all(map(torch.equal, got, again))


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh allocations are filled with NaN, so that an element no kernel writes shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.skipif(bool(SIMT), reason="this is the process it starts")
def test_on_the_host(simt, address_sanitizer):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = os.environ | address_sanitizer | {"VREID_TEST_SIMT": str(simt)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("shape", "blocks"), SHAPES, ids=str)
def test_sta_pool_of_any_shape(device, shape, blocks, layout):
    x = feature_map(shape, device, layout=layout)
    check(lambda name, x: ops.sta_pool(x, blocks, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sta_pool_in_any_layout(device, layout, dtype):
    x = feature_map((1, 3, 24, 8, 4), device, dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 2, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_of_sta_pool_carries_gradient_alone(device, which):
    x = feature_map((1, 3, 19, 8, 4), device)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,), [which])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_invalid_frames_are_never_read(device, layout):
    x = feature_map((3, 4, 16, 8, 4), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[~VALID] = float("nan")
    valid = VALID.to(device)
    wanted, got = (
        run(lambda name, x: ops.sta_pool(x, 4, valid, backend=name), name, (x,))
        for name in ("reference", "cuda")
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert got[-1].stride() == x.stride()
    assert got[-1][~valid].abs().sum() == got[1][~valid].abs().sum() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_zero_frame_is_uniform_and_takes_no_gradient_through_attention(device):
    x = feature_map((2, 3, 16, 8, 4), device)
    x[0, 1] = 0
    x[1] = 0
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))
    assert (ops.sta_pool(x, 4, backend="cuda").attention[0, 1] == 1 / 32).all()


@pytest.mark.parametrize("device", DEVICES)
def test_ties_choose_the_first_frame_and_nan_propagates(device):
    x = feature_map((1, 1, 8, 4, 4), device).repeat(1, 6, 1, 1, 1)
    assert backend.sta_pool(x, None, 2)[-1].tolist() == [[0, 0]]
    valid = torch.tensor([[0, 0, 0, 0, 0, 1]], device=device).bool()
    assert backend.sta_pool(x, valid, 2)[-1].tolist() == [[5, 5]]
    assert backend.sta_pool(x, ~valid & valid, 2)[-1].tolist() == [[-1, -1]]
    x[0, 1, 3, 2, 2] = float("nan")
    pooled, scores, attention = ops.sta_pool(x, 2, backend="cuda")
    assert attention[0, 1].isnan().all()
    assert scores[0].isnan().all()
    assert pooled[0].isnan().any()


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(device):
    x = torch.zeros(0, 4, 8, 16, 8, device=device, requires_grad=True)
    ops.sta_pool(x, backend="cuda").pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sta_pool_at_the_size_of_the_paper(dtype, layout):
    x = feature_map((16, 4, 2048, 16, 8), "cuda", dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))
