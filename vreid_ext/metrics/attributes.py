"""Accuracy and F1 of attribute recognition."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.attributes import check_attributes


def attribute_scores(
    logits: Tensor, targets: Tensor, sizes: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Accuracy and F1 of each attribute. The prediction is the class with the largest logit.

        accuracy = correct / labeled
        F1 = mean over classes c of  2 TP_c / (2 TP_c + FP_c + FN_c)

    F1 is the macro average over the classes that occur among targets or predictions. Unlike
    accuracy, F1 is informative if most samples belong to one class, as for most attributes of MARS.

    Args:
        logits: (n, sum of sizes); the classes of an attribute are contiguous.
        targets: (n, A) int64, the class of each attribute or -1 if it is unknown.
        sizes: number of classes of each attribute, in the order of the columns.

    Returns:
        For each attribute "accuracy", "f1" and "samples" (number of labeled rows). Attributes without
        labeled rows are omitted.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    sizes = _checks.sizes(sizes)
    check_attributes(logits, targets, sizes)
    scores = {}
    for (name, size), part, target in zip(
        sizes.items(), logits.split(list(sizes.values()), 1), targets.T, strict=True
    ):
        known = target >= 0
        if not known.any():
            continue
        pairs = target[known].cpu(), part[known].argmax(1).cpu()
        table = pairs[0].new_zeros((size, size))
        table.index_put_(pairs, torch.ones_like(pairs[0]), accumulate=True)
        hits, sums = table.diagonal().double(), (table.sum(0) + table.sum(1)).double()
        scores[name] = {
            "accuracy": float(hits.sum() / table.sum()),
            "f1": float((2 * hits / sums)[sums > 0].mean()),
            "samples": int(table.sum()),
        }
    return scores
