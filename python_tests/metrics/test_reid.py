import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import ops
from vreid_ext.metrics import ReIDResult, evaluate, evaluate_distances, rank


def by_the_book(query, gallery, q_pids, g_pids, q_cams, g_cams, ap, max_rank, junk, exclude):
    """The definition, item by item; Euclidean distances between small integers, so exact.

    Returns mAP, mINP, cmc, and the kept gallery indices of each query in ranked order.
    """
    aps, inps, curves, lists = [], [], [], []
    for i, pid in enumerate(q_pids):
        kept = [
            j
            for j in range(len(gallery))
            if g_pids[j] != -1
            and not (junk and g_pids[j] == pid and g_cams[j] == q_cams[i])
            and not (exclude is not None and exclude[i] == j)
        ]
        kept.sort(key=lambda j, i=i: (math.dist(query[i], gallery[j]), j))
        lists.append(kept)
        total = sum(g_pids[j] == pid for j in kept)
        if total == 0:
            continue
        area, hits, before, last = 0.0, 0, 1.0, 0
        curve = [0.0] * max_rank
        for n, j in enumerate(kept, start=1):
            if g_pids[j] == pid:
                hits, last = hits + 1, n
                area += hits / n if ap == "precision" else (before + hits / n) / 2
                curve[n - 1 :] = [1.0] * len(curve[n - 1 :])
            before = hits / n
        aps.append(area / total)
        inps.append(total / last)
        curves.append(curve)
    if not aps:
        return None
    cmc = [sum(curve[k] for curve in curves) / len(curves) for k in range(max_rank)]
    return sum(aps) / len(aps), sum(inps) / len(inps), cmc, lists


@st.composite
def retrievals(draw):
    q, g = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    ints = lambda n, low, high: draw(st.lists(st.integers(low, high), min_size=n, max_size=n))  # noqa: E731
    points = lambda n: [[float(v) for v in ints(2, 0, 2)] for _ in range(n)]  # a 3 x 3 grid: many ties  # noqa: E731
    data = (points(q), points(g), ints(q, -1, 2), ints(g, -1, 3), ints(q, 0, 1), ints(g, 0, 1))
    return data, draw(st.none() | st.just(ints(q, -1, g - 1)))


@settings(max_examples=200)
@given(
    data=retrievals(),
    ap=st.sampled_from(["precision", "trapezoid"]),
    max_rank=st.integers(1, 12),
    junk=st.booleans(),
    metric=st.sampled_from([("euclidean", None), (torch.cdist, None), (torch.cdist, 2)]),
)
def test_agrees_with_the_definition(data, ap, max_rank, junk, metric):
    (query, gallery, *labels), exclude = data
    wanted = by_the_book(query, gallery, *labels, ap, max_rank, junk, exclude)
    options = {"junk": junk, "exclude": exclude}
    call = (torch.tensor(query), torch.tensor(gallery), *labels)
    if wanted is None:
        with pytest.raises(ValueError, match="expected a query with a positive in the gallery"):
            evaluate(*call, ap=ap, max_rank=max_rank, metric=metric[0], block_size=metric[1], **options)
        return
    got = evaluate(*call, ap=ap, max_rank=max_rank, metric=metric[0], block_size=metric[1], **options)
    mean_ap, mean_inp, curve, lists = wanted
    assert got.mAP == pytest.approx(mean_ap, abs=1e-14)
    assert got.mINP == pytest.approx(mean_inp, abs=1e-14)
    assert got.cmc.tolist() == pytest.approx(curve, abs=1e-14)
    indices, distances = rank(*call, top=4, metric="euclidean", **options)
    for row, kept in enumerate(lists):
        assert indices[row].tolist() == (kept[:4] + [-1] * 4)[:4]
        exact = [math.dist(query[row], gallery[j]) for j in kept[:4]]
        assert distances[row, : len(exact)].tolist() == pytest.approx(exact)
        assert distances[row, len(exact) :].isinf().all()


def line(*g_pids: int, **options) -> ReIDResult:
    """One query of pid 1, gallery items at distances 0, 1, 2, ... with the given pids."""
    gallery = torch.arange(len(g_pids), dtype=torch.float64)[:, None]
    options = {"metric": "euclidean", **options}
    return evaluate(torch.zeros(1, 1), gallery, [1], g_pids, [0], [1] * len(g_pids), **options)


