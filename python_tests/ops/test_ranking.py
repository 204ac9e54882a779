"""Counting, pair distances and top-k against a plain stable sort in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vreid_ext import ops, use_backend

METRICS = ["cosine", "euclidean"]


def groups(lists):
    """start and index of ragged lists."""
    start = torch.tensor([0, *torch.tensor([len(each) for each in lists]).cumsum(0)])
    return start, torch.tensor([item for each in lists for item in each], dtype=torch.int64)


def ranked(distances, left_out, kept):
    """The kept items of every row, nearest first: what all ops must agree with."""
    result = []
    for i, row in enumerate(distances.double()):
        order = torch.argsort(row, stable=True).tolist()
        result.append([j for j in order if kept[j] and j not in left_out[i]])
    return result


@st.composite
def galleries(draw):
    """Small integers, so that distances are exact and many of them equal."""
    q, g, d = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 19))
    seed = draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (torch.randint(-1, 2, (n, d), generator=generator) for n in (q, g))
    kept = torch.rand(g, generator=generator) < draw(st.sampled_from([0.0, 0.8, 1.0]))
    lists = [
        [
            torch.randperm(g, generator=generator)[: draw(st.integers(0, g))].sort().values.tolist()
            for _ in range(q)
        ]
        for _ in range(2)
    ]
    return query, gallery, kept, *lists


@settings(max_examples=150)
@given(galleries(), st.sampled_from(METRICS), st.sampled_from(["native", "reference"]), st.booleans())
def test_counts_and_nearest_agree_with_a_stable_sort(data, metric, backend, single):
    query, gallery, kept, positives, left_out = data
    query, gallery = (x.to(torch.float32 if single else torch.float64) for x in (query, gallery))
    pairs = torch.cartesian_prod(torch.arange(len(query)), torch.arange(len(gallery)))
    distances = ops.pair_distances(query, gallery, *pairs.T.contiguous(), metric, backend=backend)
    matrix = distances.view(len(query), len(gallery))
    if metric == "euclidean":
        assert_close(matrix, torch.cdist(query.double(), gallery.double()), rtol=1e-14, atol=1e-14)
    expected = ranked(matrix, left_out, kept)

    start, index = groups(positives)
    row = torch.repeat_interleave(start.diff())
    position = [
        sum((matrix[i, k], k) < (matrix[i, j], j) for k in expected[i])
        for i, j in zip(row.tolist(), index.tolist(), strict=True)
    ]
    arguments = (start, index, matrix[row, index], groups(left_out), kept)
    assert ops.rank_counts(matrix, *arguments, backend=backend).tolist() == position
    of_matrix = ops.rank_counts(matrix, start, index, None, *arguments[3:], backend=backend)
    assert of_matrix.tolist() == position
    counts = ops.feature_rank_counts(query, gallery, *arguments, metric=metric, backend=backend)
    assert counts.tolist() == position

    for k in (1, 3, len(gallery) + 2):
        values, indices = ops.top_k(query, gallery, k, metric, groups(left_out), kept, backend=backend)
        for i, items in enumerate(expected):
            n = min(k, len(items))
            assert indices[i].tolist() == items[:n] + [-1] * (k - n)
            assert values[i, :n].tolist() == matrix[i, items[:n]].tolist()
            assert values[i, n:].isinf().all()


def embeddings(q, g, d, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (torch.randn(n, d, generator=generator).to(dtype) for n in (q, g))
    return query, gallery


def all_pairs(query, gallery):
    start, index = groups([list(range(len(gallery)))] * len(query))
    return start, index, torch.repeat_interleave(start.diff())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_native_agrees_with_the_reference(metric, dtype):
    query, gallery = embeddings(5, 1500, 37, dtype)
    gallery[700:800] = gallery[40:140]  # duplicates, in another tile
    start, index = groups([[3, 41, 701, 1499]] * 5)
    row = torch.repeat_interleave(start.diff())
    results = {}
    for backend in ("native", "reference"):
        distance = ops.pair_distances(query, gallery, row, index, metric, backend=backend)
        results[backend] = (
            ops.feature_rank_counts(query, gallery, start, index, distance, metric=metric, backend=backend),
            ops.top_k(query, gallery, 70, metric, backend=backend)[1],
            distance,
            ops.top_k(query, gallery, 70, metric, backend=backend)[0],
        )
    for exact, (got, wanted) in enumerate(zip(*results.values(), strict=True)):
        assert torch.equal(got, wanted) if exact < 2 else torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    counts = results["native"][0].view(5, 4)
    assert (counts[:, 2] > counts[:, 1]).all()  # the first of two duplicates comes first


@pytest.mark.parametrize("metric", METRICS)
def test_differences_far_below_float32_order_the_gallery(metric):
    """A float32 product sees one distance; the order is that of float64."""
    base = torch.randn(1, 64, dtype=torch.float64)
    steps = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    gallery = base + torch.randn(1, 64, dtype=torch.float64) * (1 + steps[:, None].double() * 1e-9)
    order = steps.argsort()
    _, indices = ops.top_k(base, gallery, 300, metric, backend="native")
    assert torch.equal(indices[0], order)
    start, index, row = all_pairs(base, gallery)
    distance = ops.pair_distances(base, gallery, row, index, metric)
    counts = ops.feature_rank_counts(base, gallery, start, index, distance, metric=metric, backend="native")
    assert torch.equal(counts, steps)


@pytest.mark.parametrize(("metric", "square", "share"), [("euclidean", 0.98, 0.9), ("cosine", 0.49, 0.64)])
def test_rounding_errors_that_all_have_the_same_sign(metric, square, share):
    """A float32 sum of 1 and 127 terms of about u or u/2 is 1: the worst case of the error bound."""
    small = (square * 2.0**-24) ** 0.5
    query, other = torch.full((64, 128), small), torch.full((1, 128), share * small)
    query[:, 0] = other[:, 0] = 1
    gallery = torch.cat([query[:1], other])  # the positive is `other`, but the query itself is nearer
    start, row, index = torch.arange(65), torch.arange(64), torch.ones(64, dtype=torch.int64)
    distance = ops.pair_distances(query, gallery, row, index, metric)
    counts = ops.feature_rank_counts(query, gallery, start, index, distance, metric=metric)
    assert torch.equal(counts, torch.ones_like(index))
    assert (ops.top_k(query, gallery, 1, metric)[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 7, 31, 64, 130, 2048])
def test_known_norms_change_no_bit(dtype, d):
    """`top_k` knows the norms of the rows, `pair_distances` computes them."""
    query, gallery = torch.randn(60, d, dtype=dtype), torch.randn(40, d, dtype=dtype)
    nearest, index = ops.top_k(query, gallery, 40, "cosine")
    row = torch.arange(60).repeat_interleave(40)
    assert torch.equal(nearest.flatten(), ops.pair_distances(query, gallery, row, index.flatten(), "cosine"))


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e17])
@pytest.mark.parametrize("metric", METRICS)
def test_units_of_the_features_do_not_matter(metric, scale):
    query, gallery = embeddings(3, 200, 16)
    wanted = ops.top_k(query.double(), gallery.double(), 200, metric, backend="reference")[1]
    scaled = (query.double() * scale).float(), (gallery.double() * scale).float()
    if metric == "cosine":  # each row in its own unit
        scaled[1][::3] *= 2.0**-20
    got = ops.top_k(*scaled, 200, metric, backend="native")[1]
    agree = (got == wanted).double().mean()
    assert agree > 0.99  # scaling rounds, and that may swap neighbours
    assert torch.equal(got, ops.top_k(*scaled, 200, metric, backend="reference")[1])


def test_a_thousand_equal_items_keep_their_order():
    query, gallery = torch.ones(2, 8), torch.ones(3000, 8)
    for metric in METRICS:
        _, indices = ops.top_k(query, gallery, 5, metric)
        assert indices.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_zero_rows_are_at_cosine_distance_one():
    query, gallery = (
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]),
    )
    values, indices = ops.top_k(query, gallery, 3)
    assert indices.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert values.tolist() == [[1, 1, 1], [0, 1, 2]]


def test_tiles_add_up_at_offsets_beyond_32_bits():
    first = 2**40
    distances = torch.randint(0, 5, (3, 60)).float()
    start, index, row = all_pairs(distances, distances.T)
    distance = distances[row, index].double()
    left_out = groups([[first + 4, first + 31], [], [first]])
    kept = torch.rand(60) < 0.8
    whole = ops.rank_counts(distances, start, index + first, distance, left_out, kept, offset=first)
    of_matrix = ops.rank_counts(distances, start, index + first, None, left_out, kept, offset=first)
    assert torch.equal(of_matrix, whole)
    parts = sum(
        ops.rank_counts(
            distances[:, a:b], start, index + first, distance, left_out, kept[a:b], offset=first + a
        )
        for a, b in ((0, 17), (17, 18), (18, 60))
    )
    assert torch.equal(whole, parts)
    expected = ranked(distances, [[4, 31], [], [0]], kept)
    wanted = [
        sum((distances[i, k], k) < (distances[i, j], j) for k in expected[i])
        for i, j in zip(row.tolist(), index.tolist(), strict=True)
    ]
    assert whole.tolist() == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_distances_and_items_left_out_in_a_later_piece(dtype):
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(3, 2500, generator=generator, dtype=dtype)
    distances[torch.rand(3, 2500, generator=generator) < 0.1] = torch.inf
    start, index = torch.tensor([0, 40, 80, 120]), torch.arange(0, 2400, 20)
    distance = distances[torch.arange(3).repeat_interleave(40), index].double()
    distance[50] = torch.inf
    left_out = groups([[2000, 2001], [], list(range(1000, 1100))])
    native, reference = (
        ops.rank_counts(distances, start, index, distance, left_out, backend=backend)
        for backend in ("native", "reference")
    )
    assert torch.equal(native, reference)


def test_pieces_of_a_gallery_add_up():
    query, gallery = embeddings(6, 333, 20)
    start, index, row = all_pairs(query, gallery)
    distance = ops.pair_distances(query, gallery, row, index)
    whole = ops.feature_rank_counts(query, gallery, start, index, distance)
    parts = sum(
        ops.feature_rank_counts(query, gallery[a:b], start, index, distance, offset=a)
        for a, b in ((0, 100), (100, 101), (101, 333))
    )
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("metric", METRICS)
def test_a_pair_has_one_distance_wherever_it_is_computed(metric, backend):
    """Alone or among others, from either side, in a tile of any height, in any number of threads."""
    query, gallery = embeddings(2, 9, 70_001)
    gallery[8] = gallery[3]
    row, index = torch.cartesian_prod(torch.arange(2), torch.arange(9)).T.contiguous()
    start = torch.tensor([0, 0, 1])  # one positive, of the second query
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            together = ops.pair_distances(query, gallery, row, index, metric, backend=backend)
            swapped = ops.pair_distances(gallery, query, index, row, metric, backend=backend)
            alone = torch.cat(
                [
                    ops.pair_distances(query, gallery, *pair, metric, backend=backend)
                    for pair in zip(row.split(1), index.split(1), strict=True)
                ]
            )
            nearest, places = ops.top_k(query, gallery, 9, metric, backend=backend)
            assert torch.equal(together, swapped)
            assert torch.equal(together, alone)
            assert torch.equal(together.view(2, 9).gather(1, places), nearest)
            first, second = (
                ops.feature_rank_counts(
                    query, gallery, start, item, together[9 + item], metric=metric, backend=backend
                )
                for item in (torch.tensor([3]), torch.tensor([8]))
            )
            assert second == first + 1  # at equal distances the smaller index comes first
            results.append(together)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("metric", METRICS)
def test_no_positive_comes_before_itself(metric, backend):
    """Though the distance given, another backend's, is off by a rounding."""
    query, gallery = embeddings(6, 40, 7)
    start, index, row = all_pairs(query, gallery)
    distance = ops.pair_distances(query, gallery, row, index, metric, backend=backend)
    wanted = distance.view(6, 40).argsort(1).argsort(1).flatten()
    for near in (distance, distance.nextafter(distance + 1), distance.nextafter(distance - 1)):
        counts = ops.feature_rank_counts(query, gallery, start, index, near, metric=metric, backend=backend)
        assert torch.equal(counts, wanted)


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_bits_with_any_number_of_threads(metric):
    query, gallery = embeddings(70, 2100, 50)
    start, index, row = all_pairs(query[:, :1], gallery[:9])
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        distance = ops.pair_distances(query, gallery, row, index, metric)
        counts = ops.feature_rank_counts(query, gallery, start, index, distance, metric=metric)
        results.append((distance, counts, *ops.top_k(query, gallery, 30, metric)))
    torch.set_num_threads(threads)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_reference_holds_a_tile_at_a_time(metric, monkeypatch):
    monkeypatch.setattr("vreid_ext.backends.reference.ranking._ELEMENTS", 512)
    query, gallery = embeddings(60, 200, 3)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            sizes.extend(each.numel() for each in tree_leaves(result) if isinstance(each, torch.Tensor))
            return result

    def counts_and_nearest(backend):
        index = torch.arange(60)
        distance = ops.pair_distances(query, gallery, index, index, metric, backend=backend)
        counts = ops.feature_rank_counts(
            query, gallery, torch.arange(61), index, distance, metric=metric, backend=backend
        )
        return counts, ops.top_k(query, gallery, 5, metric, backend=backend)[1]

    with Sizes():
        got = counts_and_nearest("reference")
    assert 512 - 60 < max(sizes) <= 3 * 200  # a tile, or the gallery; 12,000 is the matrix
    assert all(map(torch.equal, got, counts_and_nearest("native")))


