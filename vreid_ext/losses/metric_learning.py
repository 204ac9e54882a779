"""A miner and a loss with the signatures of pytorch-metric-learning.

Where that package is installed they are a `BaseMiner` and a `BaseMetricLossFunction` of it and fit into its
losses, wrappers and trainers; elsewhere they work alone. Import them from this module: only here is that
package looked for.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.losses import _checks

try:
    from pytorch_metric_learning.losses.base_metric_loss_function import BaseMetricLossFunction
    from pytorch_metric_learning.miners.base_miner import BaseMiner
except ImportError:
    INSTALLED = False
    BaseMiner = BaseMetricLossFunction = nn.Module
else:
    INSTALLED = True

Triplets = tuple[Tensor, Tensor, Tensor]


class BatchHardMiner(BaseMiner):  # type: ignore[misc, valid-type, unused-ignore]
    """Drop-in for `pytorch_metric_learning.miners.BatchHardMiner`, without a distance matrix on a CPU.

    Args:
        metric: "cosine" chooses what the original does by default (Euclidean distance of normalised
            embeddings); "euclidean" takes the embeddings as they are.
        backend: see `ops.batch_hard`.
        options: for the base class, where pytorch-metric-learning is installed.

    Call: `miner(embeddings, labels, ref_emb=None, ref_labels=None)` gives (anchors, positives, negatives),
    the row numbers of the hardest triplet of every anchor that has one.
    """

    def __init__(self, metric: str = "cosine", *, backend: str = "auto", **options: Any) -> None:
        super().__init__(**options)
        self.metric, self.backend = _checks.metric(metric), backend

    if not INSTALLED:

        @torch.no_grad()
        def forward(
            self,
            embeddings: Tensor,
            labels: Tensor,
            ref_emb: Tensor | None = None,
            ref_labels: Tensor | None = None,
        ) -> Triplets:
            return self.mine(embeddings, labels, ref_emb, ref_labels)

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None
    ) -> Triplets:
        if ref_emb is embeddings:  # how pytorch-metric-learning says that there is no other set
            ref_emb = ref_labels = None
        hard = ops.batch_hard(
            embeddings, labels, metric=self.metric, ref=ref_emb, ref_labels=ref_labels, backend=self.backend
        )
        anchors = hard.valid.nonzero()[:, 0]
        return anchors, hard.positive_index[anchors], hard.negative_index[anchors]


class TripletMarginLoss(BaseMetricLossFunction):  # type: ignore[misc, valid-type, unused-ignore]
    """Drop-in for `pytorch_metric_learning.losses.TripletMarginLoss` on mined triplets: only the distances of
    the triplets are computed, not those of all pairs.

        [ m + d(x_a, y_p) - d(x_a, y_n) ]_+

    Args:
        margin: m; "soft" for ln(1 + exp(.)), the original's `smooth_loss` with margin 0.
        metric: "cosine" or "euclidean" or "squared"; see `ops.mined_distance`.
        backend: see `ops.mined_distance`.
        options: `reducer` and others of the base class, where pytorch-metric-learning is installed.

    Call: `loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)`. Without indices the
    hardest triplet of every anchor is mined (the original takes every triplet of the batch). The mean is over
    the triplets with a loss above zero, as is the original's default.
    """

    def __init__(
        self, margin: Any = 0.05, metric: str = "euclidean", *, backend: str = "auto", **options: Any
    ) -> None:
        super().__init__(**options)
        self.margin = _checks.margin(margin)
        self.metric, self.backend = _checks.metric(metric), backend

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Triplets | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """The loss of every triplet, in the form that reducers of pytorch-metric-learning take."""
        if ref_emb is embeddings:
            ref_emb = ref_labels = None
        if indices_tuple is None:
            indices_tuple = BatchHardMiner(self.metric, backend=self.backend)(
                embeddings, labels, ref_emb, ref_labels
            )
        if len(indices_tuple) != 3:
            raise ValueError(
                f"indices_tuple: got {len(indices_tuple)} tensors, wanted (anchors, positives, negatives)"
            )
        anchors, *others = indices_tuple
        positive, negative = ops.mined_distance(
            embeddings[anchors],
            torch.stack(others),
            metric=self.metric,
            ref=embeddings if ref_emb is None else ref_emb,
            backend=self.backend,
        )
        gap = positive - negative
        losses = F.softplus(gap) if self.margin == "soft" else F.relu(self.margin + gap)
        return {"loss": {"losses": losses, "indices": indices_tuple, "reduction_type": "triplet"}}

    if INSTALLED:

        def get_default_reducer(self) -> Any:
            from pytorch_metric_learning.reducers import AvgNonZeroReducer

            return AvgNonZeroReducer()

    else:

        def forward(
            self,
            embeddings: Tensor,
            labels: Tensor,
            indices_tuple: Triplets | None = None,
            ref_emb: Tensor | None = None,
            ref_labels: Tensor | None = None,
        ) -> Tensor:
            computed = self.compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
            losses: Tensor = computed["loss"]["losses"]
            return losses.sum() / (losses > 0).sum().clamp(min=1)
