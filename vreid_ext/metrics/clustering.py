"""Groups of tracklets of the same person, without labels: clusters of the k-reciprocal Jaccard graph."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import _checks, ops
from vreid_ext.features.rows import Features, Rows
from vreid_ext.metrics.protocol import Labels, labels
from vreid_ext.ops import JaccardGraph

# HDBSCAN divides by distances, and SciPy's spanning tree drops edges of length zero.
_LEAST = 1e-6
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ClusterScores(NamedTuple):
    """How well clusters agree with the true persons; a noise item counts as a cluster of its own.

    A pair of items is true if both are of one person, and found if both are in one cluster.

    Attributes:
        ari: adjusted Rand index, 1 if clusters and persons agree, about 0 for random clusters.
        precision: fraction of the found pairs that are true; NaN if no pair is found.
        recall: fraction of the true pairs that are found; NaN if no pair is true.
        f: harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); NaN if there is no pair at all.
        items: number of items with a known person.
        persons: number of persons.
    """

    ari: float
    precision: float
    recall: float
    f: float
    items: int
    persons: int


class Clusters(NamedTuple):
    """Result of `cluster`.

    Attributes:
        labels: (N,) int64 on the CPU, 0 to `clusters` - 1 in the order of first occurrence, -1 for noise.
        clusters: number of clusters.
        noise: number of noise items.
        scores: agreement with the true persons, or None if they were not given.
    """

    labels: Tensor
    clusters: int
    noise: int
    scores: ClusterScores | None

    def __str__(self) -> str:
        text = f"{self.clusters} clusters of {len(self.labels) - self.noise} items, {self.noise} noise"
        if self.scores is None:
            return text
        scores = self.scores
        return f"{text}; {scores.persons} persons, ARI {scores.ari:.3f}, pairwise F {scores.f:.3f}"


def cluster(
    features: Rows,
    *,
    method: Literal["dbscan", "hdbscan"] = "dbscan",
    metric: str = "cosine",
    eps: float = 0.6,
    min_samples: int = 4,
    min_cluster_size: int = 2,
    k1: int = 30,
    k2: int = 6,
    pids: Labels | None = None,
) -> Clusters:
    """Cluster features by the Jaccard distances of their k-reciprocal neighbors, without an N x N matrix.

    The distance of items i and j is J(i,j) of `ops.k_reciprocal`, computed by `ops.jaccard_graph`. It is 1
    for all pairs without a common neighbor, which are not stored. DBSCAN stores only distances up to `eps`,
    HDBSCAN all below 1, which takes much more memory. With "dbscan", an item is a core item if at
    least `min_samples` items, itself included, are within `eps`. A cluster consists of core items that are
    connected by distances up to `eps`, and of the items within `eps` of them. With "hdbscan", the clusters
    are those that persist longest when eps decreases from 1 to 0, so no `eps` is needed. Both are computed by
    scikit-learn. DBSCAN gives the clusters of the dense matrix J, and HDBSCAN its hierarchy. Where distances
    are equal, HDBSCAN may choose other clusters of this hierarchy, because they depend on the order of pairs.

    Args:
        features: floating-point features (N,D): a torch tensor, a NumPy or memory-mapped array, or the path
            of a `.npy` file. They are read into memory.
        method: "dbscan" or "hdbscan".
        metric: "cosine" or "euclidean"; defines the neighbors.
        eps: for "dbscan", a distance between 0 and 1, exclusive.
        min_samples: number of items, at least 1. With "hdbscan", as in DBSCAN at each eps.
        min_cluster_size: for "hdbscan", the least number of items in a cluster, at least 2.
        k1: number of neighbors in a set, at least 1 and below N.
        k2: number of neighbors that are averaged, at least 1.
        pids: (N,) integer identities, for `scores` only; -1 for unknown.

    Raises:
        ImportError: scikit-learn is not installed (pip install 'vreid-ext[cluster]').
        TypeError, ValueError: an argument has the wrong type or value, e.g. a row that is not finite; or all
            items are noise. The message then contains the quantiles of the distances.

    Sources: Zhong et al., CVPR 2017 (distance); Ester et al., KDD 1996 (DBSCAN); Campello et al., PAKDD 2013
    (HDBSCAN). The defaults are those of SpCL (Ge et al., NeurIPS 2020), with which DBSCAN on this distance
    has become usual in unsupervised re-identification.
    """
    check_installed()
    given = Features("features", features)
    _checks.choice("method", method, ("dbscan", "hdbscan"))
    _checks.choice("metric", metric, ("cosine", "euclidean"))
    dbscan = method == "dbscan"
    if not 0 < _checks.real("eps", eps) < 1:
        raise ValueError(f"eps: expected a distance between 0 and 1, exclusive, got {eps}")
    _checks.integer("min_samples", min_samples, 1)
    _checks.integer("min_cluster_size", min_cluster_size, 2)
    if _checks.integer("k1", k1, 1) >= len(given):
        raise ValueError(
            f"features: expected more than k1 = {k1} rows, got {len(given)}; lower k1, or add items"
        )
    if min_samples >= len(given):
        raise ValueError(f"min_samples: expected a number below the {len(given)} items, got {min_samples}")
    _checks.integer("k2", k2, 1)
    known = None if pids is None else _known("pids", pids, len(given))
    rows = given[:].cpu()
    if metric == "cosine":
        rows = F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)
    graph = ops.jaccard_graph(rows, k1, k2, eps if dbscan else 1.0)
    found = _dbscan(graph, eps, min_samples) if dbscan else _hdbscan(graph, min_samples, min_cluster_size)
    if not (found >= 0).any():
        graph = ops.jaccard_graph(rows, k1, k2)
        name, value = ("eps", eps) if dbscan else ("min_cluster_size", min_cluster_size)
        raise ValueError(
            f"{name}: expected a value with at least one cluster, got {value}, with which all "
            f"{len(rows)} items are noise; {_distances(graph, min_samples)}; "
            f"{'raise eps' if dbscan else 'lower min_cluster_size'} or lower min_samples"
        )
    found = _numbered(found)
    scores = None if known is None else cluster_scores(found, known)
    return Clusters(found, int(found.max()) + 1, int((found < 0).sum()), scores)


def cluster_scores(found: Tensor, pids: Tensor) -> ClusterScores:
    """Compare cluster labels (N,), -1 for noise, with identities (N,), -1 for unknown."""
    from sklearn.metrics import adjusted_rand_score, pair_confusion_matrix

    known = pids >= 0
    found, pids = found[known].clone(), pids[known]
    alone = found < 0
    found[alone] = found.max() + 1 + torch.arange(int(alone.sum()), device="cpu")
    (_, only_found), (only_true, both) = pair_confusion_matrix(pids.numpy(), found.numpy()).tolist()

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return ClusterScores(
        float(adjusted_rand_score(pids.numpy(), found.numpy())),
        ratio(both, both + only_found),
        ratio(both, both + only_true),
        ratio(2 * both, 2 * both + only_found + only_true),
        len(pids),
        len(pids.unique()),
    )


def _known(name: str, value: Labels, length: int) -> Tensor:
    pids = labels(name, value, length, torch.device("cpu"))
    if not (pids >= 0).any():
        raise ValueError(f"{name}: expected at least one known person (not -1), got none")
    return pids


def _dbscan(graph: JaccardGraph, eps: float, min_samples: int) -> Tensor:
    from sklearn.cluster import DBSCAN

    clusterer = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    return torch.from_numpy(clusterer.fit(_matrix(graph)).labels_)


def _hdbscan(graph: JaccardGraph, min_samples: int, min_cluster_size: int) -> Tensor:
    from sklearn.cluster import HDBSCAN

    clusterer = HDBSCAN(
        min_cluster_size=min_cluster_size, min_samples=min_samples, metric="precomputed", copy=False
    )
    return torch.from_numpy(clusterer.fit(_connected(graph, min_samples)).labels_)


def _connected(graph: JaccardGraph, min_samples: int) -> Any:
    """A connected matrix with `min_samples` distances in each row, by pairs at distance 1 that are added.

    Between components all distances are 1, the largest value that a mutual reachability distance can have. A
    spanning tree therefore has the same lengths whichever of these pairs it uses.
    """
    from scipy.sparse.csgraph import connected_components

    n = len(graph.start) - 1
    few = (graph.start.diff() < min_samples).nonzero()[:, 0]
    beside = (few[:, None] + torch.arange(1, min_samples + 1, device="cpu")) % n
    pairs = [torch.stack([few.repeat_interleave(min_samples), beside.flatten()])]
    _, component = connected_components(_matrix(graph), directed=False)
    _, first = np.unique(component, return_index=True)
    members = torch.from_numpy(first)
    pairs.append(torch.stack([members[:1].expand(len(members) - 1), members[1:]]))
    whole = _with_pairs(graph, torch.cat(pairs, 1))
    return _matrix(whole._replace(distance=whole.distance.double().clamp(min=_LEAST)))


def _with_pairs(graph: JaccardGraph, pairs: Tensor) -> JaccardGraph:
    """The graph with the pairs (2,P) at distance 1, unless it contains them."""
    n = len(graph.start) - 1
    row = torch.repeat_interleave(graph.start.diff(), output_size=len(graph.index))
    place = row * n + graph.index  # ascending
    first, second = torch.cat([pairs, pairs.flip(0)], 1)
    added = (first * n + second).unique()
    added = added[~torch.isin(added, place)]
    place, order = torch.cat([place, added]).sort()
    distance = torch.cat([graph.distance, graph.distance.new_ones(len(added))])[order]
    start = torch.searchsorted(place, torch.arange(n + 1, device="cpu") * n)
    return JaccardGraph(start, place % n, distance)


def _matrix(graph: JaccardGraph) -> Any:
    from scipy.sparse import csr_matrix

    n = len(graph.start) - 1
    arrays = (graph.distance.numpy(), graph.index.int().numpy(), graph.start.int().numpy())
    return csr_matrix(arrays, shape=(n, n))


def _numbered(found: Tensor) -> Tensor:
    """Renumber clusters in the order of their first items; noise stays -1."""
    values, inverse = found.unique(return_inverse=True)
    first = torch.full((len(values),), len(found), dtype=torch.int64, device="cpu")
    first.scatter_reduce_(0, inverse, torch.arange(len(found), device="cpu"), "amin")
    first[values < 0] = -1
    number = first.argsort().argsort() - int((values < 0).any())
    number[values < 0] = -1
    return number[inverse]


def _distances(graph: JaccardGraph, min_samples: int) -> str:
    """Quantiles of the distance within which an item is a core item, as text."""
    row = torch.repeat_interleave(graph.start.diff(), output_size=len(graph.index))
    ordered = graph.distance[torch.from_numpy(np.lexsort((graph.distance.numpy(), row.numpy())))]
    place = graph.start[:-1] + min_samples - 1
    inside = place < graph.start[1:]
    core = torch.ones(len(place), dtype=torch.float64, device="cpu")
    core[inside] = ordered[place[inside]].double()
    levels = torch.tensor(_QUANTILES, dtype=torch.float64, device="cpu")
    quantiles = ", ".join(
        f"{100 * level:.0f} %: {value:.3f}"
        for level, value in zip(_QUANTILES, core.quantile(levels).tolist(), strict=True)
    )
    return (
        f"quantiles of the distance within which an item has min_samples = {min_samples} items: {quantiles}"
    )


def check_installed() -> None:
    """Raise ImportError, with the extra to install, if scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("clusters need scikit-learn: pip install 'vreid-ext[cluster]'") from error
