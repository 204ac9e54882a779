"""The signature of every kernel, stated once: the arguments as fields, the results as a method.

`ops._library.register` derives the schema of an operator from its class, and uses `results` as its fake
function: the method allocates the results for the arguments. Kernels of the backends `native`, `triton` and
`cuda` take an instance of the class. The reference and the backends of other packages take the arguments one
by one, in the same order (`backends.table.function`). For the symbols see `vreid_ext.ops`.

If an input has no elements, `results()` is the result of the op and no kernel runs. Results that can have
elements in this case are therefore zero instead of empty.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext.precision import accumulator


class AttentionMap(NamedTuple):
    x: Tensor
    energy: str
    normalize: str

    def results(self) -> tuple[Tensor, Tensor]:
        """Attention and norm."""
        b, t, _, h, w = self.x.shape
        attention = self.x.new_empty((b, t, h, w), dtype=accumulator(self.x.dtype))
        return attention, attention.new_empty((b, t))


class AttentionMapBackward(NamedTuple):
    grad: Tensor
    x: Tensor
    attention: Tensor
    norm: Tensor
    energy: str
    normalize: str

    def results(self) -> Tensor:
        return torch.empty_like(self.x)


class BlockScores(NamedTuple):
    attention: Tensor
    valid: Tensor | None
    blocks: int

    def results(self) -> tuple[Tensor, Tensor]:
        """Scores and total."""
        b, t = self.attention.shape[:2]
        return self.attention.new_empty((b, t, self.blocks)), self.attention.new_empty((b, self.blocks))


class BlockScoresBackward(NamedTuple):
    grad: Tensor
    attention: Tensor
    valid: Tensor | None
    scores: Tensor
    total: Tensor

    def results(self) -> Tensor:
        return torch.empty_like(self.attention)


class Fuse(NamedTuple):
    x: Tensor
    scores: Tensor
    valid: Tensor | None

    def results(self) -> tuple[Tensor, Tensor]:
        """Fused maps and choice."""
        b, _, c, h, w = self.x.shape
        choice = self.x.new_empty((b, self.scores.shape[2]), dtype=torch.int64)
        return self.x.new_empty((b, 2 * c, h, w)), choice


class FuseBackward(NamedTuple):
    grad: Tensor
    x: Tensor
    scores: Tensor
    choice: Tensor
    valid: Tensor | None

    def results(self) -> tuple[Tensor, Tensor]:
        return torch.empty_like(self.x), torch.empty_like(self.scores)


class StaPool(NamedTuple):
    x: Tensor
    valid: Tensor | None
    blocks: int

    def results(self, large: Callable[..., Tensor] | None = None) -> tuple[
        Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor
    ]:  # fmt: skip
        """Pooled features, scores, attention, sums, energy, total and choice.

        Args:
            large: allocates the sums; None for `x.new_empty`.
        """
        x, k = self.x, self.blocks
        b, t, c, h, w = x.shape
        acc = accumulator(x.dtype)
        return (
            x.new_empty((b, 2 * c)),
            x.new_empty((b, t, k), dtype=acc),
            x.new_empty((b, t, h, w), dtype=acc),
            (large or x.new_empty)((b, t, k, c), dtype=acc),
            x.new_empty((b, t), dtype=acc),
            x.new_empty((b, k), dtype=acc),
            x.new_empty((b, k), dtype=torch.int64),
        )


class StaPoolBackward(NamedTuple):
    grad_pooled: Tensor | None
    grad_scores: Tensor | None
    grad_attention: Tensor | None
    x: Tensor
    valid: Tensor | None
    scores: Tensor
    attention: Tensor
    sums: Tensor
    energy: Tensor
    total: Tensor
    choice: Tensor

    def results(self) -> Tensor:
        return torch.empty_like(self.x)


class InterFrameDistance(NamedTuple):
    attention: Tensor
    pairs: Tensor

    def results(self) -> Tensor:
        return self.attention.new_empty(self.attention.shape[:1])


class InterFrameDistanceBackward(NamedTuple):
    grad: Tensor
    attention: Tensor
    pairs: Tensor

    def results(self) -> Tensor:
        return torch.empty_like(self.attention)


class RegionPool(NamedTuple):
    logits: Tensor
    x: Tensor

    def results(self, large: Callable[..., Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Features, weights and overlap.

        Args:
            large: allocates the features; None for `x.new_empty`.
        """
        b, t, k, _ = self.logits.shape
        features = (large or self.x.new_empty)((b, t, k, self.x.shape[2]), dtype=self.x.dtype)
        return features, self.logits.new_empty(self.logits.shape), self.logits.new_empty((b, t))


class RegionPoolBackward(NamedTuple):
    grad_features: Tensor | None
    grad_weights: Tensor | None
    grad_overlap: Tensor | None
    weights: Tensor
    x: Tensor

    def results(self) -> tuple[Tensor, Tensor]:
        return self.weights.new_empty(self.weights.shape), torch.empty_like(self.x)


class HellingerOverlap(NamedTuple):
    weights: Tensor
    form: str

    def results(self) -> Tensor:
        return self.weights.new_empty(self.weights.shape[:2])


class HellingerOverlapBackward(NamedTuple):
    grad: Tensor
    weights: Tensor
    form: str

    def results(self) -> Tensor:
        return self.weights.new_empty(self.weights.shape)


class TemporalPool(NamedTuple):
    scores: Tensor
    features: Tensor
    valid: Tensor | None

    def results(self) -> tuple[Tensor, Tensor]:
        """Pooled features and weights."""
        b, _, k, d = self.features.shape
        return self.features.new_empty((b, k, d)), self.scores.new_empty(self.scores.shape)


