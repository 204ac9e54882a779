"""Softmax cross-entropy over identities."""

import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.precision import widened


class CrossEntropyLoss(nn.Module):
    """Mean softmax cross-entropy with label smoothing (STA, Eq. 10; smoothing of Szegedy et al., 2016).

        -1/n sum_i sum_c y_ic log softmax(logits_i)_c        y_ic = (1 - e) 1[c = target_i] + e / C

    Args:
        label_smoothing: e in [0, 1).

    Call: `loss(logits, targets)` with floating-point logits (n,C) and integer targets (n,) in [0, C) returns
    a float32 scalar (float64 for float64 logits). On a GPU the range of the targets is checked only by
    torch's kernel, without a device synchronization.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _checks.real("label_smoothing", label_smoothing)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        _checks.labelled_rows("logits", logits, "targets", targets, empty=False)
        _checks.within("targets", targets, 0, logits.shape[1])  # torch silently ignores -100
        logits = widened(logits)
        return F.cross_entropy(logits, targets.long(), label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}"
