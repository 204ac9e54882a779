"""Re-ranking with sparse rows against the published algorithm on dense matrices."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vreid_ext import ops

ATOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5}


def people(queries, items, dimensions=16, ids=12, seed=0):
    """Features around a point for each identity: neighbours that are mutual, and some that are not."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(ids, dimensions, generator=generator)
    pids = torch.randint(ids, (queries + items,), generator=generator)
    x = centres[pids] + 0.8 * torch.randn(queries + items, dimensions, generator=generator)
    return x[:queries], x[queries:]


def published(x, queries, k1, k2, weight):
    """The paper's steps one item at a time, independent of the vectorised reference."""
    x = x.double().numpy()
    squares = np.stack([((row - x) ** 2).sum(1) for row in x])
    scaled = squares / squares.max(1, keepdims=True)
    rank = np.argsort(squares, axis=1, kind="stable")

    def mutual(i, k):
        return {j for j in rank[i, :k] if i in rank[j, :k]}

    weights = np.zeros_like(scaled)
    for i in range(len(x)):
        own = mutual(i, k1 + 1)
        grown = set(own)
        for c in own:
            other = mutual(c, int(np.around(k1 / 2)) + 1)
            if len(other & own) > 2 / 3 * len(other):
                grown |= other
        for j in grown:
            weights[i, j] = np.exp(-scaled[i, j])
        weights[i] /= weights[i].sum()
    if k2 != 1:
        weights = np.stack([weights[rank[i, :k2]].mean(0) for i in range(len(x))])
    result = np.empty((queries, len(x) - queries))
    for i in range(queries):
        for j in range(queries, len(x)):
            shared = np.minimum(weights[i], weights[j]).sum()
            jaccard = 1 - shared / (2 - shared)
            result[i, j - queries] = (1 - weight) * jaccard + weight * scaled[i, j]
    return torch.from_numpy(result)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 1.0), (1, 1, 0.5)])
def test_reference_is_the_published_algorithm(k1, k2, weight):
    query, gallery = people(9, 60)
    got = ops.k_reciprocal(query, gallery, k1, k2, weight, backend="reference")
    assert got.shape == (9, 60)
    wanted = published(torch.cat([query, gallery]), 9, k1, k2, weight)
    assert_close(got.rows(0, 9), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (50, 15, 0.3), (7, 1, 0.0), (5, 3, 1.0), (1, 1, 0.5), (3, 9, 0.3)]
)
def test_native_equals_the_dense_algorithm(k1, k2, weight, dtype):
    query, gallery = (x.to(dtype) for x in people(11, 170))
    sparse = ops.k_reciprocal(query, gallery, k1, k2, weight, backend="native")
    dense = ops.k_reciprocal(query, gallery, k1, k2, weight, backend="reference")
    assert sparse.shape == dense.shape == (11, 170)
    assert sparse.rows(0, 11).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(sparse.rows(0, 11).double(), dense.rows(0, 11), rtol=0, atol=ATOL[dtype])
    assert torch.equal(sparse.rows(5, 9), sparse.rows(5, 9))
    assert_close(sparse.rows(5, 9), sparse.rows(0, 11)[5:9], rtol=0, atol=ATOL[dtype])


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [
        (1e-30, 0, torch.float32),
        (1e15, 0, torch.float32),
        (1e-140, 0, torch.float64),
        (1e-3, 1000, torch.float64),
        (1, 1000, torch.float32),
    ],
)
def test_units_and_origin_do_not_matter(scale, offset, dtype):
    query, gallery = ((x * scale + offset).to(dtype) for x in people(11, 170))
    sparse = ops.k_reciprocal(query, gallery, backend="native").rows(0, 11)
    dense = ops.k_reciprocal(query, gallery, backend="reference").rows(0, 11)
    assert_close(sparse.double(), dense, rtol=0, atol=ATOL[dtype])


def test_many_copies_of_one_item(backend):
    """More than k1 of them: the last is none of its own nearest."""
    query, gallery = torch.ones(2, 4), torch.ones(9, 4)
    distances = ops.k_reciprocal(query, gallery, k1=3, k2=2, backend=backend).rows(0, 2)
    assert_close(distances[:, :2].double(), torch.zeros(2, 2).double(), rtol=0, atol=1e-6)
    assert distances.isfinite().all()
    apart = torch.cat([gallery, torch.zeros(1, 4)])
    others = ops.k_reciprocal(query, apart, k1=3, k2=2, backend=backend).rows(0, 2)
    assert others.isfinite().all()
    assert (others[:, -1] > others[:, 0] + 0.5).all()


def test_fewer_items_than_neighbours():
    query, gallery = people(2, 5)
    sparse = ops.k_reciprocal(query, gallery, backend="native").rows(0, 2)
    dense = ops.k_reciprocal(query, gallery, backend="reference").rows(0, 2)
    assert_close(sparse.double(), dense, rtol=0, atol=1e-5)


