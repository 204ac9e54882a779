"""Ranking a gallery for every query, a block of queries at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray | Sequence[int]

# of one block-by-gallery matrix: 16 MiB in float64, and up to seven such live at once
_BLOCK_ELEMENTS = 2**21


class Ranking(NamedTuple):
    """The gallery in ascending order of distance, for a block of queries.

    Attributes:
        queries: the block's rows among all queries.
        order: (q,G) gallery indices; equal distances in ascending gallery index.
        distances: (q,G), sorted; infinite for items that the protocol removes, which so come last.
    """

    queries: slice
    order: Tensor
    distances: Tensor


class Retrieval:
    """Validated queries and gallery of one evaluation; `rankings()` yields them ranked in bounded memory."""

    def __init__(
        self,
        query: Array,
        gallery: Array,
        q_pids: Array,
        g_pids: Array,
        q_camids: Array,
        g_camids: Array,
        *,
        metric: str,
        junk: bool,
        exclude: Array | None,
        block_size: int | None,
    ) -> None:
        if metric not in ("cosine", "euclidean"):
            raise ValueError(f"metric: got {metric!r}, wanted 'cosine' or 'euclidean'")
        self.query, self.gallery = _features("query", query), _features("gallery", gallery)
        if self.query.shape[1] != self.gallery.shape[1]:
            got, wanted = self.gallery.shape[1], self.query.shape[1]
            raise ValueError(f"gallery: got {got} columns, wanted {wanted} as query has")
        self.device = device = self.query.device
        self.gallery = self.gallery.to(device)
        self.q_pids = _labels("q_pids", q_pids, len(self.query), device)
        self.g_pids = _labels("g_pids", g_pids, len(self.gallery), device)
        self.q_camids = _labels("q_camids", q_camids, len(self.query), device)
        self.g_camids = _labels("g_camids", g_camids, len(self.gallery), device)
        self.exclude = None if exclude is None else _labels("exclude", exclude, len(self.query), device)
        if self.exclude is not None and ((self.exclude < -1) | (self.exclude >= len(self.gallery))).any():
            raise ValueError(f"exclude: got an index outside -1 ... {len(self.gallery) - 1}")
        if block_size is not None and block_size < 1:
            raise ValueError(f"block_size: got {block_size}, wanted at least 1")
        self.metric, self.junk = metric, junk
        self.block_size = block_size or max(1, _BLOCK_ELEMENTS // len(self.gallery))

    @property
    def protocol(self) -> str:
        """What is ranked and what is left out, in words."""
        removed = ["pid -1"]
        if self.junk:
            removed.append("same pid and camera")
        if self.exclude is not None and (self.exclude >= 0).any():
            removed.append("the query itself")
        return f"{self.metric} distance; removed from the gallery: {', '.join(removed)}"

    def rankings(self) -> Iterator[Ranking]:
        gallery = self._prepare(self.gallery)
        for start in range(0, len(self.query), self.block_size):
            queries = slice(start, min(start + self.block_size, len(self.query)))
            distances = self._distances(queries, gallery).masked_fill_(self._removed(queries), torch.inf)
            distances, order = torch.sort(distances, dim=1, stable=True)
            yield Ranking(queries, order, distances)

    def matches(self, ranking: Ranking) -> Tensor:
        """(q,G) bool: the kept items of the query's identity, in ranked order."""
        same_pid = self.g_pids[ranking.order] == self.q_pids[ranking.queries, None]
        return same_pid & ranking.distances.isfinite()

    def _prepare(self, features: Tensor) -> Tensor:
        # float64, so that the order is that of the features and not of the rounding of a matrix product
        features = features.double()
        return F.normalize(features, dim=1) if self.metric == "cosine" else features

    def _distances(self, queries: slice, gallery: Tensor) -> Tensor:
        query = self._prepare(self.query[queries])
        product = query @ gallery.T
        if self.metric == "cosine":
            return 1 - product
        squared = query.square().sum(1, keepdim=True) + gallery.square().sum(1) - 2 * product
        return squared.clamp(min=0).sqrt()

    def _removed(self, queries: slice) -> Tensor:
        removed = (self.g_pids == -1).expand(queries.stop - queries.start, -1)
        if self.junk:
            same_pid = self.q_pids[queries, None] == self.g_pids
            removed = removed | (same_pid & (self.q_camids[queries, None] == self.g_camids))
        if self.exclude is not None:
            columns = torch.arange(len(self.gallery), device=self.device)
            removed = removed | (self.exclude[queries, None] == columns)
        return removed


def rank(
    query: Array,
    gallery: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    *,
    top: int = 10,
    metric: str = "cosine",
    junk: bool = True,
    exclude: Array | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `top` nearest gallery items of every query, nearest first.

    The other arguments, what is removed from the gallery, and ties: as for `evaluate`.

    Returns:
        indices (Q,top) int64 into the gallery and distances (Q,top) float64; -1 and infinity where fewer
        items remain.

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted.
    """
    if top < 1:
        raise ValueError(f"top: got {top}, wanted at least 1")
    retrieval = Retrieval(
        query, gallery, q_pids, g_pids, q_camids, g_camids,
        metric=metric, junk=junk, exclude=exclude, block_size=block_size,
    )  # fmt: skip
    indices = torch.full((len(retrieval.query), top), -1, device=retrieval.device)
    distances = torch.full_like(indices, torch.inf, dtype=torch.float64)
    for ranking in retrieval.rankings():
        nearest = ranking.distances[:, :top]
        distances[ranking.queries, : nearest.shape[1]] = nearest
        indices[ranking.queries, : nearest.shape[1]] = ranking.order[:, :top].masked_fill(nearest.isinf(), -1)
    return indices, distances


def _features(name: str, value: Any) -> Tensor:
    if not isinstance(value, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: got {type(value).__name__}, wanted a torch or numpy array (N,D)")
    value = torch.as_tensor(value).detach()
    if not value.is_floating_point():
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted a floating-point one")
    if value.dim() != 2 or 0 in value.shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted (N,D) with N and D at least 1")
    bad = ~value.isfinite().all(1)
    if bad.any():
        raise ValueError(
            f"{name}: got NaN or infinity in {int(bad.sum())} rows, the first {int(bad.nonzero()[0])}"
        )
    return value


def _labels(name: str, value: Any, length: int, device: torch.device) -> Tensor:
    value = torch.as_tensor(value)
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted integers")
    if value.shape != (length,):
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted ({length},)")
    return value.to(device, torch.int64)
