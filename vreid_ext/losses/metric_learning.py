"""Drop-in replacements for a miner and a loss of pytorch-metric-learning.

If that package is installed, the classes inherit from the classes that they replace, with the same arguments,
defaults, statistics and reducers. All cases without a fused kernel run the code of the base class (see the
docstrings of the classes). If the package is not installed, only the fused cases are available. `import
vreid_ext.losses` does not import the package, so import the classes from here.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.precision import widened

try:
    from pytorch_metric_learning import distances
    from pytorch_metric_learning.losses import TripletMarginLoss as _Loss
    from pytorch_metric_learning.miners import BatchHardMiner as _Miner
    from pytorch_metric_learning.utils import common_functions, loss_and_miner_utils
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

Triplets = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Fused:
    """A distance that the ops support: `metric` of the rows, L2-normalized if `normalize`."""

    metric: str
    normalize: bool = False

    def rows(self, x: Tensor) -> Tensor:
        return F.normalize(widened(x)) if self.normalize else x


# Distances by their names in this package; the key None is the default of pytorch-metric-learning.
_NAMED = {
    None: _Fused("euclidean", normalize=True),
    "euclidean": _Fused("euclidean"),
    "squared": _Fused("squared"),
    "cosine": _Fused("cosine"),
}


def _fused(distance: Any) -> _Fused | None:
    """Translate a pytorch-metric-learning distance for the ops; None if they do not support it."""
    if isinstance(distance, _Fused):
        return distance
    kind, p, power = type(distance), getattr(distance, "p", None), getattr(distance, "power", None)
    if kind is distances.LpDistance and p == 2 and power in (1, 2):
        return _Fused("euclidean" if power == 1 else "squared", distance.normalize_embeddings)
    if kind is distances.CosineSimilarity and p == 2 and power == 1:
        return _Fused("cosine")
    return None


def _with_distance(metric: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the distance of the given metric."""
    if metric is None:
        return options
    if options.get("distance") is not None:
        raise ValueError(
            f"distance: expected None together with metric={metric!r}, got {options['distance']!r}"
        )
    fused = _NAMED[_checks.choice("metric", metric, _checks.METRICS)]
    if not INSTALLED:
        return options | {"distance": fused}
    if fused.metric == "cosine":
        return options | {"distance": distances.CosineSimilarity()}
    power = 2 if fused.metric == "squared" else 1
    return options | {"distance": distances.LpDistance(normalize_embeddings=False, power=power)}


def _record_norms(distance: Any, x: Tensor, y: Tensor) -> None:
    """Update the statistics of a pytorch-metric-learning distance, if it collects them."""
    if getattr(distance, "collect_stats", False):
        distance.reset_stats()
        distance.set_default_stats(x, y, distance.maybe_normalize(x), distance.maybe_normalize(y))


if not INSTALLED:

    def _missing(what: str) -> NoReturn:
        raise ImportError(f"{what}: requires pytorch-metric-learning, which is not installed")

    class _Miner(nn.Module):  # type: ignore[no-redef]
        collect_stats = False
        allowed_pos_range = allowed_neg_range = None

        def __init__(self, distance: _Fused | None = None, **options: Any) -> None:
            super().__init__()
            for name in options:
                _missing(name)
            self.distance = distance or _NAMED[None]

        def mine(self, *_: Any) -> Triplets:
            _missing("labels of a floating-point dtype, or ref_emb with the labels of the anchors")

        @torch.no_grad()
        def forward(
            self,
            embeddings: Tensor,
            labels: Tensor,
            ref_emb: Tensor | None = None,
            ref_labels: Tensor | None = None,
        ) -> Triplets:
            if ref_emb is None:
                ref_emb, ref_labels = embeddings, labels
            return self.mine(embeddings, labels, ref_emb, ref_labels)

    class _Loss(nn.Module):  # type: ignore[no-redef]
        def __init__(
            self,
            margin: float,
            swap: bool,
            smooth_loss: bool,
            triplets_per_anchor: int | str,
            distance: _Fused | None = None,
            **options: Any,
        ) -> None:
            super().__init__()
            for name in options:
                _missing(name)
            self.margin, self.swap, self.smooth_loss = margin, swap, smooth_loss
            self.triplets_per_anchor, self.distance = triplets_per_anchor, distance or _NAMED[None]

        def compute_loss(self, *_: Any) -> dict[str, dict[str, Any]]:
            _missing("more triplets than embeddings (unless from a miner or triplets_per_anchor='hardest')")

        def forward(
            self,
            embeddings: Tensor,
            labels: Tensor | None = None,
            indices_tuple: Triplets | None = None,
            ref_emb: Tensor | None = None,
            ref_labels: Tensor | None = None,
        ) -> Tensor:
            if ref_emb is None:
                ref_emb, ref_labels = embeddings, labels
            computed = self.compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
            losses: Tensor = computed["loss"]["losses"]
            return losses.sum() / (losses > 0).sum().clamp(min=1)