def test_the_same_bits_with_any_number_of_threads():
    query, gallery = people(30, 300)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        results.append(ops.k_reciprocal(query, gallery, backend="native")._sparse)
    torch.set_num_threads(threads)
    for part in ("query", "columns"):
        first, second = (getattr(result, part) for result in results)
        for name in ("start", "index", "value"):
            assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"k1": 0}, ValueError, "k1"),
        ({"k2": 1.5}, TypeError, "k2"),
        ({"k1": 2**63}, ValueError, "k1"),
        ({"lambda_value": "1"}, TypeError, "lambda_value"),
        ({"gallery": torch.full((3, 4), torch.nan)}, ValueError, "gallery"),
        ({"gallery": torch.full((3, 4), 1e19)}, ValueError, "gallery"),
        ({"query": torch.zeros(2, 4, device="meta")}, ValueError, "query"),
        ({"lambda_value": 2}, ValueError, "lambda_value"),
        ({"query": torch.zeros(0, 4)}, ValueError, "query"),
        ({"gallery": torch.zeros(3, 5)}, ValueError, "gallery"),
        ({"gallery": torch.zeros(3, 4, dtype=torch.float64)}, TypeError, "gallery"),
    ],
)
def test_bad_input(change, error, name, backend):
    arguments = {"query": torch.zeros(2, 4), "gallery": torch.zeros(3, 4), "backend": backend, **change}
    with pytest.raises(error, match=rf"^{name}: "):
        ops.k_reciprocal(**arguments)


def as_dense(graph):
    """(N,N) with 1 for the pairs that are left out."""
    n = len(graph.start) - 1
    distances = torch.ones(n, n, dtype=torch.float64)
    distances[torch.repeat_interleave(graph.start.diff()), graph.index] = graph.distance.double()
    return distances


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 1), (5, 3), (1, 1), (3, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_jaccard_graph_is_the_published_dense_distance(k1, k2, dtype, backend):
    x = torch.cat(people(11, 120)).to(dtype)
    # The published code returns the distances of queries to gallery items, here from one half to the other.
    wanted = published(x, len(x) // 2, k1, k2, 0)
    graph = ops.jaccard_graph(x, k1, k2, backend=backend)
    got, half = as_dense(graph), len(x) // 2
    wide = dtype == torch.float64 or backend == "reference"
    assert graph.distance.dtype == (torch.float64 if wide else torch.float32)
    assert_close(got[:half, half:], wanted, rtol=0, atol=ATOL[dtype])
    assert torch.equal(got, got.T)
    assert not got.diagonal().any()
    assert (graph.distance >= 0).all()
    row = torch.repeat_interleave(graph.start.diff())
    assert ((row * len(x) + graph.index).diff() > 0).all()


@pytest.mark.parametrize("limit", [0, 0.3, 0.75, 1])
def test_a_limit_leaves_out_larger_distances(limit, backend):
    x = torch.cat(people(11, 120)).double()
    whole = ops.jaccard_graph(x, 7, 3, backend=backend)
    part = ops.jaccard_graph(x, 7, 3, limit, backend=backend)
    kept = whole.distance <= limit
    assert torch.equal(part.index, whole.index[kept])
    assert torch.equal(part.distance, whole.distance[kept])
    counts = torch.zeros(len(x), dtype=torch.int64)
    counts.index_add_(0, torch.repeat_interleave(whole.start.diff()), kept.long())
    assert torch.equal(part.start.diff(), counts)


def test_the_graph_of_copies_and_of_fewer_items_than_neighbours(backend):
    """More than k1 copies of an item: some have no neighbour, and only the distance to themselves."""
    graph = ops.jaccard_graph(torch.cat([torch.ones(9, 4), torch.zeros(1, 4)]), 3, 2, backend=backend)
    got = as_dense(graph)
    assert not got.diagonal().any()
    assert got.isfinite().all()
    assert as_dense(ops.jaccard_graph(torch.ones(1, 4), backend=backend)).tolist() == [[0.0]]
    few = torch.cat(people(2, 5))
    native, dense = (as_dense(ops.jaccard_graph(few, backend=b)) for b in ("native", "reference"))
    assert_close(native, dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"k1": 0}, ValueError, "k1"),
        ({"k2": 1.5}, TypeError, "k2"),
        ({"limit": 1.5}, ValueError, "limit"),
        ({"limit": torch.nan}, ValueError, "limit"),
        ({"features": torch.full((3, 4), torch.nan)}, ValueError, "features"),
        ({"features": torch.zeros(3, 4, device="meta")}, ValueError, "features"),
        ({"features": torch.zeros(0, 4)}, ValueError, "features"),
        ({"features": torch.zeros(3)}, ValueError, "features"),
    ],
)
def test_bad_input_of_the_graph(change, error, name, backend):
    with pytest.raises(error, match=rf"^{name}: "):
        ops.jaccard_graph(**{"features": torch.zeros(3, 4), "backend": backend, **change})
