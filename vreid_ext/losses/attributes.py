"""Loss of attribute recognition."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.attributes import check_attributes
from vreid_ext.precision import widened


class AttributeLoss(nn.Module):
    """Mean binary cross-entropy over the classes of the labeled attributes (Chen et al., 2020, Section 4.3).

        mean over labeled attributes a, classes c of  BCE(sigmoid(logits_ac), 1[c = target_a])

    Args:
        sizes: number of classes of each attribute, in the order of the columns.

    Call: `loss(logits, targets)` with floating-point logits (n, sum of sizes), in which the classes of an
    attribute are contiguous, and targets (n, A) int64, the class of each attribute or -1 (ignored) if it is
    unknown. Returns a float32 scalar (float64 for float64 logits), zero without a known attribute.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. On a CPU, this includes a class out of
            range.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = _checks.sizes(sizes)
        self.attribute: Tensor  # attribute index of each column of the logits
        self.class_: Tensor  # class index of each column of the logits
        counts = self.sizes.values()
        attribute = [number for number, size in enumerate(counts) for _ in range(size)]
        class_ = [number for size in counts for number in range(size)]
        self.register_buffer("attribute", torch.tensor(attribute, dtype=torch.int64), persistent=False)
        self.register_buffer("class_", torch.tensor(class_, dtype=torch.int64), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        check_attributes(logits, targets, self.sizes)
        chosen = targets.index_select(1, self.attribute.to(targets.device))
        known = chosen >= 0
        logits = widened(logits)
        one_hot = (chosen == self.class_.to(targets.device)).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        return loss.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)
