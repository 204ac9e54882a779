import pytest
import torch

from vreid_ext import ops
from vreid_ext.nn import STAPooling


def clip(*shape: int, **options) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), **options)


def test_default_is_the_fused_op():
    x = clip(2, 3, 5, 8, 4)
    for got, wanted in zip(STAPooling(blocks=2)(x), ops.sta_pool(x, 2), strict=True):
        assert torch.equal(got, wanted)


def test_unfused_path_agrees_with_the_fused_one():
    x = clip(2, 3, 5, 8, 4, dtype=torch.float64)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    layer = STAPooling(blocks=4, normalize="l2")
    attention = ops.attention_map(x, "sum_square", "l2") * valid[:, :, None, None]
    scores = ops.block_scores(attention, 4, valid)
    got = layer(x, valid)
    torch.testing.assert_close(got.attention, attention)
    torch.testing.assert_close(got.scores, scores)
    torch.testing.assert_close(got.pooled, ops.fuse(x, scores, valid).mean((2, 3)))


@pytest.mark.parametrize(("energy", "normalize"), [("sum_square", "sum"), ("l2", "l2"), ("l2", "sum")])
def test_a_frame_left_out_cannot_be_seen(energy, normalize):
    x = clip(2, 3, 4, 4, 2)
    x[1, 2] = torch.nan
    x.requires_grad_()
    valid = torch.tensor([[True, True, True], [True, True, False]])
    layer = STAPooling(2, energy, normalize)
    pool = layer(x, valid)
    short = layer(x[1:, :2])
    torch.testing.assert_close(pool.pooled[1:], short.pooled)
    torch.testing.assert_close(pool.scores[1:, :2], short.scores)
    assert (pool.scores[1, 2] == 0).all()
    assert (pool.attention[1, 2] == 0).all()
    (pool.pooled.square().sum() + pool.scores.square().sum() + pool.attention.square().sum()).backward()
    assert x.grad.isfinite().all()
    assert (x.grad[1, 2] == 0).all()


def test_has_no_state():
    assert STAPooling().state_dict() == {}


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"blocks": 0}, ValueError, "blocks"),
        ({"blocks": 2.0}, TypeError, "blocks"),
        ({"energy": "l1"}, ValueError, "energy"),
        ({"normalize": "max"}, ValueError, "normalize"),
    ],
)
def test_bad_options(options, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        STAPooling(**options)


def test_blocks_must_divide_the_rows():
    with pytest.raises(ValueError, match=r"^blocks: expected .*, got 3"):
        STAPooling(3)(clip(1, 2, 3, 8, 4))
