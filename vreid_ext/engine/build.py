"""From a recipe to the objects it names: data set, model, transforms."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vreid_ext.data import TrackletDataset, build_dataset, test_transform, train_transform
from vreid_ext.data.transforms import ClipTransform
from vreid_ext.engine.config import Dataset, Input
from vreid_ext.losses import CrossEntropyLoss, TripletLoss
from vreid_ext.models import TrainingOutput, build_model


def dataset_of(dataset: Dataset) -> TrackletDataset:
    """Read the data set a recipe names.

    Raises:
        ValueError: no root is given, or the data cannot be used.
    """
    if dataset.root is None:
        raise ValueError(f"dataset.root: got none, wanted the folder of {dataset.name!r}: dataset.root=DIR")
    return build_dataset(dataset.name, dataset.root, **dataset.options)


def model_of(options: Mapping[str, Any], num_classes: int, *, start_weights: bool = True) -> nn.Module:
    """Build the model a recipe names; without `start_weights`, for weights that a checkpoint will bring."""
    options = dict(options)
    if not start_weights:
        options.pop("weights", None)
    return build_model(options.pop("name"), num_classes, **options)


def transforms_of(given: Input) -> tuple[ClipTransform, ClipTransform]:
    """(training, test) transforms."""
    train = train_transform(given.height, given.width, flip=given.flip, crop=given.crop, erase=given.erase)
    return train, test_transform(given.height, given.width)


class Objective(nn.Module):
    """The weighted sum of a recipe's loss terms (STA, Eq. 7 and 11).

    softmax * cross-entropy(logits) + triplet * batch-hard triplet(feature) + each extra of the model times
    the weight of its name. A term of weight 0 is neither computed nor reported.

    Args:
        weights: {"softmax": w, "triplet": w, <extra>: w}.
        gather: brings the rows of all processes together for the triplet loss.
    """

    def __init__(
        self, weights: Mapping[str, float], margin: float, label_smoothing: float, gather: Any
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.cross_entropy, self.triplet = CrossEntropyLoss(label_smoothing), TripletLoss(margin)
        self.gather = gather

    def forward(self, output: TrainingOutput, labels: Tensor) -> dict[str, Tensor]:
        """Unweighted terms by name and their weighted sum under "loss". labels: (B,), one per clip."""
        labels = labels.repeat_interleave(len(output.feature) // len(labels))
        terms: dict[str, Tensor] = {}
        for name in self.weights:
            if name == "softmax":
                terms[name] = self.cross_entropy(output.logits, labels)
            elif name == "triplet":
                terms[name] = self.triplet(self.gather(output.feature), self.gather(labels))
            elif name in output.extras:
                terms[name] = output.extras[name]
            else:
                raise ValueError(
                    f"loss.{name}: the model gives no such term, it has {sorted(output.extras)}; set it to 0"
                )
        terms["loss"] = sum(
            (self.weights[name] * term for name, term in terms.items()), output.logits.new_zeros(())
        )
        return terms
