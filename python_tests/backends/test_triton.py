"""The Triton backend, and its STA kernels against the reference: interpreted, and on a GPU (`-m gpu`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzz.campaign import some_calls
from torch import Tensor

from vreid_ext import backends, ops
from vreid_ext.backends.table import OPS

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# (B, T, C, H, W), K: a clean shape, odd sizes, one of everything, K that is no power of two, more frames
# than a tile has, blocks longer than a tile.
SHAPES = [
    ((2, 4, 40, 16, 8), 4),
    ((2, 3, 17, 9, 5), 9),
    ((1, 1, 1, 1, 1), 1),
    ((1, 2, 130, 12, 8), 3),
    ((1, 9, 5, 24, 12), 8),
    ((1, 2, 3, 64, 32), 4),
]
VALID = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
def test_in_the_interpreter():
    files = [str(path) for path in sorted(Path(__file__).parent.glob("test_triton*.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


@pytest.mark.skipif(INTERPRETED, reason="asks about the process without the interpreter")
def test_unavailable_says_why(monkeypatch):
    cpu = torch.device("cpu")
    assert "CUDA device" in backends.reason("sta_pool", "triton", cpu, torch.float32)
    assert backends.reason("rank_counts", "triton", cpu, torch.float32) == "it has no kernel for rank_counts"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (
        backends.reason("sta_pool", "triton", torch.device("cuda"), torch.float32)
        == "torch sees no CUDA device"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "has 7.5" in backends.reason("sta_pool", "triton", torch.device("cuda"), torch.float32)
    assert "float64" in backends.reason("sta_pool", "triton", torch.device("cuda"), torch.float64)


@pytest.mark.skipif(INTERPRETED, reason="asks about the process without the interpreter")
def test_without_triton_the_package_imports_and_says_so():
    code = """
import sys
sys.modules["triton"] = None
import torch, vreid_ext
from vreid_ext import backends
print(backends.reason("sta_pool", "triton", torch.device("cuda"), torch.float32))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "Triton is not installed\n"


@pytest.mark.parametrize(("shape", "blocks"), SHAPES, ids=str)
def test_sta_pool_of_any_shape(check, feature_map, device, shape, blocks):
    x = feature_map(shape, device)
    check(lambda name, x: ops.sta_pool(x, blocks, backend=name), (x,))


def test_sta_pool_in_any_layout(check, feature_map, device, layout, dtype):
    x = feature_map((1, 3, 19, 8, 4), device, dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_carries_gradient_alone(check, feature_map, device, which):
    x = feature_map((1, 3, 19, 8, 4), device)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,), [which])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_invalid_frames_are_never_read(check, feature_map, device, layout):
    x = feature_map((3, 4, 21, 8, 4), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[~VALID] = float("nan")
    valid = VALID.to(device)
    check(lambda name, x: ops.sta_pool(x, 4, valid, backend=name), (x,))
    leaf = x.requires_grad_()
    pooled, scores, attention = ops.sta_pool(leaf, 4, valid, backend="triton")
    (gradient,) = torch.autograd.grad([pooled.sum(), attention.square().sum()], leaf)
    assert gradient.stride() == x.stride()
    assert gradient[~valid].abs().sum() == scores[~valid].abs().sum() == attention[~valid].abs().sum() == 0


def test_zero_frame_is_uniform_and_takes_no_gradient_through_attention(check, feature_map, device):
    x = feature_map((2, 3, 16, 8, 4), device)
    x[0, 1] = 0
    x[1] = 0
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))
    assert (ops.sta_pool(x, 4, backend="triton").attention[0, 1] == 1 / 32).all()


def test_ties_choose_the_first_frame(feature_map, device):
    x = feature_map((1, 1, 8, 4, 4), device).repeat(1, 6, 1, 1, 1)
    assert torch.ops.vreid_ext.sta_pool(x, None, 2, "triton")[-1].tolist() == [[0, 0]]
    valid = torch.tensor([[0, 0, 0, 0, 0, 1]], device=device).bool()
    assert torch.ops.vreid_ext.sta_pool(x, valid, 2, "triton")[-1].tolist() == [[5, 5]]
    assert torch.ops.vreid_ext.sta_pool(x, ~valid & valid, 2, "triton")[-1].tolist() == [[-1, -1]]


