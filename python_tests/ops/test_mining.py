"""Every backend of the mining ops against the reference, the definition and pytorch-metric-learning."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from vreid_ext import ops
from vreid_ext._checks import METRICS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# n, D, m (None: the anchors themselves): small batches and larger ones, one block of terms and several, sizes
# that no vector divides, one row.
SHAPES = [
    (64, 128, None),
    (50, 300, None),
    (7, 5, None),
    (300, 33, None),
    (513, 17, None),
    (1, 3, None),
    (40, 24, 77),
    (300, 20, 700),
]


def make(n: int, dimensions: int, m: int | None, dtype: torch.dtype = torch.float32, layout: str = "rows"):
    """Embeddings and labels of anchors and, with m, of candidates; some labels come up once."""
    generator = torch.Generator().manual_seed(n + dimensions)

    def rows(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 2 * dimensions, generator=generator).to(dtype)
        x = {
            "rows": x[:, :dimensions].contiguous(),
            "sliced": x[:, 3 : dimensions + 3],
            "strided": x[:, ::2],
        }[layout]
        return x, torch.randint(max(2, n // 3), (count,), generator=generator) * 2**40

    return *rows(n), *(rows(m) if m else (None, None))


def hard_and_gradient(x, labels, ref, ref_labels, metric, backend):
    leaves = [each.detach().requires_grad_() for each in (x, ref) if each is not None]
    hard = ops.batch_hard(
        leaves[0], labels, metric=metric, ref=leaves[1] if ref is not None else None, ref_labels=ref_labels,
        backend=backend,
    )  # fmt: skip
    weight = torch.linspace(-1, 2, len(x), dtype=hard[0].dtype)
    gradients = torch.autograd.grad([hard[0], hard[1]], leaves, [weight, weight + 3])
    return *hard, *gradients


def assert_as_good(got: Tensor, same_dtype: Tensor, exact: Tensor) -> None:
    """The half-precision rule: at most twice the error of the same-dtype reference, plus a rounding."""
    assert got.dtype == same_dtype.dtype
    assert got.shape == exact.shape
    eps = torch.finfo(got.dtype).eps
    allowed = 2 * (same_dtype.double() - exact).abs().max() + 8 * eps * exact.abs().max()
    assert (got.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_batch_hard_equals_reference(backend, shape, metric, dtype):
    x, labels, ref, ref_labels = make(*shape, dtype)
    double = None if ref is None else ref.double()
    exact = hard_and_gradient(x.double(), labels, double, ref_labels, metric, "reference")
    same_dtype = hard_and_gradient(x, labels, ref, ref_labels, metric, "reference")
    got = hard_and_gradient(x, labels, ref, ref_labels, metric, backend)
    for index in (2, 3, 4):
        assert torch.equal(got[index], exact[index])
    for number in (0, 1, 5, *([6] if ref is not None else [])):
        assert_as_good(got[number], same_dtype[number], exact[number])
    assert got[2].dtype == torch.int64


@pytest.mark.parametrize("layout", ["sliced", "strided"])
def test_rows_that_are_not_contiguous(backend, layout):
    x, labels, ref, ref_labels = make(70, 19, 90, layout=layout)
    got = hard_and_gradient(x, labels, ref, ref_labels, "euclidean", backend)
    wanted = hard_and_gradient(x.contiguous(), labels, ref.contiguous(), ref_labels, "euclidean", "reference")
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=80)
@given(
    labels=st.lists(st.integers(-2, 3), min_size=1, max_size=40),
    metric=st.sampled_from(METRICS),
    name=st.sampled_from(["native", "reference"]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_a_loop_over_anchors(labels, metric, name, seed):
    x = torch.randn(len(labels), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    hard = ops.batch_hard(x, torch.tensor(labels), metric=metric, backend=name)
    rows = x.tolist()

    def distance(a, b):
        if metric == "cosine":
            norms = math.hypot(*rows[a]) * math.hypot(*rows[b])
            return 1 - sum(p * q for p, q in zip(rows[a], rows[b], strict=True)) / norms
        return math.dist(rows[a], rows[b]) ** (2 if metric == "squared" else 1)

    for a in range(len(rows)):
        positives = [j for j in range(len(rows)) if j != a and labels[j] == labels[a]]
        negatives = [j for j in range(len(rows)) if labels[j] != labels[a]]
        farthest = max(positives, key=lambda j: distance(a, j), default=-1)
        nearest = min(negatives, key=lambda j: distance(a, j), default=-1)
        assert (hard.positive_index[a], hard.negative_index[a]) == (farthest, nearest)
        assert hard.valid[a] == (farthest >= 0 and nearest >= 0)
        for got, index in ((hard.positive_distance[a], farthest), (hard.negative_distance[a], nearest)):
            assert got.item() == pytest.approx(distance(a, index) if index >= 0 else 0, abs=1e-12)


def test_agrees_with_pytorch_metric_learning(backend):
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    x, labels, ref, ref_labels = make(200, 64, 500, torch.float64)
    for metric, distance in (
        ("euclidean", distances.LpDistance(normalize_embeddings=False)),
        ("cosine", distances.CosineSimilarity()),
    ):
        miner = miners.BatchHardMiner(distance=distance)
        for others in ((), (ref, ref_labels)):
            hard = ops.batch_hard(
                x, labels, metric=metric, backend=backend, **dict(zip(("ref", "ref_labels"), others))
            )
            anchors, positives, negatives = miner(x, labels, *others)
            assert torch.equal(anchors, hard.valid.nonzero()[:, 0])
            assert torch.equal(positives, hard.positive_index[hard.valid])
            assert torch.equal(negatives, hard.negative_index[hard.valid])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("with_ref", [False, True])
def test_gradient_is_that_of_finite_differences(backend, metric, with_ref):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(9, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 0])
    if not with_ref:
        assert gradcheck(lambda x: ops.batch_hard(x, labels, metric=metric, backend=backend)[:2], x)
        return
    ref = torch.randn(7, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert gradcheck(
        lambda x, ref: ops.batch_hard(
            x, labels, metric=metric, ref=ref, ref_labels=labels[:7], backend=backend
        )[:2],
        (x, ref),
    )


@pytest.mark.parametrize("metric", METRICS)
def test_equal_and_zero_rows_have_gradient_zero(backend, metric):
    for value in (0.0, 1.0):
        x = torch.full((6, 5), value, requires_grad=True)
        hard = ops.batch_hard(x, torch.tensor([0, 0, 1, 1, 2, 2]), metric=metric, backend=backend)
        assert (hard.positive_distance == (1 if metric == "cosine" and value == 0 else 0)).all()
        (gradient,) = torch.autograd.grad(hard.positive_distance.sum() + hard.negative_distance.sum(), x)
        assert (gradient == 0).all()


def test_small_distances_far_from_the_origin_keep_their_precision(backend):
    x = torch.tensor([[1000.0], [1000.0625], [1000.125], [1000.25]])
    hard = ops.batch_hard(x, torch.tensor([0, 0, 1, 1]), backend=backend)
    assert hard.positive_distance.tolist() == [0.0625, 0.0625, 0.125, 0.125]
    assert hard.negative_distance.tolist() == [0.125, 0.0625, 0.0625, 0.1875]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_identity_hard_equals_reference(backend, metric, include_self, dtype):
    x, labels, *_ = make(150, 21, None, dtype)
    wanted = ops.identity_hard(
        x.double(), labels, metric=metric, include_self=include_self, backend="reference"
    )
    got = ops.identity_hard(x, labels, metric=metric, include_self=include_self, backend=backend)
    if include_self:
        assert torch.equal(got.positive_index, torch.arange(150))
        assert got.valid.all()
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def test_identity_hard_by_hand(backend):
    x = torch.tensor([[0.0], [1.0], [5.0], [7.0], [9.0], [2.0]])
    hard = ops.identity_hard(x, torch.tensor([4, 4, 4, 1, 3, 1]), metric="euclidean", backend=backend)
    assert hard.negative_index.tolist() == [2, 2, 0, 5, -1, 3]
    assert hard.positive_index.tolist() == [1, 0, 1, 5, -1, 3]
    assert hard.valid.tolist() == [True, True, True, True, False, True]


@pytest.mark.parametrize("metric", METRICS)
def test_mined_distance_equals_reference(backend, metric):
    x, _, ref, _ = make(50, 30, 60)
    index = torch.randint(-1, 60, (3, 50), generator=torch.Generator().manual_seed(0))
    results = []
    for name in ("reference", backend):
        leaves = [x.clone().requires_grad_(), ref.clone().requires_grad_()]
        distance = ops.mined_distance(leaves[0], index, metric=metric, ref=leaves[1], backend=name)
        upstream = torch.linspace(-1, 1, 150).view(3, 50)
        results.append((distance, *torch.autograd.grad(distance, leaves, upstream)))
    assert (results[1][0][index < 0] == 0).all()
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.3, "soft"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_triplet_equals_reference(backend, margin, dtype):
    x, labels, ref, ref_labels = make(90, 40, 110, dtype)
    for others in ({}, {"ref": ref, "ref_labels": ref_labels}):
        results = []
        for name, data in (("reference", x.double()), ("reference", x), (backend, x)):
            leaf = data.clone().requires_grad_()
            ref_like = {
                key: value.to(data.dtype) if value.is_floating_point() else value
                for key, value in others.items()
            }
            loss = ops.batch_hard_triplet(leaf, labels, margin=margin, backend=name, **ref_like)
            results.append((loss, *torch.autograd.grad(loss, leaf)))
        for same in zip(*reversed(results), strict=True):
            assert_as_good(*same)


@pytest.mark.parametrize("metric", METRICS)
def test_the_reference_sees_equal_rows_at_equal_distances(metric):
    """So the first of them is chosen, as a matrix product that sums each row in its own way would not."""
    x, labels, ref, ref_labels = make(30, 300, 20)
    labels, ref_labels = labels % 5, ref_labels % 5
    once = ops.batch_hard(x, labels, metric=metric, ref=ref, ref_labels=ref_labels, backend="reference")
    twice = ops.batch_hard(
        x, labels, metric=metric, ref=ref.repeat(2, 1), ref_labels=ref_labels.repeat(2), backend="reference"
    )
    assert torch.equal(once.positive_index, twice.positive_index)
    assert torch.equal(once.negative_index, twice.negative_index)


def test_one_identity_and_none_at_all(backend):
    x = torch.randn(5, 3, requires_grad=True)
    hard = ops.batch_hard(x, torch.zeros(5).long(), backend=backend)
    assert not hard.valid.any()
    assert (hard.negative_index == -1).all()
    assert (hard.negative_distance == 0).all()
    loss = ops.batch_hard_triplet(x, torch.zeros(5).long(), backend=backend)
    assert loss == 0
    assert (torch.autograd.grad(loss, x)[0] == 0).all()
    empty = torch.empty(0, 3, requires_grad=True)
    assert len(ops.batch_hard(empty, torch.empty(0).long(), backend=backend).valid) == 0
    assert ops.batch_hard_triplet(empty, torch.empty(0).long(), backend=backend) == 0
    assert len(ops.identity_hard(empty, torch.empty(0).long(), backend=backend).valid) == 0


def test_same_bits_again_and_nothing_unwritten(native, poisoned_memory):
    x, labels, ref, ref_labels = make(300, 40, 310)
    first = hard_and_gradient(x, labels, ref, ref_labels, "cosine", native)
    again = hard_and_gradient(x, labels, ref, ref_labels, "cosine", native)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_opcheck(metric):
    x, labels, ref, ref_labels = make(20, 8, 30)
    x.requires_grad_()
    ref.requires_grad_()
    index = ops.batch_hard(x, labels, backend="native").positive_index[None]
    namespace = torch.ops.vreid_ext
    opcheck(namespace.batch_hard.default, (x, labels, None, None, metric, "native"))
    opcheck(namespace.batch_hard.default, (x, labels, ref, ref_labels, metric, "native"))
    opcheck(namespace.batch_hard_triplet.default, (x, labels, ref, ref_labels, metric, 0.3, False, "native"))
    opcheck(namespace.mined_distance.default, (x, None, index, metric, "native"))
    opcheck(namespace.identity_hard.default, (x.detach(), labels, metric, False, "native"))


def test_compiles_without_graph_break(native):
    x, labels, *_ = make(30, 12, None)
    x.requires_grad_()

    def step(x):
        hard = ops.batch_hard(x, labels, backend=native)
        identity = ops.identity_hard(x, labels, backend=native)
        pairs = ops.mined_distance(x, torch.stack(identity[:2]), metric="cosine", backend=native)
        return hard.positive_distance.sum() + pairs.sum() + ops.batch_hard_triplet(x, labels, backend=native)

    wanted = torch.autograd.grad(step(x), x)[0]
    got = torch.autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(x), x)[0]
    torch.testing.assert_close(got, wanted)


def test_autocast_changes_nothing(backend):
    x, labels, *_ = make(30, 12, None)
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.batch_hard(x, labels, backend=backend)
    assert torch.equal(got.positive_distance, ops.batch_hard(x, labels, backend=backend).positive_distance)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_are_not_finite_are_named(backend, bad, metric):
    x, labels, ref, ref_labels = make(30, 12, 40)
    x[17, 3] = bad
    with pytest.raises(ValueError, match=r"^embeddings: expected .*, got NaN, infinity or .* row 17$"):
        ops.batch_hard(x, labels, metric=metric, backend=backend)
    with pytest.raises(ValueError, match="in row 17"):
        ops.batch_hard_triplet(x, labels, metric=metric, backend=backend)
    with pytest.raises(ValueError, match=r"^attributes: .* row 17$"):
        ops.identity_hard(x, labels, metric=metric, backend=backend)
    with pytest.raises(ValueError, match=r"^ref: .* row 17$"):
        ops.batch_hard(ref[:30], ref_labels[:30], metric=metric, ref=x, ref_labels=labels, backend=backend)


@pytest.mark.usefixtures("poisoned_memory")
def test_without_a_pair_gradients_are_zero(backend):
    x, ref = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    none = torch.full((2, 4), -1)
    for distance in (
        ops.mined_distance(x, none[:0], ref=ref, backend=backend),
        ops.mined_distance(x, none, ref=ref[:0], backend=backend),
        ops.batch_hard(x[:0], Y[:0], ref=ref, ref_labels=torch.arange(5), backend=backend).positive_distance,
    ):
        assert (distance == 0).all()
        for gradient in torch.autograd.grad(distance.sum(), (x, ref), materialize_grads=True):
            assert (gradient == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_the_cosine_of_a_row_that_is_not_finite_is_nan(backend, bad):
    x, index = torch.randn(4, 3), torch.tensor([[1, 2, 3, -1]])
    x[1, 2] = bad
    distance = ops.mined_distance(x, index, metric="cosine", backend=backend)
    assert distance.isnan().tolist() == [[True, True, False, False]]


def test_rows_whose_squares_underflow_are_zero_rows(backend):
    x = torch.randn(8, 3) * 1e-22
    hard = ops.batch_hard(x, torch.arange(8) // 2, metric="cosine", backend=backend)
    assert (hard.positive_distance == 1).all()
    assert (hard.negative_distance == 1).all()


def test_the_soft_loss_of_a_wide_gap_has_all_its_digits(backend):
    x = torch.tensor([[0.0], [22.0], [1.0]], dtype=torch.float64)
    loss = ops.batch_hard_triplet(x, torch.tensor([0, 0, 1]), margin="soft", backend=backend)
    exact = (math.log1p(math.exp(-21)) + 21 + math.log1p(math.exp(-1)) + 1) / 2
    assert loss.item() == pytest.approx(exact, rel=1e-14)


def test_a_row_without_a_pair_takes_no_nan(backend):
    x = torch.tensor([[math.inf, 1.0], [1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    distance = ops.mined_distance(x, torch.tensor([[-1, 2, 1]]), metric="squared", backend=backend)
    distance.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


X, Y = torch.randn(4, 3), torch.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.batch_hard([1.0], Y), TypeError, r"embeddings: expected .*got list"),
        (lambda: ops.batch_hard(X.long(), Y), TypeError, "embeddings: expected dtype"),
        (lambda: ops.batch_hard(X[0], Y), ValueError, "embeddings: expected shape"),
        (lambda: ops.batch_hard(X, Y[:3]), ValueError, r"labels: expected shape \(4,\), .*, got \(3,\)"),
        (lambda: ops.batch_hard(X, Y.float()), TypeError, "labels: expected dtype"),
        (lambda: ops.batch_hard(X, Y.tolist()), TypeError, r"labels: expected .*got list"),
        (lambda: ops.batch_hard(X, Y, metric="l2"), ValueError, r"metric: expected .*got 'l2'"),
        (lambda: ops.batch_hard(X, Y, ref=X), TypeError, r"ref_labels: expected .*got NoneType"),
        (lambda: ops.batch_hard(X, Y, ref_labels=Y), TypeError, r"ref: expected .*got NoneType"),
        (lambda: ops.batch_hard(X, Y, ref=X.double(), ref_labels=Y), TypeError, "ref: expected dtype"),
        (
            lambda: ops.batch_hard(X, Y, ref=X[:, :2], ref_labels=Y),
            ValueError,
            r"ref: expected 3 columns .*, got 2",
        ),
        (
            lambda: ops.batch_hard(X, Y, ref=X[:0], ref_labels=Y[:0]),
            ValueError,
            "ref: expected at least one row",
        ),
        (lambda: ops.identity_hard(X, Y[:3]), ValueError, "labels: expected shape"),
        (lambda: ops.mined_distance(X, Y), ValueError, "index: expected shape"),
        (lambda: ops.mined_distance(X, Y[None].int()), TypeError, r"index: expected .*got torch.int32"),
        *(
            (
                lambda index=index, backend=backend: ops.mined_distance(X, index[None], backend=backend),
                ValueError,
                f"^index: expected -1 to 3.*, got {got}",
            )
            for index, got in ((Y + 1, 4), (Y - 2, -2))
            for backend in ("native", "reference")
        ),
        (lambda: ops.mined_distance(X, Y[None], ref=X[:0]), ValueError, "^index: expected -1 to -1, got 3"),
        (lambda: ops.batch_hard_triplet(X, Y, margin=math.nan), ValueError, r"^margin: expected .*got nan"),
        (lambda: ops.batch_hard_triplet(X, Y, margin=-1), ValueError, r"^margin: expected .*got -1"),
        (lambda: ops.batch_hard_triplet(X, Y, margin=None), TypeError, r"^margin: expected .*got None"),
        (lambda: ops.identity_hard(X, Y, include_self=1), TypeError, r"^include_self: expected .*got int"),
        (lambda: ops.dvdp(X.int(), Y), TypeError, "^embeddings: expected dtype"),
        (lambda: ops.batch_hard(X, Y.to_sparse()), TypeError, r"^labels: expected .*got layout"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