def test_low_precision_products_and_autocast_change_nothing():
    query, gallery = embeddings(9, 400, 64)
    wanted = ops.top_k(query, gallery, 50)[1]
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            got = ops.top_k(query, gallery, 50)[1]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(got, wanted)


def calls(backend="native"):
    query, gallery = embeddings(4, 30, 8)
    start, index = groups([[1, 2], [], [5], [29]])
    row = torch.repeat_interleave(start.diff())
    distance = ops.pair_distances(query, gallery, row, index)
    left = groups([[0], [3, 4], [], []])
    matrix = torch.cdist(query, gallery)
    return [
        (torch.ops.vreid_ext.pair_distances, (query, gallery, row, index, "cosine", backend)),
        (
            torch.ops.vreid_ext.rank_counts,
            (matrix, start, index, distance, *left, None, 0, True, backend),
        ),
        (torch.ops.vreid_ext.rank_counts, (matrix, start, index, None, *left, None, 0, True, backend)),
        (
            torch.ops.vreid_ext.feature_rank_counts,
            (query, gallery, start, index, distance, None, None, gallery[:, 0] > -1, "cosine", 0, backend),
        ),
        (torch.ops.vreid_ext.top_k, (query, gallery, 3, "euclidean", *left, None, backend)),
    ]


