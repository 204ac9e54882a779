"""Every backend of the DRSTA ops against the reference, on the axes every op keeps (docs/design.md)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from vreid_ext import ops

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# (B, T, C, H, W), K: the paper's proportions, odd sizes, one of everything, more regions than registers hold.
SHAPES = [
    ((2, 3, 64, 8, 4), 6),
    ((3, 2, 7, 6, 5), 3),
    ((1, 1, 1, 1, 1), 1),
    ((2, 3, 17, 9, 3), 9),
    ((1, 2, 530, 4, 9), 2),
    ((2, 2, 33, 12, 12), 15),
]
LAYOUTS = ["contiguous", "channels_last", "sliced", "channels_sliced", "strided", "expanded"]


def make(
    shape: tuple[int, ...], regions: int, dtype: torch.dtype = torch.float32, layout: str = "contiguous"
) -> tuple[Tensor, Tensor]:
    """Logits and feature maps, the maps in the memory layout named."""
    generator = torch.Generator().manual_seed(sum(shape))

    def numbers(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    b, t, c, h, w = shape
    logits = 2 * numbers(b, t, regions, h * w)
    x = {
        "contiguous": lambda: numbers(*shape),
        "channels_last": lambda: numbers(b, t, h, w, c).permute(0, 1, 4, 2, 3),
        "sliced": lambda: numbers(b, t + 1, c + 2, h, w)[:, 1:, 1:-1],
        "channels_sliced": lambda: numbers(b, t, h, w, c + 3)[..., 1:-2].permute(0, 1, 4, 2, 3),
        "strided": lambda: numbers(b, t, c, h, 2 * w)[..., ::2],
        "expanded": lambda: numbers(b, 1, c, h, w).expand(shape),
    }[layout]()
    return logits, x


def run(function, *inputs: Tensor, which: list[int] | None = None) -> tuple[Tensor, ...]:
    """Outputs, and the gradients of the inputs under random upstream gradients of the outputs chosen."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    chosen = outputs if which is None else [outputs[i] for i in which]
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in chosen]
    gradients = torch.autograd.grad(chosen, leaves, upstream, allow_unused=True)
    return *outputs, *(g for g in gradients if g is not None)