class TemporalPoolBackward(NamedTuple):
    grad: Tensor
    weights: Tensor
    features: Tensor
    valid: Tensor | None

    def results(self) -> tuple[Tensor, Tensor]:
        return self.weights.new_empty(self.weights.shape), self.features.new_empty(self.features.shape)


class BatchHard(NamedTuple):
    x: Tensor
    labels: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    metric: str

    def results(self) -> tuple[Tensor, Tensor]:
        """Distance and index."""
        index = self.labels.new_empty((2, self.labels.shape[0]))
        return self.x.new_zeros(index.shape, dtype=accumulator(self.x.dtype)), index


class BatchHardTriplet(NamedTuple):
    x: Tensor
    labels: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    metric: str
    margin: float
    soft: bool

    def mining(self) -> BatchHard:
        """The arguments of `batch_hard`, which finds the pairs."""
        return BatchHard(*self[:5])

    def results(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, slope, distance and index."""
        distance, index = self.mining().results()
        return distance.new_zeros(()), torch.empty_like(distance), distance, index


class MinedDistance(NamedTuple):
    x: Tensor
    ref: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    metric: str

    def results(self) -> Tensor:
        return self.x.new_zeros(self.index.shape, dtype=accumulator(self.x.dtype))


class MinedDistanceBackward(NamedTuple):
    grad: Tensor
    x: Tensor
    ref: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    distance: Tensor
    metric: str
    with_x: bool
    with_ref: bool

    def results(self) -> tuple[Tensor, Tensor]:
        """Gradients of x and ref; one that is not required has shape (0,)."""
        with_ref = self.ref is not None and self.with_ref
        return (
            self.x.new_zeros(self.x.shape if self.with_x else 0),
            self.x.new_zeros(self.ref.shape if self.ref is not None and with_ref else 0),
        )


class IdentityHard(NamedTuple):
    x: Tensor
    labels: Tensor
    metric: str
    include_self: bool

    def results(self) -> Tensor:
        return self.labels.new_empty((2, self.labels.shape[0]))


# The forward pass of the part metric saves the distances of each part for backward if there are at most this
# many (4 MiB in float32). Backward then needs two products instead of three.
_SAVED_DISTANCES = 2**20


class PartDistance(NamedTuple):
    q_features: Tensor
    q_weights: Tensor
    g_features: Tensor
    g_weights: Tensor

    def results(self, large: Callable[..., Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The distance, and the distances of each part (R,Q,G) or (0,), which only the native backend uses.

        Args:
            large: allocates the distances of each part; None for `q_weights.new_zeros`.
        """
        queries, parts = self.q_weights.shape
        items = self.g_weights.shape[0]
        saved = self.q_weights.device.type == "cpu" and parts * queries * items <= _SAVED_DISTANCES
        shape = (parts, queries, items) if saved else (0,)
        distances = (large or self.q_weights.new_zeros)(shape, dtype=self.q_weights.dtype)
        return self.q_weights.new_empty((queries, items)), distances


class PartDistanceBackward(NamedTuple):
    grad: Tensor
    q_features: Tensor
    q_weights: Tensor
    g_features: Tensor
    g_weights: Tensor
    distances: Tensor | None

    def results(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_features, q_weights, g_features, g_weights = (each.new_empty(each.shape) for each in self[1:5])
        return q_features, q_weights, g_features, g_weights


class PairDistances(NamedTuple):
    query: Tensor
    gallery: Tensor
    row: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    metric: str

    def results(self) -> Tensor:
        return self.query.new_empty(self.row.shape, dtype=torch.float64)


class RankCounts(NamedTuple):
    distances: Tensor
    start: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    distance: Tensor | None
    left_start: Tensor | None
    left: Tensor | None
    kept: Tensor | None
    offset: int
    check: bool

    def results(self) -> Tensor:
        return torch.zeros_like(self.index)


class FeatureRankCounts(NamedTuple):
    query: Tensor
    gallery: Tensor
    start: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    distance: Tensor
    left_start: Tensor | None
    left: Tensor | None
    kept: Tensor | None
    metric: str
    offset: int

    def results(self) -> Tensor:
        return torch.zeros_like(self.index)


class TopK(NamedTuple):
    query: Tensor
    gallery: Tensor
    k: int
    metric: str
    left_start: Tensor | None
    left: Tensor | None
    kept: Tensor | None

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distances and indices of the nearest items, and the distance of the farthest."""
        n = self.query.shape[0]
        return (
            self.query.new_full((n, self.k), torch.inf, dtype=torch.float64),
            self.query.new_full((n, self.k), -1, dtype=torch.int64),
            self.query.new_full((n,), -torch.inf, dtype=torch.float64),
        )


class Matches(NamedTuple):
    """No operator: the number of matches depends on the labels (csrc/common/protocol.h)."""

    query: Tensor
    gallery: Tensor
    query_label: Tensor
    gallery_label: Tensor
    same: Tensor
    itself: Tensor | None


class RankScores(NamedTuple):
    """No operator: only `metrics` calls it."""

    start: Tensor
    counts: Tensor
    trapezoid: bool


class KReciprocal(NamedTuple):
    """No operator: the result computes its rows on demand (`vreid_ext.ops.rerank.ReRanked`)."""

    query: Tensor
    gallery: Tensor
    k1: int
    k2: int
    lambda_value: float


class JaccardGraph(NamedTuple):
    """No operator: the number of distances depends on the features."""

    features: Tensor
    k1: int
    k2: int
    limit: float