@pytest.mark.parametrize("number", range(5))
def test_opcheck(number):
    op, arguments = calls()[number]
    torch.library.opcheck(op, arguments)


def test_compiles_without_a_break():
    query, gallery = embeddings(4, 30, 8)
    start, index = groups([[1, 2], [], [5], [29]])
    row = torch.repeat_interleave(start.diff())

    def nearest_and_counts(query, gallery):
        distance = ops.pair_distances(query, gallery, row, index)
        counts = ops.feature_rank_counts(query, gallery, start, index, distance)
        return (
            counts,
            ops.rank_counts(1 - query @ gallery.T, start, index, distance),
            *ops.top_k(query, gallery, 3),
        )

    compiled = torch.compile(nearest_and_counts, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(query, gallery), nearest_and_counts(query, gallery), strict=True):
        assert torch.equal(got, wanted)


def test_nothing_to_count(backend):
    query, gallery = embeddings(3, 10, 4)
    none = groups([[], [], []])
    empty = torch.empty(0, dtype=torch.float64)
    assert ops.feature_rank_counts(query, gallery, *none, empty, backend=backend).shape == (0,)
    assert ops.rank_counts(query @ gallery.T, *none, empty, backend=backend).shape == (0,)
    values, indices = ops.top_k(query[:0], gallery, 2, backend=backend)
    assert values.shape == indices.shape == (0, 2)
    values, indices = ops.top_k(query, gallery, 2, kept=torch.zeros(10, dtype=torch.bool), backend=backend)
    assert (indices == -1).all()


