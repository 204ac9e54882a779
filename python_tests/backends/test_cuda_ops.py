"""The CUDA kernels against the reference: on a GPU (`-m gpu`), and without one in their build for the host.

`test_on_the_host` runs this file again in a process where that build (csrc/testing/simt) replaces
`vreid_ext._cuda` and AddressSanitizer's runtime is the allocator; there the other tests exist for the CPU.
Races, barriers that not all threads reach and accesses outside every allocation are errors of the launch.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vreid_ext import ops
from vreid_ext.backends import cuda as backend
from vreid_ext.backends import signatures

SIMT = os.environ.get("VREID_TEST_SIMT")
if SIMT:
    (_path,) = Path(SIMT).glob("_cuda.*.so")
    _spec = importlib.util.spec_from_file_location("vreid_ext._cuda", _path)
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["vreid_ext._cuda"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["vreid_ext._cuda"])
    backend.DEVICE = "cpu"

DEVICES = ["cpu"] if SIMT else [pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (B, T, C, H, W), K: 16-byte accesses and single ones, blocks longer than a warp's reach, K that is no power
# of two, more channels than one thread block passes, one of everything.
SHAPES = [
    ((2, 3, 40, 16, 8), 4),
    ((1, 2, 17, 9, 5), 9),
    ((1, 1, 1, 1, 1), 1),
    ((1, 2, 130, 6, 32), 3),
    ((1, 2, 3, 64, 24), 2),
]
VALID = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.fixture
def check(run) -> Callable[..., None]:
    """Values and gradients against the reference, every element written, the same bits again.

    At most twice the error of the reference in the inputs' dtype, plus `roundings` of the largest number. On
    the host the second run has blocks and threads in another order.
    """

    def compare(
        function, inputs: tuple[Tensor, ...], which: list[int] | None = None, roundings: int = 8
    ) -> None:
        got, rival = run(function, "cuda", inputs, which), run(function, "reference", inputs, which)
        exact = run(function, "reference", tuple(value.double() for value in inputs), which)
        for a, b, e in zip(got, rival, exact, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            if not a.is_floating_point():
                assert torch.equal(a, e)
                continue
            eps = torch.finfo(a.dtype).eps
            allowed = 2 * (b.double() - e).abs().max() + roundings * eps * e.abs().max()
            assert (a.double() - e).abs().max() <= allowed
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VREID_SIMT_ORDER", "3")
            again = run(function, "cuda", inputs, which)
        assert all(map(torch.equal, got, again))

    return compare


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh allocations are filled with NaN, so that an element no kernel writes shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.skipif(bool(SIMT), reason="this is the process it starts")
def test_on_the_host(simt, address_sanitizer):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = os.environ | address_sanitizer | {"VREID_TEST_SIMT": str(simt)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("shape", "blocks"), SHAPES, ids=str)
def test_sta_pool_of_any_shape(check, feature_map, device, shape, blocks, layout):
    x = feature_map(shape, device, layout=layout)
    check(lambda name, x: ops.sta_pool(x, blocks, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sta_pool_in_any_layout(check, feature_map, device, layout, dtype):
    x = feature_map((1, 3, 24, 8, 4), device, dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 2, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "blocks"),
    [
        ((1, 2, 17, 9, 5), 9),
        ((1, 2, 3, 64, 24), 2),
        ((3, 4, 136, 8, 4), 4),
        # More frames and more pieces of the map than a cluster has rows of threads.
        ((1, 26, 8, 4, 4), 2),
    ],
    ids=str,
)
def test_sta_pool_has_the_same_bits_with_clusters(feature_map, device, shape, blocks, dtype, layout):
    from vreid_ext.backends.cuda import sta  # loads the module

    x = feature_map(shape, device, dtype, layout)
    valid = VALID.to(device) if shape[:2] == VALID.shape else None
    args = signatures.StaPool(x, valid, blocks)
    steps = sta.sta_pool(args, clusters=False)
    for order in ("0", "3"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VREID_SIMT_ORDER", order)
            clusters = sta.sta_pool(args, clusters=True)
        for a, b in zip(steps, clusters, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_of_sta_pool_carries_gradient_alone(check, feature_map, device, which):
    x = feature_map((1, 3, 19, 8, 4), device)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,), [which])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_invalid_frames_are_never_read(feature_map, run, device, layout):
    x = feature_map((3, 4, 16, 8, 4), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[~VALID] = float("nan")
    valid = VALID.to(device)
    wanted, got = (
        run(lambda name, x: ops.sta_pool(x, 4, valid, backend=name), name, (x,))
        for name in ("reference", "cuda")
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert got[-1].stride() == x.stride()
    assert got[-1][~valid].abs().sum() == got[1][~valid].abs().sum() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_zero_frame_is_uniform_and_takes_no_gradient_through_attention(check, feature_map, device):
    x = feature_map((2, 3, 16, 8, 4), device)
    x[0, 1] = 0
    x[1] = 0
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))
    assert (ops.sta_pool(x, 4, backend="cuda").attention[0, 1] == 1 / 32).all()


@pytest.mark.parametrize("device", DEVICES)
def test_ties_choose_the_first_frame_and_nan_propagates(feature_map, device):
    x = feature_map((1, 1, 8, 4, 4), device).repeat(1, 6, 1, 1, 1)
    assert torch.ops.vreid_ext.sta_pool(x, None, 2, "cuda")[-1].tolist() == [[0, 0]]
    valid = torch.tensor([[0, 0, 0, 0, 0, 1]], device=device).bool()
    assert torch.ops.vreid_ext.sta_pool(x, valid, 2, "cuda")[-1].tolist() == [[5, 5]]
    assert torch.ops.vreid_ext.sta_pool(x, ~valid & valid, 2, "cuda")[-1].tolist() == [[-1, -1]]
    x[0, 1, 3, 2, 2] = float("nan")
    pooled, scores, attention = ops.sta_pool(x, 2, backend="cuda")
    assert attention[0, 1].isnan().all()
    assert scores[0].isnan().all()
    assert pooled[0].isnan().any()


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(device):
    x = torch.zeros(0, 4, 8, 16, 8, device=device, requires_grad=True)
    ops.sta_pool(x, backend="cuda").pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("energy", ["sum_square", "l2"])
@pytest.mark.parametrize("normalize", ["sum", "l2"])
def test_attention_map(check, feature_map, device, layout, energy, normalize):
    x = feature_map((1, 3, 20, 8, 4), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[0, 0] = 0
    check(lambda name, x: ops.attention_map(x, energy, normalize, backend=name), (x,))
    check(lambda name, x: ops.attention_map(x, energy, normalize, backend=name), (x.bfloat16(),))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [False, True])
def test_block_scores(check, device, masked):
    attention = torch.randn(3, 4, 12, 5, generator=torch.Generator().manual_seed(0)).to(device)
    attention[0, :, :3] = 0
    if masked:
        attention[~VALID] = float("nan")
    valid = VALID.to(device) if masked else None
    check(lambda name, g: ops.block_scores(g, 4, valid, backend=name), (attention,))
    check(lambda name, g: ops.block_scores(g, 5, None, backend=name), (attention.nan_to_num().mT,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "blocks"), [((3, 4, 8, 12, 8), 4), ((2, 4, 9, 6, 5), 2)], ids=str)
def test_fuse(check, feature_map, device, shape, blocks, layout, dtype):
    x = feature_map(shape, device, dtype, layout)
    scores = torch.rand(*shape[:2], blocks, generator=torch.Generator().manual_seed(0)).to(device)
    scores[0, :, 1] = 0.25
    check(lambda name, x, scores: ops.fuse(x, scores, backend=name), (x, scores))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_fuse_reads_no_invalid_frame(check, feature_map, device, layout):
    x = feature_map((3, 4, 8, 12, 8), device, layout=layout).clone(memory_format=torch.preserve_format)
    x[~VALID] = float("nan")
    scores = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    check(lambda name, x, s: ops.fuse(x, s, VALID.to(device), backend=name).nan_to_num(9), (x, scores))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "regions"),
    [
        ((2, 2, 40, 8, 4), 6),
        ((1, 2, 7, 6, 5), 3),
        ((1, 1, 1, 1, 1), 1),
        ((1, 2, 17, 9, 3), 9),
        ((1, 1, 150, 16, 16), 2),
    ],
    ids=str,
)
def test_region_pool_of_any_shape(check, feature_map, device, shape, regions, layout):
    x = feature_map(shape, device, layout=layout)
    logits = torch.randn(*shape[:2], regions, shape[3] * shape[4], generator=torch.Generator().manual_seed(2))
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), (2 * logits.to(device), x))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("which", [[0], [1], [2], None], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_region_pool_in_any_dtype(check, feature_map, device, dtype, which, layout):
    x = feature_map((1, 3, 24, 8, 4), device, dtype, layout)
    logits = torch.randn(1, 3, 5, 32, generator=torch.Generator().manual_seed(2)).to(device, dtype)
    check(lambda name, e, x: ops.region_pool(e, x, backend=name), (logits, x), which)


@pytest.mark.parametrize("device", DEVICES)
def test_an_underflown_weight_takes_a_finite_gradient(check, device):
    logits = torch.full((1, 1, 2, 32), -100.0, device=device)
    logits[..., 0], logits[..., 0, 1] = 100, 100
    x = torch.randn(1, 1, 4, 8, 4, device=device)
    check(lambda name, e: ops.region_pool(e, x.to(e.dtype), backend=name), (logits,), [2])


def embeddings(n: int, dim: int, device: str, dtype=torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows away from the origin, and labels of which some come up once; labels need 64 bits."""
    generator = torch.Generator().manual_seed(n + dim + seed)
    x = (torch.randn(n, 2 * dim, generator=generator) + 0.5).to(device, dtype)[:, :dim]
    return x, (torch.randint(max(2, n // 3), (n,), generator=generator) * 2**40).to(device)


# n, D, m (None: the anchors themselves): every size of tile, more slices than the ring has stages, one row.
MINED = [
    (70, 40, None),
    (7, 5, None),
    (1, 3, None),
    (40, 300, None),
    (300, 20, None),
    (40, 24, 150),
    (130, 36, 90),
    (260, 12, 140),
]
# Every size in float32, and one in the halves: what differs is how the rows are read.
MINED_DTYPES = [(shape, torch.float32) for shape in MINED] + [((40, 24, 70), dtype) for dtype in DTYPES[1:]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize(("shape", "dtype"), MINED_DTYPES, ids=str)
def test_batch_hard(check, device, shape, dtype, metric):
    n, dim, m = shape
    x, labels = embeddings(n, dim, device, dtype)
    if m is None:
        check(lambda name, x: ops.batch_hard(x, labels, metric=metric, backend=name), (x,))
        return
    ref, ref_labels = embeddings(m, dim, device, dtype, seed=1)

    def mine(name: str, x: Tensor, ref: Tensor) -> tuple[Tensor, ...]:
        return ops.batch_hard(x, labels, metric=metric, ref=ref, ref_labels=ref_labels, backend=name)

    check(mine, (x, ref))


@pytest.mark.parametrize("device", DEVICES)
def test_hard_pairs_of_equal_rows_far_from_the_origin_and_not_finite(device):
    x = torch.tensor([[1000.0], [1000.0625], [1000.125], [1000.25]], device=device)
    labels = torch.tensor([0, 0, 1, 1], device=device)
    hard = ops.batch_hard(x, labels, backend="cuda")
    assert hard.positive_distance.tolist() == [0.0625, 0.0625, 0.125, 0.125]
    assert hard.negative_distance.tolist() == [0.125, 0.0625, 0.0625, 0.1875]
    same = torch.ones(6, 5, device=device, requires_grad=True)
    hard = ops.batch_hard(same, torch.arange(6, device=device) // 2, backend="cuda")
    assert hard.positive_index.tolist() == [1, 0, 3, 2, 5, 4]
    assert hard.negative_index.tolist() == [2, 2, 0, 0, 0, 0]
    (gradient,) = torch.autograd.grad(hard.positive_distance.sum() + hard.negative_distance.sum(), same)
    assert (gradient == 0).all()
    one = ops.batch_hard(same, torch.zeros(6, device=device).long(), backend="cuda")
    assert not one.valid.any()
    assert (one.negative_index == -1).all()
    assert (one.negative_distance == 0).all()
    rows = x.mul(float("nan"))
    distance, index = torch.ops.vreid_ext.batch_hard(rows, labels, None, None, "euclidean", "cuda")
    assert distance.isnan().all()
    assert (index >= 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("margin", [0.0, 0.3, "soft"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batch_hard_triplet(check, device, margin, dtype):
    x, labels = embeddings(70, 40, device, dtype)
    check(lambda name, x: ops.batch_hard_triplet(x, labels, margin=margin, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("include_self", [False, True])
def test_identity_hard(device, include_self, metric, dtype):
    x, labels = embeddings(60, 21, device, dtype)
    got, wanted = (
        ops.identity_hard(each, labels, metric=metric, include_self=include_self, backend=name)
        for name, each in (("cuda", x), ("reference", x.double()))
    )
    assert all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
def test_mined_distance(check, device, metric):
    (x, _), (ref, _) = embeddings(30, 34, device), embeddings(20, 34, device)
    index = torch.randint(-1, 20, (3, 30), generator=torch.Generator().manual_seed(0)).to(device)
    check(lambda name, x, ref: ops.mined_distance(x, index, metric=metric, ref=ref, backend=name), (x, ref))
    with torch.no_grad():
        x[:3] = 0
    check(lambda name, x: ops.mined_distance(x, index, metric=metric, backend=name), (x,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((66, 130, 2, 8), torch.float32),
        ((1, 1, 1, 1), torch.float32),
        *(((5, 7, 2, 35), dtype) for dtype in DTYPES),
    ],
    ids=str,
)
def test_part_distance(check, device, shape, dtype):
    queries, items, parts, dim = shape
    generator = torch.Generator().manual_seed(3)

    def side(n: int) -> tuple[Tensor, Tensor]:
        features = torch.randn(n, parts, dim, generator=generator) + 1
        scores = torch.rand(n, parts, generator=generator) + 0.1
        return features.to(device, dtype), scores.to(device, dtype)

    def distance(name: str, *inputs: Tensor) -> Tensor:
        return ops.part_distance(*inputs, backend=name)

    # The reference subtracts before it squares; a matrix product rounds a few times more.
    check(distance, (*side(queries), *side(items)), roundings=32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_part_distance_of_rows_of_any_size(device, dtype):
    """Each row has its own power of two, so small rows keep their digits beside large ones."""
    generator = torch.Generator().manual_seed(3)
    sizes = 10.0 ** torch.linspace(-17, 17, 12)[:, None, None]
    query, gallery = (
        (sizes * torch.randn(12, 2, 40, generator=generator)).to(device, dtype) for _ in range(2)
    )
    ones = torch.ones(12, 2, device=device, dtype=dtype)
    got, exact = (
        ops.part_distance(query.to(kind), ones.to(kind), gallery.to(kind), ones.to(kind), backend=name)
        for name, kind in (("cuda", dtype), ("reference", torch.float64))
    )
    assert ((got - exact).abs() / exact).max() < 2e-6


# Pairs are close below 0.14: their squared distance is apart^2 / 2 of their squared norms.
@pytest.mark.parametrize("apart", [0.2, 0.15, 0.14, 0.13, 1e-3])
@pytest.mark.parametrize("device", DEVICES)
def test_part_distance_of_equal_and_close_features(device, apart):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(9, 3, 33, generator=generator).mul(1000).to(device).requires_grad_()
    scores = torch.rand(9, 3, generator=generator).to(device)
    distance = ops.part_distance(features, scores, features, scores, backend="cuda")
    assert distance.diagonal().eq(0).all()
    (gradient,) = torch.autograd.grad(distance.diagonal().sum(), features)
    assert gradient.eq(0).all()
    near = features.detach() + 1000 * apart * torch.randn(9, 3, 33, generator=generator).to(device)
    got, exact = (
        ops.part_distance(*(each.to(dtype) for each in (features, scores, near, scores)), backend=name)
        for name, dtype in (("cuda", torch.float32), ("reference", torch.float64))
    )
    assert ((got - exact).abs() / exact).max() < 1e-4
    near[1, 0, 2] = float("nan")
    bad = ops.part_distance(features, scores, near, scores, backend="cuda").isnan()
    assert bad.all(0).nonzero().tolist() == [[1]]
    assert bad.sum() == 9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [300, 301])
@pytest.mark.parametrize("with_mask", [False, True])
def test_rank_counts(device, columns, with_mask):
    generator = torch.Generator().manual_seed(columns)
    queries, offset = 7, 11
    # Few values, so that there are ties with the positives and between them.
    distances = torch.randint(40, (queries, columns), generator=generator) / 7
    distances[2, 5] = float("nan")
    number = torch.tensor([0, 1, 3, 20, 8, 9, 2])
    start = torch.cat([torch.zeros(1, dtype=torch.int64), number.cumsum(0)])
    total = int(start[-1])
    index = torch.randint(offset + columns + 20, (total,), generator=generator)
    distance = (torch.randint(40, (total,), generator=generator) / 7).double()
    distance[::3] += 1e-12
    left_out = kept = None
    if with_mask:
        left = [torch.arange(int(i), columns + offset + 5, 9) for i in range(queries)]
        left_out = (torch.tensor([0, *map(len, left)]).cumsum(0).to(device), torch.cat(left).to(device))
        kept = (torch.rand(columns, generator=generator) < 0.8).to(device)
    got, wanted = (
        ops.rank_counts(
            distances.to(device), start.to(device), index.to(device), distance.to(device), left_out, kept,
            offset=offset, backend=name,
        )
        for name in ("cuda", "reference")
    )  # fmt: skip
    assert torch.equal(got, wanted)
    assert got.sum() > 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sta_pool_at_the_size_of_the_paper(check, feature_map, dtype, layout):
    x = feature_map((16, 4, 2048, 16, 8), "cuda", dtype, layout)
    check(lambda name, x: ops.sta_pool(x, 4, backend=name), (x,))
