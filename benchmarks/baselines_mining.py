"""Baselines of the batch-hard triplet loss: pytorch-metric-learning, torchreid's loop, and `cdist`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 0.3


def metric_learning() -> Callable[[Tensor, Tensor], Tensor]:
    """Miner and loss of pytorch-metric-learning with Euclidean distances of the unnormalised features."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    distance: Any = LpDistance(normalize_embeddings=False)
    miner, loss = (
        BatchHardMiner(distance=distance),
        TripletMarginLoss(MARGIN, distance=distance, reducer=MeanReducer()),
    )
    return lambda x, labels: loss(x, labels, miner(x, labels))


def cdist(x: Tensor, labels: Tensor) -> Tensor:
    """The shortest form in torch: a distance matrix, and a maximum and a minimum per row."""
    distance = torch.cdist(x, x)
    same = labels[:, None] == labels
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    positive = distance.masked_fill(~same | own, -torch.inf).amax(1)
    negative = distance.masked_fill(same, torch.inf).amin(1)
    return F.relu(MARGIN + positive - negative).mean()


def anchor_loop(x: Tensor, labels: Tensor) -> Tensor:
    """The form of torchreid and of much published code: the distance matrix, then a loop over the anchors."""
    square = x.pow(2).sum(1, keepdim=True)
    distance = (square + square.t() - 2 * x @ x.t()).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels
    positive = torch.stack([distance[i][same[i]].max() for i in range(len(x))])
    negative = torch.stack([distance[i][~same[i]].min() for i in range(len(x))])
    return F.margin_ranking_loss(negative, positive, torch.ones_like(positive), margin=MARGIN)
