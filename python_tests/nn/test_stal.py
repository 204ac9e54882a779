import pytest
import torch
from torch.autograd import gradcheck

from vreid_ext import ops
from vreid_ext.nn import QualityNetwork, ResidualAttention, aggregate_parts, normalise_scores


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 2, 5, generator=generator, dtype=dtype)
    return features, torch.rand(3, 4, 2, generator=generator, dtype=dtype).add(0.1)


def test_aggregation_is_equation_9():
    features, scores = inputs()
    got = aggregate_parts(features, scores)
    for b in range(3):
        for r in range(2):
            expected = sum(scores[b, t, r] * features[b, t, r] for t in range(4)) / scores[b, :, r].sum()
            torch.testing.assert_close(got.features[b, r], expected)
    torch.testing.assert_close(got.scores, scores.mean(1))


def test_invalid_frames_are_never_read():
    features, scores = inputs()
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    features[~valid], scores[~valid] = float("nan"), float("nan")
    got = aggregate_parts(features, scores, valid)
    alone = aggregate_parts(features[:1, [0, 1, 3]], scores[:1, [0, 1, 3]])
    torch.testing.assert_close(got.features[:1], alone.features)
    torch.testing.assert_close(got.scores[:1], alone.scores)
    torch.testing.assert_close(got.features[1], features[1, 0])
    assert got.features[2].eq(0).all()
    assert got.scores[2].eq(0).all()


def test_scores_of_zero_give_the_mean():
    features, scores = inputs()
    scores[:, :, 1] = 0
    scores.requires_grad_()
    got = aggregate_parts(features, scores)
    torch.testing.assert_close(got.features[:, 1], features[:, :, 1].mean(1))
    (gradient,) = torch.autograd.grad(got.features.sum(), scores)
    assert gradient.isfinite().all()


def psi(features, scores, others, other_scores, backend):
    mine, theirs = aggregate_parts(features, scores), aggregate_parts(others, other_scores)
    return ops.part_distance(*mine, *theirs, backend=backend)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_scores_and_features_pass_gradcheck_through_the_metric(backend):
    """Eq. 10, 11 and the chain of Eq. 13 against finite differences in float64."""
    features, scores = (each.requires_grad_() for each in inputs())
    others, other_scores = (each.flip(0) + 0.5 for each in inputs())
    assert gradcheck(lambda *mine: psi(*mine, others, other_scores, backend), (features, scores))


def test_gradient_is_equations_10_to_13():
    """The paper's factors, with the full Jacobian of a / ||a|| where Eq. 12 prints (1 - a) / ||a||."""
    features, scores = (each[:1].requires_grad_() for each in inputs())
    others, other_scores = inputs()
    others, other_scores = others[1:2], other_scores[1:2]
    (gradient,) = torch.autograd.grad(psi(features, scores, others, other_scores, "native").sum(), scores)

    mine, theirs = aggregate_parts(features, scores), aggregate_parts(others, other_scores)
    f_i, f_j, a_i, a_j = mine.features[0], theirs.features[0], mine.scores[0], theirs.scores[0]
    n_i, n_j = a_i / a_i.norm(), a_j / a_j.norm()
    length = (f_i - f_j).norm(dim=1)
    d_f = (n_i * n_j / length)[:, None] * (f_i - f_j)  # Eq. 10
    d_n = n_j * length  # Eq. 10, of one part
    f_a = (features[0] - f_i) / scores[0].sum(0)[:, None]  # Eq. 11
    d_a = (d_n - (d_n * n_i).sum() * n_i) / a_i.norm() / scores.shape[1]  # Eq. 12
    torch.testing.assert_close(gradient[0], (d_f * f_a).sum(2) + d_a)  # Eq. 13


def test_normalised_scores_sum_to_one_and_change_no_distance():
    features, scores = inputs()
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    normalised = normalise_scores(scores, valid)
    torch.testing.assert_close(normalised.sum((1, 2)), torch.ones(3, dtype=torch.float64))
    assert normalised[~valid].eq(0).all()
    plain, scaled = aggregate_parts(features, scores, valid), aggregate_parts(features, normalised, valid)
    torch.testing.assert_close(ops.part_distance(*plain, *plain), ops.part_distance(*scaled, *scaled))


@pytest.mark.parametrize("size", [(14, 14), (7, 5), (1, 1)])
def test_residual_attention_scales_between_one_and_two(size):
    x = torch.rand(2, 6, *size) + 0.1
    y = ResidualAttention(6, width=4)(x)
    assert y.shape == x.shape
    assert ((y > x) & (y < 2 * x)).all()


def test_quality_of_a_frame_does_not_depend_on_the_others():
    network = QualityNetwork(width=4).eval()
    frames = torch.randn(2, 3, 3, 40, 24)
    scores = network(frames)
    assert scores.shape == (2, 3, 6)
    torch.testing.assert_close(network(frames[:, 1:2]), scores[:, 1:2])
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: aggregate_parts(torch.zeros(2, 3, 4), torch.zeros(2, 3)),
            r"features: expected .*got \(2, 3, 4\)",
        ),
        (
            lambda: aggregate_parts(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3)),
            r"scores: expected .*got \(2, 3\)",
        ),
        (
            lambda: aggregate_parts(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4), torch.ones(2, 3)),
            "valid: expected .*got torch.float32",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
