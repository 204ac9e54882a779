"""Triplet loss on the hardest pairs of the current and of earlier batches."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.precision import widened


class CrossBatchMemory(nn.Module):
    """Batch-hard triplet loss whose positives and negatives also come from earlier batches (Wang et al.,
    "Cross-Batch Memory for Embedding Learning", CVPR 2020).

    Args:
        size: number of stored embeddings; the oldest are discarded first.
        margin, metric, backend: as for `TripletLoss`.

    Call: `loss(inputs, targets)` as for `TripletLoss`. The batch is then stored, detached. Rows that are not
    finite or whose squares overflow are not stored; on a CPU they raise an error, and on a GPU this check
    synchronizes with the device. Only the current batch receives gradients. `clear()` empties the memory. It
    is not part of the state dict and is empty after a restart.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        size: int,
        margin: float | Literal["soft"] = 0.3,
        *,
        metric: str = "euclidean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        _checks.integer("size", size, 1)
        self.size, self.margin = size, _checks.margin(margin)
        self.metric, self.backend = _checks.choice("metric", metric, _checks.METRICS), backend
        self.clear()

    def clear(self) -> None:
        self._embeddings: Tensor | None = None
        self._labels: Tensor | None = None

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        _checks.labelled_rows("inputs", inputs, "targets", targets, empty=False)
        hard = ops.batch_hard(inputs, targets, metric=self.metric, backend=self.backend)
        if self._embeddings is not None and self._labels is not None:
            memory = self._embeddings.to(inputs)
            hard = self._harder(
                hard,
                ops.batch_hard(
                    inputs, targets, metric=self.metric, ref=memory, ref_labels=self._labels,
                    backend=self.backend,
                ),
            )  # fmt: skip
        self._remember(inputs.detach(), targets.long())
        gap = hard.positive_distance - hard.negative_distance
        loss = F.softplus(gap) if self.margin == "soft" else F.relu(self.margin + gap)
        return loss.masked_fill(~hard.valid, 0).sum() / hard.valid.sum().clamp(min=1)

    def _harder(self, a: ops.BatchHard, b: ops.BatchHard) -> ops.BatchHard:
        """For every anchor, keep the harder of two positives and the harder of two negatives."""
        farther = (b.positive_index >= 0) & (b.positive_distance > a.positive_distance)
        nearer = (b.negative_index >= 0) & (
            (a.negative_index < 0) | (b.negative_distance < a.negative_distance)
        )
        has_both = ((a.positive_index >= 0) | (b.positive_index >= 0)) & (
            (a.negative_index >= 0) | (b.negative_index >= 0)
        )
        return ops.BatchHard(
            torch.where(farther, b.positive_distance, a.positive_distance),
            torch.where(nearer, b.negative_distance, a.negative_distance),
            torch.where(farther, b.positive_index, a.positive_index),
            torch.where(nearer, b.negative_index, a.negative_index),
            has_both,
        )

    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        finite = widened(embeddings).square().sum(1).isfinite()
        embeddings, labels = embeddings[finite], labels[finite]
        if self._embeddings is not None and self._labels is not None:
            embeddings = torch.cat([self._embeddings.to(embeddings), embeddings])
            labels = torch.cat([self._labels, labels])
        self._embeddings, self._labels = embeddings[-self.size :].clone(), labels[-self.size :].clone()

    def extra_repr(self) -> str:
        return f"size={self.size}, margin={self.margin!r}, metric={self.metric!r}"
