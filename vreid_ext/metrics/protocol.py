"""The evaluation protocol: the positives and the excluded gallery items of every query."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.distributed import concatenate

Labels: TypeAlias = Tensor | np.ndarray | Sequence[int]


class JunkRule(NamedTuple):
    """Removes gallery items with the pid of the query by a further label, such as the clothes.

    Attributes:
        tag: name of the label.
        query, gallery: (Q,), (G,) integer labels.
        remove: "same" removes items with the label of the query (clothes-changing evaluation), "other" those
            with another label.
    """

    tag: str
    query: Labels
    gallery: Labels
    remove: Literal["same", "other"] = "same"


class Protocol:
    """Positives and excluded items of every query, computed by sorting identities, without a (Q,G) mask.

    Attributes:
        start, index: (Q+1,), (P,) int64: query i has the positives index[start[i]:start[i+1]], ascending.
        row: (P,), the query of each positive.
        left_out: (start, index) in the same format, of the items to exclude for a query.
        kept: (G,) bool, items to include for all queries; None for all items.
        first: index of the first of these items in the gallery. Not 0 for a part of the gallery, whose labels
            are those of the part; `left_out` and `kept` then are of the part, `index` is of the gallery.
    """

    def __init__(
        self,
        q_pids: Labels,
        g_pids: Labels,
        q_camids: Labels,
        g_camids: Labels,
        *,
        sizes: tuple[int, int],
        junk: bool,
        exclude: Labels | None,
        device: torch.device,
        rules: Sequence[JunkRule] = (),
        part_of: tuple[int, int] | None = None,
    ) -> None:
        queries, items = sizes
        self.first, total = part_of or (0, items)
        q_pid, g_pid = labels("q_pids", q_pids, queries, device), labels("g_pids", g_pids, items, device)
        q_cam = labels("q_camids", q_camids, queries, device)
        g_cam = labels("g_camids", g_camids, items, device)
        itself = None
        if exclude is not None:
            itself = labels("exclude", exclude, queries, device)
            if ((itself < -1) | (itself >= total)).any():
                outside = itself[(itself < -1) | (itself >= total)][0]
                raise ValueError(f"exclude: expected -1 to {total - 1}, got {int(outside)}")
        self.junk, self.rules = junk, tuple(rules)
        self.excludes = itself is not None and bool((itself >= 0).any())
        if itself is not None and part_of is not None:
            here = (itself >= self.first) & (itself < self.first + items)
            itself = (itself - self.first).where(here, -1)

        by_pid, order = g_pid.sort(stable=True)
        first, last = torch.searchsorted(by_pid, q_pid), torch.searchsorted(by_pid, q_pid, right=True)
        last = torch.where(q_pid == -1, first, last)  # pid -1 is junk and has no positives
        row = torch.repeat_interleave(last - first)
        place = _starts(row, queries)[:-1].neg_().add_(first)  # of the first pair of a query, in `order`
        index = _at(order, torch.arange(len(row), device=device) + _at(place, row))
        removed = torch.zeros_like(index, dtype=torch.bool)
        if junk:
            removed = _at(q_cam, row) == _at(g_cam, index)
        for rule in self.rules:
            _checks.choice(f"rules: remove of {rule.tag}", rule.remove, ("same", "other"))
            q_label = labels(f"rules: query {rule.tag}", rule.query, queries, device)
            g_label = labels(f"rules: gallery {rule.tag}", rule.gallery, items, device)
            removed |= (_at(q_label, row) == _at(g_label, index)) == (rule.remove == "same")
        if itself is not None:
            removed |= index == itself[row]
        remaining, pairs = (~removed).nonzero()[:, 0], removed.nonzero()[:, 0]
        self.row, self.index = _at(row, remaining), _at(index, remaining)
        self.start = _starts(self.row, queries)

        row, index = _at(row, pairs), _at(index, pairs)  # in ascending order
        if itself is not None:
            other = ((itself >= 0) & (g_pid[itself.clamp(min=0)] != q_pid)).nonzero()[:, 0]
            row, index = torch.cat([row, other]), torch.cat([index, itself[other]])
            order = index.argsort(stable=True)
            order = order[row[order].argsort(stable=True)]
            row, index = row[order], index[order]
        self.left_out = _starts(row, queries), index
        self.kept = None if (g_pid != -1).all() else g_pid != -1
        if part_of is not None:
            self._gather()

    def _gather(self) -> None:
        """Collect the positives of all processes, each of which has the labels of its part of the gallery."""
        self.left_out = self.left_out[0], self.left_out[1] + self.first
        own = torch.stack([self.row, self.index + self.first], 1)
        # Ranks may hold their parts in any order.
        pairs = concatenate(own)
        pairs = pairs[pairs[:, 1].argsort(stable=True)]
        pairs = pairs[pairs[:, 0].argsort(stable=True)]
        self.row, self.index = pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
        self.start = _starts(self.row, len(self.start) - 1)

    def __str__(self) -> str:
        removed = ["pid -1", *["same pid and camera"] * self.junk]
        removed += [f"same pid and {rule.remove} {rule.tag}" for rule in self.rules]
        removed += ["the query itself"] * self.excludes
        return f"removed from the gallery: {', '.join(removed)}"

    def part(self, first: int, stop: int) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """`left_out` (indices relative to `first`) and `kept` of the gallery items first ... stop - 1."""
        start, index = self.left_out
        inside = (index >= first) & (index < stop)
        row = torch.repeat_interleave(start.diff(), output_size=len(index))[inside]
        kept = None if self.kept is None else self.kept[first:stop]
        return (_starts(row, len(start) - 1), index[inside] - first), kept


def labels(name: str, value: Any, length: int, device: torch.device) -> Tensor:
    value = _checks.array(name, value)
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: expected an integer dtype, got {value.dtype}")
    if value.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), got {tuple(value.shape)}")
    return value.to(device, torch.int64).contiguous()


def _at(values: Tensor, index: Tensor) -> Tensor:
    """values[index], in a fifth of the time on a CPU."""
    return values.index_select(0, index)


def _starts(row: Tensor, rows: int) -> Tensor:
    """(rows+1,): the start of each row in a sorted list of row numbers, and the end of the last row."""
    return torch.cat([row.new_zeros(1), torch.bincount(row, minlength=rows).cumsum(0)])
