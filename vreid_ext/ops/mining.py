"""Hardest pairs of a batch without a distance matrix (Hermans et al., "In Defense of the Triplet Loss", 2017;
Chen et al., "Attribute-aware Identity-hard Triplet Loss", 2020).

Symbols: n anchors, m candidates, embedding dimension D. Metrics, for rows x and y:

    "euclidean"  ||x - y||        "squared"  ||x - y||^2        "cosine"  1 - x.y / (||x|| ||y||)

Common to all ops:

- Embeddings are float16, bfloat16, float32 or float64, labels int64 or int32. Inputs are never modified.
- Pairs are selected by squared distances. Their absolute error is a rounding error of the rows' squared norms
  in the precision of the input (float32 for half precision). If two squared distances differ by less, either
  sample may be selected. The returned distances of the selected pairs are computed from differences, in
  float32 or wider.
- A distance of zero has gradient zero. A row that is zero or whose squares underflow (a norm below 1e-19 in
  float32) has cosine distance 1 to every row, with gradient zero. The other metrics treat differences that
  small as zero.
- Gradients are summed in a fixed order.
- `backend` is "auto", "reference", "native" or, except for float64, "triton" or "cuda". The latter two
  compute float32 products as three products of TF32 or float16 numbers, accurate to seven digits.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import signatures
from vreid_ext.backends.errors import finite_squares
from vreid_ext.ops._library import register


class BatchHard(NamedTuple):
    """Result of `batch_hard`, one entry per anchor.

    Attributes:
        positive_distance: (n,) distance to the farthest candidate with the same label; 0 if there is none.
        negative_distance: (n,) distance to the nearest candidate with another label; 0 if there is none.
        positive_index, negative_index: (n,) int64, the rows of these candidates; -1 if there is none.
        valid: (n,) bool, whether the anchor has both a positive and a negative.
    """

    positive_distance: Tensor
    negative_distance: Tensor
    positive_index: Tensor
    negative_index: Tensor
    valid: Tensor


class IdentityHard(NamedTuple):
    """Result of `identity_hard`, one entry per anchor.

    Attributes:
        negative_index: (n,) int64, AN of Eq. 3: the farthest sample of the anchor's identity; -1 if there is
            none.
        positive_index: (n,) int64, AP of Eq. 3: the nearest sample of the identity; -1 if there is none.
        valid: (n,) bool, whether the anchor has a candidate.
    """

    negative_index: Tensor
    positive_index: Tensor
    valid: Tensor


def batch_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    metric: str = "euclidean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    backend: str = "auto",
) -> BatchHard:
    """Farthest positive and nearest negative of every anchor.

        p(a) = argmax_j d(x_a, y_j)  with label_j = label_a, j != a
        n(a) = argmin_j d(x_a, y_j)  with label_j != label_a

    The kernels need O((n + m) D) memory; without `ref` they compute only half of the distance matrix.
    Backward uses only the 2n selected pairs: O(n D).

    Args:
        embeddings: anchors (n,D).
        labels: identities of the anchors (n,).
        metric: "euclidean", "squared" or "cosine".
        ref: candidates (m,D) in the dtype of the anchors. If None, the candidates are the anchors, and the
            condition j != a applies; with `ref` it does not.
        ref_labels: identities of the candidates (m,), required with `ref`.

    Returns:
        `BatchHard`; both distances are differentiable with respect to embeddings and ref.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. On a CPU, this includes rows that are
            not finite; the message reports the first. On a GPU such rows give NaN instead, because a check
            would require a device synchronization.
    """
    arguments = _checked(embeddings, labels, metric, ref, ref_labels)
    distance, index = _batch_hard(backend, *arguments)
    (positive, negative), (positive_index, negative_index) = distance.unbind(), index.unbind()
    return BatchHard(positive, negative, positive_index, negative_index, (index >= 0).all(0))


def batch_hard_triplet(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float | Literal["soft"] = 0.3,
    metric: str = "euclidean",
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Triplet loss on the pairs of `batch_hard`, in one op.

        mean over anchors a with both of  [m + d(x_a, y_p(a)) - d(x_a, y_n(a))]_+

    Args:
        margin: m >= 0, or "soft" for ln(1 + exp(.)) instead of [m + .]_+.

    For the other arguments and the errors see `batch_hard`. Returns a float32 scalar (float64 for float64
    input), which is zero if no anchor has both a positive and a negative.
    """
    arguments = _checked(embeddings, labels, metric, ref, ref_labels)
    margin = _checks.margin(margin)
    soft, number = (True, 0.0) if margin == "soft" else (False, margin)
    return _batch_hard_triplet(backend, *arguments, number, soft)


