from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vreid_ext.data import PKBatchSampler

pid_lists = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def epoch(sampler, number=0):
    sampler.set_epoch(number)
    return list(sampler)


@given(pid_lists, st.integers(1, 6), st.integers(0, 1000), st.integers(0, 100), st.data())
def test_batches_have_p_identities_of_k_tracklets(pids, k, seed, number, data):
    p = data.draw(st.integers(1, len(set(pids))))
    sampler = PKBatchSampler(pids, p, k, seed)
    batches = epoch(sampler, number)
    assert len(batches) == len(sampler) == len(set(pids)) // p
    owned = Counter(pids)
    for batch in batches:
        per_pid = Counter(pids[index] for index, _ in batch)
        assert list(per_pid.values()) == [k] * p
        for index, times in Counter(index for index, _ in batch).items():
            assert times <= -(-k // owned[pids[index]])
    used = [pid for batch in batches for pid in {pids[index] for index, _ in batch}]
    assert len(used) == len(set(used))


@given(pid_lists, st.integers(0, 1000), st.integers(0, 100))
def test_processes_share_the_batch_of_one(pids, seed, number):
    pids = [*pids, 20, 21, 22, 23]
    whole = epoch(PKBatchSampler(pids, 4, 3, seed), number)
    for size in (2, 4):
        parts = [
            epoch(PKBatchSampler(pids, 4, 3, seed, num_replicas=size, rank=r), number) for r in range(size)
        ]
        assert [list(chain(*shares)) for shares in zip(*parts, strict=True)] == whole


def test_an_epoch_is_a_function_of_seed_and_number():
    pids = [i // 5 for i in range(100)]
    batches = epoch(PKBatchSampler(pids, 4, 4, seed=7), 3)
    sampler = PKBatchSampler(pids, 4, 4, seed=7)
    assert epoch(sampler, 2) != batches
    assert epoch(sampler, 3) == batches
    assert epoch(PKBatchSampler(pids, 4, 4, seed=8), 3) != batches
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_more_batches_than_one_pass():
    pids = [i // 2 for i in range(14)]
    sampler = PKBatchSampler(pids, 3, 2, batches=9)
    batches = epoch(sampler)
    assert len(batches) == len(sampler) == 9
    assert all(len({pids[i] for i, _ in batch}) == 3 for batch in batches)


def test_identities_left_out_change():
    pids = list(range(5))
    sampler = PKBatchSampler(pids, 4, 1)
    left = {(set(pids) - {i for i, _ in epoch(sampler, e)[0]}).pop() for e in range(60)}
    assert left == set(pids)


def test_too_few_identities_names_both_numbers():
    with pytest.raises(ValueError, match="expected at most the 3 identities of the training set, got 16"):
        PKBatchSampler([1, 1, 2, 3], 16, 4)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"p": 0}, "p"),
        ({"k": 0}, "k"),
        ({"seed": -1}, "seed"),
        ({"batches": 0}, "batches"),
        ({"num_replicas": 0}, "num_replicas"),
        ({"num_replicas": 3}, "p"),
        ({"num_replicas": 2, "rank": 2}, "rank"),
    ],
)
def test_bad_argument_is_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        PKBatchSampler(**{"pids": [1, 2, 3, 4], "p": 4, "k": 2, **options})
