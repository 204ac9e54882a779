"""Attributes of MARS and DukeMTMC-VideoReID for ASTA and AITL: names, numbers of classes, label checks."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from vreid_ext import _checks

IGNORE = -1  # class index of an unknown attribute

Group = Literal["id_relevant", "id_irrelevant", "all"]

# Attribute -> number of classes, in the order of the columns of the attribute file, starting at the fourth.
ID_IRRELEVANT: Mapping[str, int] = {
    "motion": 5,
    "pose": 6,
    "occlusion": 2,
    "cut_out": 2,
    "multi_person": 2,
    "background_dominant": 2,
    "target_change": 2,
    "target_miss": 2,
    "wrong_target": 2,
}
ID_RELEVANT: Mapping[str, Mapping[str, int]] = {
    "mars": {
        "top_color": 9,
        "bottom_color": 10,
        "age": 4,
        "top_length": 2,
        "bottom_length": 2,
        "shoulder_bag": 2,
        "backpack": 2,
        "hat": 2,
        "hand_bag": 2,
        "hair": 2,
        "gender": 2,
        "bottom_type": 2,
    },
    "dukev": {
        "backpack": 2,
        "bag": 2,
        "handbag": 2,
        "boots": 2,
        "gender": 2,
        "hat": 2,
        "shoes": 2,
        "top": 2,
        "bottom_color": 8,
        "top_color": 9,
    },
}


def attribute_sizes(dataset: str, group: Group = "all") -> dict[str, int]:
    """Number of classes of each attribute of "mars" or "dukev", in column order.

    For "all", the ID-irrelevant attributes come first. The numbers add up to 25 for "id_irrelevant", and to
    41 (mars) or 33 (dukev) for "id_relevant".

    Raises:
        ValueError: unknown data set or group.
    """
    if dataset not in ID_RELEVANT:
        raise ValueError(f"dataset: expected one of {', '.join(ID_RELEVANT)}, got {dataset!r}")
    groups = {
        "id_irrelevant": dict(ID_IRRELEVANT),
        "id_relevant": dict(ID_RELEVANT[dataset]),
        "all": {**ID_IRRELEVANT, **ID_RELEVANT[dataset]},
    }
    if group not in groups:
        raise ValueError(f"group: expected one of {', '.join(groups)}, got {group!r}")
    return groups[group]


def attribute_labels(attributes: Mapping[str, int] | None, names: Iterable[str]) -> Tensor:
    """Class indices (A,) int64 of the named attributes of a tracklet.

    Unknown attributes, or all attributes if `attributes` is None, have index -1, which losses and metrics
    ignore.
    """
    known = attributes or {}
    return torch.tensor([known.get(name, IGNORE) for name in names], dtype=torch.int64)


def check_attributes(logits: Tensor, targets: Tensor, sizes: Mapping[str, int]) -> None:
    """Check logits (n, sum of sizes) and targets (n, A), int64 class indices in range or -1.

    The values of targets on a GPU are not checked, as this would synchronize.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits: expected a floating-point tensor (n, {sum(sizes.values())}), got {got}")
    if logits.dim() != 2 or logits.shape[1] != sum(sizes.values()):
        raise ValueError(f"logits: expected shape (n, {sum(sizes.values())}), got {tuple(logits.shape)}")
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets: expected an int64 tensor (n, {len(sizes)}), got {got}")
    if targets.shape != (len(logits), len(sizes)):
        raise ValueError(f"targets: expected shape ({len(logits)}, {len(sizes)}), got {tuple(targets.shape)}")
    if _checks.seen(targets):
        outside = (targets < IGNORE) | (targets >= targets.new_tensor(list(sizes.values())))
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            name = list(sizes)[column]
            raise ValueError(
                f"targets: expected 0 to {sizes[name] - 1}, or {IGNORE} if unknown, got class "
                f"{int(targets[row, column])} of {name!r} in row {row}"
            )
