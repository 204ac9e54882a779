"""Clusters on the sparse Jaccard graph against scikit-learn on the dense matrix, scores, and bad input."""

import sys

import numpy as np
import pytest
import torch

from vreid_ext import metrics, ops

sklearn_cluster = pytest.importorskip("sklearn.cluster")
sklearn_metrics = pytest.importorskip("sklearn.metrics")


def people(ids=12, each=8, noise=0.35, seed=0, dimensions=16):
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(ids).repeat_interleave(each)
    pids = pids[torch.randperm(len(pids), generator=generator)]
    centres = torch.randn(ids, dimensions, generator=generator)
    return centres[pids] + noise * torch.randn(len(pids), dimensions, generator=generator), pids


def dense(features, k1, k2):
    """All Jaccard distances by the published formula, as a dense matrix."""
    x = torch.nn.functional.normalize(features.double(), dim=1)
    # One query at a time against all items: `k_reciprocal` of the reference is the published algorithm.
    graph = ops.jaccard_graph(x, k1, k2, backend="reference")
    distances = np.ones((len(x), len(x)))
    distances[np.repeat(np.arange(len(x)), graph.start.diff()), graph.index] = graph.distance
    return distances


def same_partition(a, b):
    return sklearn_metrics.adjusted_rand_score(a, b) == 1.0 and np.array_equal(a < 0, b < 0)


