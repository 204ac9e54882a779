"""With and without pytorch-metric-learning installed."""

import subprocess
import sys

import pytest
import torch

from vreid_ext.losses import metric_learning

ALONE = """
import sys
sys.modules["pytorch_metric_learning"] = None
import torch
from vreid_ext import ops
from vreid_ext.losses import metric_learning as ours

assert not ours.INSTALLED
x, labels = torch.randn(12, 4), torch.arange(12) // 4
triplets = ours.BatchHardMiner()(x, labels)
assert torch.equal(triplets[1], ops.batch_hard(x, labels, metric="cosine").positive_index)
for metric in ("cosine", "euclidean", "squared"):
    loss = ours.TripletMarginLoss(0.5, metric=metric, triplets_per_anchor="hardest")
    triplets = ours.BatchHardMiner(metric)(x, labels)
    torch.testing.assert_close(loss(x, labels, triplets), loss(x, labels))
    hard = ops.batch_hard(x, labels, metric=metric)
    gap = (0.5 + hard.positive_distance - hard.negative_distance).relu()
    torch.testing.assert_close(loss(x, labels), gap.sum() / (gap > 0).sum())
lonely = torch.arange(12)
x.requires_grad_()
zero = loss(x, lonely)
zero.backward()
assert zero == 0 and (x.grad == 0).all()
for call, name in (
    (lambda: ours.TripletMarginLoss()(x, labels), "more triplets than embeddings"),
    (lambda: ours.TripletMarginLoss(reducer=None), "reducer"),
    (lambda: ours.BatchHardMiner(collect_stats=True), "collect_stats"),
    (lambda: ours.BatchHardMiner()(x, labels.float()), "labels of a floating-point dtype"),
):
    try:
        call()
    except ImportError as error:
        assert str(error).startswith(name) and "pytorch-metric-learning" in str(error), error
    else:
        raise AssertionError(name)
"""


def test_without_the_package():
    result = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 16, generator=generator), torch.randint(8, (40,), generator=generator)


def test_miner_in_the_place_of_theirs(batch):
    theirs = pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses, miners

    assert metric_learning.INSTALLED, theirs
    ours = metric_learning.BatchHardMiner()
    for a, b in zip(ours(*batch), miners.BatchHardMiner()(*batch), strict=True):
        assert torch.equal(a, b)
    assert ours.num_triplets == 39  # one row is alone in its class
    loss = losses.TripletMarginLoss()
    torch.testing.assert_close(loss(*batch, ours(*batch)), loss(*batch, miners.BatchHardMiner()(*batch)))


def test_miner_inside_their_cross_batch_memory(batch):
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses, miners

    x, labels = batch
    values = []
    for miner in (metric_learning.BatchHardMiner(), miners.BatchHardMiner()):
        memory = losses.CrossBatchMemory(losses.TripletMarginLoss(), 16, memory_size=64, miner=miner)
        values.append(
            [
                memory(part, part_labels).item()
                for part, part_labels in zip(x.split(8), labels.split(8), strict=True)
            ]
        )
    assert values[0] == pytest.approx(values[1])
    assert max(values[0]) > 0


@pytest.mark.parametrize("with_ref", [False, True])
def test_loss_in_the_place_of_theirs(batch, with_ref):
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, reducers

    x, labels = batch
    others = (x.flip(0) + 0.1, labels.flip(0)) if with_ref else ()
    triplets = metric_learning.BatchHardMiner("euclidean")(x, labels, *others)
    for reducer in (None, reducers.MeanReducer()):
        options = {} if reducer is None else {"reducer": reducer}
        distance = distances.LpDistance(normalize_embeddings=False)
        results = []
        for loss in (
            metric_learning.TripletMarginLoss(0.2, metric="euclidean", **options),
            losses.TripletMarginLoss(0.2, distance=distance, **options),
        ):
            leaf = x.clone().requires_grad_()
            value = loss(leaf, labels, triplets, *others)
            results.append((value, *torch.autograd.grad(value, leaf)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
