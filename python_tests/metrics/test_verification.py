"""Verification by counting, against all pairs in a list, scikit-learn's curve, and cases by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import metrics, ops
from vreid_ext.metrics import pairs as pairs_module

roc_curve = pytest.importorskip("sklearn.metrics", reason="needs the extra [test]").roc_curve


def seeded(number):
    return torch.Generator().manual_seed(number)


def people(persons, each, width, seed=0, noise=1.0, dtype=torch.float32):
    """Rows (N,D), pids and camids: `each` tracklets of every person, in turn from two cameras."""
    generator = seeded(seed)
    pids = torch.arange(persons).repeat_interleave(each)
    centers = torch.randn(persons, width, generator=generator, dtype=dtype)
    rows = centers[pids] + noise * torch.randn(len(pids), width, generator=generator, dtype=dtype)
    return rows, pids, torch.arange(len(pids)) % 2


def listed(rows, pids, camids, metric, junk=True):
    """(distances, genuine) of all unordered pairs, from a list."""
    row, index = torch.triu_indices(len(rows), len(rows), 1)
    same = pids[row] == pids[index]
    kept = (pids[row] != -1) & (pids[index] != -1)
    if junk:
        kept &= ~(same & (camids[row] == camids[index]))
    distance = ops.pair_distances(rows, rows, row, index, metric)
    return distance[kept], same[kept]


def check(result, distance, genuine):
    """Compare counts with those of a list, and the curve with scikit-learn's."""
    assert (result.genuine, result.impostors) == (int(genuine.sum()), int((~genuine).sum()))
    assert torch.isin(distance[genuine], result.thresholds).all()
    for counts, selected, side in (
        (result.false_matches, ~genuine, True),
        (result.false_matches_below, ~genuine, False),
        (result.true_matches, genuine, True),
    ):
        wanted = torch.searchsorted(distance[selected].sort().values, result.thresholds, right=side)
        assert torch.equal(counts, wanted)
    fpr, tpr, _ = roc_curve(genuine, -distance, drop_intermediate=False)
    own = torch.stack(result.roc(), 1).numpy()
    theirs = np.stack([fpr, tpr], 1)
    # Every corner is a point of scikit-learn's curve, and every point of that curve is on a line of ours.
    assert {tuple(point) for point in own} <= {tuple(point) for point in theirs}
    # Both coordinates only grow along the curve, so their sum says where on it a point is.
    assert np.allclose(np.interp(theirs.sum(1), own.sum(1), own[:, 0]), theirs[:, 0], rtol=0, atol=1e-12)
    for edges, counts, selected in (
        (result.histogram_edges, result.genuine_histogram, genuine),
        (result.histogram_edges, result.impostor_histogram, ~genuine),
    ):
        place = torch.bucketize(distance[selected], edges)
        wanted = torch.bincount((place - 1).clamp(min=0), minlength=len(edges) - 1)
        assert torch.equal(counts, wanted)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_curve_is_that_of_all_pairs(metric, dtype):
    rows, pids, camids = people(9, 5, 6)
    rows = rows.to(dtype)
    result = metrics.verification(rows, pids, camids, metric=metric, resamples=20)
    check(result, *listed(rows, pids, camids, metric))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ties_and_duplicates_are_compared_exactly(metric):
    """Rows of few small integers: many distances are equal, between genuine and impostor pairs too."""
    generator = seeded(1)
    rows = torch.randint(-1, 2, (60, 3), generator=generator).float()
    rows[50:] = rows[:10]
    rows[7] = 0
    pids, camids = torch.randint(0, 6, (60,), generator=generator), torch.arange(60) % 3
    result = metrics.verification(rows, pids, camids, metric=metric, resamples=5)
    check(result, *listed(rows, pids, camids, metric))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(4, 40), st.integers(1, 9)),
    persons=st.integers(2, 6),
    metric=st.sampled_from(["cosine", "euclidean"]),
    levels=st.sampled_from([2, 5, 10**6]),
    offset=st.sampled_from([0.0, 100.0]),
    junk=st.booleans(),
)
def test_any_set(seed, sizes, persons, metric, levels, offset, junk):
    generator = seeded(seed)
    rows = torch.randint(levels, sizes, generator=generator).float() / levels + offset
    pids = torch.randint(-1, persons, sizes[:1], generator=generator)
    camids = torch.randint(2, sizes[:1], generator=generator)
    distance, genuine = listed(rows, pids, camids, metric, junk)
    if not genuine.any() or genuine.all():
        with pytest.raises(ValueError, match=r"^pids: expected an? (genuine|impostor) pair"):
            metrics.verification(rows, pids, camids, metric=metric, junk=junk)
        return
    result = metrics.verification(rows, pids, camids, metric=metric, junk=junk, resamples=2)
    check(result, distance, genuine)


