"""What a model returns in training."""

from typing import NamedTuple

from torch import Tensor


class TrainingOutput(NamedTuple):
    """Result of a model call in training mode; in evaluation mode a model returns the feature (B,D) alone.

    Attributes:
        logits: (n, num_classes), for the cross-entropy.
        feature: (n,D), for the triplet loss. n is B, or B*T (clip-major) where every frame is a sample.
        extras: further scalar loss terms by name, unweighted, such as {"inter_frame": ...}.
        attributes: logits (n, classes) of each group of attributes, as the model's `attribute_sizes` say.
    """

    logits: Tensor
    feature: Tensor
    extras: dict[str, Tensor]
    attributes: dict[str, Tensor] = {}  # noqa: RUF012
