"""Every backend of the part metric against the reference, on the axes every op keeps (docs/design.md)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from vreid_ext import ops

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# (Q, G, R, D): odd sizes, one of everything, the paper's proportions.
SHAPES = [(5, 7, 3, 19), (1, 1, 1, 1), (16, 16, 6, 1024)]
LAYOUTS = ["contiguous", "parts_last", "sliced", "strided", "expanded"]


def make(shape, dtype=torch.float32, layout="contiguous"):
    """Features of queries and gallery with a common offset, and their scores as after a sigmoid."""
    queries, items, parts, dim = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def features(n: int) -> Tensor:
        def draw(*size: int) -> Tensor:
            return (torch.randn(size, generator=generator) + 1).to(dtype)

        if layout == "parts_last":
            return draw(n, dim, parts).transpose(1, 2)
        if layout == "sliced":
            return draw(n + 1, parts + 1, dim + 3)[1:, 1:, 1:-2]
        if layout == "strided":
            return draw(n, parts, 2 * dim)[..., ::2]
        if layout == "expanded":
            return draw(n, 1, dim).expand(n, parts, dim)
        return draw(n, parts, dim)

    def scores(n: int) -> Tensor:
        return torch.rand(n, parts, generator=generator).add(0.1).to(dtype)

    return features(queries), scores(queries), features(items), scores(items)


def run(inputs, backend):
    """The distances, and all four gradients under a random upstream gradient."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    distance = ops.part_distance(*leaves, backend=backend)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(distance.shape, generator=generator).to(distance.dtype)
    return distance.detach(), *torch.autograd.grad(distance, leaves, upstream)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(backend, shape, layout, dtype):
    inputs = make(shape, dtype, layout)
    exact = run([each.double() for each in inputs], "reference")
    same_dtype = run(inputs, "reference")
    got = run(inputs, backend)
    assert got[0].dtype == torch.promote_types(dtype, torch.float32)
    for mine, theirs, truth in zip(got, same_dtype, exact, strict=True):
        assert mine.dtype == theirs.dtype
        # The reference subtracts before it squares; a matrix product rounds a few times more.
        eps = torch.finfo(mine.dtype).eps
        allowed = 2 * (theirs.double() - truth).abs().max() + 32 * eps * truth.abs().max()
        assert (mine.double() - truth).abs().max() <= allowed
    assert all(each.abs().sum() > 0 for each in got) or shape == (1, 1, 1, 1)


def test_several_tiles_with_a_short_last_one_equal_reference(native, monkeypatch):
    monkeypatch.setattr("vreid_ext.backends.native.part_metric._ROWS", 16)
    monkeypatch.setattr("vreid_ext.backends.native.part_metric._COLUMNS", 32)
    inputs = make((35, 70, 2, 8), torch.float64)
    for mine, truth in zip(run(inputs, native), run(inputs, "reference"), strict=True):
        torch.testing.assert_close(mine, truth)


def test_is_equation_8(backend):
    features, scores, others, other_scores = make((3, 4, 2, 5), torch.float64)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for i in range(3):
        for j in range(4):
            for r in range(2):
                a_i, a_j = scores[i] / scores[i].norm(), other_scores[j] / other_scores[j].norm()
                expected[i, j] += a_i[r] * a_j[r] * (features[i, r] - others[j, r]).norm()
    torch.testing.assert_close(
        ops.part_distance(features, scores, others, other_scores, backend=backend), expected
    )


def test_scores_count_by_their_ratios_and_zeros_count_alike(backend):
    features, scores, others, other_scores = make((3, 4, 6, 5))
    expected = ops.part_distance(features, scores, others, other_scores, backend=backend)
    scaled = ops.part_distance(features, 7 * scores, others, other_scores, backend=backend)
    torch.testing.assert_close(scaled, expected)
    zeros, ones = torch.zeros_like(scores).requires_grad_(), torch.ones_like(scores)
    distance = ops.part_distance(features, zeros, others, other_scores, backend=backend)
    torch.testing.assert_close(
        distance, ops.part_distance(features, ones, others, other_scores, backend=backend)
    )
    (gradient,) = torch.autograd.grad(distance.sum(), zeros)
    assert gradient.eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_features_are_at_zero_with_zero_gradient(backend, dtype):
    features, scores, *_ = make((9, 9, 3, 33), dtype)
    features = (1000 * features).requires_grad_()
    distance = ops.part_distance(features, scores, features, scores, backend=backend)
    assert distance.diagonal().eq(0).all()
    (gradient,) = torch.autograd.grad(distance.diagonal().sum(), features)
    assert gradient.eq(0).all()


def test_zeros_are_at_zero_with_zero_gradient(backend):
    features, scores, *_ = make((5, 5, 3, 33))
    features = torch.zeros_like(features).requires_grad_()
    distance = ops.part_distance(features, scores, features, scores, backend=backend)
    assert distance.eq(0).all()
    (gradient,) = torch.autograd.grad(distance.sum(), features)
    assert gradient.eq(0).all()


