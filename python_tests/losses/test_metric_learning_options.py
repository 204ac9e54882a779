"""Every option of the classes of pytorch-metric-learning, on ours and on theirs."""

import pytest
import torch

from vreid_ext.losses import metric_learning

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 16, generator=generator), torch.randint(8, (40,), generator=generator)


STATISTICS = [
    f"{which}_{what}" for which in ("easiest", "hardest") for what in ("triplet", "pos_pair", "neg_pair")
]
DISTANCES = [
    lambda: distances.LpDistance(),
    lambda: distances.LpDistance(normalize_embeddings=False),
    lambda: distances.LpDistance(power=2),
    lambda: distances.CosineSimilarity(),
    # of these the original's code computes all
    lambda: distances.LpDistance(p=1),
    lambda: distances.LpDistance(power=3),
    lambda: distances.DotProductSimilarity(),
    lambda: distances.SNRDistance(),
]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("with_ref", [False, True])
def test_miner_with_their_distances_and_statistics(batch, distance, with_ref):
    x, labels = batch
    x = x.clone()
    x[3] = 0
    others = (x.flip(0) + 0.1, labels.flip(0)) if with_ref else ()
    ours, theirs = (
        miner(distance=distance(), collect_stats=True)
        for miner in (metric_learning.BatchHardMiner, miners.BatchHardMiner)
    )
    for miner in (ours, theirs):
        miner.distance.collect_stats = True
    mine, original = ours(x, labels, *others), theirs(x, labels, *others)
    assert torch.equal(mine[0], original[0])
    # A row of zeros is equally far from all rows of length one: rounding chooses, and the statistics agree.
    tied = mine[0] == 3
    for a, b in zip(mine[1:], original[1:], strict=True):
        assert torch.equal(a[~tied], b[~tied])
    for name in (*STATISTICS, "num_triplets"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-4, nan_ok=True), name
    for name in ("initial_avg_query_norm", "final_avg_ref_norm"):
        assert getattr(ours.distance, name) == pytest.approx(getattr(theirs.distance, name)), name
    assert ours(x, torch.arange(40))[0].shape == (0,)
    assert all(getattr(ours, name) == 0 for name in STATISTICS)


def test_the_fused_path_runs_where_it_is_said_to(batch, monkeypatch):
    calls = []
    monkeypatch.setattr(miners.BatchHardMiner, "mine", lambda *_: calls.append(1) or (torch.zeros(0),) * 3)
    for number, distance in enumerate(DISTANCES):
        metric_learning.BatchHardMiner(distance=distance())(*batch)
        assert len(calls) == max(0, number - 3)