@pytest.mark.parametrize("tile", [(1, 1), (3, 7), (64, 5)])
def test_tiles_and_files_change_nothing(tile, monkeypatch, tmp_path):
    rows, pids, camids = people(6, 4, 5, seed=3)
    pids[3] = -1
    whole = metrics.verification(rows, pids, camids, resamples=10, by_camera=True)
    monkeypatch.setattr(pairs_module, "_TILE", tile)
    monkeypatch.setattr("vreid_ext.features.rows._PIECE", 5 * 4 * 6)
    np.save(tmp_path / "rows.npy", rows.numpy())
    for features in (rows, tmp_path / "rows.npy"):
        result = metrics.verification(features, pids, camids, resamples=10, by_camera=True)
        for name in ("thresholds", "false_matches", "false_matches_below", "true_matches"):
            assert torch.equal(getattr(result, name), getattr(whole, name))
        assert (result.cameras, result.eer, result.points) == (whole.cameras, whole.eer, whole.points)


def test_a_gallery_with_some_of_the_queries():
    """A pair of two queries counts once, and a query with itself not at all."""
    rows, pids, camids = people(8, 4, 5, seed=4)
    query = torch.tensor([0, 5, 9, 14, 18, 21, 30])
    gallery = torch.tensor([9, 1, 2, 0, 14, 6, 7, 22, 23, 30, 31, 12])
    exclude = torch.tensor([(gallery == each).nonzero()[0, 0] if each in gallery else -1 for each in query])
    pids[23] = -1
    result = metrics.verification(
        rows[query], pids[query], camids[query],
        gallery=rows[gallery], g_pids=pids[gallery], g_camids=camids[gallery], exclude=exclude,
        resamples=5, by_camera=True, at=(0.5, 1.0),
    )  # fmt: skip
    unordered = {frozenset((int(a), int(b))) for a in query for b in gallery if a != b}
    row, index = torch.tensor([sorted(each) for each in unordered]).T
    same = pids[row] == pids[index]
    kept = (pids[row] != -1) & (pids[index] != -1) & ~(same & (camids[row] == camids[index]))
    row, index, same = row[kept], index[kept], same[kept]
    distance = ops.pair_distances(rows, rows, row, index)
    check(result, distance, same)
    assert [point.threshold.value for point in result.points] == [0.5, 1.0]
    for pair in result.cameras:
        of = torch.stack([camids[row], camids[index]]).sort(0).values.T.eq(torch.tensor(pair.cameras)).all(1)
        assert (pair.genuine, pair.impostors) == (int((of & same).sum()), int((of & ~same).sum()))
        for number, at in enumerate((0.5, 1.0)):
            below = of & (distance <= at)
            assert pair.fmr[number] == pytest.approx(int((below & ~same).sum()) / pair.impostors)
            if pair.genuine:
                assert pair.fnmr[number] == pytest.approx(1 - int((below & same).sum()) / pair.genuine)
            else:
                assert np.isnan(pair.fnmr[number])