def identity_hard(
    attributes: Tensor,
    labels: Tensor,
    *,
    metric: str = "cosine",
    include_self: bool = False,
    backend: str = "auto",
) -> IdentityHard:
    """The samples of every anchor's identity that are farthest from and nearest to it (AITL, Eq. 3).

        AN(a) = argmax_j d(x_a, x_j)        AP(a) = argmin_j d(x_a, x_j)        label_j = label_a, j != a

    AN and AP are the same sample if the identity has only two.

    Args:
        attributes: vectors to compare (n,D): attribute predictions for AN and AP, features for FN and FP.
        labels: identities (n,).
        metric: "cosine" (the paper), "euclidean" (the authors' code) or "squared".
        include_self: whether the anchor is its own candidate, as in the authors' code. AP is then the anchor
            or a sample equal to it.

    Returns:
        `IdentityHard`, without gradient. Memory O(n D), time O(D) for each pair of samples of one identity.

    Raises:
        TypeError, ValueError: as for `batch_hard`.
    """
    _checks.flag("include_self", include_self)
    return _hard_of_identity("attributes", attributes, labels, metric, include_self, backend)


def _hard_of_identity(
    name: str, x: Tensor, labels: Tensor, metric: str, include_self: bool, backend: str
) -> IdentityHard:
    """`identity_hard` for the argument called `name` in error messages."""
    _checks.labelled_rows(name, x, "labels", labels)
    _checks.choice("metric", metric, _checks.METRICS)
    finite_squares(name, x)
    negative_index, positive_index = _identity_hard(backend, x, labels.long(), metric, include_self).unbind()
    return IdentityHard(negative_index, positive_index, negative_index >= 0)


