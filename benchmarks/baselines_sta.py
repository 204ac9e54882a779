"""Baselines of STA pooling without fused kernels: the form of the paper, and the fastest eager form."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from vreid_ext.backends import reference


def naive(x: Tensor, blocks: int) -> Tensor:
    """Equations 1 to 4 and Algorithm 1 as written: attention, scores, both fused maps, mean."""
    attention = reference.attention_map(x, "sum_square", "sum")
    scores = reference.block_scores(attention, None, blocks)
    return reference.fuse(x, scores, None).mean((2, 3))


def block_sums(x: Tensor, blocks: int) -> Tensor:
    """The identity that our kernel uses, in eager torch: block sums instead of fused maps, and a norm that
    does not copy the feature map."""
    q = vector_norm(x, dim=2, dtype=None if x.itemsize >= 4 else torch.float32).square()
    sums = x.unflatten(3, (blocks, -1)).sum((4, 5)).transpose(2, 3)
    s = (q / q.sum((2, 3), keepdim=True)).unflatten(2, (blocks, -1)).sum((3, 4))
    scores = s / s.sum(1, keepdim=True)
    best = scores.argmax(1)[:, None, :, None].expand(-1, 1, -1, x.shape[2])
    chosen = sums.gather(1, best).sum((1, 2))
    weighted = (scores[..., None] * sums).sum((1, 2))
    return torch.cat([chosen, weighted], 1) / (x.shape[3] * x.shape[4])
