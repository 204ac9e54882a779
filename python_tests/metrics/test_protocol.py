"""The steps of the evaluation, `matches` and `rank_scores`, item by item."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import _native, backends, use_backend
from vreid_ext.backends import addresses, signatures, table
from vreid_ext.metrics import evaluate_distances
from vreid_ext.metrics.protocol import JunkRule

BACKENDS = ["native", "reference"]


def integers(values):
    return torch.tensor(values, dtype=torch.int64)


def lists(start, index):
    return [index[a:b].tolist() for a, b in zip(start.tolist(), start.tolist()[1:], strict=False)]


@st.composite
def labelled(draw):
    """Signatures of `matches`. 2**62 and -(2**63) share their low bits with 0."""
    q, g, rules = draw(st.integers(0, 6)), draw(st.integers(0, 30)), draw(st.integers(0, 3))
    ints = lambda n, values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    person = st.integers(-2, 3) | st.sampled_from([2**62, -(2**63), 2**63 - 1])
    itself = integers(ints(q, st.integers(-1, g - 1))) if g and draw(st.booleans()) else None
    label = lambda n: integers([ints(n, st.integers(0, 1)) for _ in range(rules)]).reshape(rules, n)  # noqa: E731
    same = torch.tensor(ints(rules, st.booleans()), dtype=torch.bool)
    query, gallery = integers(ints(q, person)), integers(ints(g, person))
    return signatures.Matches(query, gallery, label(q), label(g), same, itself)


@settings(max_examples=200)
@given(labelled(), st.booleans(), st.sampled_from(BACKENDS))
def test_matches_are_the_pairs_of_one_person(args, strided, backend):
    def removed(i, j):
        equal = args.query_label[:, i] == args.gallery_label[:, j]
        return bool((equal == args.same).any()) or (args.itself is not None and args.itself[i] == j)

    positives, left_out = [], []
    for i, person in enumerate(args.query.tolist()):
        pairs = [j for j, other in enumerate(args.gallery.tolist()) if person == other != -1]
        itself = -1 if args.itself is None else int(args.itself[i])
        other_person = {itself} if itself >= 0 and args.gallery[itself] != person else set()
        positives.append([j for j in pairs if not removed(i, j)])
        left_out.append(sorted({j for j in pairs if removed(i, j)} | other_person))

    if strided:
        args = args._replace(gallery_label=args.gallery_label.T.contiguous().T)
    row, index, start, left_start, left = table.function(backend, "matches")(args)
    assert lists(start, index) == positives
    assert lists(left_start, left) == left_out
    assert row.tolist() == [i for i, items in enumerate(positives) for _ in items]


@settings(max_examples=200)
@given(
    st.lists(st.sets(st.integers(0, 60), max_size=9), max_size=6), st.booleans(), st.sampled_from(BACKENDS)
)
def test_scores_of_ranks(before, trapezoid, backend):
    start = integers([0, *(len(each) for each in before)]).cumsum(0)
    counts = integers([count for each in before for count in each])  # in the order of the set
    args = signatures.RankScores(start, counts, trapezoid)
    scores = table.function(backend, "rank_scores")(args)
    for each, ap, inp, first in zip(before, *(score.tolist() for score in scores), strict=True):
        if not each:
            assert math.isnan(ap)
            assert math.isnan(inp)
            assert first == 0
            continue
        ranks, total = [count + 1 for count in sorted(each)], 0.0
        for n, rank in enumerate(ranks, start=1):
            earlier = (n - 1) / (rank - 1) if rank > 1 else 1.0
            total += (earlier + n / rank) / 2 if trapezoid else n / rank
        assert (ap, inp, first) == (total / len(ranks), len(ranks) / ranks[-1], ranks[0])


def test_backends_evaluate_alike():
    """More items than one piece of the counting kernel, many equal distances, and pids that collide."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high, n: torch.randint(low, high, (n,), generator=generator)  # noqa: E731
    q_pids, g_pids, q_cams, g_cams = (draw(-1, high, n) for high in (150, 5) for n in (40, 1500))
    rules = [JunkRule("clothes", draw(0, 2, 40), draw(0, 2, 1500), "other")]
    distances, exclude = draw(0, 50, 40 * 1500).view(40, 1500).double(), draw(0, 1500, 40)
    results = []
    for backend in BACKENDS:
        with use_backend(backend):
            results.append(
                evaluate_distances(
                    distances, q_pids << 40, g_pids << 40, q_cams, g_cams, rules=rules, exclude=exclude
                )
            )
    native, reference = results
    assert native.row() == reference.row()
    assert all(
        torch.equal(native.per_query[name].nan_to_num(), reference.per_query[name].nan_to_num())
        for name in reference.per_query
    )


def test_a_backend_without_the_step_is_ignored():
    step = backends.evaluation_step("matches", torch.device("cpu"))
    with use_backend("triton"):  # has no kernel for it
        assert backends.evaluation_step("matches", torch.device("cpu")) is step
    with use_backend("reference"):
        assert backends.evaluation_step("matches", torch.device("cpu")) is not step


def test_native_refuses_what_would_crash():
    one, start = torch.zeros(1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    same = torch.ones(1, dtype=torch.bool)
    at = addresses.address
    items = addresses.LabelledItems(1, 1, 1, at(one), at(one), at(one), at(one), at(same), 0)
    places = addresses.Sorted(at(one), at(one), at(one), at(start), at(start))
    with pytest.raises(ValueError, match="items: expected sizes of at least 0"):
        _native.count_matches(items._replace(Q=-1), places)
    with pytest.raises(ValueError, match="gallery: expected the address of 1 elements, got null"):
        _native.count_matches(items._replace(gallery=0), places)
    outside, beyond = one + 1, one + 2
    with pytest.raises(ValueError, match="itself: expected -1 to 0, got 1"):
        _native.count_matches(items._replace(itself=at(outside)), places)
    with pytest.raises(ValueError, match="order: expected 0 to 0, got 1"):
        _native.matches(items, places._replace(order=at(outside)), 0, 0, 0)
    with pytest.raises(ValueError, match="last: expected 0 to 1, got 2"):
        _native.matches(items, places._replace(last=at(beyond)), 0, 0, 0)
    start[1] = 1
    with pytest.raises(ValueError, match="row: expected the address of 1 elements, got null"):
        _native.matches(items, places, 0, 0, 0)
    with pytest.raises(ValueError, match=r"start: expected ascending numbers from 0 to 0, got 1 at 1"):
        _native.rank_scores(1, 0, at(start), 0, False, at(one), at(one), at(one))
