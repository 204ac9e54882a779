from pathlib import Path

import pytest
import torch

from vreid_ext import ops
from vreid_ext.engine.search import Split, faiss_top_k, search

METRICS = ["cosine", "euclidean"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 10, 200])
def test_faiss_gives_the_answers_of_top_k(metric, k):
    pytest.importorskip("faiss", reason="needs the extra [search]")
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(20, 24, generator=generator), torch.randn(150, 24, generator=generator)
    gallery[100:140] = gallery[3]  # more equal items than are proposed
    query[0] = gallery[3]
    for got, wanted in zip(
        faiss_top_k(query, gallery, k, metric), ops.top_k(query, gallery, k, metric), strict=True
    ):
        assert torch.equal(got, wanted)


def rows(n):
    return [{"name": f"t{i}", "pid": i, "camid": 0, "frames": 1} for i in range(n)]


def test_lists_name_the_nearest():
    query = Split(torch.tensor([[1.0, 0.0]]), rows(1), "euclidean", Path("queries"))
    gallery = Split(torch.tensor([[3.0, 0.0], [1.0, 0.5], [1.0, 0.0]]), rows(3), "euclidean", Path("gallery"))
    (entry,) = search(query, gallery, top=2)
    assert entry["query"] == "t0"
    assert [(item["name"], item["distance"]) for item in entry["nearest"]] == [("t2", 0.0), ("t1", 0.5)]
    assert len(search(query, gallery, top=9)[0]["nearest"]) == 3
    with pytest.raises(ValueError, match=r"^top: expected .*, got 0"):
        search(query, gallery, top=0)


def test_a_tracklet_is_not_its_own_neighbour():
    whole = Split(torch.tensor([[1.0], [1.0], [3.0]]), rows(3), "euclidean", Path("features"))
    found = {entry["query"]: [item["name"] for item in entry["nearest"]] for entry in search(whole, whole, 2)}
    assert found == {"t0": ["t1", "t2"], "t1": ["t0", "t2"], "t2": ["t0", "t1"]}


def test_two_tracklets_of_one_name_are_neighbours():
    named = [{"name": "anna/0001", "pid": 1, "camid": camid, "frames": 1} for camid in (1, 2)]
    query = Split(torch.tensor([[1.0]]), named[:1], "euclidean", Path("features"), [0])
    gallery = Split(torch.tensor([[1.5], [1.0]]), named[::-1], "euclidean", Path("features"), [1, 0])
    (entry,) = search(query, gallery, top=5)
    assert entry["nearest"] == [{"name": "anna/0001", "pid": 1, "camid": 2, "distance": 0.5}]
    assert repr(gallery) == "Split(2 rows of 'features', euclidean metric)"


def test_features_of_two_metrics_do_not_mix():
    split = Split(torch.ones(1, 2), rows(1), "cosine", Path("a"))
    with pytest.raises(ValueError, match=r"^gallery: expected .*, got features for euclidean"):
        search(split, split._replace(metric="euclidean"))
