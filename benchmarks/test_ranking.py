"""Evaluation and re-ranking at the size of MARS, compared with torchreid and with the matrix products."""

import numpy as np
import pytest
import torch
from baselines_ranking import by_sorting, numpy_re_ranking, products, torchreid
from harness import peak

from vreid_ext import metrics, ops
from vreid_ext.compat.torchreid import evaluate_rank, re_ranking

QUERIES, GALLERY, D, SMALL_D, IDS, CAMERAS = 1980, 9330, 2048, 512, 625, 6


def tracklets(n, seed, dimensions=D):
    """Features around one centre per identity. The spread is chosen for an mAP close to trained models."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(IDS, dimensions, generator=torch.Generator().manual_seed(0))
    pids = torch.randint(IDS, (n,), generator=generator)
    features = torch.randn(n, dimensions, generator=generator).mul_(2.8).add_(centres[pids]).relu_()
    return features, pids, torch.randint(CAMERAS, (n,), generator=generator)


@pytest.fixture(scope="module")
def mars():
    query, q_pids, q_camids = tracklets(QUERIES, 1)
    gallery, g_pids, g_camids = tracklets(GALLERY, 2)
    return query, gallery, (q_pids, g_pids, q_camids, g_camids)


def test_evaluate(side_by_side, mars):
    query, gallery, labels = mars
    result = metrics.evaluate(query, gallery, *labels)
    assert 0.3 < result.mAP < 0.95

    def sort():
        unit = [torch.nn.functional.normalize(x, dim=1) for x in (query, gallery)]
        return by_sorting(1 - unit[0] @ unit[1].T, *labels)

    assert sort() == pytest.approx(result.mAP, abs=1e-5)
    side_by_side(
        f"evaluate {QUERIES} x {GALLERY}, D = {D}",
        {
            "ours": lambda: metrics.evaluate(query, gallery, *labels),
            "eager, sort": sort,
            "the matrix product": lambda: query @ gallery.T,
        },
        group="evaluate",
    )


def test_count(side_by_side, mars):
    """Counting from an existing distance matrix."""
    query, gallery, labels = mars
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (query, gallery)]
    distances = 1 - unit[0] @ unit[1].T
    protocol = metrics.protocol.Protocol(
        *labels, sizes=(QUERIES, GALLERY), junk=True, exclude=None, device=distances.device
    )
    arrays = [distances.numpy(), *(label.numpy() for label in labels)]
    providers = {
        "ours": lambda: ops.rank_counts(
            distances, protocol.start, protocol.index, left_out=protocol.left_out, check=True
        ),
        "ours, evaluate_rank": lambda: evaluate_rank(*arrays),
        "eager, sort": lambda: by_sorting(distances, *labels),
    }
    rank = torchreid("metrics.rank")
    if rank is not None:
        assert rank.IS_CYTHON_AVAI
        cmc, mean_ap = rank.evaluate_rank(*arrays)
        ours = evaluate_rank(*arrays)
        np.testing.assert_allclose(ours[0], cmc, atol=1e-6)
        assert ours[1] == pytest.approx(mean_ap, abs=1e-5)
        providers["torchreid, compiled"] = lambda: rank.evaluate_rank(*arrays)
        providers["torchreid, python"] = lambda: rank.evaluate_rank(*arrays, use_cython=False)
    side_by_side(f"count {QUERIES} x {GALLERY}", providers, group="count", once=("torchreid, python",))


def reranking(n, queries, dimensions):
    """A function that re-ranks all queries, for `peak`."""
    items, _, _ = tracklets(n, 3, dimensions)
    return lambda: ops.k_reciprocal(items[:queries], items[queries:]).rows(0, queries)


def torchreid_reranking(n, queries, dimensions):
    items, _, _ = tracklets(n, 3, dimensions)
    rerank = torchreid("utils.rerank")  # here, so that the import does not count as memory of the call
    return lambda: numpy_re_ranking(rerank, items, queries)


@pytest.mark.parametrize(("n", "queries"), [(4800, 800), (QUERIES + 11310, QUERIES)])
def test_rerank(side_by_side, n, queries):
    items, _, _ = tracklets(n, 3)
    query, gallery = items[:queries], items[queries:]
    providers = {
        "ours": lambda: ops.k_reciprocal(query, gallery).rows(0, queries),
        "products and top-k": lambda: products(items, queries, 21),
    }
    memory = {"ours": peak("test_ranking", "reranking", n, queries, D)}
    once = ()
    rerank = torchreid("utils.rerank")
    if rerank is not None:
        providers["torchreid, NumPy"] = lambda: numpy_re_ranking(rerank, items, queries)
        memory["torchreid, NumPy"] = peak("test_ranking", "torchreid_reranking", n, queries, D)
        if n < 10_000:
            pairs = ((query, gallery), (query, query), (gallery, gallery))
            exact = [torch.cdist(a.double(), b.double()).float().numpy() for a, b in pairs]
            np.testing.assert_allclose(re_ranking(*exact), rerank.re_ranking(*exact), atol=1e-4)
        else:
            once = ("torchreid, NumPy",)
    side_by_side(
        f"re-rank {queries} + {n - queries}, D = {D}", providers, group="re-rank",
        long=3, once=once, extra=memory,
    )  # fmt: skip


@pytest.mark.parametrize(("n", "rounds"), [(5000, 3), (QUERIES + 11310, 3), (50_000, 1)])
def test_rerank_of_growing_sets(side_by_side, n, rounds):
    items, _, _ = tracklets(n, 3, SMALL_D)
    side_by_side(
        f"re-rank {QUERIES} + {n - QUERIES}, D = {SMALL_D}",
        {
            "ours": reranking(n, QUERIES, SMALL_D),
            "products": lambda: products(items, QUERIES),
            "products and top-k": lambda: products(items, QUERIES, 21),
        },
        group="re-rank",
        long=rounds,
        extra={"ours": peak("test_ranking", "reranking", n, QUERIES, SMALL_D)},
    )


MILLION, MANY_IDS = 1_000_000, 20_000


def many(n, seed):
    """(features, pids, camids) of n tracklets of `MANY_IDS` persons."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(MANY_IDS, SMALL_D, generator=torch.Generator().manual_seed(0))
    pids = torch.randint(MANY_IDS, (n,), generator=generator)
    features = torch.randn(n, SMALL_D, generator=generator).mul_(1.8).add_(centres[pids])
    return features, pids, torch.randint(CAMERAS, (n,), generator=generator)


