"""Center loss."""

import torch
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.distributed import gather_with_gradient
from vreid_ext.precision import widened


class CenterLoss(nn.Module):
    """Center loss (Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV
    2016, Eq. 2 to 4).

        1/(2n) sum_i ||x_i - c_{y_i}||^2

    In training mode each call then moves the centers of its labels towards the mean of their samples:

        c_j <- c_j - alpha sum_{i: y_i = j} (c_j - x_i) / (1 + #{i: y_i = j})

    The paper sums over the batch; here the loss is the mean, so its weight does not depend on the batch size.
    Centers are initially zero, have no gradient and are part of the state dict. A sample that is not finite
    does not move its center. Under `torch.distributed` the centers are moved by the samples of all processes,
    so they are the same in every process.

    Args:
        num_features: D.
        num_classes: number of identities.
        alpha: learning rate of the centers, in [0, 1].

    Call: `loss(inputs, targets)` with floating-point inputs (n,D) and integer targets (n,) in [0,
    num_classes). Returns a float32 scalar (float64 for float64 inputs). The check of the targets synchronizes
    with the device.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, e.g. a label out of range.
    """

    centers: Tensor

    def __init__(self, num_features: int, num_classes: int, alpha: float = 0.5) -> None:
        super().__init__()
        for name, value in (("num_features", num_features), ("num_classes", num_classes)):
            _checks.integer(name, value, 1)
        self.alpha = _checks.real("alpha", alpha, 0, 1)
        self.register_buffer("centers", torch.zeros(num_classes, num_features, dtype=torch.float32))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        _checks.labelled_rows("inputs", inputs, "targets", targets, empty=False)
        classes, size = self.centers.shape
        if inputs.shape[1] != size:
            raise ValueError(f"inputs: expected num_features = {size}, got D = {inputs.shape[1]}")
        outside = (targets < 0) | (targets >= classes)
        if outside.any():
            raise ValueError(f"targets: expected 0 to {classes - 1}, got {targets[outside][0].item()}")
        features = widened(inputs)
        loss = (features - self.centers[targets.long()]).square().sum() / (2 * len(features))
        if self.training:
            self._move(gather_with_gradient(features.detach()), gather_with_gradient(targets).long())
        return loss

    @torch.no_grad()
    def _move(self, features: Tensor, labels: Tensor) -> None:
        finite = features.isfinite().all(1)
        present, inverse = labels[finite].unique(return_inverse=True)
        # A product instead of `index_add_`, whose order of sums varies on a GPU.
        member = torch.nn.functional.one_hot(inverse, len(present)).T.to(features.dtype)
        count = member.sum(1, keepdim=True)
        centers = self.centers[present].to(features.dtype)
        moved = centers - self.alpha * (count * centers - member @ features[finite]) / (1 + count)
        self.centers[present] = moved.to(self.centers.dtype)

    def extra_repr(self) -> str:
        classes, features = self.centers.shape
        return f"{features}, {classes}, alpha={self.alpha}"
