"""DRSTA (Li et al., CVPR 2018) in plain torch. Symbols as in the paper: N -> T frames, D -> C channels."""

import torch
from torch import Tensor

from vreid_ext.backends.reference.arithmetic import sqrt
from vreid_ext.precision import widened


def region_pool(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 2, 3 and 9: K distributions over the cells, the K weighted sums, and their overlap."""
    log_weights = widened(logits).log_softmax(-1)
    weights = log_weights.exp()
    features = weights @ widened(x).flatten(3).transpose(2, 3)
    # Square root of the weights via their logarithm: its derivative is finite where a weight is zero.
    root = (log_weights / 2).exp()
    products = root @ root.transpose(2, 3)
    itself = torch.eye(logits.shape[2], dtype=torch.bool, device=x.device)
    overlap = products.masked_fill(itself, 0).square().sum((2, 3))
    return features.to(x.dtype), weights, overlap


def hellinger_overlap(weights: Tensor, form: str) -> Tensor:
    """Eq. 9 ("hellinger") or 10 ("text") for given weights."""
    rows = sqrt(weights) if form == "hellinger" else weights
    identity = torch.eye(weights.shape[2], dtype=weights.dtype, device=weights.device)
    return (rows @ rows.transpose(2, 3) - identity).square().sum((2, 3))


def temporal_pool(scores: Tensor, features: Tensor, valid: Tensor | None) -> Tensor:
    """Eq. 12 (read as a softmax, as in the paper's text) and Eq. 13."""
    if valid is not None:
        features = torch.where(valid[:, :, None, None], features, 0)
    weights = frame_weights(scores, valid)
    return (weights[..., None] * widened(features)).sum(1).to(features.dtype)


def frame_weights(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over the valid frames; zeros for a clip without one."""
    if valid is None:
        return scores.softmax(1)
    left_out = ~valid[..., None]
    # The lowest finite score instead of -inf: softmax would give NaN for a clip without a valid frame.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(left_out, lowest).softmax(1).masked_fill(left_out, 0)
