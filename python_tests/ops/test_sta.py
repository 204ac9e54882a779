"""Every backend of the STA ops against the reference, on the axes every op keeps (docs/design.md)."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from vreid_ext import ops, use_backend

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# (B, T, C, H, W), K: the paper's proportions, odd sizes, one frame, one cell, K that is not a power of two.
SHAPES = [
    ((2, 4, 32, 16, 8), 4),
    ((3, 2, 7, 6, 5), 3),
    ((1, 1, 1, 1, 1), 1),
    ((2, 3, 17, 9, 3), 9),
    ((1, 5, 65, 4, 33), 2),
    ((2, 2, 130, 24, 12), 8),
]


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layout: str = "contiguous") -> Tensor:
    """Feature maps as after a ReLU, in the memory layout named."""
    generator = torch.Generator().manual_seed(sum(shape))

    def maps(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).relu().to(dtype)

    b, t, c, h, w = shape
    if layout == "channels_last":
        return maps(b, t, h, w, c).permute(0, 1, 4, 2, 3)
    if layout == "sliced":
        return maps(b, t + 1, c + 2, h, w)[:, 1:, 1:-1]
    if layout == "channels_sliced":
        return maps(b, t, h, w, c + 3)[..., 1:-2].permute(0, 1, 4, 2, 3)
    if layout == "strided":
        return maps(b, t, c, h, 2 * w)[..., ::2]
    if layout == "expanded":
        return maps(b, 1, c, h, w).expand(shape)
    return maps(*shape)


LAYOUTS = ["contiguous", "channels_last", "sliced", "channels_sliced", "strided", "expanded"]


def run(x: Tensor, blocks: int, valid: Tensor | None, backend: str):
    """Outputs, and the gradient of x under random upstream gradients."""
    x = x.detach().requires_grad_()
    outputs = ops.sta_pool(x, blocks, valid, backend=backend)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    (gradient,) = torch.autograd.grad(list(outputs), x, upstream)
    return *outputs, gradient


def assert_as_good(got: Tensor, same_dtype: Tensor, exact: Tensor) -> None:
    """The half-precision rule: at most twice the error of the same-dtype reference, plus a rounding."""
    assert got.dtype == same_dtype.dtype
    assert got.shape == exact.shape
    eps = torch.finfo(got.dtype).eps
    allowed = 2 * (same_dtype.double() - exact).abs().max() + 8 * eps * exact.abs().max()
    assert (got.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "blocks"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sta_pool_equals_reference(backend, shape, blocks, layout, dtype):
    x = make(shape, dtype, layout)
    exact = run(x.double(), blocks, None, "reference")
    same_dtype = run(x, blocks, None, "reference")
    got = run(x, blocks, None, backend)
    assert got[-1].abs().sum() > 0
    for result in zip(got, same_dtype, exact, strict=True):
        assert_as_good(*result)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_carries_gradient_alone(backend, which, layout):
    x = make((2, 3, 19, 8, 4), layout=layout)
    upstream = torch.randn(ops.sta_pool(x, backend="reference")[which].shape)
    gradients = {}
    for name in ("reference", backend):
        leaf = x.clone().requires_grad_()
        (gradients[name],) = torch.autograd.grad(ops.sta_pool(leaf, backend=name)[which], leaf, upstream)
    torch.testing.assert_close(gradients[backend], gradients["reference"], rtol=1e-4, atol=1e-6)
    assert gradients[backend].abs().sum() > 0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_invalid_frames_are_never_read_into_the_result(backend, layout):
    x = make((3, 4, 21, 8, 4), layout=layout).clone(memory_format=torch.preserve_format)
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    x[~valid] = float("nan")
    got, expected = run(x, 4, valid, backend), run(x, 4, valid, "reference")
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert a.isfinite().all()
    assert got[-1][~valid].abs().sum() == 0
    assert got[0][2].abs().sum() == 0
    alone = run(x[:1, [0, 1, 3]], 4, None, backend)
    torch.testing.assert_close(got[0][:1], alone[0])


def test_a_frame_left_out_scores_zero_beside_nan(backend):
    x, valid = torch.randn(1, 3, 2, 4, 2), torch.tensor([[True, False, True]])
    x[0, 0, 0, 0, 0] = torch.nan
    scores = ops.sta_pool(x, 2, valid, backend=backend).scores
    assert scores[0, [0, 2]].isnan().all()
    assert (scores[0, 1] == 0).all()
    assert (ops.block_scores(x[:, :, 0], 2, valid, backend=backend)[0, 1] == 0).all()


def test_zero_frame_has_uniform_attention_and_no_nan(backend):
    x = make((2, 3, 16, 8, 4))
    x[0, 1] = 0
    x[1] = 0
    got, expected = run(x, 4, None, backend), run(x, 4, None, "reference")
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert (got[2][0, 1] == 1 / 32).all()
    assert torch.allclose(got[1][1], torch.tensor(1 / 3))


def test_nan_in_a_valid_frame_propagates(backend):
    x = make((2, 3, 16, 8, 4))
    x[0, 1, 3, 2, 2] = float("nan")
    pooled, scores, attention = ops.sta_pool(x, backend=backend)
    assert pooled[0].isnan().any()
    assert attention[0, 1].isnan().all()
    assert scores[0].isnan().all()
    assert pooled[1].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_every_time_and_inputs_unchanged(backend, dtype, layout):
    x = make((3, 4, 64, 16, 8), dtype, layout)
    before = x.clone()
    first = run(x, 4, None, backend)
    for _ in range(3):
        for a, b in zip(run(x, 4, None, backend), first, strict=True):
            assert torch.equal(a, b)
    assert torch.equal(x, before)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_output_element_is_written(backend, layout):
    for value in run(make((2, 3, 19, 8, 4), layout=layout), 4, None, backend):
        assert value.isfinite().all()


def test_empty_batch(backend):
    x = torch.zeros(0, 4, 8, 16, 8, requires_grad=True)
    pooled, scores, attention = ops.sta_pool(x, backend=backend)
    assert (pooled.shape, scores.shape, attention.shape) == ((0, 16), (0, 4, 4), (0, 4, 16, 8))
    pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradient_keeps_the_layout(native, layout):
    x = make((2, 3, 16, 8, 4), layout=layout)
    assert run(x, 4, None, native)[-1].stride() == x.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("energy", "normalize"), list(itertools.product(["sum_square", "l2"], ["sum", "l2"]))
)
def test_attention_map_equals_reference(backend, energy, normalize, layout):
    x = make((2, 3, 19, 8, 4), layout=layout)
    results = []
    for name in ("reference", backend):
        leaf = x.clone().requires_grad_()
        with torch.no_grad():
            leaf[0, 0] = 0
        y = ops.attention_map(leaf, energy, normalize, backend=name)
        (gradient,) = torch.autograd.grad(y, leaf, torch.linspace(-1, 1, y.numel()).view(y.shape))
        results.append((y, gradient))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert results[1][1].abs().sum() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_block_scores_equals_reference(backend, masked):
    attention = torch.randn(3, 4, 12, 5)
    attention[0, :, :3] = 0
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool() if masked else None
    if valid is not None:
        attention[~valid] = float("nan")
    upstream = torch.randn(3, 4, 4)
    results = []
    for name in ("reference", backend):
        leaf = attention.clone().requires_grad_()
        y = ops.block_scores(leaf, 4, valid, backend=name)
        results.append((y, *torch.autograd.grad(y, leaf, upstream)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("masked", [False, True])
def test_fuse_equals_reference(backend, masked, layout, dtype):
    x = make((3, 4, 9, 12, 5), dtype, layout)
    scores = torch.rand(3, 4, 4)
    scores[0, :, 1] = 0.25
    valid = None
    if masked:
        valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
        x = x.clone(memory_format=torch.preserve_format)
        x[~valid] = float("nan")
    upstream = torch.randn(3, 18, 12, 5).to(dtype)
    results = []
    for name in ("reference", backend):
        leaves = x.clone().requires_grad_(), scores.clone().requires_grad_()
        y = ops.fuse(*leaves, valid, backend=name)
        results.append((y, *torch.autograd.grad(y, leaves, upstream)))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pairs", ["random", "all"])
def test_inter_frame_distance_equals_reference(backend, pairs):
    attention = torch.rand(3, 5, 8, 4)
    attention[0] = attention[0, :1].clone()
    results = []
    for name in ("reference", backend):
        leaf = attention.clone().requires_grad_()
        y = ops.inter_frame_distance(leaf, pairs, torch.Generator().manual_seed(3), backend=name)
        results.append((y, *torch.autograd.grad(y, leaf, torch.tensor([1.0, -2.0, 0.5]))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
        assert a[0].abs().sum() == 0
        assert a[1].abs().sum() > 0


@given(
    st.integers(0, 3), st.integers(1, 4), st.integers(1, 40), st.integers(2, 4), st.integers(1, 3),
    st.integers(1, 9), st.sampled_from(LAYOUTS), st.sampled_from(DTYPES[:2]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_any_shape_equals_reference(native, b, t, c, blocks, rows, w, layout, dtype, seed):
    # One block, or zeros everywhere else, makes scores tie, and rounding then chooses the frame.
    x = make((b, t, c, blocks * rows, w), dtype, layout) + 0.1
    valid = torch.rand(b, t, generator=torch.Generator().manual_seed(seed)) < 0.8
    got, expected = run(x, blocks, valid, native), run(x, blocks, valid, "reference")
    for a, e in zip(got, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)


def test_reference_passes_gradcheck():
    x = make((2, 3, 5, 4, 3), torch.float64).add(0.1).requires_grad_()
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    attention = torch.rand(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: ops.sta_pool(x, 2, valid, backend="reference"), x)
    assert gradcheck(lambda a: ops.block_scores(a, 2, valid, backend="reference"), attention)
    assert gradcheck(lambda x, s: ops.fuse(x, s, valid, backend="reference"), (x, scores))
    assert gradcheck(lambda a: ops.inter_frame_distance(a, "all", backend="reference"), attention)
    for energy, normalize in itertools.product(["sum_square", "l2"], ["sum", "l2"]):
        assert gradcheck(lambda x, e=energy, n=normalize: ops.attention_map(x, e, n, backend="reference"), x)


def test_native_passes_gradcheck(native):
    x = make((2, 3, 5, 4, 3), torch.float64).add(0.1).requires_grad_()
    assert gradcheck(lambda x: ops.sta_pool(x, 2, backend=native), x)


def test_sta_pool_is_the_composition_of_its_pieces():
    x = make((2, 4, 32, 16, 8), torch.float64)
    attention = ops.attention_map(x)
    scores = ops.block_scores(attention, 4)
    got = ops.sta_pool(x, 4)
    torch.testing.assert_close(got.attention, attention)
    torch.testing.assert_close(got.scores, scores)
    torch.testing.assert_close(got.pooled, ops.fuse(x, scores).mean((2, 3)))


def test_opcheck(native):
    x = make((2, 3, 5, 8, 3)).requires_grad_()
    attention = torch.rand(2, 3, 8, 3, requires_grad=True)
    scores = torch.rand(2, 3, 4, requires_grad=True)
    pairs = torch.tensor([[[0, 1]], [[2, 1]]])
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    for name, args in {
        "sta_pool": (x, valid, 4),
        "attention_map": (x, "sum_square", "sum"),
        "block_scores": (attention, valid, 4),
        "fuse": (x, scores, None),
        "inter_frame_distance": (attention, pairs),
    }.items():
        opcheck(getattr(torch.ops.vreid_ext, name).default, (*args, native))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_without_graph_breaks(backend, layout):
    def loss(x: Tensor) -> Tensor:
        y = ops.sta_pool(x * 2, 4, backend=backend)
        distance = ops.inter_frame_distance(y.attention, "all", backend=backend)
        return y.pooled.square().sum() + y.scores.square().sum() + distance.sum()

    x = make((2, 3, 16, 8, 4), layout=layout)
    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0])


def test_autocast_keeps_the_precision_of_the_input(backend):
    x = make((2, 3, 16, 8, 4))
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.sta_pool(x, backend=backend)
    for a, b in zip(inside, ops.sta_pool(x, backend=backend), strict=True):
        assert torch.equal(a, b)


def test_thread_count_does_not_change_bits(native):
    x = make((3, 4, 64, 16, 8))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(x, 4, None, native)
        torch.set_num_threads(2)
        two = run(x, 4, None, native)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def test_memory_that_holds_the_other_sign_is_read_as_such(backend):
    """`torch.imag` of a conjugate is a view with the negative bit."""
    x = torch.randn(2, 3, 4, 8, 4)
    scores = torch.randn(2, 3, 4)
    wanted = ops.fuse(x, scores, backend="reference")
    got = ops.fuse(torch._neg_view(-x), torch._neg_view(-scores), backend=backend)
    torch.testing.assert_close(got, wanted)


def test_a_score_of_minus_infinity_is_better_than_a_frame_left_out(backend):
    x, valid = torch.randn(1, 3, 2, 4, 2), torch.tensor([[False, True, True]])
    scores = torch.full((1, 3, 2), -torch.inf)
    fused = ops.fuse(x, scores, valid, backend=backend)
    assert torch.equal(fused[:, :2], x[:, 1])


@pytest.mark.parametrize("dispatched", [False, True])
def test_a_second_derivative_is_an_error_and_not_a_zero(native, dispatched):
    class Other(Tensor):  # takes the way through torch's dispatcher
        pass

    x = torch.randn(1, 2, 3, 4, 2, requires_grad=True)
    y = ops.attention_map(x.as_subclass(Other) if dispatched else x, backend=native)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backend: expected 'reference' for double backward"):
        torch.autograd.grad(gradient.square().sum() + x.sum(), x)


def test_the_reference_gives_shapes_of_meta_tensors():
    x = torch.empty(2, 3, 4, 8, 4, device="meta")
    assert ops.sta_pool(x).pooled.shape == (2, 8)


def test_random_pairs_are_two_different_frames():
    attention = torch.eye(3).view(1, 3, 3, 1).expand(500, -1, -1, -1)
    distance = ops.inter_frame_distance(attention, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distance, torch.full((500,), 2**0.5))


def test_one_frame_has_no_inter_frame_distance():
    attention = torch.rand(2, 1, 4, 3, requires_grad=True)
    distance = ops.inter_frame_distance(attention)
    distance.sum().backward()
    assert distance.tolist() == [0, 0]
    assert attention.grad is not None
    assert attention.grad.abs().sum() == 0


MAP = torch.zeros(2, 3, 4, 8, 4)
ATTENTION = torch.zeros(2, 3, 8, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sta_pool([1]), TypeError, r"x: expected .*got list"),
        (lambda: ops.sta_pool(MAP.int()), TypeError, r"x: expected .*got torch.int32"),
        (lambda: ops.sta_pool(MAP[0]), ValueError, r"x: expected shape \(B,T,C,H,W\), got \(3, 4, 8, 4\)"),
        (lambda: ops.sta_pool(MAP[:, :0]), ValueError, "expected no empty axis except the first"),
        (lambda: ops.sta_pool(MAP.to_sparse()), TypeError, "layout"),
        (
            lambda: ops.sta_pool(MAP, 3),
            ValueError,
            "blocks: expected a positive divisor of the map's 8 rows, got 3",
        ),
        (lambda: ops.sta_pool(MAP, 0), ValueError, r"blocks: expected .*got 0"),
        (lambda: ops.sta_pool(MAP, 2.0), TypeError, r"blocks: expected .*got float"),
        (lambda: ops.sta_pool(MAP, 4, torch.ones(2, 3)), TypeError, r"valid: expected .*got torch.float32"),
        (
            lambda: ops.sta_pool(MAP, 4, torch.ones(3, 2).bool()),
            ValueError,
            r"valid: expected .*got \(3, 2\)",
        ),
        (lambda: ops.sta_pool(MAP, backend="cudnn"), ValueError, "backend: expected one of .*, got 'cudnn'"),
        (lambda: ops.attention_map(MAP, "l1"), ValueError, r"energy: expected .*got 'l1'"),
        (lambda: ops.attention_map(MAP, normalize="max"), ValueError, r"normalize: expected .*got 'max'"),
        (lambda: ops.attention_map(MAP, np.ones(2)), TypeError, r"energy: expected .*got ndarray"),
        (lambda: ops.attention_map(MAP, backend=np.ones(2)), TypeError, r"backend: expected .*got ndarray"),
        (
            lambda: ops.sta_pool(MAP, 4, torch.ones(2, 3).bool().to_sparse()),
            TypeError,
            r"valid: expected .*got layout torch.sparse_coo",
        ),
        (
            lambda: ops.inter_frame_distance(ATTENTION, generator=3),
            TypeError,
            r"generator: expected .*got int",
        ),
        (lambda: ops.block_scores(MAP), ValueError, "attention: expected shape"),
        (lambda: ops.fuse(MAP, torch.zeros(2, 2, 4)), ValueError, r"scores: expected .*got \(2, 2, 4\)"),
        (lambda: ops.fuse(MAP, torch.zeros(2, 3, 5)), ValueError, r"scores.shape\[2\]: expected .*got 5"),
        (lambda: ops.inter_frame_distance(ATTENTION, "both"), ValueError, r"pairs: expected .*got 'both'"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_unusable_backend_lists_every_reason():
    with use_backend("cuda"), pytest.raises(RuntimeError) as error:
        ops.sta_pool(MAP)
    text = str(error.value)
    assert "backend: expected a backend that supports sta_pool on cpu" in text
    assert "reference: usable" in text
    assert all(f"  {name}: " in text for name in ("cuda", "triton", "native"))


def test_call_over_context_over_default():
    with use_backend("cuda"):
        with pytest.raises(RuntimeError, match="got 'cuda'"):
            ops.sta_pool(MAP)
        with use_backend("reference"):
            ops.sta_pool(MAP)
        ops.sta_pool(MAP, backend="reference")
    with pytest.raises(ValueError, match=r"name: expected .*, got 'quick'"), use_backend("quick"):
        pass
