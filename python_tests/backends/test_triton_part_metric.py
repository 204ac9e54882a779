"""The Triton kernels of the part metric against the reference: interpreted, and on a GPU (`-m gpu`)."""

import pytest
import torch
from torch import Tensor

from vreid_ext import ops

part_kernels = pytest.importorskip("vreid_ext.backends.triton.part_metric_kernels")


def make(shape, device, dtype=torch.float32, layout="contiguous"):
    """Features of queries and gallery with a common offset, and their scores as after a sigmoid."""
    queries, items, parts, dim = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def draw(*size: int) -> Tensor:
        return (torch.randn(size, generator=generator) + 1).to(device, dtype)

    def features(n: int) -> Tensor:
        if layout == "parts_last":
            return draw(n, dim, parts).transpose(1, 2)
        if layout == "sliced":
            return draw(n + 1, parts + 1, dim + 3)[1:, 1:, 1:-2]
        if layout == "expanded":
            return draw(n, 1, dim).expand(n, parts, dim)
        return draw(n, parts, dim)

    def scores(n: int) -> Tensor:
        return torch.rand(n, parts, generator=generator).add(0.1).to(device, dtype)

    return features(queries), scores(queries), features(items), scores(items)


def part_distance(name: str, *inputs: Tensor) -> Tensor:
    return ops.part_distance(*inputs, backend=name)


# (Q, G, R, D): odd sizes, one of everything, several tiles, sizes that are read without a copy.
@pytest.mark.parametrize("shape", [(5, 7, 3, 19), (1, 1, 1, 1), (33, 40, 2, 33), (6, 9, 2, 64)], ids=str)
def test_any_shape(check, device, shape):
    check(part_distance, make(shape, device))


@pytest.mark.parametrize("layout", ["contiguous", "parts_last", "sliced", "expanded"])
def test_any_layout_and_dtype(check, device, dtype, layout):
    check(part_distance, make((5, 7, 3, 32), device, dtype, layout))


def test_slopes_of_one_part_at_a_time(check, monkeypatch, device):
    inputs = make((5, 7, 3, 19), device)
    at_once = torch.autograd.grad(
        part_distance("triton", *[each.requires_grad_() for each in inputs]).sum(), inputs
    )
    monkeypatch.setattr("vreid_ext.backends.triton.part_metric._SLOPES", 1)
    one_by_one = torch.autograd.grad(part_distance("triton", *inputs).sum(), inputs)
    assert all(map(torch.equal, at_once, one_by_one))


def test_equal_features_are_at_zero_with_zero_gradient(device, dtype):
    features, scores, *_ = make((9, 9, 3, 33), device, dtype)
    features = (1000 * features).requires_grad_()
    distance = part_distance("triton", features, scores, features, scores)
    assert distance.diagonal().eq(0).all()
    (gradient,) = torch.autograd.grad(distance.diagonal().sum(), features)
    assert gradient.eq(0).all()


def test_the_threshold_for_close_pairs_is_that_of_the_other_kernels():
    native = pytest.importorskip("vreid_ext._native")
    assert part_kernels._CLOSE.value == native.CLOSE_PAIR


# As in ops/test_part_metric.py: pairs are close below about 0.2.
@pytest.mark.parametrize("apart", [0.3, 0.22, 0.2, 0.18, 1e-1, 1e-2, 1e-4])
def test_close_features_keep_their_precision(device, apart):
    features, scores, _, others = make((6, 6, 2, 64), device)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(5)).to(device)
    inputs = [each.requires_grad_() for each in (features, scores, features + apart * noise, others)]
    exact_inputs = [each.detach().double().requires_grad_() for each in inputs]
    got, exact = part_distance("triton", *inputs), part_distance("reference", *exact_inputs)
    assert ((got.double() - exact).abs() / exact).max() < 1e-4
    slopes = torch.autograd.grad(exact.sum(), exact_inputs)
    # Rounding of the features' size (1.4) is seen through 1 / distance.
    for mine, truth in zip(torch.autograd.grad(got.sum(), inputs), slopes, strict=True):
        assert (mine.double() - truth).abs().max() <= 1e-5 / apart * truth.abs().max()


def test_same_inputs_same_bits(device):
    inputs = [each.requires_grad_() for each in make((33, 40, 2, 20), device)]

    def run() -> tuple[Tensor, ...]:
        distance = part_distance("triton", *inputs)
        return distance, *torch.autograd.grad(distance.square().sum(), inputs)

    assert all(map(torch.equal, run(), run()))


def test_nan_propagates(device):
    features, scores, others, other_scores = make((3, 4, 2, 5), device)
    features[1, 0, 2] = float("nan")
    distance = part_distance("triton", features, scores, others, other_scores)
    assert distance.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.gpu
def test_the_size_of_the_paper_on_a_gpu(check, dtype):
    check(part_distance, make((64, 300, 6, 1024), "cuda", dtype))


@pytest.mark.gpu
def test_no_array_of_pairs_and_parts_is_made():
    inputs = [each.requires_grad_() for each in make((1000, 4000, 6, 64), "cuda")]
    part_distance("triton", *inputs).sum().backward()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(part_distance("triton", *inputs).sum(), inputs)
    pairs = 4 * 1000 * 4000
    assert torch.cuda.max_memory_allocated() - before < 5 * pairs  # of (Q,G,R) alone: six


@pytest.mark.gpu
def test_no_launch_waits_for_the_gpu():
    inputs = [each.requires_grad_() for each in make((64, 64, 6, 100), "cuda")]
    part_distance("triton", *inputs).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        part_distance("triton", *inputs).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