def test_one_positive_at_rank_two():
    assert line(2, 1).mAP == 0.5
    assert line(2, 1, ap="trapezoid").mAP == 0.25
    assert line(1, 2, ap="trapezoid").mAP == 1


def test_hand_computed():
    result = line(1, 2, 1, 2, 2)
    assert result.mAP == pytest.approx((1 + 2 / 3) / 2)
    assert line(1, 2, 1, 2, 2, ap="trapezoid").mAP == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert result.mINP == pytest.approx(2 / 3)
    assert result.cmc.tolist() == [1.0] * 50
    assert result.per_query["first_hit"].tolist() == [1]


def test_curve_stays_at_its_last_value_when_few_items_remain():
    cmc = line(2, 1, max_rank=6).cmc
    assert cmc.dtype == torch.float64
    assert cmc.tolist() == [0, 1, 1, 1, 1, 1]


def test_junk_rule():
    labels = ([1], [1, 1, 2], [0], [0, 1, 1])
    query, gallery = torch.zeros(1, 1), torch.tensor([[0.0], [2.0], [1.0]])
    kept = evaluate(query, gallery, *labels, metric="euclidean", junk=False)
    removed = evaluate(query, gallery, *labels, metric="euclidean")
    assert kept.mAP == pytest.approx((1 + 2 / 3) / 2)
    assert removed.mAP == 0.5
    assert "same pid and camera" in removed.protocol
    assert "same pid and camera" not in kept.protocol


def test_leave_one_out_on_one_camera():
    features = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    pids, cameras = [1, 1, 2, 2], [0] * 4
    result = evaluate(
        features, features, pids, pids, cameras, cameras, metric="euclidean", junk=False, exclude=range(4)
    )
    assert result.mAP == 1
    assert result.valid_queries == 4
    assert "the query itself" in result.protocol
    assert "the query itself" not in line(1, exclude=[-1]).protocol


def test_queries_without_a_positive_are_skipped():
    gallery = torch.tensor([[0.0], [1.0]])
    result = evaluate(torch.zeros(3, 1), gallery, [7, 1, -1], [2, 1], [0] * 3, [1, 1], metric="euclidean")
    assert result.valid_queries == 1
    assert result.mAP == 0.5
    assert result.per_query["first_hit"].tolist() == [0, 2, 0]
    assert result.per_query["ap"].isnan().tolist() == [True, False, True]


def test_gallery_pid_minus_one_is_removed_but_distractors_count():
    assert line(-1, 1).mAP == 1
    assert line(0, 1).mAP == 0.5


def test_cosine_ignores_length():
    query = torch.tensor([[1.0, 0.0]])
    gallery = torch.tensor([[1.0, 2.0], [100.0, 1.0]])  # the second is nearer by angle, the first by distance
    labels = ([1], [2, 1], [0], [1, 1])
    assert evaluate(query, gallery, *labels).mAP == 1
    assert evaluate(query, gallery, *labels, metric="euclidean").mAP == 0.5


def test_order_survives_a_large_common_offset():
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randint(0, 9, (n, 8), generator=generator).float() for n in (20, 90))
    labels = [torch.randint(0, 5, (n,), generator=generator) for n in (20, 90, 20, 90)]
    near, far = (
        evaluate(query + shift, gallery + shift, *labels, metric="euclidean") for shift in (0.0, 4096.0)
    )
    assert near.mAP == far.mAP
    assert torch.equal(near.cmc, far.cmc)


def test_numpy_and_half_precision_give_the_same():
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randn(n, 16, generator=generator).half() for n in (7, 30))
    labels = [torch.randint(0, 4, (n,), generator=generator) for n in (7, 30, 7, 30)]
    wanted = evaluate(query, gallery, *labels)
    for got in (
        evaluate(query.numpy(), gallery.numpy(), *(label.numpy() for label in labels)),
        evaluate(query.double(), gallery.float(), *labels),
    ):
        assert got.mAP == wanted.mAP
        assert torch.equal(got.cmc, wanted.cmc)