# Pairs are close below about 0.2: their squared distance is apart^2 / 4 of their squared norms.
@pytest.mark.parametrize("apart", [0.3, 0.22, 0.2, 0.18, 0.1, 1e-2, 1e-4])
def test_close_features_keep_their_precision(backend, apart):
    features, scores, _, others = make((6, 6, 2, 64))
    near = features + apart * torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    inputs = features, scores, near, others
    exact = run([each.double() for each in inputs], "reference")
    got = run(inputs, backend)
    assert ((got[0].double() - exact[0]).abs() / exact[0]).max() < 1e-4
    for mine, truth in zip(got[1:], exact[1:], strict=True):
        assert (mine.double() - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_gradients_of_close_pairs_among_others_and_far_from_zero(native, monkeypatch):
    monkeypatch.setattr("vreid_ext.backends.native.part_metric._ROWS", 64)
    features, scores, others, other_scores = make((90, 150, 3, 33))
    others[5:140] = features[:1] + 1e-3 * others[5:140]
    features[40:80] = others[:40]
    inputs = features + 10, scores, others + 10, other_scores
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(run(inputs, native))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, results[0], results[1]))
    assert all(map(torch.equal, results[0], results[2]))
    exact = run([each.double() for each in inputs], "reference")
    for mine, truth in zip(results[0], exact, strict=True):
        assert (mine.double() - truth).abs().max() <= 5e-5 * truth.abs().max()


def test_same_bits_every_time_and_inputs_unchanged(backend):
    inputs = make((33, 65, 3, 40))
    before = [each.clone() for each in inputs]
    first = run(inputs, backend)
    for _ in range(3):
        assert all(map(torch.equal, run(inputs, backend), first))
    assert all(map(torch.equal, inputs, before))


@pytest.mark.usefixtures("poisoned_memory")
def test_every_output_element_is_written(backend):
    for value in run(make((5, 7, 3, 19)), backend):
        assert value.isfinite().all()


def test_gallery_streams_in_pieces(backend):
    features, scores, others, other_scores = make((20, 90, 3, 16))
    whole = ops.part_distance(features, scores, others, other_scores, backend=backend)
    pieces = [
        ops.part_distance(features, scores, part, part_scores, backend=backend)
        for part, part_scores in zip(others.split(32), other_scores.split(32), strict=True)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)


@pytest.mark.parametrize(("queries", "items"), [(0, 3), (3, 0), (0, 0)])
def test_no_query_or_no_gallery(backend, queries, items):
    inputs = [torch.ones(n, *rest, requires_grad=True) for n in (queries, items) for rest in ((2, 5), (2,))]
    distance = ops.part_distance(*inputs, backend=backend)
    assert distance.shape == (queries, items)
    distance.sum().backward()
    assert all(each.grad is None or each.grad.eq(0).all() for each in inputs)
    assert inputs[0].grad is not None


def test_nan_propagates(backend):
    features, scores, others, other_scores = make((3, 4, 2, 5))
    features[1, 0, 2] = float("nan")
    distance = ops.part_distance(features, scores, others, other_scores, backend=backend)
    assert distance.isnan().any(1).tolist() == [False, True, False]


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(1, 70), st.sampled_from(LAYOUTS)
)
@settings(max_examples=50)
def test_any_shape_equals_reference(native, queries, items, parts, dim, layout):
    inputs = make((queries, items, parts, dim), torch.float64, layout)
    for mine, truth in zip(run(inputs, native), run(inputs, "reference"), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["native", "reference"])
def test_passes_gradcheck(name):
    inputs = [each.requires_grad_() for each in make((3, 4, 2, 5), torch.float64)]
    assert gradcheck(lambda *each: ops.part_distance(*each, backend=name), inputs)


def test_opcheck(native):
    inputs = [each.requires_grad_() for each in make((3, 4, 2, 5))]
    opcheck(torch.ops.vreid_ext.part_distance.default, (*inputs, native))


def test_compiles_without_graph_breaks(backend):
    def loss(*inputs: Tensor) -> Tensor:
        return ops.part_distance(*inputs, backend=backend).square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [each.requires_grad_() for each in make((3, 4, 2, 5))]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    torch.testing.assert_close(results[1], results[0])


def test_autocast_changes_nothing(backend):
    inputs = make((3, 4, 2, 64))
    expected = run(inputs, backend)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(inputs, backend)
    assert all(map(torch.equal, inside, expected))


F, W = torch.zeros(2, 3, 4), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.part_distance([1], W, F, W), TypeError, r"q_features: expected .*got list"),
        (lambda: ops.part_distance(F.int(), W, F, W), TypeError, r"q_features: expected .*got torch.int32"),
        (
            lambda: ops.part_distance(F, W, F[0], W),
            ValueError,
            r"g_features: expected shape \(G,.*, got \(3, 4\)",
        ),
        (lambda: ops.part_distance(F, W, F[:, :2], W), ValueError, r"\(R,D\) = \(3, 4\) of q_features"),
        (
            lambda: ops.part_distance(F, W, F[..., :2], W),
            ValueError,
            r"expected shape \(G,R,D\) .*, got \(2, 3, 2\)",
        ),
        (
            lambda: ops.part_distance(F, W, F.double(), W),
            TypeError,
            r"g_features: expected .*got torch.float64",
        ),
        (
            lambda: ops.part_distance(F, W[:1], F, W),
            ValueError,
            r"q_weights: expected shape \(2,.*, got \(1, 3\)",
        ),
        (lambda: ops.part_distance(F, W, F, W[:, :2]), ValueError, r"g_weights: expected .*got \(2, 2\)"),
        (
            lambda: ops.part_distance(F, W, F, W.to("meta")),
            ValueError,
            r"g_weights: expected .*got meta",
        ),
        (lambda: ops.part_distance(F[:, :0], W, F, W), ValueError, "expected no empty axis except the first"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
