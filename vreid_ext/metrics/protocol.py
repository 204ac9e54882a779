"""The evaluation protocol: the positives and the excluded gallery items of every query."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import evaluation_step, signatures
from vreid_ext.backends.groups import starts
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
    """Positives and excluded items of every query, computed without a (Q,G) mask.

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

        removing = [(q_cam, g_cam, True)] if junk else []
        for rule in self.rules:
            _checks.choice(f"rules: remove of {rule.tag}", rule.remove, ("same", "other"))
            q_label = labels(f"rules: query {rule.tag}", rule.query, queries, device)
            g_label = labels(f"rules: gallery {rule.tag}", rule.gallery, items, device)
            removing.append((q_label, g_label, rule.remove == "same"))
        q_labels, g_labels, same = zip(*removing, strict=True) if removing else ((), (), ())
        args = signatures.Matches(
            q_pid,
            g_pid,
            torch.stack(q_labels) if removing else q_pid.new_empty((0, queries)),
            torch.stack(g_labels) if removing else g_pid.new_empty((0, items)),
            torch.tensor(same, dtype=torch.bool, device=device),
            itself,
        )
        self.row, self.index, self.start, *left_out = evaluation_step("matches", device)(args)
        self.left_out = left_out[0], left_out[1]
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
        self.start = starts(self.row, len(self.start) - 1)

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
        return (starts(row, len(start) - 1), index[inside] - first), kept


def labels(name: str, value: Any, length: int, device: torch.device) -> Tensor:
    value = _checks.array(name, value)
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: expected an integer dtype, got {value.dtype}")
    if value.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), got {tuple(value.shape)}")
    return value.to(device, torch.int64).contiguous()