class BatchHardMiner(_Miner):  # type: ignore[misc, valid-type, unused-ignore]
    """Drop-in replacement of `pytorch_metric_learning.miners.BatchHardMiner`, without a distance matrix.

    Fused distances are `LpDistance` with p = 2 and power 1 or 2, normalized (the default) or not, and
    `CosineSimilarity`. The base class runs for all other distances, including subclasses of these, for
    `allowed_pos_range` and `allowed_neg_range`, for floating-point labels, and for `ref_emb` with the same
    labels tensor as the anchors.

    Args:
        metric: a distance by its name in this package, instead of `distance`: "euclidean" or "squared" of
            embeddings that are not normalized, or "cosine" for `CosineSimilarity`.
        backend: see `ops.batch_hard`.
        options: options of the base class: `distance`, `collect_stats` and others. None are available without
            pytorch-metric-learning.

    Call: `miner(embeddings, labels, ref_emb=None, ref_labels=None)` returns (anchors, positives, negatives),
    the row indices of the hardest triplet of every anchor that has one. With `collect_stats=True` it collects
    the statistics of the base class: `hardest_pos_pair`, `easiest_triplet`, `num_triplets` and so on.

    Raises:
        ImportError: a case that needs the base class, and pytorch-metric-learning is not installed.
        TypeError, ValueError: as `ops.batch_hard`; on a CPU also for a row that is not finite, which the base
            class accepts.
    """

    backend: str

    def __init__(self, metric: str | None = None, *, backend: str = "auto", **options: Any) -> None:
        super().__init__(**_with_distance(metric, options))
        self.backend = backend

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Triplets:
        fused = _fused(self.distance)
        alone = ref_labels is labels  # as in the base class: then an anchor is not its own positive
        ranges = (self.allowed_pos_range, self.allowed_neg_range)
        if (
            fused is None
            or ranges != (None, None)
            or labels.is_floating_point()
            or (alone and ref_emb is not embeddings)
        ):
            return super().mine(embeddings, labels, ref_emb, ref_labels)  # type: ignore[no-any-return, unused-ignore]
        _record_norms(self.distance, embeddings, ref_emb)
        hard = ops.batch_hard(
            fused.rows(embeddings),
            labels.long(),
            metric=fused.metric,
            ref=None if alone else fused.rows(ref_emb),
            ref_labels=None if alone else ref_labels.long(),
            backend=self.backend,
        )
        anchors = hard.valid.nonzero()[:, 0]
        if self.collect_stats:
            values = torch.stack([hard.positive_distance, hard.negative_distance])[:, anchors]
            self.set_stats(*(1 - values if fused.metric == "cosine" else values))
        return anchors, hard.positive_index[anchors], hard.negative_index[anchors]