def write_gallery(path, rows=MILLION):
    """Write features to a .npy file in chunks; returns pids and camids."""
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, SMALL_D))
    labels = []
    for first in range(0, rows, 50_000):
        features, *label = many(50_000, 1000 + first)
        file[first : first + 50_000] = features.numpy()
        labels.append(label)
    return [torch.cat(part) for part in zip(*labels, strict=True)]


def evaluation_of_a_file(folder):
    """A function that evaluates the gallery file in `folder`, for `peak`."""
    query, labels = torch.load(f"{folder}/labels.pt")
    return lambda: metrics.evaluate(query, f"{folder}/gallery.npy", *labels)


def test_million(side_by_side, tmp_path):
    """2,000 queries against a memory-mapped gallery of 10^6 rows (2 GB) in the page cache."""
    g_pids, g_camids = write_gallery(tmp_path / "gallery.npy")
    query, q_pids, q_camids = many(2000, 1)
    labels = (q_pids, g_pids, q_camids, g_camids)
    torch.save((query, labels), tmp_path / "labels.pt")
    result = metrics.evaluate(query, tmp_path / "gallery.npy", *labels)
    print(result)
    assert 0.2 < result.mAP < 0.95
    chunk = torch.from_numpy(np.load(tmp_path / "gallery.npy", "r")[:32768].copy())
    buffer = torch.empty(2000, len(chunk))

    def product():
        for first in range(0, MILLION, len(chunk)):
            rows = min(len(chunk), MILLION - first)
            torch.mm(query, chunk[:rows].T, out=buffer[:, :rows])

    def product_from_file():
        file = np.load(tmp_path / "gallery.npy", "r")
        for first in range(0, MILLION, len(chunk)):
            query @ torch.from_numpy(file[first : first + len(chunk)].copy()).T

    memory = {"ours": peak("test_ranking", "evaluation_of_a_file", str(tmp_path))}
    assert memory["ours"]["resident_mb"] < 1000
    side_by_side(
        f"evaluate 2000 x {MILLION} from a file, D = {SMALL_D}",
        {
            "ours": lambda: metrics.evaluate(query, tmp_path / "gallery.npy", *labels),
            "the matrix product": product,
            "the matrix product, from the file": product_from_file,
        },
        group="evaluate", long=3, extra=memory,
    )  # fmt: skip
