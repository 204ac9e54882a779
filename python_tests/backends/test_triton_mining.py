"""The Triton kernels of mining against the reference: interpreted, and on a GPU (`-m gpu`)."""

import pytest
import torch
from torch import Tensor

from vreid_ext import ops
from vreid_ext._checks import METRICS

pytest.importorskip("triton")

from vreid_ext.backends.triton.configs import ProductTile, only

# n, D, m (None: the anchors themselves): several tiles, sizes that no tile divides, one row.
SHAPES = [(36, 40, None), (7, 33, None), (1, 3, None), (1, 1, 1), (9, 24, 70)]


def make(n, dimensions, m, device, dtype=torch.float32, layout="rows"):
    """Embeddings and labels of anchors and, with m, of candidates; some labels come up once."""
    generator = torch.Generator().manual_seed(n + dimensions)

    def rows(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 2 * dimensions, generator=generator).to(device, dtype)
        x = {
            "rows": x[:, :dimensions].contiguous(),
            "sliced": x[:, 1 : dimensions + 1],
            "strided": x[:, ::2],
        }[layout]
        labels = torch.randint(max(2, n // 3), (count,), generator=generator) * 2**40
        return x, labels.to(device)

    return *rows(n), *(rows(m) if m else (None, None))


def compare(check, inputs, metric):
    """Indices equal those of the reference in float64; distances and gradients are as good as its."""
    x, labels, ref, ref_labels = inputs
    hard = {}

    def mine(name: str, x: Tensor, ref: Tensor | None = None):
        hard[name] = ops.batch_hard(x, labels, metric=metric, ref=ref, ref_labels=ref_labels, backend=name)
        return hard[name][:2]

    check(mine, (x,) if ref is None else (x, ref))
    # The last of the reference's runs is that in float64.
    assert torch.equal(hard["triton"].positive_index, hard["reference"].positive_index)
    assert torch.equal(hard["triton"].negative_index, hard["reference"].negative_index)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_batch_hard_of_any_shape(check, device, shape, metric):
    compare(check, make(*shape, device), metric)


@pytest.mark.parametrize("metric", METRICS)
def test_batch_hard_in_any_dtype(check, device, dtype, metric):
    compare(check, make(10, 24, None, device, dtype), metric)
    compare(check, make(10, 24, 12, device, dtype), metric)


@pytest.mark.parametrize("layout", ["sliced", "strided"])
def test_rows_that_are_not_contiguous(check, device, layout):
    compare(check, make(10, 24, 12, device, layout=layout), "euclidean")


@pytest.mark.parametrize("tile", [(16, 16), (32, 16), (64, 16), (128, 64)], ids=str)
@pytest.mark.parametrize("n", [33, 60, 70])
def test_any_two_rows_meet_in_some_tile(device, tile, n):
    x, labels, *_ = make(n, 8, None, device)
    wanted = ops.batch_hard(x.double(), labels, backend="reference")
    with only("mining", ProductTile(*tile, 16, 4, 2)):
        got = ops.batch_hard(x, labels, backend="triton")
    assert torch.equal(got.positive_index, wanted.positive_index)
    assert torch.equal(got.negative_index, wanted.negative_index)


@pytest.mark.parametrize("with_ref", [False, True])
def test_the_first_of_equals_is_chosen(device, with_ref):
    # Squares and products are small integers, exact in any order; the mean is zero.
    rows = torch.tensor([[2.0, 0], [-2, 0], [0, 2], [0, -2]], device=device).repeat(12, 1)
    labels = torch.arange(4, device=device).repeat(12) // 2
    hard = ops.batch_hard(
        rows, labels, backend="triton", **({"ref": rows, "ref_labels": labels} if with_ref else {})
    )
    assert hard.positive_index.tolist() == [1, 0, 3, 2] * 12
    assert hard.negative_index.tolist() == [2, 2, 0, 0] * 12
    identity = ops.identity_hard(rows, labels, metric="squared", backend="triton")
    assert identity.negative_index.tolist() == [1, 0, 3, 2] * 12
    assert identity.positive_index.tolist() == [4, 5, 6, 7] + [0, 1, 2, 3] * 11


@pytest.mark.parametrize("metric", METRICS)
def test_equal_and_zero_rows_have_gradient_zero(device, metric):
    for value in (0.0, 1.0):
        x = torch.full((6, 5), value, device=device, requires_grad=True)
        labels = torch.tensor([0, 0, 1, 1, 2, 2], device=device)
        hard = ops.batch_hard(x, labels, metric=metric, backend="triton")
        assert (hard.positive_distance == (1 if metric == "cosine" and value == 0 else 0)).all()
        (gradient,) = torch.autograd.grad(hard.positive_distance.sum() + hard.negative_distance.sum(), x)
        assert (gradient == 0).all()


def test_small_distances_far_from_the_origin_keep_their_precision(device):
    x = torch.tensor([[1000.0], [1000.0625], [1000.125], [1000.25]], device=device)
    hard = ops.batch_hard(x, torch.tensor([0, 0, 1, 1], device=device), backend="triton")
    assert hard.positive_distance.tolist() == [0.0625, 0.0625, 0.125, 0.125]
    assert hard.negative_distance.tolist() == [0.125, 0.0625, 0.0625, 0.1875]


def test_one_identity_and_none_at_all(device):
    x = torch.randn(5, 3, device=device, requires_grad=True)
    labels = torch.zeros(5, dtype=torch.int64, device=device)
    hard = ops.batch_hard(x, labels, backend="triton")
    assert not hard.valid.any()
    assert (hard.negative_index == -1).all()
    assert (hard.negative_distance == 0).all()
    loss = ops.batch_hard_triplet(x, labels, backend="triton")
    assert loss == 0
    assert (torch.autograd.grad(loss, x)[0] == 0).all()
    assert len(ops.batch_hard(x[:0], labels[:0], backend="triton").valid) == 0


def test_a_row_that_is_not_finite_shows(device):
    x, labels, *_ = make(20, 6, None, device)
    labels //= 2**41  # every label has several rows
    x[3, 2] = float("nan")
    registered, pairs = torch.ops.vreid_ext, (x, labels, None, None, "cosine")
    distance, index = registered.batch_hard(*pairs, "triton")
    assert distance[:, 3].isnan().all()
    assert (index >= 0).all()
    assert registered.batch_hard_triplet(*pairs, 0.3, True, "triton")[0].isnan()
    assert (registered.identity_hard(x, labels, "cosine", False, "triton")[:, 3] >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("include_self", [False, True])
def test_identity_hard(device, dtype, metric, include_self):
    x, labels, *_ = make(24, 140, None, device, dtype)
    labels[:20] = labels[0]  # more rows than one step takes
    options = {"metric": metric, "include_self": include_self}
    wanted = ops.identity_hard(x.double(), labels, **options, backend="reference")
    got = ops.identity_hard(x, labels, **options, backend="triton")
    assert wanted.valid.any()
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("metric", METRICS)
def test_mined_distance(check, device, metric):
    x, _, ref, _ = make(12, 30, 15, device)
    index = torch.randint(-1, 15, (3, 12), generator=torch.Generator().manual_seed(0)).to(device)
    check(lambda name, x, ref: ops.mined_distance(x, index, metric=metric, ref=ref, backend=name), (x, ref))
    assert (ops.mined_distance(x, index, metric=metric, ref=ref, backend="triton")[index < 0] == 0).all()
    assert ops.mined_distance(x, index + 100, metric=metric, ref=ref, backend="triton").isnan().all()


@pytest.mark.parametrize("margin", [0.0, 0.3, "soft"])
def test_triplet(check, device, dtype, margin):
    x, labels, ref, ref_labels = make(12, 20, 14, device, dtype)
    check(lambda name, x: ops.batch_hard_triplet(x, labels, margin=margin, backend=name), (x,))
    check(
        lambda name, x, ref: ops.batch_hard_triplet(
            x, labels, margin=margin, ref=ref, ref_labels=ref_labels, backend=name
        ),
        (x, ref),
    )


def test_same_inputs_same_bits(device):
    x, labels, *_ = make(36, 20, None, device)

    def run() -> tuple[Tensor, ...]:
        leaf = x.detach().requires_grad_()
        hard = ops.batch_hard(leaf, labels, backend="triton")
        return *hard, torch.autograd.grad(hard.positive_distance.sum() + hard.negative_distance.sum(), leaf)[
            0
        ]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "dimensions"), [(64, 2048), (1000, 513), (4096, 512)])
def test_sizes_of_training_on_a_gpu(check, n, dimensions, dtype):
    compare(check, make(n, dimensions, None, "cuda", dtype), "euclidean")


@pytest.mark.gpu
def test_no_distance_matrix_is_made():
    x = torch.randn(32768, 512, device="cuda", requires_grad=True)
    labels = torch.arange(32768, device="cuda") // 4
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(ops.batch_hard_triplet(x, labels, backend="triton"), x)
    assert 60e6 < torch.cuda.max_memory_allocated() - before < 300e6  # at least the gradient


@pytest.mark.gpu
def test_no_launch_waits_for_the_gpu():
    x, labels, ref, ref_labels = make(64, 128, 90, "cuda")
    x.requires_grad_()
    ops.batch_hard_triplet(x, labels, ref=ref, ref_labels=ref_labels, backend="triton").backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.batch_hard_triplet(x, labels, backend="triton").backward()
        ops.batch_hard_triplet(x, labels, ref=ref, ref_labels=ref_labels, backend="triton").backward()
        ops.dvdp(x, labels, backend="triton")[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