def test_operating_points_are_those_of_a_list():
    rows, pids, camids = people(40, 5, 6, seed=5)
    result = metrics.verification(rows, pids, camids, fprs=(0.3, 1e-2, 1e-3, 1e-6), resamples=50)
    distance, genuine = listed(rows, pids, camids, "cosine")
    assert result.unresolved == {"fprs": [1e-6], "fpirs": [1e-2]}
    fpr, tpr, _ = roc_curve(genuine, -distance, drop_intermediate=False)
    for rate in (0.3, 1e-2, 1e-3):
        point = result.point(rate)
        assert point.tpr.value == tpr[fpr <= rate].max()
        assert point.fnmr.value == 1 - point.tpr.value
        matched = distance <= point.threshold.value
        assert point.fmr.value == int((matched & ~genuine).sum()) / result.impostors <= rate
        for interval in (point.threshold, point.fmr, point.tpr, point.fnmr):
            assert interval.low <= interval.value <= interval.high
            assert interval.low < interval.high
    with pytest.raises(ValueError, match=r"^fpr: expected one of 0.3, 0.01, 0.001, got 1e-06"):
        result.point(1e-6)
    assert result.eer.value == pytest.approx(np.interp(0, fpr + tpr - 1, fpr))
    assert result.eer.low < result.eer.value < result.eer.high
    assert "EER" in str(result)
    assert "left out: pid -1, same pid and camera, a tracklet with itself" in str(result)


def test_open_set_identification_by_hand():
    rows, pids, camids = people(50, 3, 4, seed=6)
    result = metrics.verification(rows, pids, camids, fpirs=(0.1, 0.3, 0.01), resamples=50)
    assert result.unresolved["fpirs"] == [0.01]
    row, index = torch.cartesian_prod(torch.arange(150), torch.arange(150)).T
    distance = ops.pair_distances(rows, rows, row, index).view(150, 150)
    same = pids[:, None] == pids
    mate = distance.masked_fill(~same | (camids[:, None] == camids), torch.inf).amin(1)
    stranger = distance.masked_fill(same, torch.inf).amin(1)
    for fpir, rate in result.identification.items():
        limits = [t for t in stranger.tolist() if (stranger <= t).double().mean() <= fpir]
        best = (mate < stranger) & (mate < stranger[stranger > max(limits)].min())
        assert rate.value == pytest.approx(float(best.sum() / (mate < torch.inf).sum()))
        assert rate.low < rate.value < rate.high


def test_the_bootstrap_weights_a_pair_by_both_persons():
    """With three persons all draws are listed; a threshold's rates are then known for each."""
    rows = torch.tensor([[0.0], [1.0], [2.5], [3.1], [6.0], [6.4], [0.2]])
    pids, camids = torch.tensor([0, 0, 1, 1, 2, 2, -1]), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    result = metrics.verification(
        rows, pids, camids, metric="euclidean", fprs=(), fpirs=(), at=(2.2,), resamples=20_000,
        confidence=1 - 1e-4,
    )  # fmt: skip
    rates = []
    for draw in torch.cartesian_prod(*[torch.arange(3)] * 3):
        weight = torch.bincount(draw, minlength=3).double()
        total = below = 0.0
        for a in range(6):
            for b in range(a + 1, 6):
                if pids[a] != pids[b]:
                    both = float(weight[pids[a]] * weight[pids[b]])
                    total += both
                    below += both * (abs(float(rows[a, 0] - rows[b, 0])) <= 2.2)
        if total:
            rates.append(below / total)
    (point,) = result.points
    assert point.threshold == (2.2, 2.2, 2.2)
    assert point.fmr.low == pytest.approx(min(rates))
    assert point.fmr.high == pytest.approx(max(rates))


