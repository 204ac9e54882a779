"""The part metric compared with its matrix products and with eager torch."""

import pytest
import torch
from torch import Tensor

from vreid_ext import ops

# Sizes (queries, gallery, R, D): a tile of MARS, and a training batch of 16 persons x 4 clips; R, D of STAL.
CASES = {"evaluation": (990, 2048, 6, 1024), "training": (64, 64, 6, 1024)}


def features(case, device, dtype):
    queries, items, parts, dim = CASES[case]
    both = (torch.randn(n, parts, dim, device=device).relu().to(dtype) for n in (queries, items))
    scores = (torch.rand(n, parts, device=device) for n in (queries, items))
    return [each for pair in zip(both, scores, strict=True) for each in pair]


def matrix_products(q_features, _q_weights, g_features, _g_weights):
    """Only the R matrix products, into preallocated memory."""
    product = q_features.new_empty(len(q_features), len(g_features))
    for r in range(q_features.shape[1]):
        torch.mm(q_features[:, r], g_features[:, r].T, out=product)
    return product


def eager(q_features, q_weights, g_features, g_weights) -> Tensor:
    """All parts at once with one batched product and (R,Q,G) arrays."""
    q_weights, g_weights = (torch.nn.functional.normalize(each, dim=1) for each in (q_weights, g_weights))
    distance = torch.cdist(q_features.transpose(0, 1).float(), g_features.transpose(0, 1).float())
    return torch.einsum("rij,ir,jr->ij", distance, q_weights, g_weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_evaluation(side_by_side, device, dtype):
    inputs = features("evaluation", device, dtype)
    torch.testing.assert_close(ops.part_distance(*inputs), eager(*inputs), rtol=1e-3, atol=1e-3)
    in_float32 = [each.float() for each in inputs]
    with torch.no_grad():
        side_by_side(
            f"forward {str(dtype)[6:]} evaluation",
            {
                "ours": lambda: ops.part_distance(*inputs),
                "R products, float32": lambda: matrix_products(*in_float32),
                "eager": lambda: eager(*inputs),
            },
            group="part_distance forward",
        )


def test_training(side_by_side, device):
    inputs = [each.requires_grad_() for each in features("training", device, torch.float32)]
    upstream = torch.randn(64, 64, device=device)

    def step(function):
        return lambda: torch.autograd.grad(function(*inputs), inputs, upstream)

    side_by_side(
        "forward+backward float32 training",
        {"ours": step(ops.part_distance), "eager": step(eager)},
        group="part_distance forward and backward",
    )