def test_lists_by_a_function_are_those_by_the_same_named_metric():
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randint(0, 3, (n, 4), generator=generator).double() for n in (7, 40))
    labels = [torch.randint(-1, 4, (n,), generator=generator) for n in (7, 40, 7, 40)]
    for options in ({"junk": False}, {"exclude": torch.arange(7)}, {"top": 60}):
        named = rank(query, gallery, *labels, metric="euclidean", **options)
        by_function = rank(query, gallery, *labels, metric=torch.cdist, **options)
        torch.testing.assert_close(by_function[1], named[1])
        assert torch.equal(by_function[0] == -1, named[0] == -1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_file_is_evaluated_like_its_array(tmp_path, monkeypatch, metric):
    monkeypatch.setattr("vreid_ext.features.rows._PIECE", 7 * 16 * 4)  # bytes: seven rows
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randint(0, 3, (n, 16), generator=generator).float() for n in (7, 40))
    labels = [torch.randint(-1, 4, (n,), generator=generator) for n in (7, 40, 7, 40)]
    np.save(tmp_path / "gallery.npy", gallery.numpy())
    exclude = torch.arange(7)
    wanted = evaluate(query, gallery, *labels, metric=metric, exclude=exclude)
    lists = rank(query, gallery, *labels, metric=metric, exclude=exclude)
    for mapped in (tmp_path / "gallery.npy", np.load(tmp_path / "gallery.npy", mmap_mode="r")):
        got = evaluate(query, mapped, *labels, metric=metric, exclude=exclude)
        assert (got.mAP, got.mINP) == (wanted.mAP, wanted.mINP)
        assert torch.equal(got.cmc, wanted.cmc)
        for part, whole in zip(
            rank(query, mapped, *labels, metric=metric, exclude=exclude), lists, strict=True
        ):
            assert torch.equal(part, whole)


def test_a_distance_function_takes_rows_of_any_shape():
    parts = torch.randn(6, 3, 4), torch.randn(20, 3, 4)
    labels = [torch.arange(n) % 3 for n in (6, 20)], [torch.zeros(6).long(), torch.ones(20).long()]

    def sum_over_parts(a, b):
        return (a[:, None] - b).norm(dim=-1).sum(-1)

    got = evaluate(*parts, *labels[0], *labels[1], metric=sum_over_parts, block_size=4)
    matrix = sum_over_parts(*parts)
    wanted = evaluate(
        torch.eye(6),
        torch.zeros(20, 6),
        *labels[0],
        *labels[1],
        metric=lambda a, _: a @ matrix,
    )
    assert got.mAP == wanted.mAP
    assert "sum_over_parts distance" in got.protocol


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_distances_that_are_not_finite_name_the_row(value):
    def broken(a, b):
        return torch.where(torch.arange(len(a))[:, None] == 1, value, torch.cdist(a, b))

    with pytest.raises(
        ValueError, match=r"^metric: expected .*, got NaN or infinity in 1 rows, the first is 1$"
    ):
        evaluate(F, F, P, P, P, P[::-1], metric=broken)
    features = F.clone()
    features[2, 1] = value
    with pytest.raises(
        ValueError, match=r"^gallery: expected .*, got NaN or infinity in 1 rows, the first is 2$"
    ):
        evaluate(F, features, P, P, P, P[::-1])
    with pytest.raises(
        ValueError, match=r"^query: expected .*, got NaN or infinity in 1 rows, the first is 2$"
    ):
        evaluate(features, F, P, P, P, P[::-1])


@pytest.mark.parametrize("rerank", [True, {"k1": 5, "k2": 2, "lambda_value": 0.1}])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reranking_ranks_by_the_reranked_distances(metric, rerank):
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(9, 8, generator=generator), torch.randn(80, 8, generator=generator)
    labels = [torch.randint(0, 4, (n,), generator=generator) for n in (9, 80, 9, 80)]
    got = evaluate(query, gallery, *labels, metric=metric, rerank=rerank, block_size=4)
    if metric == "cosine":
        query, gallery = (torch.nn.functional.normalize(x, dim=1) for x in (query, gallery))
    options = {} if rerank is True else rerank
    distances = ops.k_reciprocal(query, gallery, **options).rows(0, 9)
    wanted = evaluate_distances(distances, *labels)
    assert (got.mAP, got.mINP) == (wanted.mAP, wanted.mINP)
    assert f"re-ranked {metric} distance" in got.protocol


def test_labels_of_any_kind_give_the_same_with_reranking():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 8, generator=generator)
    sides = slice(12), slice(12, None)
    columns = [part[side] for part in (torch.arange(40) % 8, torch.arange(40) % 3) for side in sides]
    figures = {
        evaluate(*(features[side] for side in sides), *map(kind, columns), rerank=True).mAP
        for kind in (lambda x: x, list, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int)
    }
    assert len(figures) == 1
    assert figures.pop() > 0