def test_intervals_contain_the_truth():
    """Of 25 sets of 40 persons, intervals of 90 % contain the rate of a large set in most."""
    rows, pids, camids = people(400, 4, 6, seed=7)
    truth = metrics.verification(rows, pids, camids, fprs=(), fpirs=(), at=(0.3,), resamples=1).points[0]
    hits = {"fmr": 0, "tpr": 0}
    for seed in range(25):
        part = people(40, 4, 6, seed=100 + seed)
        point = metrics.verification(
            *part, fprs=(), fpirs=(), at=(0.3,), resamples=100, confidence=0.9
        ).points[0]
        for name in hits:
            interval = getattr(point, name)
            hits[name] += interval.low <= getattr(truth, name).value <= interval.high
    assert all(18 <= count <= 25 for count in hits.values()), hits


def test_a_sample_stands_for_many_pairs(monkeypatch):
    rows, pids, camids = people(60, 6, 5, seed=8)
    full = metrics.verification(rows, pids, camids, fprs=(0.1, 1e-2), resamples=300)
    monkeypatch.setattr(pairs_module, "_SAMPLE", 4000)
    monkeypatch.setattr(pairs_module, "_TILE", (64, 100))
    part = metrics.verification(rows, pids, camids, fprs=(0.1, 1e-2), resamples=300)
    assert torch.equal(part.false_matches, full.false_matches)
    for a, b in zip(part.points, full.points, strict=True):
        assert a.threshold.value == b.threshold.value
        for name in ("threshold", "fmr", "tpr"):
            for bound in ("low", "high"):
                wanted = getattr(getattr(b, name), bound)
                assert getattr(getattr(a, name), bound) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pids": torch.arange(8)}, "pids: expected a genuine pair (two tracklets of one person, from"),
        ({"pids": torch.zeros(8, dtype=torch.int64)}, "pids: expected an impostor pair"),
        ({"camids": torch.zeros(8, dtype=torch.int64)}, "pids: expected a genuine pair"),
        ({"fprs": (0.0,)}, "fprs[0]: expected a rate between 0 and 1, exclusive, got 0"),
        ({"fpirs": (2,)}, "fpirs[0]: expected a rate between 0 and 1, exclusive, got 2"),
        ({"at": (float("nan"),)}, "at[0]: expected a finite number, got nan"),
        ({"metric": "dot"}, "metric: expected one of"),
        ({"exclude": torch.arange(8)}, "exclude: expected None without a gallery"),
        ({"gallery": torch.ones(2, 3)}, "g_pids: expected the labels of the gallery, got None"),
        ({"confidence": 1}, "confidence: expected a number between 0 and 1, exclusive, got 1"),
        ({"pids": torch.zeros(7, dtype=torch.int64)}, "pids: expected shape (8,), got (7,)"),
    ],
)
def test_wrong_arguments_are_named(change, says):
    rows, pids, camids = people(4, 2, 3)
    with pytest.raises(ValueError, match=r"expected") as caught:
        metrics.verification(**{"features": rows, "pids": pids, "camids": camids, **change})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_row_that_is_not_finite_is_named(value):
    rows, pids, camids = people(4, 2, 3, dtype=torch.float64)
    rows[5, 1] = value
    with pytest.raises(ValueError, match=r"^features: expected finite rows .* in 1 rows, the first is 5"):
        metrics.verification(rows, pids, camids)


def test_too_many_cameras_for_a_table():
    rows, pids, _ = people(40, 2, 3)
    with pytest.raises(ValueError, match=r"^camids: expected at most 64 cameras for by_camera, got 80"):
        metrics.verification(rows, pids, torch.arange(80), by_camera=True)


def test_a_gallery_item_of_two_queries():
    rows, pids, camids = people(4, 2, 3)
    several = {"gallery": rows, "g_pids": pids, "g_camids": camids}
    with pytest.raises(ValueError, match=r"^exclude: expected each gallery item at most once"):
        metrics.verification(rows, pids, camids, **several, exclude=torch.zeros(8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^exclude: expected items with the pid of their query"):
        metrics.verification(rows, pids, camids, **several, exclude=torch.arange(8).flip(0))
