"""The return type of models in training mode."""

from typing import NamedTuple

from torch import Tensor


class TrainingOutput(NamedTuple):
    """Result of a model in training mode. In evaluation mode a model returns only the feature (B,D).

    Attributes:
        logits: (n, num_classes), for the cross-entropy loss.
        feature: (n,D), for the triplet loss. n is B, or B*T (clip-major) if every frame is a sample.
        extras: additional scalar loss terms by name, unweighted, for example {"inter_frame": ...}.
        attributes: logits (n, classes) of each attribute group; `attribute_sizes` of the model lists the
            attributes of each group.
        compared: (n,D), what the model returns in evaluation, for losses that compare it with stored features
            (OIM); None if it is `feature`.
    """

    logits: Tensor
    feature: Tensor
    extras: dict[str, Tensor]
    attributes: dict[str, Tensor] = {}  # noqa: RUF012
    compared: Tensor | None = None