@pytest.mark.parametrize("noise", [0.35, 0.7, 1.1])
@pytest.mark.parametrize(("k1", "k2", "eps", "samples"), [(10, 3, 0.6, 4), (6, 1, 0.4, 2), (20, 6, 0.7, 1)])
def test_dbscan_equals_that_of_the_dense_matrix(noise, k1, k2, eps, samples):
    features, _ = people(noise=noise)
    dbscan = sklearn_cluster.DBSCAN(eps=eps, min_samples=samples, metric="precomputed")
    wanted = dbscan.fit(dense(features, k1, k2)).labels_
    if (wanted < 0).all():
        with pytest.raises(ValueError, match=r"^eps: "):
            metrics.cluster(features, eps=eps, min_samples=samples, k1=k1, k2=k2)
        return
    got = metrics.cluster(features, eps=eps, min_samples=samples, k1=k1, k2=k2)
    assert same_partition(got.labels.numpy(), wanted)
    assert got.clusters == wanted.max() + 1
    assert got.noise == (wanted < 0).sum()
    firsts = [got.labels.tolist().index(label) for label in range(got.clusters)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("noise", [0.35, 0.7])
@pytest.mark.parametrize(("k1", "k2", "samples"), [(10, 3, 4), (6, 1, 2), (4, 2, 6), (1, 1, 5)])
def test_the_hierarchy_of_hdbscan_equals_that_of_the_dense_matrix(noise, k1, k2, samples):
    """Also where the graph is disconnected, or has items with fewer than min_samples neighbours. Which
    clusters HDBSCAN chooses depends on the order of equal distances, the hierarchy does not."""
    features, _ = people(noise=noise)
    options = {"min_samples": samples, "metric": "precomputed", "copy": True}
    wanted = sklearn_cluster.HDBSCAN(**options).fit(dense(features, k1, k2))
    x = torch.nn.functional.normalize(features.double(), dim=1)
    matrix = metrics.clustering._connected(ops.jaccard_graph(x, k1, k2), samples)
    assert matrix.nnz < matrix.shape[0] ** 2
    got = sklearn_cluster.HDBSCAN(**options).fit(matrix)
    for cut in (0.1, 0.3, 0.45, 0.6, 0.75, 0.9, 0.99, 1.0):
        labels = (each.dbscan_clustering(cut, min_cluster_size=2) for each in (got, wanted))
        assert same_partition(*labels), cut


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_persons_that_are_apart_are_found(method):
    features, pids = people(noise=0.1)
    result = metrics.cluster(features, method=method, k1=7, k2=2, pids=pids)
    assert result.clusters == 12
    assert result.noise == 0
    assert result.scores == (1.0, 1.0, 1.0, 1.0, 96, 12)
    assert "12 clusters of 96 items, 0 noise; 12 persons, ARI 1.000, pairwise F 1.000" in str(result)


def test_hdbscan_with_copies_of_items():
    """Distances of zero, more of them than min_samples."""
    features, pids = people(noise=0.1, each=3)
    copies, twice = features.repeat(6, 1), pids.repeat(6)
    result = metrics.cluster(copies, method="hdbscan", min_samples=2, k1=20, k2=1, pids=twice)
    assert result.scores.precision == 1.0


def test_scores_count_pairs():
    found = torch.tensor([0, 0, 0, 1, 1, -1, -1, 2])
    pids = torch.tensor([5, 5, 7, 7, 7, 7, 7, -1])
    scores = metrics.clustering.cluster_scores(found, pids)
    same = [(i, j) for i in range(7) for j in range(i)]
    both = sum(bool(found[i] == found[j] >= 0 and pids[i] == pids[j]) for i, j in same)
    true = sum(bool(pids[i] == pids[j]) for i, j in same)
    grouped = sum(bool(found[i] == found[j] >= 0) for i, j in same)
    assert (scores.precision, scores.recall) == (both / grouped, both / true)
    assert scores.f == 2 * both / (grouped + true)
    assert (scores.items, scores.persons) == (7, 2)
    alone = np.array([0, 0, 0, 1, 1, 2, 3])
    assert scores.ari == sklearn_metrics.adjusted_rand_score(pids[:7].numpy(), alone)


def test_pids_do_not_change_the_clusters():
    features, pids = people(noise=0.7)
    with_pids, without = (metrics.cluster(features, k1=10, k2=3, pids=each) for each in (pids, None))
    assert torch.equal(with_pids.labels, without.labels)
    assert without.scores is None


def test_files_and_arrays(tmp_path):
    features, _ = people()
    np.save(tmp_path / "features.npy", features.numpy())
    wanted = metrics.cluster(features, k1=10, k2=3).labels
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for given in (features.numpy(), tmp_path / "features.npy", mapped):
        assert torch.equal(metrics.cluster(given, k1=10, k2=3).labels, wanted)


def test_features_of_one_person_are_one_cluster():
    features, pids = people(ids=1, each=40)
    result = metrics.cluster(features, k1=10, k2=3, eps=0.9, pids=pids)
    assert result.clusters == 1
    assert result.scores.precision == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 0}, ValueError, r"^eps: expected a distance between 0 and 1, exclusive, got 0"),
        ({"eps": 1}, ValueError, r"^eps: expected a distance between 0 and 1"),
        ({"eps": -0.1}, ValueError, r"^eps: "),
        ({"eps": "0.6"}, TypeError, r"^eps: "),
        ({"min_samples": 0}, ValueError, r"^min_samples: "),
        ({"min_cluster_size": 1}, ValueError, r"^min_cluster_size: "),
        ({"method": "kmeans"}, ValueError, r"^method: .*dbscan"),
        ({"metric": "manhattan"}, ValueError, r"^metric: "),
        ({"k1": 96}, ValueError, r"^features: expected more than k1 = 96 rows, got 96; lower k1"),
        ({"k2": 0}, ValueError, r"^k2: "),
        ({"pids": torch.zeros(3).long()}, ValueError, r"^pids: "),
        ({"pids": torch.full((96,), -1)}, ValueError, r"^pids: expected at least one known person"),
        ({"features": torch.full((96, 4), torch.nan)}, ValueError, r"^features: "),
        ({"features": torch.zeros(96).long()}, TypeError, r"^features: "),
        (
            {"method": "hdbscan", "min_samples": 96},
            ValueError,
            r"^min_samples: .* below the 96 items",
        ),
    ],
)
def test_bad_input(change, error, message):
    features, _ = people()
    with pytest.raises(error, match=message):
        metrics.cluster(**{"features": features, "k1": 10, "k2": 3, **change})


@pytest.mark.parametrize(
    ("options", "name"),
    [({"eps": 0.01}, "eps"), ({"method": "hdbscan", "min_cluster_size": 90}, "min_cluster_size")],
)
def test_only_noise_is_an_error_with_the_distances(options, name):
    features, _ = people()
    with pytest.raises(ValueError, match=rf"^{name}: expected .* all 96 items are noise; quantiles") as error:
        metrics.cluster(features, k1=10, k2=3, **options)
    matrix = np.sort(dense(features, 10, 3), axis=1)[:, 3]
    assert f"50 %: {np.quantile(matrix, 0.5):.3f}" in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'vreid-ext\[cluster\]'"):
        metrics.cluster(people()[0])