def test_features_may_require_a_gradient(backend):
    query, gallery = (x.requires_grad_() for x in embeddings(3, 10, 4))
    start, index, row = all_pairs(query, gallery)
    distance = ops.pair_distances(query, gallery, row, index, backend=backend)
    values, _ = ops.top_k(query, gallery, 2, backend=backend)
    counts = ops.feature_rank_counts(query, gallery, start, index, distance, backend=backend)
    assert not distance.requires_grad
    assert not values.requires_grad
    assert counts.view(3, 10).sort().values.tolist() == [list(range(10))] * 3


@pytest.mark.parametrize("scale", [1e-131, 1e131])
def test_double_features_beyond_float32(scale):
    query, gallery = embeddings(3, 50, 8, torch.float64)
    start, index, row = all_pairs(query, gallery)
    distance = ops.pair_distances(query, gallery, row, index)
    wanted = ops.feature_rank_counts(query, gallery, start, index, distance)
    got = ops.feature_rank_counts(query, gallery * scale, start, index, distance)
    assert torch.equal(got, wanted)


def test_a_positive_at_nan_hides_no_other(backend):
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    distance = torch.tensor([torch.nan, 0.3], dtype=torch.float64)
    counts = ops.rank_counts(
        distances, torch.tensor([0, 2]), torch.tensor([1, 2]), distance + 0.01, backend=backend
    )
    assert counts.tolist() == [0, 3]


