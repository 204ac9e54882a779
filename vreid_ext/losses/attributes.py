"""Recognition of attributes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext.ops import _checks
from vreid_ext.precision import widened

IGNORE = -1


class AttributeLoss(nn.Module):
    """Mean binary cross-entropy over the classes of the labelled attributes (Chen et al., 2020, Section 4.3).

        mean over labelled attributes a, classes c of  BCE(sigmoid(logits_ac), 1[c = target_a])

    Args:
        sizes: number of classes of each attribute, in the order of the columns.

    Call: `loss(logits, targets)` with logits (n, sum of sizes) floating, an attribute's classes side by side,
    and targets (n, A) int64, the class of each attribute or -1 where it is not known, which takes no part.
    Returns a float32 scalar (float64 for float64 logits); zero if nothing is known.

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted; on a CPU also a class out
            of range.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = _checks.sizes(sizes)
        self.attribute: Tensor  # of each column of the logits
        self.class_: Tensor
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
        wanted = (chosen == self.class_.to(targets.device)).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return loss.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def check_attributes(logits: Tensor, targets: Tensor, sizes: Mapping[str, int]) -> None:
    """Logits (n, sum of sizes) and targets (n, A) with classes in range or -1."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits: got {got}, wanted a floating-point tensor (n, {sum(sizes.values())})")
    if logits.dim() != 2 or logits.shape[1] != sum(sizes.values()):
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, wanted (n, {sum(sizes.values())})")
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets: got {got}, wanted an int64 tensor (n, {len(sizes)})")
    if targets.shape != (len(logits), len(sizes)):
        raise ValueError(f"targets: got shape {tuple(targets.shape)}, wanted ({len(logits)}, {len(sizes)})")
    if _checks.seen(targets):
        outside = (targets < IGNORE) | (targets >= targets.new_tensor(list(sizes.values())))
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            name = list(sizes)[column]
            raise ValueError(
                f"targets: got class {int(targets[row, column])} of {name!r} in row {row}, "
                f"wanted 0 to {sizes[name] - 1}, or {IGNORE} where it is not known"
            )
