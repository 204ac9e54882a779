"""Rank-1 with all shots and with a single shot, against the definitions and random draws."""

import numpy as np
import torch

from vreid_ext.metrics.cmc import rank1_variants


def test_a_list_by_hand():
    # Persons 1 (the query), 2 and 3; the last place is empty.
    g_pids = torch.tensor([2, 1, 3, 2, 1])
    items = torch.tensor([[0, 1, 2, 4, 3, -1]])
    every, single = rank1_variants(items, torch.tensor([1]), g_pids)
    assert every.tolist() == [0.0]  # item 0 precedes both
    # The first positive is first if item 3 is drawn for person 2; the second never, because of person 3.
    assert single.tolist() == [0.25]
    every, single = rank1_variants(torch.tensor([[1, 0, 4, 2, 3]]), torch.tensor([1]), g_pids)
    assert every.tolist() == [0.5]
    assert single.tolist() == [(1 + 0.5) / 2]


def test_a_query_without_a_positive_is_nan():
    for rates in rank1_variants(torch.tensor([[0, 1], [0, -1]]), torch.tensor([1, 5]), torch.tensor([1, 2])):
        assert rates[0] == 1
        assert rates[1].isnan()


def test_single_shot_is_the_mean_of_draws():
    rng = np.random.default_rng(0)
    g_pids = rng.integers(0, 6, 30)
    q_pids = np.array([0, 1, 2, 3])
    items = np.stack([rng.permutation(30) for _ in q_pids])
    items[:, 27:] = -1
    _, single = rank1_variants(*map(torch.from_numpy, (items, q_pids, g_pids)))
    draws = 4000
    for row, rate in zip(range(4), single.tolist()):
        places = [np.flatnonzero(g_pids[items[row, :27]] == pid) for pid in range(6)]
        first = np.stack([rng.choice(place, draws) for place in places])
        estimate = (first.argmin(0) == q_pids[row]).mean()
        assert abs(estimate - rate) < 5 * (0.25 / draws) ** 0.5
