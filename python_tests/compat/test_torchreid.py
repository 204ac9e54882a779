"""torchreid's signatures, against what its functions are documented to compute, item by item."""

import numpy as np
import pytest
import torch

from vreid_ext import ops
from vreid_ext.compat.torchreid import (
    CrossEntropyLoss,
    RandomIdentitySampler,
    TripletLoss,
    evaluate_rank,
    re_ranking,
)


def by_hand(distmat, q_pids, g_pids, q_camids, g_camids, max_rank):
    curves, precisions = [], []
    for i, row in enumerate(distmat):
        order = [
            j
            for j in np.argsort(row, kind="stable")
            if not (g_pids[j] == q_pids[i] and g_camids[j] == q_camids[i])
        ]
        hits = (g_pids[order] == q_pids[i]).astype(float)
        if not hits.any():
            continue
        curves.append(np.minimum(hits.cumsum(), 1)[:max_rank])
        precisions.append((hits * hits.cumsum() / np.arange(1, len(hits) + 1)).sum() / hits.sum())
    return np.mean(curves, 0), np.mean(precisions)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_evaluate_rank(kind):
    rng = np.random.default_rng(0)
    distmat = rng.integers(0, 50, (20, 90)).astype(np.float32)
    labels = [rng.integers(-1, 6, n) for n in (20, 90)] + [rng.integers(0, 3, n) for n in (20, 90)]
    wanted = by_hand(distmat, *labels, 30)
    given = (distmat, *labels) if kind == "numpy" else map(torch.from_numpy, (distmat, *labels))
    cmc, mean_ap = evaluate_rank(*given, max_rank=30, use_cython=False)
    assert cmc.shape == (30,)
    assert cmc.dtype == np.float32
    np.testing.assert_allclose(cmc, wanted[0], atol=1e-7)
    assert mean_ap == pytest.approx(wanted[1], abs=1e-12)


def test_a_gallery_smaller_than_max_rank_shortens_the_curve():
    cmc, mean_ap = evaluate_rank(np.array([[2.0, 1.0]]), [1], [1, 2], [0], [1, 1])
    assert cmc.tolist() == [0, 1]
    assert mean_ap == 0.5


def test_queries_keep_different_numbers_of_a_small_gallery():
    """reid-strong-baseline 92: curves of different lengths made no array."""
    distances = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    # The first query keeps 2 items, the second 4.
    labels = [np.array(part) for part in ([1, 2], [1, 1, 1, 2], [0, 0], [0, 0, 1, 1])]
    cmc, mean_ap = evaluate_rank(distances, *labels)
    assert cmc.tolist() == [1, 1, 1, 1]
    assert mean_ap == 1
    np.testing.assert_allclose(by_hand(distances, *labels, 1)[1], 1)


def test_random_protocol_is_refused():
    with pytest.raises(ValueError, match=r"^use_metric_cuhk03"):
        evaluate_rank(np.zeros((1, 1)), [1], [1], [0], [1], use_metric_cuhk03=True)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (6, 1, 0.2), (3, 9, 0.3)])
def test_re_ranking_equals_the_op_on_features(k1, k2, weight):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 16, generator=generator)
    x = centres[torch.randint(12, (150,), generator=generator)]
    x = (x + 0.8 * torch.randn(150, 16, generator=generator)).double()
    distances = torch.cdist(x, x).float().numpy()
    got = re_ranking(distances[:30, 30:], distances[:30, :30], distances[30:, 30:], k1, k2, weight)
    wanted = ops.k_reciprocal(x[:30], x[30:], k1, k2, weight, backend="reference").rows(0, 30)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_re_ranking_names_a_wrong_matrix():
    with pytest.raises(ValueError, match=r"^g_g_dist: expected shape \(3, 3\), got \(2, 2\)"):
        re_ranking(np.zeros((2, 3)), np.zeros((2, 2)), np.zeros((2, 2)))


def test_triplet_loss_counts_an_anchor_alone_in_its_identity():
    x = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
    # 0: 1 - 3 + 2.5, 1: 1 - 2 + 2.5, 2: 0 - 2 + 2.5
    loss = TripletLoss(2.5)(x, torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((0.5 + 1.5 + 0.5) / 3)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()
    assert TripletLoss()(x, torch.tensor([0, 0, 0])) == 0
    for few in (x[:1], x[:2]):  # torchreid 87: batches of one and two
        assert TripletLoss()(few, torch.zeros(len(few), dtype=torch.int64)) == 0


def test_cross_entropy_is_torchs_with_smoothing():
    logits, targets = torch.randn(6, 5), torch.arange(6) % 5
    log = logits.log_softmax(1)
    smooth = 0.9 * log[range(6), targets] + 0.1 * log.mean(1)
    torch.testing.assert_close(CrossEntropyLoss(5, use_gpu=False)(logits, targets), -smooth.mean())
    torch.testing.assert_close(
        CrossEntropyLoss(5, label_smooth=False)(logits, targets), -log[range(6), targets].mean()
    )
    with pytest.raises(ValueError, match=r"^inputs: expected 4 columns, got 5"):
        CrossEntropyLoss(4)(logits, targets)


def test_sampler_gives_p_identities_of_k_samples():
    pids = [0] * 9 + [1] * 4 + [2] * 2 + [3] * 12
    sampler = RandomIdentitySampler([("", pid, 0, 0) for pid in pids], 8, 4)
    for _ in range(3):
        length, epoch = len(sampler), list(sampler)
        assert length == len(epoch) > 0
        for batch in np.array(epoch).reshape(-1, 2, 4):
            rows = [{pids[index] for index in row} for row in batch]
            assert [len(row) for row in rows] == [1, 1]
            assert rows[0] != rows[1]
        assert all(epoch.count(index) <= 1 for index in range(len(pids)) if pids[index] != 2)
    torch.manual_seed(0)
    first = list(RandomIdentitySampler([("", pid, 0) for pid in pids], 8, 4))
    torch.manual_seed(0)
    assert list(RandomIdentitySampler([("", pid, 0) for pid in pids], 8, 4)) == first


def test_sampler_names_what_does_not_fit():
    people = [("", 0), ("", 1)]
    with pytest.raises(ValueError, match=r"^batch_size: expected a multiple of num_instances=4, got 6"):
        RandomIdentitySampler(people, 6, 4)
    with pytest.raises(ValueError, match=r"^data_source: expected at least 3 identities, got 2"):
        RandomIdentitySampler(people, 6, 2)
