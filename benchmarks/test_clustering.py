"""`metrics.cluster` on 5,000 and 50,000 features, against the published formula on dense matrices.

The dense formula needs several N x N matrices, so it is timed for 5,000 features only.
"""

import numpy as np
import torch
from harness import peak
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from vreid_ext import metrics

D, EACH = 512, 10
EPS, SAMPLES, K1, K2 = 0.6, 4, 30, 6


def people(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized features of n / 10 persons, 10 tracklets each, and the persons."""
    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(n // EACH).repeat_interleave(EACH)
    centres = torch.randn(n // EACH, D, generator=generator)
    x = centres[pids] + 1.5 * torch.randn(n, D, generator=generator)
    return torch.nn.functional.normalize(x, dim=1), pids


def ours(n: int):
    x, _ = people(n)
    return lambda: metrics.cluster(x, eps=EPS, min_samples=SAMPLES, k1=K1, k2=K2)


def hdbscan(n: int):
    x, _ = people(n)
    return lambda: metrics.cluster(x, method="hdbscan", min_samples=SAMPLES, k1=K1, k2=K2)


def dense(n: int):
    """The published steps of k-reciprocal encoding (Zhong et al., CVPR 2017), then DBSCAN on the matrix."""
    x = people(n)[0].numpy()

    def run():
        squares = np.maximum(2 - 2 * x @ x.T, 0)
        squares /= squares.max(1, keepdims=True)
        rank = np.argpartition(squares, range(1, K1 + 2), axis=1)[:, : K1 + 1]

        def mutual(i, k):
            near = rank[i, : k + 1]
            return near[(rank[near, : k + 1] == i).any(1)]

        weights = np.zeros_like(squares)
        for i in range(n):
            own = grown = mutual(i, K1)
            for item in own:
                other = mutual(item, round(K1 / 2))
                if len(np.intersect1d(other, own)) > 2 / 3 * len(other):
                    grown = np.append(grown, other)
            grown = np.unique(grown)
            weights[i, grown] = np.exp(-squares[i, grown])
            weights[i] /= weights[i].sum()
        weights = np.stack([weights[rank[i, :K2]].mean(0) for i in range(n)])
        columns = [np.nonzero(weights[:, i])[0] for i in range(n)]
        distance = np.empty_like(squares)
        for i in range(n):
            shared = np.zeros(n, dtype=np.float32)
            for column in np.nonzero(weights[i])[0]:
                rows = columns[column]
                shared[rows] += np.minimum(weights[i, column], weights[rows, column])
            distance[i] = 1 - shared / (2 - shared)
        distance = np.maximum(distance, 0)
        return DBSCAN(eps=EPS, min_samples=SAMPLES, metric="precomputed").fit(distance).labels_

    return run


def products_and_top_k(n: int):
    x, _ = people(n)
    return lambda: [torch.topk(part @ x.T, K1 + 1) for part in x.split(2048)]


def measured(case, side_by_side, providers, n, long):
    memory = {name: peak("test_clustering", function.__name__, n) for name, function in providers.items()}
    calls = {name: function(n) for name, function in providers.items()}
    side_by_side(case, calls, group="cluster", long=long, extra=memory)


def test_dbscan_and_the_dense_formula(side_by_side):
    x, pids = people(5000)
    result = metrics.cluster(x, eps=EPS, min_samples=SAMPLES, k1=K1, k2=K2, pids=pids)
    print(result)
    assert adjusted_rand_score(result.labels, dense(5000)()) > 0.999  # equal except for rounding at eps
    providers = {"ours": ours, "dense": dense, "products and top-k": products_and_top_k}
    measured(f"DBSCAN, 5000 features, D = {D}", side_by_side, providers, 5000, 2)


def test_dbscan_of_many(side_by_side):
    providers = {"ours": ours, "products and top-k": products_and_top_k}
    measured(f"DBSCAN, 50000 features, D = {D}", side_by_side, providers, 50_000, 2)


def test_hdbscan_of_many(side_by_side):
    providers = {"ours": hdbscan, "products and top-k": products_and_top_k}
    measured(f"HDBSCAN, 50000 features, D = {D}", side_by_side, providers, 50_000, 2)