def dvdp(
    embeddings: Tensor, labels: Tensor, *, metric: str = "cosine", backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Distance variance among different positives (AITL, Eq. 1), as a sum and a count.

        sum_a  FD(x_a, x_FN(a)) - FD(x_a, x_FP(a))

    FN and FP are the farthest and the nearest sample of the anchor's identity by the distance FD.

    Args:
        embeddings: (n,D).
        labels: identities (n,).
        metric: FD, "cosine" (the paper), "euclidean" or "squared".

    Returns:
        The sum, a differentiable float32 scalar (float64 for float64 input), and the number of anchors that
        have another sample of their identity, int64. Fig. 7 of the paper plots their ratio.

    Raises:
        TypeError, ValueError: as for `batch_hard`.
    """
    hard = _hard_of_identity("embeddings", embeddings, labels, metric, False, backend)
    index = torch.stack([hard.negative_index, hard.positive_index])
    far, near = mined_distance(embeddings, index, metric=metric, backend=backend)
    return (far - near).sum(), hard.valid.sum()


def mined_distance(
    embeddings: Tensor,
    index: Tensor,
    *,
    metric: str = "euclidean",
    ref: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Distances of given pairs, d(x_i, y_index[m,i]). Forward and backward take O(M n D) time.

    Args:
        embeddings: (n,D).
        index: (M,n) int64, rows of `ref`, or of `embeddings` if `ref` is None; -1 for no pair.
        metric: "euclidean", "squared" or "cosine".
        ref: (m,D) in the dtype of the embeddings.

    Returns:
        (M,n), float32 (float64 for float64 input); zero where the index is -1.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. On a CPU, this includes an index out
            of range. On a GPU the distance of such an index is NaN instead, because a check would require a
            device synchronization.
    """
    _checks.floating("embeddings", embeddings, "(n,D)")
    _checks.choice("metric", metric, _checks.METRICS)
    if ref is not None:
        _checks.floating("ref", ref, "(m,D)")
        _check_pair(embeddings, ref)
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise TypeError(
            f"index: expected an int64 tensor (M,n), got {getattr(index, 'dtype', type(index).__name__)}"
        )
    if index.dim() != 2 or index.shape[1] != len(embeddings):
        raise ValueError(f"index: expected shape (M,{len(embeddings)}), got {tuple(index.shape)}")
    _checks.same_device("index", index, embeddings.device)
    if not len(embeddings if ref is None else ref):
        _checks.within("index", index, -1, 0)  # no kernel runs, so none checks the index
    return _mined_distance(backend, embeddings, ref, index, metric)


Arguments = tuple[Tensor, Tensor, Tensor | None, Tensor | None, str]


def _checked(
    embeddings: Tensor, labels: Tensor, metric: str, ref: Tensor | None, ref_labels: Tensor | None
) -> Arguments:
    """Check the arguments and convert them to those of the backends."""
    _checks.labelled_rows("embeddings", embeddings, "labels", labels)
    _checks.choice("metric", metric, _checks.METRICS)
    if ref is None and ref_labels is None:
        return embeddings, labels.long(), None, None, metric
    _checks.labelled_rows("ref", ref, "ref_labels", ref_labels)
    assert ref is not None
    assert ref_labels is not None
    _check_pair(embeddings, ref)
    if not len(ref):
        raise ValueError(f"ref: expected at least one row, got shape {tuple(ref.shape)}")
    return embeddings, labels.long(), ref, ref_labels.long(), metric


def _check_pair(embeddings: Tensor, ref: Tensor) -> None:
    _checks.same_device("ref", ref, embeddings.device)
    if ref.dtype != embeddings.dtype:
        raise TypeError(f"ref: expected dtype {embeddings.dtype} of embeddings, got {ref.dtype}")
    if ref.shape[1] != embeddings.shape[1]:
        raise ValueError(f"ref: expected {embeddings.shape[1]} columns like embeddings, got {ref.shape[1]}")


def _batch_hard_context(ctx: Any, args: signatures.BatchHard, output: tuple[Tensor, Tensor]) -> None:
    ctx.metric = args.metric
    distance, index = output
    ctx.save_for_backward(args.x, args.ref, index, distance)
    ctx.mark_non_differentiable(index)
    ctx.set_materialize_grads(False)  # no zeros for the output without gradient


def _batch_hard_grad(ctx: Any, grad: Tensor | None, _index: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    dx, dref = _gradients(ctx, grad, ctx.saved_tensors, ctx.needs_input_grad[0], ctx.needs_input_grad[2])
    return dx, None, dref


def _triplet_context(ctx: Any, args: signatures.BatchHardTriplet, output: tuple[Tensor, ...]) -> None:
    ctx.metric = args.metric
    _, slope, distance, index = output
    ctx.save_for_backward(args.x, args.ref, index, distance, slope)
    ctx.mark_non_differentiable(slope, distance, index)
    ctx.set_materialize_grads(False)  # no zeros for the outputs without gradient


def _triplet_grad(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    *saved, slope = ctx.saved_tensors
    dx, dref = _gradients(ctx, grad * slope, saved, ctx.needs_input_grad[0], ctx.needs_input_grad[2])
    return dx, None, dref


def _mined_distance_context(ctx: Any, args: signatures.MinedDistance, output: Tensor) -> None:
    ctx.metric = args.metric
    ctx.save_for_backward(args.x, args.ref, args.index, output)


def _mined_distance_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grad, ctx.saved_tensors, *ctx.needs_input_grad[:2])


def _gradients(
    ctx: Any, grad: Tensor, saved: Sequence[Tensor], with_x: bool, with_ref: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and ref; `saved` is (x, ref, index, distance)."""
    dx, dref = _mined_distance_backward(ctx.backend, grad, *saved, ctx.metric, with_x, with_ref)
    return dx if with_x else None, dref if with_ref else None


_mined_distance_backward = register("mined_distance_backward", signatures.MinedDistanceBackward)
_mined_distance = register(
    "mined_distance",
    signatures.MinedDistance,
    setup_context=_mined_distance_context,
    backward=_mined_distance_grad,
)
_batch_hard = register(
    "batch_hard", signatures.BatchHard, setup_context=_batch_hard_context, backward=_batch_hard_grad
)
_batch_hard_triplet = register(
    "batch_hard_triplet",
    signatures.BatchHardTriplet,
    public=1,
    setup_context=_triplet_context,
    backward=_triplet_grad,
)
_identity_hard = register("identity_hard", signatures.IdentityHard)
