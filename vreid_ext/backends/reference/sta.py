"""STA (Fu et al., AAAI 2019) in plain torch. Symbols as in the paper: N -> T frames, D -> C channels."""

import torch
from torch import Tensor

from vreid_ext.backends.reference.arithmetic import ratio, sqrt
from vreid_ext.precision import widened


def attention_map(x: Tensor, energy: str, normalize: str) -> Tensor:
    """Eq. 1: per-cell energy over channels, normalized over the cells of a frame."""
    q, cells = widened(x).square().sum(2), x.shape[3] * x.shape[4]
    if energy == "l2":
        q = sqrt(q)
    if normalize == "sum":
        norm, uniform = q.sum((2, 3), keepdim=True), 1 / cells
    else:
        norm, uniform = sqrt(q.square().sum((2, 3), keepdim=True)), cells**-0.5
    return ratio(q, norm, uniform)


def block_scores(attention: Tensor, valid: Tensor | None, blocks: int) -> Tensor:
    """Eq. 3 and 4: L1 norm of each row block, normalized over the valid frames."""
    valid = _all_valid(attention) if valid is None else valid
    attention = torch.where(valid[..., None, None], attention, 0)
    s = attention.unflatten(2, (blocks, -1)).abs().sum((3, 4))
    uniform = valid.to(s.dtype) / valid.sum(1, keepdim=True).clamp(min=1)
    return torch.where(valid[..., None], ratio(s, s.sum(1, keepdim=True), uniform[..., None]), 0)


def fuse(x: Tensor, scores: Tensor, valid: Tensor | None) -> Tensor:
    """Algorithm 1: the block of the frame with the highest score, and the score-weighted sum over frames."""
    valid = _all_valid(x) if valid is None else valid
    blocks = widened(x).unflatten(3, (scores.shape[2], -1))
    blocks = torch.where(valid[:, :, None, None, None, None], blocks, 0)
    scores = torch.where(valid[..., None], scores, 0)
    # Excluded frames get -inf below, so a score of -inf must be larger.
    lowest = scores.clamp(min=torch.finfo(scores.dtype).min)
    best = lowest.masked_fill(~valid[..., None], -torch.inf).argmax(1)
    chosen = blocks.gather(1, best[:, None, None, :, None, None].expand_as(blocks[:, :1])).squeeze(1)
    weighted = (blocks * scores[:, :, None, :, None, None]).sum(1)
    return torch.cat([chosen, weighted], 1).flatten(2, 3).to(x.dtype)


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three functions above, then the spatial mean."""
    valid = _all_valid(x) if valid is None else valid
    x = torch.where(valid[:, :, None, None, None], x, 0)
    attention = torch.where(valid[..., None, None], attention_map(x, "sum_square", "sum"), 0)
    scores = block_scores(attention, valid, blocks)
    pooled = fuse(widened(x), scores, valid).mean((2, 3))
    return pooled.to(x.dtype), scores, attention


def inter_frame_distance(attention: Tensor, pairs: Tensor) -> Tensor:
    """Eq. 6, averaged over the given frame pairs of each clip."""
    flat = attention.flatten(2)
    index = pairs[..., None].expand(-1, -1, -1, flat.shape[2]).flatten(1, 2)
    first, second = flat.gather(1, index).unflatten(1, pairs.shape[1:]).unbind(2)
    return sqrt((first - second).square().sum(2)).mean(1)


def _all_valid(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
