"""Distance variance among different positives."""

import torch
from torch import Tensor

from vreid_ext import _checks, ops


class DVDP:
    """DVDP (Chen et al., 2020, Eq. 1 and Fig. 7), averaged over the anchors of all batches.

        mean over anchors a of  max_j FD(x_a, x_j) - min_j FD(x_a, x_j)

    Here j runs over the other samples of the anchor's identity.

    Args:
        metric: FD, "cosine" (the paper), "euclidean" or "squared".

    `update(features, pids)` adds a batch (n,D), (n,). `compute()` returns the mean, or NaN if no anchor has
    another sample of its identity. `reset()` discards all batches. For one batch see `ops.dvdp`.
    """

    def __init__(self, metric: str = "cosine") -> None:
        _checks.choice("metric", metric, _checks.METRICS)
        self.metric = metric
        self.reset()

    def reset(self) -> None:
        self._sum, self._count = 0.0, 0

    @torch.no_grad()
    def update(self, features: Tensor, pids: Tensor) -> None:
        _checks.labelled_rows("features", features, "pids", pids)
        total, count = ops.dvdp(features, pids, metric=self.metric)
        self._sum += float(total)
        self._count += int(count)

    def compute(self) -> float:
        return self._sum / self._count if self._count else float("nan")