def test_rows_that_no_pair_reads_need_not_be_finite(backend):
    query, gallery = embeddings(3, 10, 4)
    gallery[7] = torch.nan
    pairs = torch.tensor([0, 1]), torch.tensor([2, 3])
    assert ops.pair_distances(query, gallery, *pairs, backend=backend).isfinite().all()
    with pytest.raises(
        ValueError, match=r"^gallery: expected .*, got NaN or infinity in 1 rows, the first is 7"
    ):
        ops.pair_distances(query, gallery, pairs[0], torch.tensor([2, 7]), backend=backend)


X, Y = torch.randn(2, 4), torch.randn(5, 4)
START, TWO, INDEX = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2]), torch.tensor([0, 4])
DISTANCE = torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: ops.top_k(X, Y, 0), ValueError, "k"),
        (lambda: ops.top_k(X, Y[:, :3], 1), ValueError, "gallery"),
        (lambda: ops.top_k(X, Y.double(), 1), TypeError, "gallery"),
        (lambda: ops.top_k(X, Y, 1, "l1"), ValueError, "metric"),
        (lambda: ops.top_k(X, Y, 1, kept=torch.ones(4, dtype=torch.bool)), ValueError, "kept"),
        (lambda: ops.top_k(X, Y, 1, left_out=START), TypeError, "left_out"),
        (lambda: ops.top_k(X, Y, 1, left_out=(START[:2], INDEX)), ValueError, "left_out[0]"),
        (lambda: ops.top_k(X, Y, 1, left_out=(START * 2, INDEX)), ValueError, "left_out[0]"),
        (
            lambda: ops.top_k(X, Y, 1, left_out=(TWO, INDEX.flip(0))),
            ValueError,
            "left_out[1]",
        ),
        (lambda: ops.top_k(X, Y * torch.inf, 1), ValueError, "gallery"),
        (lambda: ops.top_k(X, Y * 1e20, 1, "euclidean"), ValueError, "gallery"),
        (lambda: ops.pair_distances(X, Y, INDEX, INDEX), ValueError, "row"),
        (lambda: ops.pair_distances(X, Y, INDEX * 0, INDEX + 1), ValueError, "index"),
        (lambda: ops.pair_distances(X, Y, INDEX * 0, INDEX - 1), ValueError, "index"),
        (lambda: ops.pair_distances(X[:0], Y, INDEX * 0, INDEX), ValueError, "row"),
        (lambda: ops.rank_counts(X, START, INDEX.int(), DISTANCE), TypeError, "index"),
        (lambda: ops.rank_counts(X, START, INDEX, DISTANCE.float()), TypeError, "distance"),
        (lambda: ops.rank_counts(X, START, INDEX, DISTANCE[:1]), ValueError, "distance"),
        (lambda: ops.rank_counts(X, START, INDEX), ValueError, "index"),  # 4 of 4 columns
        (lambda: ops.rank_counts(X, START, INDEX, offset=1), ValueError, "index"),
        (lambda: ops.rank_counts(X, START.flip(0), INDEX, DISTANCE), ValueError, "start"),
        (lambda: ops.rank_counts(X, START - 1, INDEX, DISTANCE), ValueError, "start"),
        (lambda: ops.rank_counts(X, START // 2, INDEX, DISTANCE), ValueError, "start"),
        (lambda: ops.rank_counts(X, START, INDEX, DISTANCE, offset=2**63 - 1), ValueError, "offset"),
        (lambda: ops.rank_counts(X, START, INDEX, DISTANCE, offset=1.0), TypeError, "offset"),
        (lambda: ops.rank_counts(X.to("meta"), START, INDEX, DISTANCE), ValueError, "distances"),
        (lambda: ops.top_k(X.to("meta"), Y, 1), ValueError, "query"),
        (lambda: ops.top_k(X, Y, 2.0), TypeError, "k"),
        (lambda: ops.top_k(X, Y, 2**63), ValueError, "k"),
    ],
)
def test_bad_input(call, error, name, backend):
    with use_backend(backend), pytest.raises(error) as raised:
        call()
    assert str(raised.value).startswith(f"{name}: ")


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("column", [0, 16, 36])  # the last one is in a vector that is not full
def test_the_check_finds_numbers_that_are_not_finite(backend, dtype, value, column):
    distances = torch.rand(9, 37).to(dtype)
    start, index = groups([[1], [2], [], [3], [], [], [], [], [4]])
    known = distances[torch.repeat_interleave(start.diff()), index].double()
    left_out = groups([[], [], [], [16], [], [], [], [], []])
    kept = torch.arange(37) != 36
    arguments = (start, index, known, left_out, kept)
    counts = ops.rank_counts(distances, *arguments, backend=backend)
    assert torch.equal(ops.rank_counts(distances, *arguments, check=True, backend=backend), counts)
    of_matrix = ops.rank_counts(distances, start, index, None, left_out, kept, check=True, backend=backend)
    assert torch.equal(of_matrix, counts)
    for row in (3, 7):  # 3: the item may be left out; 7: a query without a positive
        distances[row, column] = value
    ops.rank_counts(distances, *arguments, backend=backend)
    message = r"^distances: expected finite numbers, got NaN or infinity in 2 rows, the first is 3$"
    with pytest.raises(ValueError, match=message):
        ops.rank_counts(distances, *arguments, check=True, backend=backend)
    nothing = groups([[]] * 9)  # without any positive
    with pytest.raises(ValueError, match=message):
        ops.rank_counts(distances, *nothing, known[:0], check=True, backend=backend)
