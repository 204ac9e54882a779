"""Region pooling compared with eager torch, torch.compile and the limit set by the memory traffic."""

import pytest
import torch
from baselines_region import matmul, naive
from limits import one_read, two_reads_one_write

from vreid_ext import ops

SHAPE, REGIONS = (16, 6, 2048, 8, 4), 6


def inputs(device, dtype, layout):
    x = torch.randn(SHAPE, device=device).relu().to(dtype)
    if layout == "channels_last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    return torch.randn(*SHAPE[:2], REGIONS, SHAPE[3] * SHAPE[4], device=device, dtype=dtype), x


def ours(logits, x):
    pool = ops.region_pool(logits, x)
    return pool.features, pool.overlap


def providers(logits, x):
    compiled = torch.compile(matmul, dynamic=False), torch.compile(naive, dynamic=False)
    return {
        "ours": lambda: ours(logits, x),
        "ours again": lambda: ours(logits, x),
        "eager, matmul": lambda: matmul(logits, x),
        "compiled, matmul": lambda: compiled[0](logits, x),
        "compiled, naive": lambda: compiled[1](logits, x),
        "eager, naive": lambda: naive(logits, x),
    }


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_forward(side_by_side, device, dtype, layout):
    logits, x = inputs(device, dtype, layout)
    with torch.no_grad():
        torch.testing.assert_close(ours(logits, x)[0], matmul(logits, x)[0], rtol=3e-2, atol=1e-2)
        side_by_side(
            f"forward {str(dtype)[6:]} {layout}",
            {**providers(logits, x), "one read": one_read(x)},
            group="region_pool forward",
        )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_forward_backward(side_by_side, device, dtype, layout):
    logits, x = (value.requires_grad_() for value in inputs(device, dtype, layout))
    upstream = torch.randn(*SHAPE[:2], REGIONS, SHAPE[2], device=device, dtype=dtype)

    def with_backward(run):
        def step():
            features, overlap = run()
            grads = [upstream, torch.ones_like(overlap)]
            return torch.autograd.grad([features, overlap], [logits, x], grads)

        return step

    side_by_side(
        f"forward+backward {str(dtype)[6:]} {layout}",
        {
            **{name: with_backward(run) for name, run in providers(logits, x).items()},
            "two reads, one write": two_reads_one_write(x.detach(), reuse=True),
            "the same, fresh memory": two_reads_one_write(x.detach(), reuse=False),
        },
        group="region_pool forward and backward",
    )
