"""Online instance matching."""

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.distributed import gather_with_gradient
from vreid_ext.precision import widened


class OIMLoss(nn.Module):
    """Online Instance Matching (Xiao et al., "Joint Detection and Identification Feature Learning for Person
    Search", CVPR 2017, Eq. 1 to 3; the loss of DRSTA).

    A table stores one feature per identity, and a circular queue stores features of unlabeled persons. A
    sample is classified by its similarity to all stored features:

        -1/n sum_i log softmax(scalar [table; queue] x_i) at its label       n: number of labeled samples

    In training mode each call then updates the table rows of its labels, one sample after another, and
    appends the unlabeled samples to the queue:

        table[y] <- normalized( momentum table[y] + (1 - momentum) x )

    Rows are initially zero and have norm one after their first sample. A sample that is not finite, or whose
    squares overflow, makes the loss NaN (a `GradScaler` then skips the step) and does not update the tables.
    Under `torch.distributed` every process uses the samples of all processes, in the order of ranks, so the
    tables are the same in every process.

    Args:
        num_features: D.
        num_classes: number of labeled identities.
        scalar: inverse temperature; 30 in open-reid, 10 in the authors' person search.
        momentum: momentum of the update, in [0, 1).
        queue: number of rows for unlabeled samples; 0 disables the queue; 5000 in the authors' person search.

    Call: `loss(inputs, targets)` with floating-point inputs (n,D), which should be L2-normalized, and integer
    targets (n,) in [0, num_classes), or -1 for an unlabeled person if there is a queue. Returns a float32
    scalar (float64 for float64 inputs), zero if no sample is labeled. The targets are copied to the host,
    which synchronizes with the device.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, e.g. a label out of range or a queue
            smaller than the batch.
    """

    table: Tensor
    queue: Tensor
    head: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        scalar: float = 30.0,
        momentum: float = 0.5,
        queue: int = 0,
    ) -> None:
        super().__init__()
        least = {"num_features": (num_features, 1), "num_classes": (num_classes, 1), "queue": (queue, 0)}
        for name, (value, low) in least.items():
            _checks.integer(name, value, low)
        _checks.real("scalar", scalar)
        _checks.real("momentum", momentum)
        if not scalar > 0:
            raise ValueError(f"scalar: expected a number > 0, got {scalar}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum}")
        self.scalar, self.momentum = float(scalar), float(momentum)
        self.register_buffer("table", torch.zeros(num_classes, num_features, dtype=torch.float32))
        self.register_buffer("queue", torch.zeros(queue, num_features, dtype=torch.float32))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        _checks.labelled_rows("inputs", inputs, "targets", targets, empty=False)
        if inputs.shape[1] != self.table.shape[1]:
            raise ValueError(
                f"inputs: expected num_features = {self.table.shape[1]}, got D = {inputs.shape[1]}"
            )
        with torch.autocast(inputs.device.type, enabled=False):
            features = widened(inputs)
            everyone = gather_with_gradient(features.detach())
            labels: list[int] = gather_with_gradient(targets).tolist()
            self._check(labels)
            # A copy, because backward reads it after the update below.
            rows = torch.cat([self.table, self.queue]).to(features.dtype)
            losses = F.cross_entropy(
                self.scalar * features @ rows.T, targets.long(), ignore_index=-1, reduction="sum"
            )
            if self.training:
                self._update(everyone, labels)
            return losses / (targets >= 0).sum().clamp(min=1)

    def _check(self, labels: list[int]) -> None:
        classes, size = self.table.shape[0], self.queue.shape[0]
        lowest = -1 if size else 0
        for row, label in enumerate(labels):
            if not lowest <= label < classes:
                unlabelled = "" if size else " (-1, an unlabeled person, needs a queue)"
                raise ValueError(
                    f"targets: expected {lowest} to {classes - 1}{unlabelled}, got {label} in row {row}"
                )
        if 0 < size < len(labels):
            raise ValueError(
                f"queue: expected at least {len(labels)} rows, the samples of the batch, got {size}"
            )

    @torch.no_grad()
    def _update(self, features: Tensor, labels: list[int]) -> None:
        finite = features.square().sum(1).isfinite().tolist()
        rounds: defaultdict[int, list[int]] = defaultdict(list)  # j -> rows of the j-th sample of each label
        seen: defaultdict[int, int] = defaultdict(int)
        for row, label in enumerate(labels):
            if label >= 0 and finite[row]:
                rounds[seen[label]].append(row)
                seen[label] += 1
        for rows in rounds.values():
            place = torch.tensor([labels[row] for row in rows], dtype=torch.int64, device=features.device)
            moved = (
                self.momentum * self.table[place].to(features.dtype) + (1 - self.momentum) * features[rows]
            )
            self.table[place] = F.normalize(moved).to(self.table.dtype)
        unlabelled = [row for row, label in enumerate(labels) if label < 0 and finite[row]]
        if unlabelled:
            place = (self.head + torch.arange(len(unlabelled), device=features.device)) % len(self.queue)
            self.queue[place] = F.normalize(features[unlabelled]).to(self.queue.dtype)
            self.head.add_(len(unlabelled)).remainder_(len(self.queue))

    def extra_repr(self) -> str:
        (classes, features), queue = self.table.shape, len(self.queue)
        return f"{features}, {classes}, scalar={self.scalar}, momentum={self.momentum}, queue={queue}"
