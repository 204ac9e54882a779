"""The Triton kernels of the DRSTA ops against the reference: interpreted, and on a GPU (`-m gpu`)."""

import pytest
import torch
from torch import Tensor

from vreid_ext import ops

pytest.importorskip("triton")

# (B, T, C, H, W), K: the paper's proportions, odd sizes, one of everything, more cells than a tile.
SHAPES = [
    ((1, 2, 130, 8, 4), 6),
    ((2, 2, 7, 5, 3), 3),
    ((1, 1, 1, 1, 1), 1),
    ((1, 1, 66, 9, 7), 9),
]


@pytest.fixture
def make(feature_map):
    """Logits, and maps."""

    def inputs(shape, regions, device, dtype=torch.float32, layout="contiguous") -> tuple[Tensor, Tensor]:
        b, t, _, h, w = shape
        logits = 2 * torch.randn(b, t, regions, h * w, generator=torch.Generator().manual_seed(sum(shape)))
        return logits.to(device, dtype), feature_map(shape, device, dtype, layout)

    return inputs


@pytest.mark.parametrize(("shape", "regions"), SHAPES, ids=str)
def test_region_pool_of_any_shape(make, check, device, shape, regions):
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), make(shape, regions, device))


def test_region_pool_in_any_layout(make, check, device, layout, dtype):
    inputs = make((1, 2, 19, 6, 3), 3, device, dtype, layout)
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), inputs)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_carries_gradient_alone(make, check, device, which):
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), make((1, 2, 19, 6, 3), 3, device), [which])


def test_an_underflown_weight_takes_a_finite_gradient(device):
    logits = torch.full((1, 1, 2, 12), -100.0, device=device)
    logits[..., 0], logits[..., 0, 1] = 100, 100
    leaf = logits.requires_grad_()
    pool = ops.region_pool(leaf, torch.randn(1, 1, 4, 4, 3, device=device), backend="triton")
    (gradient,) = torch.autograd.grad(pool.overlap.sum(), leaf)
    assert (pool.weights == 0).any()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0.1


@pytest.mark.parametrize("form", ["hellinger", "text"])
def test_hellinger_overlap(check, device, form):
    weights = torch.rand(2, 2, 5, 21, generator=torch.Generator().manual_seed(0)).to(device)
    weights[0, 0, 1, 3] = 0
    check(lambda name, s: ops.hellinger_overlap(s, form, backend=name), (weights,))


@pytest.mark.parametrize("masked", [False, True])
def test_temporal_pool(check, device, dtype, masked):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, 3, generator=generator).to(device, dtype)
    features = torch.randn(3, 4, 3, 300, generator=generator).to(device, dtype)
    valid = None
    if masked:
        valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], device=device).bool()
        features[~valid] = float("nan")
    check(lambda name, e, f: ops.temporal_pool(e, f, valid, backend=name), (scores, features))


def test_same_inputs_same_bits(make, device):
    logits, x = make((1, 2, 140, 8, 4), 6, device)

    def run() -> tuple[Tensor, ...]:
        leaves = [logits.detach().requires_grad_(), x.detach().requires_grad_()]
        outputs = ops.region_pool(*leaves, backend="triton")
        return *outputs, *torch.autograd.grad([y.square().sum() for y in outputs], leaves)

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)
