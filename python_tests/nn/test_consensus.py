import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vreid_ext.nn import ConsensusPooling


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu() + 0.1


def plain(x: torch.Tensor, blocks: int, sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula of the docstring, one clip, one block and one frame at a time, in float64."""
    b, t, c, h, _ = x.shape
    pooled, scores = torch.zeros(b, c, dtype=torch.float64), torch.zeros(b, t, blocks, dtype=torch.float64)
    for clip in range(b):
        for k in range(blocks):
            rows = slice(k * h // blocks, (k + 1) * h // blocks)
            means = [x[clip, frame, :, rows].double().mean((1, 2)) for frame in range(t)]
            unit = [mean / mean.norm() for mean in means]
            agreement = torch.stack(
                [
                    torch.dot(unit[frame], others / others.norm())
                    for frame in range(t)
                    for others in [sum(unit[s] for s in range(t) if s != frame)]
                ]
            )
            scores[clip, :, k] = (sharpness * agreement).softmax(0)
            pooled[clip] += sum(w * mean for w, mean in zip(scores[clip, :, k], means, strict=True)) / blocks
    return pooled, scores


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_formula(blocks, dtype):
    x = maps(3, 4, 5, 8, 3).to(dtype)
    pooled, scores = ConsensusPooling(blocks, 7.0)(x)
    wanted_pooled, wanted_scores = plain(x, blocks, 7.0)
    torch.testing.assert_close(pooled, wanted_pooled.to(dtype), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores, wanted_scores.to(dtype), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([1, 2, 4]), st.floats(0, 50), st.integers(0, 99))
def test_weights_are_shares_and_equal_frames_have_equal_weights(batch, frames, blocks, sharpness, seed):
    x = maps(batch, frames, 3, 4, 2, seed=seed)
    _, scores = ConsensusPooling(blocks, sharpness)(x)
    torch.testing.assert_close(scores.sum(1), torch.ones(batch, blocks))
    _, scores = ConsensusPooling(blocks, sharpness)(x[:, :1].expand_as(x))
    torch.testing.assert_close(scores, torch.full_like(scores, 1 / frames))


@pytest.mark.parametrize(("frames", "sharpness"), [(5, 0.0), (1, 9.0), (2, 9.0)])
def test_is_average_pooling_without_a_majority(frames, sharpness):
    x = maps(2, frames, 6, 4, 2)
    pooled, _ = ConsensusPooling(2, sharpness)(x)
    torch.testing.assert_close(pooled, x.mean((1, 3, 4)))


def test_the_block_that_differs_gets_the_smallest_weight():
    x = maps(1, 1, 32, 8, 4).expand(1, 4, -1, -1, -1) + 0.2 * maps(1, 4, 32, 8, 4, seed=1)
    x[:, 2, :, :4] = maps(32, 4, 4, seed=2)  # the upper half of frame 2 is of somebody else
    _, scores = ConsensusPooling(4, 20.0)(x)
    assert scores[0, 2, :2].max() < 0.1
    assert scores[0, 2, 2:].min() > 0.2


def test_space_in_which_blocks_are_compared():
    x = maps(2, 4, 6, 4, 2)
    linear = torch.nn.Linear(6, 3)
    _, scores = ConsensusPooling(2, 5.0)(x, space=linear)
    means = x.mean(4).unflatten(3, (2, 2)).mean(4).transpose(2, 3)
    projected = linear(means).transpose(3, 2)[..., None]  # (B,T,3,K,1): maps whose rows are the blocks
    torch.testing.assert_close(scores, ConsensusPooling(2, 5.0)(projected)[1])


def test_excluded_frames_may_contain_nan():
    x = maps(3, 4, 5, 4, 2)
    x[1, 2:] = torch.nan
    valid = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    pooled, scores = ConsensusPooling(2)(x, valid)
    for part, frames in ((0, 4), (1, 2)):
        alone = ConsensusPooling(2)(x[part : part + 1, :frames])
        torch.testing.assert_close(pooled[part : part + 1], alone.pooled)
        torch.testing.assert_close(scores[part : part + 1, :frames], alone.scores)
    assert not scores[1, 2:].any()
    assert not pooled[2].any()


def test_gradients():
    x = maps(2, 3, 3, 4, 2).double().requires_grad_()
    torch.autograd.gradcheck(lambda x: tuple(ConsensusPooling(2, 3.0)(x)), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = maps(2, 4, 8, 4, 2)
    pooled, scores = ConsensusPooling(2)(x.to(dtype))
    assert (pooled.dtype, scores.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(pooled.float(), ConsensusPooling(2)(x).pooled, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks: expected"),
        ({"blocks": 2.0}, "blocks: expected"),
        ({"sharpness": -1}, "sharpness: expected"),
        ({"sharpness": float("nan")}, "sharpness: expected"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ConsensusPooling(**options)


@pytest.mark.parametrize(
    ("x", "valid", "message"),
    [
        (maps(2, 3, 4, 4), None, r"x: expected shape \(B,T,C,H,W\)"),
        (maps(2, 3, 4, 5, 2), None, "blocks: expected a positive divisor"),
        (maps(2, 3, 4, 4, 2), torch.ones(2, 2, dtype=torch.bool), "valid: expected"),
        (maps(2, 3, 4, 4, 2), torch.ones(2, 3), "valid: expected"),
    ],
)
def test_wrong_inputs(x, valid, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ConsensusPooling(4)(x, valid)
