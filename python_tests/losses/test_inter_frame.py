import pytest
import torch

from vreid_ext.losses import InterFrameRegularizer


def test_all_pairs_by_hand():
    attention = torch.zeros(1, 3, 1, 2)
    attention[0, 0, 0, 0] = attention[0, 1, 0, 1] = attention[0, 2, 0, 0] = 1
    # frames 0 and 2 are equal, 1 is at distance sqrt(2) from both
    assert InterFrameRegularizer("all")(attention).item() == pytest.approx(2 * 2**0.5 / 3)


def test_random_pairs_are_different_frames():
    attention = torch.eye(4).reshape(1, 4, 2, 2).expand(50, -1, -1, -1)  # any two frames: sqrt(2)
    assert InterFrameRegularizer()(attention).item() == pytest.approx(2**0.5)


def test_a_clip_with_a_frame_left_out_does_not_count():
    attention = torch.rand(3, 2, 4, 2, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    regularizer = InterFrameRegularizer("all")
    torch.testing.assert_close(regularizer(attention, valid), regularizer(attention[[0, 2]]))
    assert regularizer(attention, torch.zeros_like(valid)) == 0


def test_one_frame_gives_zero():
    assert InterFrameRegularizer()(torch.rand(2, 1, 4, 2)) == 0


def test_bad_input():
    with pytest.raises(ValueError, match=r"^pairs: expected"):
        InterFrameRegularizer("some")
    with pytest.raises(ValueError, match=r"^valid: expected"):
        InterFrameRegularizer()(torch.rand(2, 3, 4, 2), torch.ones(2, 2, dtype=torch.bool))
