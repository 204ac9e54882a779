import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext.metrics import ReIDResult, evaluate, rank


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


@settings(deadline=None, max_examples=200)
@given(
    data=retrievals(),
    ap=st.sampled_from(["precision", "trapezoid"]),
    max_rank=st.integers(1, 12),
    junk=st.booleans(),
    block_size=st.sampled_from([None, 1, 2]),
)
def test_agrees_with_the_definition(data, ap, max_rank, junk, block_size):
    (query, gallery, *labels), exclude = data
    wanted = by_the_book(query, gallery, *labels, ap, max_rank, junk, exclude)
    options = {"metric": "euclidean", "junk": junk, "exclude": exclude, "block_size": block_size}
    call = (torch.tensor(query), torch.tensor(gallery), *labels)
    if wanted is None:
        with pytest.raises(ValueError, match="no query has a positive"):
            evaluate(*call, ap=ap, max_rank=max_rank, **options)
        return
    got = evaluate(*call, ap=ap, max_rank=max_rank, **options)
    mean_ap, mean_inp, curve, lists = wanted
    assert got.mAP == pytest.approx(mean_ap, abs=1e-14)
    assert got.mINP == pytest.approx(mean_inp, abs=1e-14)
    assert got.cmc.tolist() == pytest.approx(curve, abs=1e-14)
    indices, distances = rank(*call, top=4, **options)
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


def test_numpy_half_precision_and_block_size_give_the_same():
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randn(n, 16, generator=generator).half() for n in (7, 30))
    labels = [torch.randint(0, 4, (n,), generator=generator) for n in (7, 30, 7, 30)]
    wanted = evaluate(query, gallery, *labels)
    for got in (
        evaluate(query.numpy(), gallery.numpy(), *(label.numpy() for label in labels)),
        evaluate(query.double(), gallery.float(), *labels, block_size=2),
    ):
        assert got.mAP == wanted.mAP
        assert torch.equal(got.cmc, wanted.cmc)


def test_memory_does_not_grow_with_the_number_of_queries(monkeypatch):
    shapes = []
    sort = torch.sort
    monkeypatch.setattr(torch, "sort", lambda x, **kw: shapes.append(tuple(x.shape)) or sort(x, **kw))
    query = torch.randn(10, 4)
    evaluate(query, query, *[torch.zeros(10, dtype=torch.int64)] * 4, junk=False, block_size=4)
    assert shapes == [(4, 10), (4, 10), (2, 10)]


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
    with pytest.raises(ValueError, match=r"^k: got 51"):
        line(1).rank(51)