def test_nan_in_a_valid_frame_propagates(feature_map, device):
    x = feature_map((2, 3, 16, 8, 4), device)
    x[0, 1, 3, 2, 2] = float("nan")
    pooled, scores, attention = ops.sta_pool(x, backend="triton")
    assert attention[0, 1].isnan().all()
    assert scores[0].isnan().all()
    assert pooled[0].isnan().any()
    assert pooled[1].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_same_inputs_same_bits(feature_map, device, layout):
    x = feature_map((1, 2, 140, 16, 8), device, layout=layout)

    def run() -> tuple[Tensor, ...]:
        leaf = x.detach().requires_grad_()
        outputs = ops.sta_pool(leaf, 4, backend="triton")
        return *outputs, *torch.autograd.grad([y.square().sum() for y in outputs], leaf)

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


def test_empty_batch(device):
    x = torch.zeros(0, 4, 8, 16, 8, device=device, requires_grad=True)
    ops.sta_pool(x, backend="triton").pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("energy", ["sum_square", "l2"])
@pytest.mark.parametrize("normalize", ["sum", "l2"])
def test_attention_map(check, feature_map, device, layout, energy, normalize):
    x = feature_map((1, 3, 19, 8, 4), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[0, 0] = 0
    check(lambda name, x: ops.attention_map(x, energy, normalize, backend=name), (x,))


@pytest.mark.parametrize("masked", [False, True])
def test_block_scores(check, device, masked):
    attention = torch.randn(3, 4, 12, 5, generator=torch.Generator().manual_seed(0)).to(device)
    attention[0, :, :3] = 0
    if masked:
        attention[~VALID] = float("nan")
    valid = VALID.to(device) if masked else None
    check(lambda name, g: ops.block_scores(g, 4, valid, backend=name), (attention,))
    check(lambda name, g: ops.block_scores(g, 5, None, backend=name), (attention.nan_to_num().mT,))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
@pytest.mark.parametrize("masked", [False, True])
def test_fuse(check, feature_map, device, dtype, layout, masked):
    x = feature_map((3, 4, 5, 12, 5), device, dtype, layout)
    scores = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    scores[0, :, 1] = 0.25
    if masked:
        x = x.clone(memory_format=torch.preserve_format)
        x[~VALID] = float("nan")
    valid = VALID.to(device) if masked else None
    check(lambda name, x, scores: ops.fuse(x, scores, valid, backend=name), (x, scores))


def test_inter_frame_distance(check, device):
    attention = torch.rand(3, 5, 16, 9, generator=torch.Generator().manual_seed(0)).to(device)
    attention[0] = attention[0, :1].clone()
    check(lambda name, g: ops.inter_frame_distance(g, "all", backend=name), (attention,))
    leaf = attention.requires_grad_()
    ops.inter_frame_distance(leaf, "all", backend="triton").sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[0].abs().sum() == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_size_of_the_paper_on_a_gpu(check, feature_map, dtype, layout):
    x = feature_map((16, 4, 2048, 16, 8), "cuda", dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))


@pytest.mark.gpu
def test_forward_and_backward_can_be_captured_in_a_graph(feature_map):
    x = feature_map((4, 4, 256, 16, 8), "cuda")
    grad = torch.ones(4, 512, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        pooled, *saved = torch.ops.vreid_ext.sta_pool(x, None, 4, "triton")
        gradient = torch.ops.vreid_ext.sta_pool_backward(grad, None, None, x, None, *saved, "triton")
        return pooled, gradient

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    x.copy_(feature_map((4, 4, 256, 16, 8), "cuda").flip(0))
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
def test_no_launch_waits_for_the_gpu(feature_map):
    x = feature_map((4, 4, 256, 16, 8), "cuda").requires_grad_()
    valid = torch.ones(4, 4, dtype=torch.bool, device="cuda")
    ops.sta_pool(x, 4, valid, backend="triton").pooled.sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pool = ops.sta_pool(x, 4, valid, backend="triton")
        (pool.pooled.sum() + pool.scores.sum() + pool.attention.sum()).backward()
        ops.fuse(x, pool.scores, valid, backend="triton").sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not INTERPRETED, reason="as many calls take a GPU's tests longer than they tell")
def test_unusual_calls():
    some_calls(
        "triton",
        [op for op, each in OPS.items() if "triton" in each.backends],
        (torch.float32, torch.float16),
        120,
    )
