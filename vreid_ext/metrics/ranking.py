"""Ranking lists: the nearest gallery items of every query."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import _checks, ops
from vreid_ext.features.rows import DistanceFunction, Features, Rows, Shard
from vreid_ext.metrics.protocol import JunkRule, Labels, Protocol
from vreid_ext.ops.rerank import ReRanked, check_options


def rank(
    query: Rows,
    gallery: Rows,
    q_pids: Labels,
    g_pids: Labels,
    q_camids: Labels,
    g_camids: Labels,
    *,
    top: int = 10,
    metric: str | DistanceFunction = "cosine",
    junk: bool = True,
    rules: Sequence[JunkRule] = (),
    exclude: Labels | None = None,
    rerank: bool | Mapping[str, float] = False,
) -> tuple[Tensor, Tensor]:
    """The `top` nearest gallery items of every query, nearest first.

    For the other arguments, the gallery items that are removed, and the order of equal distances see
    `evaluate`. With `rerank`, all Q x G re-ranked distances are in memory at once.

    Returns:
        indices (Q,top) int64 into the gallery and distances (Q,top) float64, filled up with -1 and infinity
        if fewer items remain.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    top = _checks.integer("top", top, 1)
    _checks.flag("junk", junk)
    options = rerank_options(rerank)
    if not callable(metric):
        _checks.choice("metric", metric, ("cosine", "euclidean"))
    queries, items = pair(query, gallery, trailing=callable(metric))
    protocol = Protocol(
        q_pids, g_pids, q_camids, g_camids,
        sizes=(len(queries), len(items)), junk=junk, exclude=exclude, device=queries.device, rules=rules,
    )  # fmt: skip
    if options is None:
        return nearest(queries, items, top, metric, protocol)
    distances = reranked(queries, items, metric, options).rows(0, len(queries))
    found, places = _nearest_of(distances, top, *protocol.part(0, len(items)))
    missing = top - found.shape[1]
    return F.pad(places, (0, missing), value=-1), F.pad(found, (0, missing), value=torch.inf)


def reranked(
    query: Features, gallery: Features, metric: str | DistanceFunction, options: Mapping[str, Any]
) -> ReRanked:
    """Re-ranked distances, with `options` from `rerank_options`.

    Raises:
        ValueError: the metric is a function; re-ranking requires squared Euclidean distances.
    """
    if callable(metric):
        raise ValueError("rerank: expected a named metric for re-ranking, got a distance function")
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    features = [part[:].to(query.device, dtype) for part in (query, gallery)]
    if metric == "cosine":
        features = [F.normalize(part, dim=1) for part in features]
    return ops.k_reciprocal(features[0], features[1], **options)


def rerank_options(rerank: Any) -> dict[str, Any] | None:
    """The keyword arguments of `ops.k_reciprocal`; None without re-ranking."""
    if isinstance(rerank, bool):
        return {} if rerank else None
    if not isinstance(rerank, Mapping):
        raise TypeError(f"rerank: expected a bool or a mapping, got {type(rerank).__name__}")
    known = {"k1": 20, "k2": 6, "lambda_value": 0.3}
    if unknown := [key for key in rerank if key not in known]:
        raise ValueError(f"rerank: expected the keys {', '.join(known)}, got {unknown[0]!r}")
    try:
        check_options(**{**known, **rerank})
    except (TypeError, ValueError) as error:
        raise type(error)(f"rerank: {error}") from None
    return dict(rerank)


def nearest(
    query: Features,
    gallery: Features,
    k: int,
    metric: str | DistanceFunction,
    protocol: Protocol | None = None,
    top_k: Callable[..., tuple[Tensor, Tensor]] = ops.top_k,
) -> tuple[Tensor, Tensor]:
    """`top_k` on a gallery that is read in chunks: indices (Q,k) and distances (Q,k)."""
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    rows = query[:].to(dtype)
    indices = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
    distances = torch.full_like(indices, torch.inf, dtype=torch.float64)
    for first, piece in gallery.pieces():
        removed = () if protocol is None else protocol.part(first, first + len(piece))
        piece = piece.to(query.device, dtype)
        if callable(metric):
            found, places = _nearest_of(metric(rows, piece), k, *removed)
        else:
            found, places = top_k(rows, piece, k, metric, *removed)
        places = torch.where(places >= 0, places + first, -1)
        # Later chunks have larger indices, so a stable sort orders equal distances by index.
        distances, order = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        indices = torch.cat([indices, places], 1).gather(1, order[:, :k])
        distances = distances[:, :k]
    return indices, distances


def _nearest_of(
    distances: Tensor, k: int, left_out: tuple[Tensor, Tensor] | None = None, kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`ops.top_k` for given distances (Q,G)."""
    distances = distances.to(torch.float64, copy=True)  # a copy, since excluded items become infinity
    if left_out is not None:
        start, index = left_out
        distances[torch.repeat_interleave(start.diff(), output_size=len(index)), index] = torch.inf
    if kept is not None:
        distances = distances.masked_fill(~kept, torch.inf)
    found, places = distances.sort(dim=1, stable=True)
    return found[:, :k], places.masked_fill(found.isinf(), -1)[:, :k]


def pair(query: Rows, gallery: Rows | Shard, *, trailing: bool = False) -> tuple[Features, Features]:
    """Convert query and gallery to `Features`, and check that their rows have the same shape."""
    queries, items = (
        Features(name, value, trailing=trailing) for name, value in (("query", query), ("gallery", gallery))
    )
    if queries.shape[1:] != items.shape[1:]:
        got, expected = items.shape[1:], queries.shape[1:]
        if not trailing:
            raise ValueError(f"gallery: expected {expected[0]} columns like query, got {got[0]}")
        raise ValueError(f"gallery: expected rows of shape {expected} like query, got rows of shape {got}")
    return queries, items
