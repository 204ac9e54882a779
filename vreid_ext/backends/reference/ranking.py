"""Rankings in plain torch: all distances in float64, and a stable sort."""

import torch
from torch import Tensor

from vreid_ext.backends.errors import all_finite, finite_rows

_ELEMENTS = 2**24  # maximum number of elements of a temporary


def pair_distances(query: Tensor, gallery: Tensor, row: Tensor, index: Tensor, metric: str) -> Tensor:
    pairs = max(1, _ELEMENTS // query.shape[1])
    parts = [
        _distances(query[rows], gallery[items], metric)
        for rows, items in zip(row.split(pairs), index.split(pairs), strict=True)
    ]
    distance = torch.cat(parts)
    if not distance.isfinite().all():
        check_finite(query, gallery, metric)
    return distance


def rank_counts(
    distances: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor | None,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
    offset: int,
    check: bool,
) -> Tensor:
    if check:
        all_finite("distances", distances.isfinite().all(1))
    counts = torch.zeros_like(index)
    columns = torch.arange(distances.shape[1], device=distances.device) + offset
    for i, values in enumerate(distances.double()):
        mine = slice(int(start[i]), int(start[i + 1]))
        counted = _counted(columns, i, left_start, left, kept)
        j = index[mine, None]
        d = values[j - offset] if distance is None else distance[mine, None]
        before = (values < d) | ((values == d) & (columns < j))
        counts[mine] = (before & counted).sum(1)
    return counts


def feature_rank_counts(
    query: Tensor,
    gallery: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
    metric: str,
    offset: int,
) -> Tensor:
    check_finite(query, gallery, metric)
    counts = torch.zeros_like(index)
    row, column = torch.repeat_interleave(start.diff()), index - offset
    step = max(1, min(_rows(gallery), _ELEMENTS // max(1, len(query))))
    for begin in range(0, len(gallery), step):
        columns = slice(begin, begin + step)
        tile = torch.stack([_distances(q, gallery[columns], metric) for q in query])
        # The given distance may come from another backend and differ by a rounding error. Insert it, so that
        # no positive is counted before itself.
        here = (column >= begin) & (column < begin + tile.shape[1])
        tile[row[here], column[here] - begin] = distance[here]
        part = None if kept is None else kept[columns]
        counts += rank_counts(tile, start, index, distance, left_start, left, part, offset + begin, False)
    return counts


def top_k(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: str,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    check_finite(query, gallery, metric)
    columns = torch.arange(len(gallery), device=query.device)
    nearest = query.new_full((len(query), k), torch.inf, dtype=torch.float64)
    indices = torch.full_like(nearest, -1, dtype=torch.int64)
    farthest = query.new_full((len(query),), -torch.inf, dtype=torch.float64)
    for i, q in enumerate(query):
        items = columns[_counted(columns, i, left_start, left, kept)]
        values = torch.cat([_distances(q, gallery[part], metric) for part in items.split(_rows(gallery))])
        ordered, order = values.sort(stable=True)
        n = min(k, len(items))
        nearest[i, :n], indices[i, :n] = ordered[:n], items[order[:n]]
        if n:
            farthest[i] = ordered[-1]
    return nearest, indices, farthest


def _distances(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Distances of rows in float64. The bits depend only on the two rows, not on strides or other rows."""
    a, b = a.double(), b.double()
    if metric == "euclidean":
        return _sum((a - b).square()).sqrt()
    norms = _sum(a.square()).sqrt() * _sum(b.square()).sqrt()
    cosine = _sum(a * b) / norms.where(norms != 0, 1)
    return torch.where(norms == 0, 1, 1 - cosine + (norms - norms))  # NaN where squares overflow


def _sum(x: Tensor) -> Tensor:
    """Sum over the last axis by repeatedly adding its halves. The order depends only on the axis length; that
    of `torch.sum` also depends on the number of rows (GPU) or threads (single row).
    """
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = torch.cat([x[..., :half] + x[..., half : 2 * half], x[..., 2 * half :]], -1)
    return x[..., 0]


def _counted(
    columns: Tensor, i: int, left_start: Tensor | None, left: Tensor | None, kept: Tensor | None
) -> Tensor:
    """Mask of the columns that are included for query i."""
    counted = torch.ones_like(columns, dtype=torch.bool) if kept is None else kept
    if left_start is None or left is None:
        return counted
    return counted & ~torch.isin(columns, left[int(left_start[i]) : int(left_start[i + 1])])


def _rows(gallery: Tensor) -> int:
    return max(1, _ELEMENTS // gallery.shape[1])


def check_finite(query: Tensor, gallery: Tensor, metric: str) -> None:
    for name, x in (("query", query), ("gallery", gallery)):
        finite_rows(name, torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square(), metric)
