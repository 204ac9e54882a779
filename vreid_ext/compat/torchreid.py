"""Losses, sampler, evaluation and re-ranking with the signatures and results of torchreid.

from vreid_ext.compat.torchreid import CrossEntropyLoss, RandomIdentitySampler, TripletLoss
from vreid_ext.compat.torchreid import evaluate_rank, re_ranking
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler

from vreid_ext import losses, ops
from vreid_ext._checks import array, flag, integer
from vreid_ext.metrics.reid import evaluate_distances
from vreid_ext.ops.rerank import check_options

Array = np.ndarray | Tensor


class TripletLoss(nn.Module):
    """`torchreid.losses.TripletLoss`: batch-hard, with the anchor itself among its positives.

        mean over anchors a of  [ margin + max_p d(x_a, x_p) - min_n d(x_a, x_n) ]_+      d(x_a, x_a) = 0

    An anchor without another sample of its identity therefore has a positive distance of 0, while
    `losses.TripletLoss` excludes it. An anchor without a negative is excluded (torchreid raises an
    IndexError); without any anchor the loss is zero.

    Call: `loss(inputs, targets)` with inputs (n,D) and targets (n,); see `losses.TripletLoss`.

    Raises:
        TypeError, ValueError: as `ops.batch_hard`.
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        hard = ops.batch_hard(inputs, targets)
        gap = F.relu(self.margin + hard.positive_distance - hard.negative_distance)
        counted = hard.negative_index >= 0
        return gap.where(counted, 0).sum() / counted.sum().clamp(min=1)


class CrossEntropyLoss(nn.Module):
    """`torchreid.losses.CrossEntropyLoss`: softmax cross-entropy with label smoothing.

    Args:
        num_classes: number of columns of the logits.
        eps: weight of the smoothing.
        use_gpu: ignored; the loss is computed on the device of the logits.
        label_smooth: False is equivalent to eps = 0.

    Call: `loss(inputs, targets)` with logits (n, num_classes) and targets (n,).

    Raises:
        TypeError, ValueError: see `losses.CrossEntropyLoss`; also if the number of columns differs.
    """

    def __init__(
        self, num_classes: int, eps: float = 0.1, use_gpu: bool = True, label_smooth: bool = True
    ) -> None:
        super().__init__()
        self.num_classes, self.eps, self.use_gpu = num_classes, eps if label_smooth else 0, use_gpu
        self.loss = losses.CrossEntropyLoss(self.eps)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if inputs.dim() == 2 and inputs.shape[1] != self.num_classes:
            raise ValueError(f"inputs: expected {self.num_classes} columns, got {inputs.shape[1]}")
        loss: Tensor = self.loss(inputs, targets)
        return loss


