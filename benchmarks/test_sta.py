"""STA pooling compared with eager torch, torch.compile and the limit set by the memory traffic."""

import pytest
import torch
from baselines_sta import block_sums, naive
from limits import one_read, two_reads_one_write

from vreid_ext import ops

SHAPE, BLOCKS = (16, 4, 2048, 16, 8), 4


def feature_maps(device, dtype, layout):
    x = torch.randn(SHAPE, device=device).relu().to(dtype)
    if layout == "channels_last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    return x


def ours(x):
    return ops.sta_pool(x, BLOCKS).pooled


def providers(x):
    compiled = torch.compile(block_sums, dynamic=False), torch.compile(naive, dynamic=False)
    return {
        "ours": lambda: ours(x),
        "eager, block sums": lambda: block_sums(x, BLOCKS),
        "compiled, block sums": lambda: compiled[0](x, BLOCKS),
        "compiled, naive": lambda: compiled[1](x, BLOCKS),
        "eager, naive": lambda: naive(x, BLOCKS),
    }


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_forward(side_by_side, device, dtype, layout):
    x = feature_maps(device, dtype, layout)
    torch.testing.assert_close(ours(x), block_sums(x, BLOCKS).to(dtype), rtol=2e-2, atol=1e-3)
    with torch.no_grad():
        side_by_side(
            f"forward {str(dtype)[6:]} {layout}",
            {**providers(x), "one read": one_read(x)},
            group="sta_pool forward",
        )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_forward_backward(side_by_side, device, dtype, layout):
    x = feature_maps(device, dtype, layout).requires_grad_()
    upstream = torch.randn(SHAPE[0], 2 * SHAPE[2], device=device, dtype=dtype)

    def with_backward(run):
        def step():
            y = run()
            return torch.autograd.grad(y, x, upstream.to(y.dtype))

        return step

    side_by_side(
        f"forward+backward {str(dtype)[6:]} {layout}",
        {
            **{name: with_backward(run) for name, run in providers(x).items()},
            "two reads, one write": two_reads_one_write(x.detach(), reuse=True),
            "the same, fresh memory": two_reads_one_write(x.detach(), reuse=False),
        },
        group="sta_pool forward and backward",
    )