def test_reranking_needs_a_named_metric():
    with pytest.raises(ValueError, match=r"^rerank: "):
        evaluate(F, F, P, P, P, P[::-1], metric=torch.cdist, rerank=True)


def test_a_distance_function_must_give_a_tile():
    with pytest.raises(ValueError, match=r"^metric: expected distances of shape \(3, 3\), got \(3,\)"):
        evaluate(F, F, P, P, P, P[::-1], metric=lambda a, b: a[:, 0])


MEMORY = """
import re, resource, sys, numpy as np, torch
from vreid_ext.metrics import evaluate

def status(field):
    with open("/proc/self/status") as file:
        return int(re.search(field + r":\\s+(\\d+)", file.read())[1]) * 1024

G, Q, D = 100_000, 500, 256
generator = np.random.default_rng(0)
gallery = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (G, D))
for first in range(0, G, 10_000):
    gallery[first : first + 10_000] = generator.standard_normal((10_000, D), np.float32)
del gallery
labels = [generator.integers(0, 300, n) for n in (Q, G)] + [np.zeros(Q, int), np.ones(G, int)]
query = torch.from_numpy(generator.standard_normal((Q, D), np.float32))
few = [label[:n] for label, n in zip(labels, (20, 1000) * 2)]
evaluate(query[:20], np.load(sys.argv[1], "r")[:1000], *few)
open("/proc/self/clear_refs", "w").write("5")  # resets the peak
# Far below the 200 MB that the distances alone would take.
limit = status("VmData") + 150 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = status("VmRSS")
evaluate(query, sys.argv[1], *labels)
print((status("VmHWM") - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_stays_far_below_matrix_and_file(tmp_path):
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "gallery.npy"], capture_output=True, text=True, check=False
    )
    assert output.returncode == 0, output.stderr[-2000:]
    assert float(output.stdout) < 190


def test_prints_one_row():
    text = str(line(2, 1))
    assert text.startswith("mAP 50.0  mINP 50.0  R1 0.0  R5 100.0")
    assert "1 of 1 queries" in text
    assert "precision AP; euclidean" in text
    assert "\n" not in text
    assert line(1, max_rank=5).row().keys() == {"mAP", "mINP", "R1", "R5"}


F, P = torch.randn(3, 4), [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"query": [[1.0]]}, TypeError, "query"),
        ({"query": F.long()}, TypeError, "query"),
        ({"query": F[0]}, ValueError, "query"),
        ({"gallery": "gallery.pt"}, ValueError, "gallery"),
        ({"gallery": "missing.npy"}, ValueError, "gallery"),
        ({"gallery": F[:, :2]}, ValueError, "gallery"),
        ({"gallery": F[:0]}, ValueError, "gallery"),
        ({"gallery": F * torch.nan}, ValueError, "gallery"),
        ({"q_pids": P[:2]}, ValueError, "q_pids"),
        ({"g_camids": np.ones(3)}, TypeError, "g_camids"),
        ({"metric": "l1"}, ValueError, "metric"),
        ({"ap": "area"}, ValueError, "ap"),
        ({"max_rank": 0}, ValueError, "max_rank"),
        ({"block_size": 0}, ValueError, "block_size"),
        ({"exclude": [0, 1, 3]}, ValueError, "exclude"),
    ],
)
def test_bad_input(change, error, name):
    arguments = {"query": F, "gallery": F, "q_pids": P, "g_pids": P, "q_camids": P, "g_camids": P[::-1]}
    with pytest.raises(error, match=rf"^{name}: "):
        evaluate(**{**arguments, **change})


def test_rank_beyond_the_curve():
    with pytest.raises(ValueError, match=r"^k: expected .*, got 51"):
        line(1).rank(51)


def test_rank_leaves_the_distances_of_a_function_as_they_are():
    distances = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    before = distances.clone()
    indices, _ = rank(
        torch.zeros(1, 1),
        torch.zeros(3, 1),
        [1],
        [1, 1, 2],
        [0],
        [0, 1, 1],
        top=2,
        metric=lambda q, g: distances,
    )
    assert indices.tolist() == [[1, 2]]
    assert torch.equal(distances, before)