def assert_as_good(got: Tensor, same_dtype: Tensor, exact: Tensor) -> None:
    """The half-precision rule: at most twice the error of the same-dtype reference, plus a rounding."""
    assert (got.dtype, got.shape) == (same_dtype.dtype, exact.shape)
    eps = torch.finfo(got.dtype).eps
    allowed = 2 * (same_dtype.double() - exact).abs().max() + 8 * eps * exact.abs().max().clamp(min=1)
    assert (got.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "regions"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_region_pool_equals_reference(backend, shape, regions, layout, dtype):
    logits, x = make(shape, regions, dtype, layout)

    def on(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        return run(lambda e, x: ops.region_pool(e, x, backend=name), *inputs)

    exact = on("reference", logits.double(), x.double())
    results = zip(on(backend, logits, x), on("reference", logits, x), exact, strict=True)
    for result in results:
        assert_as_good(*result)
    assert exact[-1].abs().sum() > 0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_carries_gradient_alone(backend, which, layout):
    logits, x = make((2, 3, 19, 8, 4), 3, layout=layout)
    got, wanted = (
        run(lambda e, x, n=name: ops.region_pool(e, x, backend=n), logits, x, which=[which])
        for name in (backend, "reference")
    )
    torch.testing.assert_close(got[3], wanted[3], rtol=1e-4, atol=1e-5)
    assert got[3].abs().sum() > 0
    if which == 0:
        torch.testing.assert_close(got[4], wanted[4], rtol=1e-4, atol=1e-5)


def test_an_underflown_weight_takes_a_finite_gradient(backend):
    """exp(-200) is zero in float32; through sqrt, as Eq. 9 is written, autograd gives NaN."""
    logits = torch.full((1, 1, 2, 32), -100.0)
    logits[..., 0], logits[..., 0, 1] = 100, 100
    x = torch.randn(1, 1, 4, 8, 4)

    def textbook(logits: Tensor) -> Tensor:
        rows = logits.softmax(-1).sqrt()
        return (rows @ rows.mT - torch.eye(2)).square().sum((2, 3))

    leaf = logits.clone().requires_grad_()
    (naive,) = torch.autograd.grad(textbook(leaf).sum(), leaf)
    assert naive.isnan().any()
    pool = ops.region_pool(leaf, x, backend=backend)
    assert (pool.weights == 0).any()
    torch.testing.assert_close(pool.overlap, textbook(logits))
    (gradient,) = torch.autograd.grad(pool.overlap.sum(), leaf)
    exact = logits.double().requires_grad_()
    (expected,) = torch.autograd.grad(textbook(exact).sum(), exact)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0.1
    torch.testing.assert_close(gradient.double(), expected)


def test_overlap_of_equal_and_of_disjoint_regions(backend):
    x = torch.randn(1, 1, 4, 4, 3)
    same = torch.randn(1, 1, 1, 12).expand(1, 1, 5, 12)
    torch.testing.assert_close(ops.region_pool(same, x, backend=backend).overlap, torch.tensor([[20.0]]))
    apart = torch.eye(12)[None, None, :5] * 200
    assert ops.region_pool(apart, x, backend=backend).overlap.item() < 1e-6


def test_one_region_has_no_overlap_and_no_gradient_from_it(backend):
    logits, x = make((2, 3, 8, 4, 3), 1)
    pool, gradient = None, None
    leaf = logits.requires_grad_()
    pool = ops.region_pool(leaf, x, backend=backend)
    (gradient,) = torch.autograd.grad(pool.overlap.sum(), leaf)
    assert pool.overlap.abs().sum() == 0
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("size", [1, 7, 16, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_are_the_softmax_of_any_logits(dtype, size):
    inf, rounding = torch.inf, 4 * torch.finfo(dtype).eps
    logits = torch.randn(1, 1, 9, size, dtype=dtype) * 50 - 200
    logits[0, 0, 1, 0], logits[0, 0, 2, -1], logits[0, 0, 3, -1] = torch.nan, inf, -inf
    logits[0, 0, 4], logits[0, 0, 5], logits[0, 0, 6] = -inf, 1e30, -1e30
    got = ops.region_pool(logits, torch.ones(1, 1, 1, size, 1, dtype=dtype)).weights
    torch.testing.assert_close(got, logits.softmax(-1), rtol=rounding, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("form", ["hellinger", "text"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_hellinger_overlap_equals_reference(backend, form, dtype):
    weights = torch.rand(2, 3, 5, 21, dtype=dtype)
    weights[0, 0, 1, 3] = 0
    got, wanted = (
        run(lambda s, n=name: ops.hellinger_overlap(s, form, backend=n), weights)
        for name in (backend, "reference")
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_the_two_overlaps_agree_on_distributions(backend):
    logits, x = make((2, 3, 8, 4, 3), 4)
    pool = ops.region_pool(logits, x, backend=backend)
    torch.testing.assert_close(ops.hellinger_overlap(pool.weights, backend=backend), pool.overlap)


def test_text_form_prefers_single_cells(backend):
    """Eq. 10 against Eq. 9: two disjoint halves overlap by neither, but only Q is content with them."""
    halves = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])[None, None] / 2
    assert ops.hellinger_overlap(halves, backend=backend).item() == pytest.approx(0, abs=1e-6)
    assert ops.hellinger_overlap(halves, "text", backend=backend).item() == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_temporal_pool_equals_reference(backend, masked, dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, 5, generator=generator).to(dtype)
    features = torch.randn(3, 4, 5, 37, generator=generator).to(dtype)
    valid = None
    if masked:
        valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
        features[~valid] = float("nan")
        scores[~valid] = float("nan")

    def on(name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        return run(lambda e, f: ops.temporal_pool(e, f, valid, backend=name), *inputs)

    exact = on("reference", scores.double(), features.double())
    for result in zip(on(backend, scores, features), on("reference", scores, features), exact, strict=True):
        assert result[0].isfinite().all()
        assert_as_good(*result)
    if masked:
        assert exact[0][2].abs().sum() == 0


def test_equal_scores_give_the_mean_over_valid_frames(backend):
    features = torch.randn(2, 4, 3, 8)
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]]).bool()
    got = ops.temporal_pool(torch.full((2, 4, 3), 7.0), features, valid, backend=backend)
    torch.testing.assert_close(got[0], features[0].mean(0))
    torch.testing.assert_close(got[1], features[1, ::2].mean(0))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_every_time_on_any_number_of_threads(backend, dtype, layout):
    inputs = make((3, 4, 64, 8, 4), 6, dtype, layout)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads if backend == "native" else 1)
            results.append(run(lambda e, x: ops.region_pool(e, x, backend=backend), *inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_output_element_is_written(backend, layout):
    inputs = make((2, 3, 19, 8, 4), 5, layout=layout)
    for which in (None, [0], [1], [2]):
        for value in run(lambda e, x: ops.region_pool(e, x, backend=backend), *inputs, which=which):
            assert value.isfinite().all()
    temporal = torch.randn(2, 3, 5), torch.randn(2, 3, 5, 19)
    for value in run(lambda e, f: ops.temporal_pool(e, f, backend=backend), *temporal):
        assert value.isfinite().all()
    for value in run(lambda s: ops.hellinger_overlap(s, backend=backend), torch.rand(2, 3, 5, 9)):
        assert value.isfinite().all()


def test_empty_batch(backend):
    x = torch.zeros(0, 4, 8, 8, 4, requires_grad=True)
    logits = torch.zeros(0, 4, 6, 32, requires_grad=True)
    pool = ops.region_pool(logits, x, backend=backend)
    assert [tuple(y.shape) for y in pool] == [(0, 4, 6, 8), (0, 4, 6, 32), (0, 4)]
    ops.temporal_pool(logits[..., 0], pool.features, backend=backend).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradient_keeps_the_layout(native, layout):
    logits, x = make((2, 3, 16, 8, 4), 3, layout=layout)
    assert run(lambda e, x: ops.region_pool(e, x, backend=native), logits, x)[-1].stride() == x.stride()


def test_nan_in_one_frame_stays_in_that_frame(backend):
    logits, x = make((2, 3, 16, 8, 4), 3)
    x[0, 1, 3, 2, 2] = float("nan")
    features = ops.region_pool(logits, x, backend=backend).features
    assert features[0, 1, :, 3].isnan().all()
    assert features.isnan().sum() == 3


@given(
    st.integers(0, 3), st.integers(1, 3), st.integers(1, 80), st.integers(1, 10), st.integers(1, 7),
    st.integers(1, 7), st.sampled_from(LAYOUTS), st.sampled_from(DTYPES[:2]),
)  # fmt: skip
@settings(max_examples=60)
def test_any_shape_equals_reference(native, b, t, c, k, h, w, layout, dtype):
    logits, x = make((b, t, c, h, w), k, dtype, layout)
    got, wanted = (
        run(lambda e, x, n=name: ops.region_pool(e, x, backend=n), logits, x)
        for name in (native, "reference")
    )
    for a, e in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(backend, layout):
    logits, x = (value.requires_grad_() for value in make((2, 2, 5, 3, 3), 3, torch.float64, layout))
    weights = torch.rand(1, 2, 3, 7, dtype=torch.float64).add(0.1).requires_grad_()
    scores = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    assert gradcheck(lambda e, x: ops.region_pool(e, x, backend=backend), (logits, x))
    for form in ("hellinger", "text"):
        assert gradcheck(lambda s, f=form: ops.hellinger_overlap(s, f, backend=backend), weights)
    assert gradcheck(lambda e, f: ops.temporal_pool(e, f, valid, backend=backend), (scores, features))


def test_opcheck(native):
    logits, x = (value.requires_grad_() for value in make((2, 3, 5, 4, 3), 3))
    features = torch.randn(2, 3, 3, 7, requires_grad=True)
    scores = torch.randn(2, 3, 3, requires_grad=True)
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    for name, args in {
        "region_pool": (logits, x),
        "hellinger_overlap": (torch.rand(2, 3, 3, 7, requires_grad=True), "hellinger"),
        "temporal_pool": (scores, features, valid),
    }.items():
        opcheck(getattr(torch.ops.vreid_ext, name).default, (*args, native))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_without_graph_breaks(backend, layout):
    def loss(logits: Tensor, x: Tensor) -> Tensor:
        pool = ops.region_pool(logits, x * 2, backend=backend)
        pooled = ops.temporal_pool(
            pool.overlap[..., None] * pool.features[..., 0], pool.features, backend=backend
        )
        return pooled.square().sum() + ops.hellinger_overlap(pool.weights, "text", backend=backend).sum()

    logits, x = make((2, 3, 16, 8, 4), 3, layout=layout)
    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [value.clone().requires_grad_() for value in (logits, x)]
        value = function(*leaves)
        results.append((value.detach(), *torch.autograd.grad(value, leaves)))
    torch.testing.assert_close(results[1], results[0])


def test_autocast_keeps_the_precision_of_the_input(backend):
    logits, x = make((2, 3, 16, 8, 4), 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.region_pool(logits, x, backend=backend)
    for a, b in zip(inside, ops.region_pool(logits, x, backend=backend), strict=True):
        assert torch.equal(a, b)


MAP, LOGITS = torch.zeros(2, 3, 4, 8, 4), torch.zeros(2, 3, 6, 32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.region_pool(LOGITS, [1]), TypeError, r"x: expected .*got list"),
        (lambda: ops.region_pool(LOGITS, MAP.int()), TypeError, r"x: expected .*got torch.int32"),
        (lambda: ops.region_pool(LOGITS, MAP[0]), ValueError, "x: expected shape"),
        (
            lambda: ops.region_pool(LOGITS[..., :31], MAP),
            ValueError,
            r"logits: expected shape \(B,T,K,L\) with \(B,T,L\) = \(2, 3, 32\) of x, got \(2, 3, 6, 31\)",
        ),
        (lambda: ops.region_pool(LOGITS[:, :, :0], MAP), ValueError, "logits: .*no empty axis"),
        (lambda: ops.hellinger_overlap(LOGITS, "cosine"), ValueError, r"form: expected .*got 'cosine'"),
        (lambda: ops.temporal_pool(LOGITS[..., 0], LOGITS[:, :, :5]), ValueError, "scores: expected shape"),
        (
            lambda: ops.temporal_pool(LOGITS[..., 0], LOGITS, torch.ones(2, 3)),
            TypeError,
            r"valid: expected .*got torch.float32",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
