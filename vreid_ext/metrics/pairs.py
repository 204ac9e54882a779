"""Counts of pairs by distance: exact, tile by tile, without the full distance matrix.

A tile of distances is a float64 matrix product. Its rounding error is bounded. A pair whose distance is
within the bound of a threshold is compared by `ops.pair_distances` instead, so the counts are those of its
distances.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import ops
from vreid_ext.features.rows import Features
from vreid_ext.metrics.protocol import JunkRule, Labels, Protocol, labels

Progress = Callable[[int, int], None]

ROUNDING = 1e-9  # relative, of a rate times a number of pairs: 0.29 * 100 is below 29

_TILE = (1024, 4096)  # pairs of one tile: 32 MB of float64
_CELLS = 2**20  # cells of the uniform grid that replaces a binary search for most pairs
_SAMPLE = 2**17  # pairs in each part of a `PairSample`


def distances(rows: Tensor, gallery: Features, row: Tensor, index: Tensor, metric: str) -> Tensor:
    """`ops.pair_distances` of (rows[row], gallery[index]). A gallery on disk is read in pieces.

    Args:
        rows: (Q,D) in the wider dtype of query and gallery.
    """
    distance = torch.zeros(index.shape, dtype=torch.float64, device=rows.device)
    for which, some, places in gallery.among(index):
        some = some.to(rows.device, rows.dtype)
        distance[which] = ops.pair_distances(rows, some, row[which], places, metric)
    return distance


class PairSample(NamedTuple):
    """Pairs of different persons that stand for all of them in a bootstrap.

    Attributes:
        row, item: (n,) int64, query and gallery item of each pair.
        distance: (n,) float64, up to rounding errors.
        weight: (n,) float64, the number of pairs that each stands for: 1 for the nearest pairs, which are
            complete up to some distance; for the others the inverse of the rate at which they were drawn.
    """

    row: Tensor
    item: Tensor
    distance: Tensor
    weight: Tensor


class PairSet:
    """The pairs of queries and gallery items that are compared: which are genuine, and how many are not.

    A pair of two queries that are both in the gallery counts once. Persons without an identity (pid -1) are
    in no pair.

    Attributes:
        query, gallery: the features.
        metric: "cosine" or "euclidean".
        protocol: the protocol of `metrics.evaluate`, for which pairs of two queries count twice.
        row, index, distance: (P,) the genuine pairs and their float64 distances, in order of distance.
        person: (Q,) number of each query's person, -1 for pid -1; g_person: (G,) likewise, `persons` for a
            person without a query.
        persons: number of persons with a query.
        impostors: number of pairs of different persons.
    """

    def __init__(
        self,
        query: Features,
        gallery: Features,
        q_pids: Labels,
        g_pids: Labels,
        q_camids: Labels,
        g_camids: Labels,
        *,
        metric: str,
        junk: bool,
        exclude: Labels | None,
        rules: Sequence[JunkRule] = (),
    ) -> None:
        self.query, self.gallery, self.metric = query, gallery, metric
        self._rows = query[:].to(torch.promote_types(query.dtype, gallery.dtype))
        device = query.device
        self.protocol = Protocol(
            q_pids, g_pids, q_camids, g_camids,
            sizes=(len(query), len(gallery)), junk=junk, exclude=exclude, device=device, rules=rules,
        )  # fmt: skip
        self.q_pid = labels("q_pids", q_pids, len(query), device)
        self.g_pid = labels("g_pids", g_pids, len(gallery), device)
        self.q_camera = labels("q_camids", q_camids, len(query), device)
        self.g_camera = labels("g_camids", g_camids, len(gallery), device)
        self._find_queries_in_the_gallery(exclude)
        known = self.q_pid != -1
        pids = self.q_pid[known].unique()
        self.persons = len(pids)
        self.person = torch.searchsorted(pids, self.q_pid).masked_fill(~known, -1)
        place = torch.searchsorted(pids, self.g_pid)
        has_query = torch.isin(self.g_pid, pids)
        self.g_person = torch.where(has_query, place, self.persons)
        ones = torch.ones(self.persons, dtype=torch.float64, device="cpu")
        self.impostors = int(self.impostor_weight(ones[None])[0])
        counted = self._counted(self.protocol.row, self.protocol.index)
        self.row, self.index = self.protocol.row[counted], self.protocol.index[counted]

    def _find_queries_in_the_gallery(self, exclude: Labels | None) -> None:
        """Set `_number`, (G,) the query that each gallery item is, else -1, and `_inside`, (Q,) bool."""
        queries, items = len(self.query), len(self.gallery)
        self._number = torch.full_like(self.g_pid, -1)
        self._inside = torch.zeros_like(self.q_pid, dtype=torch.bool)
        self.whole = False
        if exclude is None:
            return
        itself = labels("exclude", exclude, queries, self.q_pid.device)
        self._inside = itself >= 0
        inside = itself[self._inside]
        if len(inside.unique()) < len(inside):
            raise ValueError("exclude: expected each gallery item at most once, got an item of two queries")
        other = (self.g_pid[inside] != self.q_pid[self._inside]).nonzero()
        if len(other):
            item = int(inside[other[0, 0]])
            raise ValueError(f"exclude: expected items with the pid of their query, got another for {item}")
        self._number[inside] = self._inside.nonzero()[:, 0]
        self.whole = queries == items and bool((itself == torch.arange(items, device=itself.device)).all())

    def _counted(self, row: Tensor, index: Tensor) -> Tensor:
        """Which pairs count: of two queries in the gallery, the pair with the earlier one as the query."""
        number = self._number[index]
        return (number < 0) | (number > row) | (~self._inside[row] & (number != row))

    def impostor_weight(self, weights: Tensor) -> Tensor:
        """(R,) float64: the pairs of different persons, each weighted by the weights of both persons.

        Args:
            weights: (R,P) float64 on the CPU; persons without a query have weight 1.
        """
        person, g_person = self.person.cpu(), self.g_person.cpu()
        queries = torch.bincount(person[person >= 0], minlength=self.persons).double()
        kept = self.g_pid.cpu() != -1
        items = torch.bincount(g_person[kept], minlength=self.persons + 1).double()
        both = torch.bincount(person[self._inside.cpu() & (person >= 0)], minlength=self.persons).double()
        squares = weights.square()
        total = (weights @ queries) * (weights @ items[:-1] + items[-1]) - squares @ (queries * items[:-1])
        return total - ((weights @ both).square() - squares @ both.square()) / 2

    def measure(self) -> None:
        """Compute the distances of the genuine pairs and sort the pairs by them."""
        distance = self.distances(self.row, self.index)
        order = distance.argsort(stable=True)
        self.row, self.index, self.distance = self.row[order], self.index[order], distance[order]

    def distances(self, row: Tensor, index: Tensor) -> Tensor:
        return distances(self._rows, self.gallery, row, index, self.metric)

    def largest_norms(self) -> float:
        """The largest norm of a query plus the largest norm of a gallery item.

        Raises:
            ValueError: a row is not finite, or has a norm above 1e18.
        """
        norms_of = {"features": self.query, "gallery": self.gallery}
        if self.gallery is self.query:
            del norms_of["gallery"]
        total = 0.0
        for name, features in norms_of.items():
            largest = 0.0
            for first, piece in features.pieces():
                norms = torch.cat([part.double().norm(dim=1) for part in piece.split(_TILE[1])])
                bad = (~(norms <= 1e18)).nonzero()
                if len(bad):
                    number = int(bad[0, 0])
                    got = "NaN, infinity or a larger norm"
                    raise ValueError(
                        f"{name}: expected finite rows with a norm of at most 1e18, got {got} in {len(bad)} "
                        f"rows, the first is {first + number}"
                    )
                largest = max(largest, float(norms.max()))
            total += largest
        return 2 * total / len(norms_of)

    def same_person(self) -> tuple[Tensor, Tensor]:
        """All counted pairs of one person, also those that are not genuine because they are junk."""
        start, left = self.protocol.left_out
        left_row = torch.repeat_interleave(start.diff(), output_size=len(left))
        row, index = torch.cat([self.protocol.row, left_row]), torch.cat([self.protocol.index, left])
        counted = self._counted(row, index) & (self.q_pid[row] != -1)
        return row[counted], index[counted]

    def tiles(self, progress: Progress | None = None) -> Iterator[tuple[int, Tensor, Tensor, Tensor | None]]:
        """Yield tiles with all counted pairs: first row, gallery indices, key (r,c), mask of counted pairs.

        The key is the distance, for "euclidean" its square, in float64 with an error below `margin`. The mask
        is None if all pairs of the tile count.
        """
        rows_at_once, columns_at_once = _TILE
        rows = self._rows
        for first in range(0, len(rows), rows_at_once):
            if progress is not None:
                progress(first, len(rows))
            block = self._prepared(rows[first : first + rows_at_once])
            number = torch.arange(first, first + len(block[0]), device=rows.device)
            known = self.q_pid[number] != -1
            for start, piece in self.gallery.pieces():
                for begin in range(0, len(piece), columns_at_once):
                    columns = piece[begin : begin + columns_at_once]
                    index = torch.arange(start + begin, start + begin + len(columns), device=rows.device)
                    if self.whole and int(index[-1]) <= first:
                        continue  # all pairs are below the diagonal
                    key = self._keys(block, self._prepared(columns.to(rows.device)))
                    yield first, index, key, self._mask(number, index, known)
        if progress is not None:
            progress(len(rows), len(rows))

    def _mask(self, number: Tensor, index: Tensor, known: Tensor) -> Tensor | None:
        kept = self.g_pid[index] != -1
        query = self._number[index]
        apart = bool((query < 0).all()) or (self.whole and int(index[0]) > int(number[-1]))
        if apart and bool(kept.all()) and bool(known.all()):
            return None
        mask = known[:, None] & kept
        if not apart:
            mask &= self._counted(number[:, None], index)
        return mask

    def _prepared(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows in float64, of length 1 for "cosine", and their squared lengths."""
        rows = rows.double()
        squares = rows.square().sum(1)
        if self.metric == "cosine":
            # The length is not the root of `squares`, which underflows for tiny rows.
            largest = rows.abs().amax(1, keepdim=True)
            rows = rows / largest.where(largest > 0, 1)
            length = rows.norm(dim=1, keepdim=True)
            rows = rows / length.where(length > 0, 1)
        return rows, squares

    def _keys(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
        product = a[0] @ b[0].T
        if self.metric == "cosine":
            return product.neg_().add_(1)
        return product.mul_(-2).add_(a[1][:, None]).add_(b[1])


class Thresholds:
    """Sorts pairs into the intervals between distances, with the comparisons of `ops.pair_distances`.

    Attributes:
        values: (m,) float64, ascending, without duplicates.
    """

    def __init__(self, pairs: PairSet, values: Tensor, largest: float) -> None:
        self._pairs, self.values = pairs, values
        self._cells = min(_CELLS, 2**10 + pairs.impostors)
        width = pairs.query.shape[1]
        keys, scale = values, 1.0
        if pairs.metric == "euclidean":
            keys, scale = values.square(), largest**2
        # A sum of D products has an error of at most D u sum |a b|; the rest covers the norms, their product
        # and the same error of `pair_distances`, with u = 2^-53.
        margin = (4 * width + 64) * 2.0**-53 * max(scale, torch.finfo(torch.float64).tiny)
        low, high = keys - margin, keys + margin
        # Intervals that overlap are one cluster: [low of its first value, high of its last value].
        new = torch.ones_like(low, dtype=torch.bool)
        new[1:] = low[1:] > high[:-1]
        first = new.nonzero()[:, 0]
        last = torch.cat([first[1:] - 1, first.new_tensor([len(values) - 1])])
        self._start = torch.cat([first, first.new_tensor([len(values)])])  # values below each gap
        self._bounds = torch.stack([low[first], high[last]], 1).flatten()
        self._low, span = self._bounds[0], self._bounds[-1] - self._bounds[0]
        # The last value is in the last cell but one, so that no value is in the last cell.
        self._scale = (self._cells - 1) / span.clamp(min=torch.finfo(torch.float64).tiny * self._cells)
        cells = self._cell(self._bounds).long().view(-1, 2)
        change = torch.zeros(self._cells + 3, dtype=torch.int64, device=values.device)
        ones = torch.ones_like(cells[:, 0])
        change.index_add_(0, cells[:, 0], ones).index_add_(0, cells[:, 1] + 1, -ones)
        self._unclear = change.cumsum(0)[:-1] > 0
        numbers = torch.arange(self._cells + 2, device=values.device)
        self._gap = torch.searchsorted(cells[:, 1].contiguous(), numbers)  # clusters before each cell

    def _cell(self, key: Tensor) -> Tensor:
        """Cell of the uniform grid, the first below all values, the last above. Monotone, also if rounded."""
        return ((key - self._low) * self._scale).add_(1).clamp_(0, self._cells + 1).int()

    def place(self, key: Tensor) -> Tensor:
        """The number of values below each key, up to rounding errors."""
        return self._start[torch.bucketize(key, self._bounds) // 2]

    def exact(self, row: Tensor, index: Tensor) -> Tensor:
        """Intervals of given pairs: 2 j between values[j-1] and values[j], 2 j + 1 at values[j]."""
        distance = self._pairs.distances(row, index)
        return torch.bucketize(distance, self.values) + torch.bucketize(distance, self.values, right=True)

    def counts(
        self, progress: Progress | None = None, look: Callable[[int, Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """(2m+1,) int64: number of pairs of different persons in each interval, numbered as by `exact`.

        Args:
            progress: called as `progress(queries_done, queries)`.
            look: called with the first row, the gallery indices and the keys of every tile; infinity marks
                pairs that do not count.
        """
        in_cell = torch.zeros(self._cells + 2, dtype=torch.int64, device=self.values.device)
        total = torch.zeros(2 * len(self.values) + 1, dtype=torch.int64, device=self.values.device)
        for first, index, key, mask in self._pairs.tiles(progress):
            if mask is not None:
                key = key.masked_fill_(~mask, torch.inf)
            cell = self._cell(key).flatten()
            in_cell += torch.bincount(cell, minlength=self._cells + 2)
            if mask is not None:  # those are in the last cell
                in_cell[-1] -= mask.numel() - mask.sum()
            unclear = self._unclear.index_select(0, cell).nonzero()[:, 0]
            gap = torch.bucketize(key.flatten()[unclear], self._bounds)
            within = gap % 2 == 1
            clear = torch.bincount(gap[~within] // 2, minlength=len(self._start))
            total.index_add_(0, 2 * self._start, clear)
            some = unclear[within]
            row, column = first + some // len(index), some % len(index)
            total += torch.bincount(self.exact(row, index[column]), minlength=len(total))
            if look is not None:
                look(first, index, key)
        clear = torch.where(self._unclear, 0, in_cell)
        total.index_add_(0, 2 * self._start[self._gap], clear)
        return total - torch.bincount(self.exact(*self._pairs.same_person()), minlength=len(total))

    def counts_by_camera(self, q_camera: Tensor, g_camera: Tensor, cameras: int) -> Tensor:
        """(m,C,C) int64: pairs of different persons up to each value, by camera of query and gallery item.

        For few values: each is compared with every pair.

        Args:
            q_camera, g_camera: (Q,), (G,) int64 from 0 to C - 1.
        """
        values, size = len(self.values), cameras
        total = torch.zeros(values, size, size, dtype=torch.float64, device=self.values.device)
        for first, index, key, mask in self._pairs.tiles():
            if mask is not None:
                key = key.masked_fill_(~mask, torch.inf)
            rows = q_camera[first : first + len(key)]
            columns = torch.nn.functional.one_hot(g_camera[index], size).float()
            gap = torch.bucketize(key, self._bounds)
            unclear = (gap % 2 == 1).flatten().nonzero()[:, 0]
            below = self._start[gap // 2]  # values below the key; those from here on are not
            row, column = unclear // len(index), unclear % len(index)
            below[row, column] = self.exact(first + row, index[column]) // 2
            for number in range(values):
                # At most 4,096 ones are added up, which float32 represents.
                found = (below <= number).float() @ columns
                total[number].index_add_(0, rows, found.double())
        row, index = self._pairs.same_person()
        below = self.exact(row, index) // 2
        group = q_camera[row] * size + g_camera[index]
        for number in range(values):
            same = torch.bincount(group[below <= number], minlength=size * size)
            total[number] -= same.view(size, size)
        return total.long()


class Sampler:
    """Draws a `PairSample` while the pairs are counted."""

    def __init__(self, pairs: PairSet, generator: torch.Generator) -> None:
        self._pairs, self._generator = pairs, generator
        self._limit = torch.inf  # the key below which the nearest pairs are complete
        self._near: list[tuple[Tensor, Tensor, Tensor]] = []
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rate = min(1.0, _SAMPLE / max(1, pairs.impostors))

    def look(self, first: int, index: Tensor, key: Tensor) -> None:
        keys = key.flatten()
        near = (keys < self._limit).nonzero()[:, 0]
        self._near.append(self._impostors(first, index, keys, near))
        if sum(len(part[0]) for part in self._near) > 2 * _SAMPLE:
            row, item, found = (torch.cat(parts) for parts in zip(*self._near, strict=True))
            self._limit = float(found.kthvalue(_SAMPLE).values)
            kept = found < self._limit
            self._near = [(row[kept], item[kept], found[kept])]
        if self._rate < 1:
            wanted = len(keys) * self._rate
            part = torch.rand((), dtype=torch.float64, generator=self._generator, device="cpu")
            count = int(wanted + part)
            places = torch.randint(len(keys), (count,), generator=self._generator, device="cpu")
            self._drawn.append(self._impostors(first, index, keys, places.to(keys.device)))

    def _impostors(
        self, first: int, index: Tensor, keys: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        row, item = first + places // len(index), index[places % len(index)]
        key = keys[places]
        kept = (self._pairs.q_pid[row] != self._pairs.g_pid[item]) & (key < torch.inf)
        return row[kept], item[kept], key[kept]

    def sample(self) -> PairSample:
        parts = []
        for found, weight in ((self._near, 1.0), (self._drawn, 1 / self._rate)):
            if not found:
                continue
            row, item, key = (torch.cat(each) for each in zip(*found, strict=True))
            kept = key >= self._limit if weight > 1 else torch.ones_like(key, dtype=torch.bool)
            parts.append((row[kept], item[kept], key[kept], torch.full_like(key[kept], weight)))
        row, item, key, weights = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
        order = key.argsort(stable=True)
        key = key.clamp(min=0).sqrt() if self._pairs.metric == "euclidean" else key
        return PairSample(row[order], item[order], key[order], weights[order])