class RandomIdentitySampler(Sampler[int]):
    """`torchreid.data.sampler.RandomIdentitySampler`: batches of P identities with K samples each.

    In each epoch the samples of every identity are split into groups of K. An identity with fewer than K
    samples gets one group, sampled with replacement. A batch takes one group each of P = batch_size //
    num_instances identities. The epoch ends when fewer than P identities have groups left.

    Random numbers come from torch's generator (torchreid uses `random` and NumPy). `len()` is the exact
    length of the next epoch (an upper bound in torchreid).

    Args:
        data_source: sequence of tuples; the second entry is the identity.
        batch_size: a multiple of num_instances.
        num_instances: K.

    Raises:
        ValueError: batch_size is not a multiple of num_instances, or there are fewer than P identities.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, num_instances: int) -> None:
        if num_instances < 1 or batch_size < 1 or batch_size % num_instances:
            raise ValueError(
                f"batch_size: expected a multiple of num_instances={num_instances}, got {batch_size}"
            )
        self.data_source, self.batch_size, self.num_instances = data_source, batch_size, num_instances
        self.num_pids_per_batch = batch_size // num_instances
        self.index_dic: dict[Any, list[int]] = {}
        for index, item in enumerate(data_source):
            self.index_dic.setdefault(item[1], []).append(index)
        least, found = self.num_pids_per_batch, len(self.index_dic)
        if found < least:
            raise ValueError(f"data_source: expected at least {least} identities, got {found}")
        self._epoch = self._draw()

    def __len__(self) -> int:
        return len(self._epoch)

    def __iter__(self) -> Iterator[int]:
        epoch, self._epoch = self._epoch, self._draw()
        return iter(epoch)

    def _draw(self) -> list[int]:
        draw = np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()))
        groups = []
        for index in self.index_dic.values():
            few = len(index) < self.num_instances
            order = draw.choice(index, self.num_instances) if few else draw.permutation(index)
            whole = len(order) - len(order) % self.num_instances
            groups.append(order[:whole].reshape(-1, self.num_instances).tolist())
        epoch: list[int] = []
        while len(groups) >= self.num_pids_per_batch:
            chosen = set(draw.choice(len(groups), self.num_pids_per_batch, replace=False).tolist())
            epoch += [item for place in sorted(chosen) for item in groups[place].pop()]
            groups = [group for group in groups if group]
        return epoch


def evaluate_rank(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, float]:
    """CMC (max_rank,) float32 and mAP from a distance matrix (Q,G).

    The CMC has only G entries if the gallery has fewer than `max_rank` items. Equal distances are ordered by
    gallery index (torchreid uses an unstable sort). No pid has a special meaning. `use_cython` is ignored.

    Raises:
        ValueError: `use_metric_cuhk03` is True (not supported, because its result is random), or no query has
            a positive.
    """
    flag("use_metric_cuhk03", use_metric_cuhk03)
    if use_metric_cuhk03:
        raise ValueError("use_metric_cuhk03: expected False, got True, which has a random result")
    distances = array("distmat", distmat)
    if distances.dim() != 2 or 0 in distances.shape:
        raise ValueError(f"distmat: expected shape (Q,G), got {tuple(distances.shape)}")
    max_rank = integer("max_rank", max_rank, 1)
    result = evaluate_distances(
        distances,
        *_numbered({"q_pids": q_pids, "g_pids": g_pids}),
        *_numbered({"q_camids": q_camids, "g_camids": g_camids}),
        max_rank=min(max_rank, distances.shape[1]),
    )
    return result.cmc.numpy().astype(np.float32), result.mAP


def _numbered(parts: dict[str, Any]) -> list[np.ndarray]:
    """The labels of two arrays as integers other than -1, which as a pid would be junk."""
    arrays = []
    for name, part in parts.items():
        try:
            labels = np.asarray(part)
        except (ValueError, TypeError, RuntimeError) as error:
            raise TypeError(
                f"{name}: expected an array of labels, got {type(part).__name__}: {error}"
            ) from error
        if labels.dtype.kind not in "biuUS" or labels.ndim != 1:
            raise TypeError(
                f"{name}: expected integers or strings (n,), got {labels.dtype} of shape {labels.shape}"
            )
        arrays.append(labels)
    if (arrays[0].dtype.kind in "US") != (arrays[1].dtype.kind in "US"):
        raise TypeError(f"{', '.join(parts)}: expected both integers or both strings, got one of each")
    if all(np.can_cast(labels.dtype, np.int64) and not (labels == -1).any() for labels in arrays):
        return arrays
    _, numbers = np.unique(np.concatenate(arrays), return_inverse=True)
    return np.split(numbers, [len(arrays[0])])


def re_ranking(
    q_g_dist: Array,
    q_q_dist: Array,
    g_g_dist: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """Re-ranked distances (Q,G) float32 from the distances of all pairs of queries and gallery items.

    Computes `ops.k_reciprocal` with the squares of these distances as D. The memory in addition to arguments
    and result is O(N k1). `ops.k_reciprocal` takes features and does not need the distance matrices.
    """
    from vreid_ext.backends.native.rerank import KReciprocal

    check_options(k1, k2, lambda_value)
    given = {"q_g_dist": q_g_dist, "q_q_dist": q_q_dist, "g_g_dist": g_g_dist}
    between, queries, items = (array(name, part).float() for name, part in given.items())
    if between.dim() != 2 or 0 in between.shape:
        raise ValueError(f"q_g_dist: expected shape (Q,G), got {tuple(between.shape)}")
    q, g = between.shape
    for name, part, size in (("q_q_dist", queries, q), ("g_g_dist", items, g)):
        if part.shape != (size, size):
            raise ValueError(f"{name}: expected shape ({size}, {size}), got {tuple(part.shape)}")
    k = min(max(k1 + 1, k2), q + g)
    nearest = []
    for left, right in ((queries, between), (between.T, items)):
        for first in range(0, len(left), 512):
            rows = torch.cat([left[first : first + 512], right[first : first + 512]], 1)
            values, index = rows.topk(k, dim=1, largest=False)
            nearest.append((index, values.double(), rows.amax(1).double()))
    rank, distances, farthest = (torch.cat(part) for part in zip(*nearest, strict=True))

    def of_pairs(row: Tensor, index: Tensor) -> Tensor:
        first, second = torch.minimum(row, index), torch.maximum(row, index)
        result = torch.empty(len(row), dtype=torch.float64)
        for part, (a, b), matrix in (
            (second < q, (first, second), queries),
            ((first < q) & (second >= q), (first, second - q), between),
            (first >= q, (first - q, second - q), items),
        ):
            result[part] = matrix[a[part], b[part]].double()
        return result

    sparse = KReciprocal(rank, distances, farthest, of_pairs, q, k1, k2, lambda_value, torch.float32)
    return sparse.rerank(0, between.clone(), None, None).numpy()
