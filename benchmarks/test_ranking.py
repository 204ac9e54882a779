"""Evaluation and re-ranking at the size of MARS, beside torchreid and beside the matrix product in them."""

import numpy as np
import pytest
import torch
from rivals_ranking import by_sorting, products_and_top_k, torchreid

from vreid_ext import metrics, ops
from vreid_ext.compat.torchreid import evaluate_rank, re_ranking

QUERIES, GALLERY, D, IDS, CAMERAS = 1980, 9330, 2048, 625, 6


def tracklets(n, seed, dimensions=D):
    """Features around a centre for each identity, such that mAP is about what trained models reach."""
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
    """From a distance matrix that is there."""
    query, gallery, labels = mars
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (query, gallery)]
    distances = 1 - unit[0] @ unit[1].T
    protocol = metrics.protocol.Protocol(
        *labels, sizes=(QUERIES, GALLERY), junk=True, exclude=None, device=distances.device
    )
    known = distances[protocol.row, protocol.index].double()
    arrays = [distances.numpy(), *(label.numpy() for label in labels)]
    providers = {
        "ours": lambda: ops.rank_counts(distances, protocol.start, protocol.index, known, protocol.left_out),
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
    side_by_side(f"count {QUERIES} x {GALLERY}", providers, group="count")


@pytest.mark.parametrize("n", [4800, QUERIES + 11310])
def test_rerank(side_by_side, n):
    items, _, _ = tracklets(n, 3)
    queries = 1980 if n > 10_000 else 800
    query, gallery = items[:queries], items[queries:]
    providers = {
        "ours": lambda: ops.k_reciprocal(query, gallery).rows(0, queries),
        "products and top-k": lambda: products_and_top_k(items, queries, 21),
    }
    peer = torchreid("utils.rerank")
    if peer is not None and n < 10_000:  # beyond, its matrices take gigabytes

        def numpy():
            matrices = [
                torch.cdist(a, b).numpy() for a, b in ((query, gallery), (query, query), (gallery, gallery))
            ]
            return peer.re_ranking(*matrices)

        matrices = [
            torch.cdist(a.double(), b.double()).float().numpy()
            for a, b in ((query, gallery), (query, query), (gallery, gallery))
        ]
        np.testing.assert_allclose(re_ranking(*matrices), peer.re_ranking(*matrices), atol=1e-4)
        providers["torchreid, NumPy"] = numpy
    side_by_side(f"re-rank {queries} + {n - queries}, D = {D}", providers, group="re-rank")