@pytest.mark.parametrize(
    ("labels", "ref"),
    [
        (lambda y: y.float(), lambda x, y: ()),
        (lambda y: y.to(torch.uint8), lambda x, y: ()),
        (lambda y: y, lambda x, y: (x + 0.1, y)),  # its own row of ref is no positive
        (lambda y: y, lambda x, y: (x, y.clone())),  # its own row is one
    ],
)
def test_miner_with_labels_and_ref_of_other_kinds(batch, labels, ref):
    x, y = batch[0], labels(batch[1])
    others = ref(x, y)
    for ranges in ({}, {"allowed_pos_range": (0.2, 1.2)}):
        results = [
            miner(**ranges)(x, y, *others)
            for miner in (metric_learning.BatchHardMiner, miners.BatchHardMiner)
        ]
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"smooth_loss": True},
        {"swap": True},
        {"triplets_per_anchor": 3},
        {"reducer": reducers.MeanReducer()},
        {"reducer": reducers.ThresholdReducer(low=0.1)},
        {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0.1},
    ],
)
def test_loss_with_their_options(batch, distance, options):
    x, labels = batch
    hardest = miners.BatchHardMiner(distance=distance())(x, labels)
    pairs = miners.MultiSimilarityMiner(0.3)(x, labels)
    for indices in (None, hardest, pairs):
        results = []
        for kind in (metric_learning.TripletMarginLoss, losses.TripletMarginLoss):
            torch.manual_seed(0)
            leaf = x.clone().requires_grad_()
            value = kind(0.1, distance=distance(), **options)(leaf, labels, indices)
            results.append((value, *torch.autograd.grad(value, leaf)))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_their_defaults(batch):
    ours, theirs = metric_learning.TripletMarginLoss(), losses.TripletMarginLoss()
    for name in ("margin", "swap", "smooth_loss", "triplets_per_anchor"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert isinstance(ours, losses.TripletMarginLoss)
    assert isinstance(metric_learning.BatchHardMiner(), miners.BatchHardMiner)
    for distance in (ours.distance, metric_learning.BatchHardMiner().distance):
        assert isinstance(distance, distances.LpDistance)
        assert distance.normalize_embeddings
    torch.testing.assert_close(ours(*batch), theirs(*batch))


def test_hardest_triplets_are_those_of_the_miner(batch):
    for distance in DISTANCES:
        options = {"margin": 0.3, "distance": distance()}
        mined = losses.TripletMarginLoss(**options)(
            *batch, miners.BatchHardMiner(distance=distance())(*batch)
        )
        found = metric_learning.TripletMarginLoss(**options, triplets_per_anchor="hardest")(*batch)
        torch.testing.assert_close(found, mined, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reducer", [None, reducers.MeanReducer(), reducers.SumReducer()])
def test_a_batch_without_a_triplet_is_zero(batch, reducer):
    x = batch[0].clone().requires_grad_()
    for options in ({}, {"triplets_per_anchor": "hardest"}, {"swap": True}):
        value = metric_learning.TripletMarginLoss(reducer=reducer, **options)(x, torch.arange(40))
        assert value == 0
        assert (torch.autograd.grad(value, x)[0] == 0).all()


@pytest.mark.parametrize("distance", DISTANCES[:4] + DISTANCES[-2:-1])
@pytest.mark.parametrize("count", [3, 200])
def test_swap_takes_positives_from_ref(batch, distance, count):
    """pytorch-metric-learning 748: the positive's row of `embeddings` was taken."""
    x, labels = batch
    ref = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    ref_labels = torch.arange(60) % 8
    triplets = get_all_triplets_indices(labels, ref_labels)
    a, p, n = (part[torch.linspace(0, len(part) - 1, count).long()] for part in triplets)
    measure = distance()
    ap, an = measure(x, ref)[a, p], measure(x, ref)[a, n]
    an = measure.smallest_dist(an, measure(ref, ref)[p, n])
    wanted = (measure.margin(ap, an) + 0.2).relu()
    loss = metric_learning.TripletMarginLoss(
        0.2, swap=True, distance=distance(), reducer=reducers.MeanReducer()
    )
    torch.testing.assert_close(loss(x, labels, (a, p, n), ref, ref_labels), wanted.mean())
    memory = losses.CrossBatchMemory(metric_learning.TripletMarginLoss(swap=True), 16, memory_size=80)
    for _ in range(3):
        assert memory(x, labels).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_of_the_loss(batch, dtype):
    x, labels = batch[0].to(dtype), batch[1]
    loss = metric_learning.TripletMarginLoss(triplets_per_anchor="hardest")
    wanted = loss(x.double(), labels)
    assert loss(x, labels).dtype == dtype
    torch.testing.assert_close(loss(x, labels).double(), wanted, rtol=1e-2, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(x, labels).dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metric_learning.TripletMarginLoss("soft"),
            TypeError,
            "margin: expected a number, got 'soft'",
        ),
        (lambda: metric_learning.TripletMarginLoss(0.1, "cosine"), TypeError, "swap: expected a bool"),
        (
            lambda: metric_learning.BatchHardMiner("manhattan"),
            ValueError,
            "metric: expected .*got 'manhattan'",
        ),
        (
            lambda: metric_learning.BatchHardMiner("cosine", distance=distances.LpDistance()),
            ValueError,
            "distance: expected none beside metric='cosine'",
        ),
    ],
)
def test_bad_options(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_equal_embeddings_give_positives_of_the_same_label(batch):
    """pytorch-metric-learning 476: of distances that are all zero, one of another label was the largest."""
    x, labels = torch.ones(40, 16), batch[1]
    for metric in (None, "euclidean", "squared", "cosine"):
        a, p, n = metric_learning.BatchHardMiner(metric)(x, labels)
        assert (labels[a] == labels[p]).all()
        assert (labels[a] != labels[n]).all()
        assert (a != p).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES[:4])
def test_under_autocast(batch, dtype, distance):
    """pytorch-metric-learning 233 and 228: a sentinel that overflows float16, a loss that does not move."""
    x, labels = batch
    leaf = x.clone().requires_grad_()
    miner = metric_learning.BatchHardMiner(distance=distance())
    loss = metric_learning.TripletMarginLoss(0.2, distance=distance())
    wanted = miner(x, labels)
    expected = torch.autograd.grad(loss(leaf, labels, wanted), leaf)
    with torch.autocast("cpu", dtype):
        found = miner(leaf, labels)
        value = loss(leaf, labels, found)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(torch.autograd.grad(value, leaf), expected)


def test_in_the_distributed_wrappers_of_one_process(batch):
    """pytorch-metric-learning 542: the miner's wrapper failed where the group has one process."""
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        values = []
        for kinds in (metric_learning, None):
            miner = (kinds or miners).BatchHardMiner()
            loss = (kinds or losses).TripletMarginLoss()
            indices = DistributedMinerWrapper(miner)(*batch)
            values.append((*indices, DistributedLossWrapper(loss)(*batch, indices)))
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