class TripletMarginLoss(_Loss):  # type: ignore[misc, valid-type, unused-ignore]
    """Drop-in replacement of `pytorch_metric_learning.losses.TripletMarginLoss`. For mined triplets it
    computes only the distances of the triplets instead of the distance matrix.

        [z]_+ or, with smooth_loss, ln(1 + exp(z))        z = d(x_a, y_p) - d(x_a, y_n) + margin

    Fused distances are those of `BatchHardMiner`, for indices (anchors, positives, negatives) with at most
    max(len(embeddings), len(ref_emb)) triplets. For more triplets, such as all
    triplets of a batch (the default), the distance matrix is faster, so the base class runs.

    Args:
        margin, swap, smooth_loss: as in the base class, with one difference. With `swap` and `ref_emb`, the
            distance between positive and negative is that of their rows of `ref_emb`; the base class takes
            the positive from `embeddings`.
        triplets_per_anchor: "all" or a number, as in the base class, or "hardest": if no indices are given,
            the hardest triplet of every anchor.
        metric: a distance by its name in this package, instead of `distance`; see `BatchHardMiner`.
        backend: see `ops.mined_distance`.
        options: options of the base class: `distance`, `reducer`, `collect_stats` and others. None are
            available without pytorch-metric-learning; the result is then the mean over the triplets with a
            loss above zero, which is the default of the base class.

    Call: `loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)`. Without a triplet the
    loss is zero. It is computed in float32 or wider and has the dtype of the embeddings; under autocast it
    stays in float32.

    Raises:
        ImportError: a case that needs the base class, and pytorch-metric-learning is not installed.
        TypeError, ValueError: an argument has the wrong type or value.
    """

    backend: str

    def __init__(
        self,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: int | str = "all",
        *,
        metric: str | None = None,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        if not isinstance(margin, Real | Tensor) or isinstance(margin, bool):
            raise TypeError(f"margin: expected a number, got {margin!r}")
        if not isinstance(swap, bool):
            raise TypeError(f"swap: expected a bool, got {swap!r}")
        super().__init__(margin, swap, smooth_loss, triplets_per_anchor, **_with_distance(metric, options))
        self.backend = backend

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Any,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """Compute the loss of every triplet, in the format that pytorch-metric-learning's reducers take."""
        if indices_tuple is None and self.triplets_per_anchor == "hardest":
            miner = BatchHardMiner(distance=self.distance, backend=self.backend)
            indices_tuple = miner(embeddings, labels, ref_emb, ref_labels)
        rows = max(len(embeddings), len(ref_emb))
        given = indices_tuple is not None and len(indices_tuple) == 3
        if given and len(indices_tuple[0]) <= rows and _fused(self.distance):
            return self._of_rows(embeddings, indices_tuple, ref_emb)
        if INSTALLED and self.swap and ref_emb is not embeddings:
            return self._swapped_in_ref(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        return super().compute_loss(  # type: ignore[no-any-return, unused-ignore]
            embeddings, labels, indices_tuple, ref_emb, ref_labels
        )

    def _of_rows(self, embeddings: Tensor, triplets: Triplets, ref_emb: Tensor) -> dict[str, dict[str, Any]]:
        if INSTALLED and not len(triplets[0]):  # without triplets: the reducers return zero, not NaN
            return self.zero_losses()  # type: ignore[no-any-return, unused-ignore]
        fused = _fused(self.distance)
        assert fused is not None
        _record_norms(self.distance, embeddings, ref_emb)
        anchors, positives, negatives = (part.to(embeddings.device, torch.int64) for part in triplets)
        rows = fused.rows(embeddings)
        ref = rows if ref_emb is embeddings else fused.rows(ref_emb)

        def distance(x: Tensor, *index: Tensor) -> Tensor:
            return ops.mined_distance(
                x, torch.stack(index), metric=fused.metric, ref=ref, backend=self.backend
            )

        to_positive, to_negative = distance(rows[anchors], positives, negatives)
        if self.swap:
            to_negative = torch.minimum(to_negative, distance(ref[positives], negatives)[0])
        violation = to_positive - to_negative + self.margin
        losses = F.softplus(violation) if self.smooth_loss else F.relu(violation)
        if not torch.is_autocast_enabled(embeddings.device.type):
            losses = losses.to(embeddings.dtype)
        return {"loss": {"losses": losses, "indices": triplets, "reduction_type": "triplet"}}

    def _swapped_in_ref(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """Prepend `ref_emb` to `embeddings`, since the base class takes positives from `embeddings`."""
        common_functions.labels_or_indices_tuple_required(labels, indices_tuple)
        triplets = loss_and_miner_utils.convert_to_triplets(
            indices_tuple, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
        )
        anchors, positives, negatives = triplets
        shifted = (anchors + len(ref_emb), positives, negatives)
        result = super().compute_loss(torch.cat([ref_emb, embeddings]), None, shifted, ref_emb, None)
        if len(anchors):
            result["loss"]["indices"] = triplets
        return result  # type: ignore[no-any-return, unused-ignore]
