"""The Triton kernels of the DRSTA ops against the reference: interpreted, and on a GPU (`-m gpu`)."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from vreid_ext import ops

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu"] if INTERPRETED else [GPU]
# The interpreter's bfloat16 is unreliable.
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "sliced", "strided", "expanded"]
# (B, T, C, H, W), K: the paper's proportions, odd sizes, one of everything, more cells than a tile.
SHAPES = [
    ((1, 2, 130, 8, 4), 6),
    ((2, 2, 7, 5, 3), 3),
    ((1, 1, 1, 1, 1), 1),
    ((1, 1, 66, 9, 7), 9),
]


def make(shape, regions, device, dtype=torch.float32, layout="contiguous") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    b, t, c, h, w = shape
    stored = {
        "contiguous": shape,
        "channels_last": (b, t, h, w, c),
        "sliced": (b, t + 1, c + 2, h, w + 3),
        "strided": (b, t, h, 2 * w, c + 1),
        "expanded": (b, 1, c, h, w),
    }[layout]
    x = torch.randn(stored, generator=generator).to(device, dtype)
    if layout == "channels_last":
        x = x.permute(0, 1, 4, 2, 3)
    elif layout == "sliced":
        x = x[:, 1:, 1:-1, :, 1:-2]
    elif layout == "strided":
        x = x[:, :, :, ::2, 1:].permute(0, 1, 4, 2, 3)
    logits = 2 * torch.randn(b, t, regions, h * w, generator=generator)
    return logits.to(device, dtype), x.expand(shape)


def check(function, inputs: tuple[Tensor, ...], which: list[int] | None = None) -> None:
    """Values and gradients: at most twice the error of the reference in that dtype, plus roundings."""

    def run(name: str, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
        outputs = function(name, *leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        chosen = [outputs[i] for i in which] if which is not None else outputs
        generator = torch.Generator().manual_seed(1)
        upstream = [torch.randn(y.shape, generator=generator).to(y) for y in chosen]
        gradients = torch.autograd.grad(chosen, leaves, upstream, allow_unused=True)
        return *outputs, *(g for g in gradients if g is not None and g.abs().sum() > 0)

    got, rival = run("triton", inputs), run("reference", inputs)
    exact = run("reference", tuple(value.double() for value in inputs))
    for a, b, e in zip(got, rival, exact, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        rounding = 16 * torch.finfo(a.dtype).eps * e.abs().max().clamp(min=1)
        allowed = 2 * (b.double() - e).abs().max() + rounding
        assert (a.double() - e).abs().max() <= allowed


@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "regions"), SHAPES, ids=str)
def test_region_pool_of_any_shape(device, shape, regions):
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), make(shape, regions, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_region_pool_in_any_layout(device, layout, dtype):
    inputs = make((1, 2, 19, 6, 3), 3, device, dtype, layout)
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_carries_gradient_alone(device, which):
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), make((1, 2, 19, 6, 3), 3, device), [which])


@pytest.mark.parametrize("device", DEVICES)
def test_an_underflown_weight_takes_a_finite_gradient(device):
    logits = torch.full((1, 1, 2, 12), -100.0, device=device)
    logits[..., 0], logits[..., 0, 1] = 100, 100
    leaf = logits.requires_grad_()
    pool = ops.region_pool(leaf, torch.randn(1, 1, 4, 4, 3, device=device), backend="triton")
    (gradient,) = torch.autograd.grad(pool.overlap.sum(), leaf)
    assert (pool.weights == 0).any()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["hellinger", "text"])
def test_hellinger_overlap(device, form):
    weights = torch.rand(2, 2, 5, 21, generator=torch.Generator().manual_seed(0)).to(device)
    weights[0, 0, 1, 3] = 0
    check(lambda name, s: ops.hellinger_overlap(s, form, backend=name), (weights,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_temporal_pool(device, dtype, masked):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, 3, generator=generator).to(device, dtype)
    features = torch.randn(3, 4, 3, 300, generator=generator).to(device, dtype)
    valid = None
    if masked:
        valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], device=device).bool()
        features[~valid] = float("nan")
    check(lambda name, e, f: ops.temporal_pool(e, f, valid, backend=name), (scores, features))


@pytest.mark.parametrize("device", DEVICES)
def test_same_inputs_same_bits(device):
    logits, x = make((1, 2, 140, 8, 4), 6, device)

    def run() -> tuple[Tensor, ...]:
        leaves = [logits.detach().requires_grad_(), x.detach().requires_grad_()]
        outputs = ops.region_pool(*leaves, backend="triton")
        return *outputs, *torch.autograd.grad([y.square().sum() for y in outputs], leaves)

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)
