"""What only a GPU can show, for the kernels of both backends: `pytest python_tests -m gpu`.

Values against the reference are in test_cuda_ops.py and test_triton*.py.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vreid_ext import backends, ops

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def maps(b: int = 4, dtype=torch.float32) -> Tensor:
    return torch.randn(b, 4, 256, 16, 8, device="cuda").relu().to(dtype)


def rows(n: int = 256, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 512, device="cuda").to(dtype), torch.arange(n, device="cuda") // 4


# Each takes a backend and a leaf that wants a gradient.
Step = Callable[[str, Tensor], Tensor]


def sta(name: str, x: Tensor) -> Tensor:
    pool = ops.sta_pool(x, 4, backend=name)
    return pool.pooled.float().sum() + pool.attention.square().sum() + pool.scores.square().sum()


def pieces(name: str, x: Tensor) -> Tensor:
    scores = ops.block_scores(ops.attention_map(x, backend=name), 4, backend=name)
    return ops.fuse(x, scores, backend=name).float().square().mean()


def regions(name: str, x: Tensor) -> Tensor:
    logits = x.float().flatten(3)[:, :, :6]
    pool = ops.region_pool(logits, x, backend=name)
    return pool.features.float().square().mean() + pool.overlap.mean()


def mining(name: str, x: Tensor) -> Tensor:
    embeddings = x.flatten(1)[:, :512]
    labels = torch.arange(len(x), device=x.device) // 2
    return ops.batch_hard_triplet(embeddings, labels, backend=name)


STEPS = {"sta_pool": sta, "fuse": pieces, "region_pool": regions, "batch_hard_triplet": mining}


@pytest.fixture(params=[(op, name) for op in STEPS for name in ("cuda", "triton")], ids="-".join)
def step(request) -> Callable[[Tensor], Tensor]:
    """Loss of an op on a backend; skipped where that has no kernel."""
    op, name = request.param
    reason = backends.reason(op, name, torch.device("cuda"), torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return lambda x: STEPS[op](name, x)


def loss_and_gradient(step: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    loss = step(leaf)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def test_nothing_waits_for_the_gpu(step):
    x = maps()
    loss_and_gradient(step, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_and_gradient(step, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_replays_forward_and_backward(step):
    x = maps()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        loss_and_gradient(step, x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss_and_gradient(step, x)
    x.copy_(x.flip(0) * 1.5)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(captured, loss_and_gradient(step, x), strict=True):
        assert torch.equal(a, b)


def test_two_streams_at_once_do_not_disturb_each_other(step):
    inputs = [maps(), maps() + 1]
    alone = [loss_and_gradient(step, x) for x in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    results: list[list[tuple[Tensor, Tensor]]] = [[], []]
    for _ in range(10):
        for x, stream, found in zip(inputs, streams, results, strict=True):
            with torch.cuda.stream(stream):
                found.append(loss_and_gradient(step, x))
    torch.cuda.synchronize()
    for wanted, found in zip(alone, results, strict=True):
        assert all(torch.equal(a, b) for each in found for a, b in zip(each, wanted, strict=True))


def test_work_is_queued_on_the_current_stream(step):
    """Behind a long computation on it: an op on another stream would read what is not there yet."""
    x, block = maps(), torch.randn(8192, 8192, device="cuda")
    wanted = loss_and_gradient(step, x)
    late, stream = torch.zeros_like(x), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(10):
            block = block @ block * 1e-4
        late.copy_(x)
        got = loss_and_gradient(step, late)
    torch.cuda.synchronize()
    assert all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compiled_equals_eager(step, dtype):
    x = maps(dtype=dtype)
    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    for a, b in zip(loss_and_gradient(compiled, x), loss_and_gradient(step, x), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2 * b.abs().max().item())


def test_autocast_leaves_float_alone_and_halves_as_they_are(step):
    x = maps()
    wanted = loss_and_gradient(step, x)
    with torch.autocast("cuda", torch.bfloat16):
        got = loss_and_gradient(step, x)
    assert all(map(torch.equal, got, wanted))
    with torch.autocast("cuda", torch.bfloat16):
        half = loss_and_gradient(step, x.bfloat16())
    assert half[1].dtype == torch.bfloat16
    torch.testing.assert_close(half[0], wanted[0], rtol=5e-2, atol=5e-2)


def peak(function: Callable[[], object]) -> int:
    """Bytes over what was there before."""
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_peak_memory(name):
    x = torch.randn(16, 4, 2048, 16, 8, device="cuda")
    # Sums (B,T,K,C) and what is smaller: an eighth of the map at K = 4 and 32 cells a block.
    assert peak(lambda: ops.sta_pool(x, 4, backend=name)) < x.nbytes / 8
    assert peak(lambda: loss_and_gradient(lambda x: sta(name, x), x)) < 1.25 * x.nbytes
    if backends.reason("batch_hard", name, torch.device("cuda"), torch.float32) is None:
        embeddings, labels = rows(16384)
        matrix = 4 * 16384**2
        assert peak(lambda: ops.batch_hard(embeddings, labels, backend=name)) < matrix / 8


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_more_than_2_31_elements(name, layout):
    """2^31 elements and a little: the last clip lies past every 32-bit offset."""
    free, _ = torch.cuda.mem_get_info()
    if free < 14 * 2**30:
        pytest.skip("needs 14 GiB of free GPU memory")
    clips = 2**31 // (4 * 2048 * 16 * 8) + 2
    stored = (clips, 4, 2048, 16, 8) if layout == "contiguous" else (clips, 4, 16, 8, 2048)
    x = torch.zeros(stored, device="cuda", dtype=torch.bfloat16)
    if layout == "channels_last":
        x = x.permute(0, 1, 4, 2, 3)
    x[-2:] = torch.randn(2, 4, 2048, 16, 8, device="cuda").to(x.dtype)
    got, wanted = ops.sta_pool(x, 4, backend=name), ops.sta_pool(x[-2:].clone(), 4, backend=name)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a[-2:], b)
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(ops.sta_pool(leaf, 4, backend=name).pooled.sum(), leaf)
    small = x.detach()[-2:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(ops.sta_pool(small, 4, backend=name).pooled.sum(), small)
    assert torch.equal(gradient[-2:], expected)


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_out_of_memory_is_torchs_error_and_leaves_the_op_usable(name):
    x = torch.randn(16, 4, 2048, 16, 8, device="cuda")
    wanted = loss_and_gradient(lambda x: sta(name, x), x)
    torch.cuda.synchronize()
    kept = [each.cpu() for each in wanted]
    del wanted
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # Room for what the forward pass needs, not for the gradient of x.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + x.nbytes // 2) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            loss_and_gradient(lambda x: sta(name, x), x)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    again = loss_and_gradient(lambda x: sta(name, x), x)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(again, kept, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_on_a_device_that_is_not_the_current_one(name):
    x = maps()
    wanted = ops.sta_pool(x, 4, backend=name)
    for a, b in zip(ops.sta_pool(x.to("cuda:1"), 4, backend=name), wanted, strict=True):
        assert a.device == torch.device("cuda:1")
        assert torch.equal(a.cpu(), b.cpu())
    with pytest.raises(ValueError, match=r"scores: expected device cuda:0 .*, got cuda:1"):
        ops.fuse(x, torch.rand(4, 4, 4, device="cuda:1"), backend=name)


def test_tensors_on_two_devices_and_cpu_tensors_are_named():
    x = maps()
    with pytest.raises(ValueError, match=r"scores: expected device cuda:0 .*, got cpu"):
        ops.fuse(x, torch.rand(4, 4, 4))
    with pytest.raises(RuntimeError, match="CUDA kernels need a CUDA device, not cpu"):
        ops.sta_pool(x.cpu(), 4, backend="cuda")
