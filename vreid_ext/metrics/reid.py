"""CMC, mAP and mINP of person re-identification."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vreid_ext import _checks, ops
from vreid_ext.backends import evaluation_step, signatures
from vreid_ext.backends.errors import NotFiniteRowsError
from vreid_ext.features.rows import DistanceFunction, Features, Rows, Shard
from vreid_ext.metrics.protocol import JunkRule, Labels, Protocol
from vreid_ext.metrics.ranking import pair, rerank_options, reranked

_BLOCK_ELEMENTS = 2**22  # distances in a block of full rows
_IN_PLACE = (torch.float32, torch.float64)  # dtypes of distances that the kernel reads without a copy
_COLUMNS = 8192  # gallery items in one call of a distance function


@dataclass(frozen=True)
class ReIDResult:
    """Result of `evaluate`. Rates are fractions in [0, 1]; `str()` gives one line in percent.

    Attributes:
        cmc: (max_rank,) float64; cmc[k-1] is the fraction of valid queries with a match among their first k.
        mAP: mean over valid queries of the average precision.
        mINP: mean over valid queries of positives / rank of the last positive (Ye et al., 2021).
        valid_queries: number of queries with at least one positive; the others are skipped.
        per_query: "ap" (Q,) float64, NaN for a skipped query; "first_hit" (Q,) int64, the rank of the first
            positive counted from 1, 0 for a skipped query.
        protocol: text with the AP definition, the metric and the gallery items that were removed.
    """

    cmc: Tensor
    mAP: float  # noqa: N815 - the field's spelling
    mINP: float  # noqa: N815
    valid_queries: int
    per_query: dict[str, Tensor] = field(repr=False)
    protocol: str

    def rank(self, k: int) -> float:
        """CMC at rank k, counted from 1."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f"k: expected 1 to {len(self.cmc)}, got {k}")
        return float(self.cmc[k - 1])

    def row(self) -> dict[str, float]:
        """The metrics that papers report: mAP, mINP and CMC at ranks 1, 5, 10 and 20 (up to `max_rank`)."""
        ranks = {f"R{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= len(self.cmc)}
        return {"mAP": self.mAP, "mINP": self.mINP, **ranks}

    def __repr__(self) -> str:
        return f"ReIDResult({self})"

    def __str__(self) -> str:
        row = "  ".join(f"{name} {100 * value:.1f}" for name, value in self.row().items())
        return f"{row}  ({self.valid_queries} of {len(self.per_query['ap'])} queries; {self.protocol})"


def evaluate(
    query: Rows,
    gallery: Rows | Shard,
    q_pids: Labels,
    g_pids: Labels,
    q_camids: Labels,
    g_camids: Labels,
    *,
    metric: str | DistanceFunction = "cosine",
    ap: str = "precision",
    max_rank: int = 50,
    junk: bool = True,
    rules: Sequence[JunkRule] = (),
    exclude: Labels | None = None,
    rerank: bool | Mapping[str, float] = False,
    block_size: int | None = None,
) -> ReIDResult:
    """CMC, mAP and mINP from features: exact, in bounded memory and without sorting (`ops.rank_counts`).

    Sort the gallery items that are kept for a query by ascending distance. Let h_1 < ... < h_P be the ranks
    of its P positives (kept items with its pid), and p(r) the precision among the first r items:

        CMC(k) = 1[h_1 <= k]        INP = P / h_P
        AP = 1/P sum_j p(h_j)                                      "precision"
        AP = 1/P sum_j (p(h_j - 1) + p(h_j)) / 2,  p(0) = 1        "trapezoid", as MARS's own code

    The results are means over the queries that have a positive. Example: a single positive at rank 2 gives
    AP 0.5 ("precision") or 0.25 ("trapezoid").

    Args:
        query: floating-point features (Q,D): a torch tensor, a NumPy or memory-mapped NumPy array, or the
            path of a `.npy` file.
        gallery: features (G,D), likewise. A file is read once, in chunks of 32 MB. A `Shard` is the part of
            the gallery in this process of a torch.distributed group. All processes must pass the same other
            arguments; they get the same result, equal bit for bit to that of a single process. They exchange
            16 bytes per positive. The labels of the gallery may instead be those of the part, so that no
            process holds all; this exchanges 16 bytes more.
        q_pids: (Q,) integer identities. A query with pid -1 has no positive.
        g_pids: (G,) integer identities. Items with pid -1 are junk detections by the convention of
            Market-1501 and MARS and are always removed. Items with any other pid that no query has (e.g. 0,
            the distractors) are negatives.
        q_camids: (Q,) integer cameras.
        g_camids: (G,) integer cameras.
        metric: "cosine", 1 minus the cosine of the angle (a zero vector has distance 1 to all others),
            "euclidean", or a function that takes rows (q,...) of the query and (g,...) of the gallery and
            returns their distances (q,g). For a function, features may have any number of axes. Named metrics
            rank by float64 distances, a function by its values.
        ap: "precision" (torchreid, fast-reid) or "trapezoid".
        max_rank: length of `cmc`. If fewer items are ranked, the curve is continued with its last value.
        junk: remove items with the pid and the camera of the query, the protocol of all multi-camera data
            sets. Use False for data of one camera, where this would remove all positives.
        rules: remove further items with the pid of the query, e.g. those with the same clothes (`JunkRule`).
        exclude: (Q,) integer index of the gallery item that is the query itself, which is removed; -1 if
            there is none. Required with `junk=False` if queries are also in the gallery (leave one out:
            `exclude=torch.arange(Q)`).
        rerank: rank by k-reciprocal re-ranked distances (`ops.k_reciprocal`); a mapping sets k1, k2 and
            lambda_value. With "cosine", features are L2-normalized first. Not supported with a distance
            function.
        block_size: for a distance function or re-ranking, the number of queries whose rows of distances are
            in memory at once. By default a block has 4 M distances.

    Equal distances are ordered by gallery index, as by a stable sort.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, features are not finite, or no query
            has a positive.
    """
    max_rank = _check(ap, max_rank, junk)
    if block_size is not None:
        block_size = _checks.integer("block_size", block_size, 1)
    if not callable(metric):
        _checks.choice("metric", metric, ("cosine", "euclidean"))
    options = rerank_options(rerank)
    queries, items = pair(query, gallery, trailing=callable(metric))
    part_of, labelled = None, len(items)
    if items.shard is not None and len(g_pids) == items.here < len(items):
        part_of, labelled = (items.shard, len(items)), items.here
    protocol = Protocol(
        q_pids, g_pids, q_camids, g_camids,
        sizes=(len(queries), labelled), junk=junk, exclude=exclude, device=queries.device, rules=rules,
        part_of=part_of,
    )  # fmt: skip
    name = getattr(metric, "__name__", type(metric).__name__) if callable(metric) else metric
    size = block_size or max(1, _BLOCK_ELEMENTS // len(items))
    if items.shard is not None and (callable(metric) or options is not None):
        raise ValueError("gallery: expected the full gallery for a function or re-ranking, got a Shard")
    if options is not None:
        counts = _count_rows(_reranked(queries, items, metric, options, size), protocol)
        name = f"re-ranked {name}"
    elif callable(metric):
        counts = _count_rows(_blocks(metric, queries, items, size), protocol)
    else:
        counts = _count_features(queries, items, protocol, metric)
    return _result(protocol, counts, ap, max_rank, f"{ap} AP; {name} distance; {protocol}")


def evaluate_distances(
    distances: Tensor,
    q_pids: Labels,
    g_pids: Labels,
    q_camids: Labels,
    g_camids: Labels,
    *,
    ap: str = "precision",
    max_rank: int = 50,
    junk: bool = True,
    rules: Sequence[JunkRule] = (),
    exclude: Labels | None = None,
) -> ReIDResult:
    """`evaluate` for a given distance matrix (Q,G)."""
    max_rank = _check(ap, max_rank, junk)
    if not isinstance(distances, Tensor):
        raise TypeError(f"distances: expected a tensor (Q,G), got {type(distances).__name__}")
    if distances.dim() != 2 or 0 in distances.shape:
        raise ValueError(f"distances: expected shape (Q,G), got {tuple(distances.shape)}")
    protocol = Protocol(
        q_pids, g_pids, q_camids, g_camids,
        sizes=(len(distances), distances.shape[1]), junk=junk, exclude=exclude, device=distances.device,
        rules=rules,
    )  # fmt: skip
    size = max(1, _BLOCK_ELEMENTS // distances.shape[1])
    if distances.device.type == "cpu" and distances.is_contiguous() and distances.dtype in _IN_PLACE:
        size = len(distances)
    blocks = ((first, distances[first : first + size]) for first in range(0, len(distances), size))
    counts = _count_rows(blocks, protocol, "distances")
    return _result(protocol, counts, ap, max_rank, f"{ap} AP; given distances; {protocol}")


def _check(ap: Any, max_rank: Any, junk: Any) -> int:
    """Check the arguments and return max_rank as an int."""
    _checks.choice("ap", ap, ("precision", "trapezoid"))
    _checks.flag("junk", junk)
    return _checks.integer("max_rank", max_rank, 1)


def _result(protocol: Protocol, counts: Tensor, ap: str, max_rank: int, text: str) -> ReIDResult:
    args = signatures.RankScores(protocol.start.cpu(), counts.cpu(), ap == "trapezoid")
    average_precision, inp, first_hit = evaluation_step("rank_scores", args.counts.device)(args)
    valid = first_hit > 0
    if not valid.any():
        raise ValueError("q_pids: expected a query with a positive in the gallery, got none")
    histogram = torch.bincount(first_hit[valid].clamp(max=max_rank + 1), minlength=max_rank + 2)
    return ReIDResult(
        cmc=histogram[1:-1].cumsum(0).double() / valid.sum(),
        mAP=float(average_precision[valid].mean()),
        mINP=float(inp[valid].mean()),
        valid_queries=int(valid.sum()),
        per_query={"ap": average_precision, "first_hit": first_hit},
        protocol=text,
    )


def _count_features(query: Features, gallery: Features, protocol: Protocol, metric: str) -> Tensor:
    """(P,) number of items before each positive. Reads the positives' rows, then the gallery once."""
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    rows = query[:].to(dtype)
    row, index = protocol.row, protocol.index
    distance = torch.zeros(index.shape, dtype=torch.float64, device=query.device)
    order = index.argsort()  # consecutive pairs then share gallery rows that are still in the cache
    for which, some, places in gallery.among(index[order]):
        pairs = order[which]
        distance[pairs] = ops.pair_distances(rows, some.to(query.device, dtype), row[pairs], places, metric)
    if gallery.shard is not None:
        dist.all_reduce(distance)  # exact: only one process has a nonzero value
    counts = torch.zeros_like(index)
    for first, piece in gallery.pieces():
        place = first - protocol.first
        kept = None if protocol.kept is None else protocol.kept[place : place + len(piece)]
        counts += ops.feature_rank_counts(
            rows, piece.to(query.device, dtype), protocol.start, index, distance, protocol.left_out, kept,
            metric=metric, offset=first,
        )  # fmt: skip
    if gallery.shard is not None:
        dist.all_reduce(counts)
    return counts


def _blocks(
    metric: DistanceFunction, query: Features, gallery: Features, size: int
) -> Iterator[tuple[int, Tensor]]:
    """(first query, distances (q,G)) of one block of queries after another."""
    for first in range(0, len(query), size):
        rows = query[first : first + size]
        tiles = []
        for column in range(0, len(gallery), _COLUMNS):
            items = gallery[column : column + _COLUMNS].to(rows.device)
            tile = metric(rows, items)
            if tuple(tile.shape) != (len(rows), len(items)):
                expected = (len(rows), len(items))
                raise ValueError(f"metric: expected distances of shape {expected}, got {tuple(tile.shape)}")
            tiles.append(tile.detach())
        yield first, torch.cat(tiles, 1)


def _reranked(
    query: Features,
    gallery: Features,
    metric: str | DistanceFunction,
    options: Mapping[str, Any],
    size: int,
) -> Iterator[tuple[int, Tensor]]:
    distances = reranked(query, gallery, metric, options)
    for first in range(0, len(query), size):
        yield first, distances.rows(first, min(first + size, len(query)))


def _count_rows(blocks: Iterator[tuple[int, Tensor]], protocol: Protocol, source: str = "metric") -> Tensor:
    """(P,) number of items before each positive, from full rows of distances."""
    counts = torch.zeros_like(protocol.index)
    for first, distances in blocks:
        last = first + len(distances)
        begin, end = int(protocol.start[first]), int(protocol.start[last])
        left_start, left = protocol.left_out
        try:
            counts[begin:end] = ops.rank_counts(
                distances,
                protocol.start[first : last + 1] - begin,
                protocol.index[begin:end],
                None,
                (left_start[first : last + 1], left),
                protocol.kept,
                check=True,
            )
        except NotFiniteRowsError as error:
            raise ValueError(
                f"{source}: expected finite distances, got NaN or infinity in {error.count} rows, "
                f"the first is {first + error.first}"
            ) from None
    return counts
