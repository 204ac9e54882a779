import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vreid_ext.data import dense_clips, sample_clip

HOW = ("random", "evenly", "restricted", "consecutive", "first_of_chunk")

numbers = st.integers(1, 300)
seeds = st.integers(0, 2**63 - 1)


def draw(n, t, how, seed):
    return sample_clip(n, t, how, torch.Generator().manual_seed(seed))


@given(numbers, numbers, st.sampled_from(HOW), seeds)
def test_indices_ascend_within_the_tracklet_and_repeat_by_seed(n, t, how, seed):
    index = draw(n, t, how, seed)
    assert index.shape == (t,)
    assert index.dtype == torch.int64
    assert 0 <= index.min() <= index.max() < n
    assert (index.diff() >= 0).all()
    assert torch.equal(index, draw(n, t, how, seed))


@given(
    numbers,
    numbers,
    st.sampled_from(["random", "evenly", "restricted", "consecutive", "first_of_chunk"]),
    seeds,
)
def test_no_frame_twice_while_there_are_others(n, t, how, seed):
    distinct = len(draw(n, t, how, seed).unique())
    assert distinct == min(n, t)


@given(numbers, numbers, seeds)
def test_restricted_takes_one_frame_of_each_chunk(n, t, seed):
    index = draw(n, t, "restricted", seed).tolist()
    for i, frame in enumerate(index):
        low, high = i * n // t, (i + 1) * n // t
        assert low <= frame < max(high, low + 1)
    assert draw(n, t, "first_of_chunk", seed).tolist() == [i * n // t for i in range(t)]


@given(numbers, numbers, seeds)
def test_consecutive_are_neighbours(n, t, seed):
    steps = draw(n, t, "consecutive", seed).diff()
    assert (steps[: min(n, t) - 1] == 1).all()
    assert (steps[min(n, t) - 1 :] == 0).all()


@given(numbers, st.integers(2, 300))
def test_evenly_reaches_both_ends_in_equal_steps(n, t):
    index = sample_clip(n, t, "evenly")
    assert index[0] == 0
    assert index[-1] == n - 1
    assert index.diff().max() - index.diff().min() <= 1


@pytest.mark.parametrize("how", ["random", "restricted", "consecutive"])
def test_every_frame_can_be_drawn(how):
    seen = torch.cat([draw(11, 4, how, seed) for seed in range(300)]).unique()
    assert seen.tolist() == list(range(11))


@given(numbers, numbers)
def test_dense_clips_hold_every_frame_once(n, t):
    index, valid = dense_clips(n, t)
    assert index.shape == valid.shape == (-(-n // t), t)
    assert index[valid].tolist() == list(range(n))
    assert (index[~valid] == n - 1).all()


@pytest.mark.parametrize(("arguments", "name"), [((0, 4), "num_frames"), ((4, 0), "frames")])
def test_empty_tracklets_and_clips_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got 0"):
        sample_clip(*arguments)
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got 0"):
        dense_clips(*arguments)


def test_unknown_sampling_is_refused():
    with pytest.raises(ValueError, match=r"how: expected one of random, evenly, .*, got 'often'"):
        sample_clip(4, 4, "often")
