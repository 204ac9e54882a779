"""From a recipe to the objects it names: data set, model, transforms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.data import (
    BlackBox,
    JointBatchSampler,
    PKBatchSampler,
    TrackletDataset,
    attach_joints,
    build_dataset,
    test_transform,
    train_transform,
)
from vreid_ext.data.transforms import ClipTransform
from vreid_ext.engine.config import Dataset, Input, Loss, Recipe
from vreid_ext.losses import (
    AITLoss,
    AttributeLoss,
    CrossEntropyLoss,
    DrawnTripletLoss,
    ITLoss,
    OIMLoss,
    TripletLoss,
)
from vreid_ext.losses.drawn import draws_for
from vreid_ext.losses.gather import world
from vreid_ext.models import TrainingOutput, build_model, model_factory


def dataset_of(dataset: Dataset, model: Mapping[str, Any] | None = None) -> TrackletDataset:
    """Read the data set a recipe names, with joints where the model (`Recipe.model`) takes them.

    Raises:
        ValueError: no root is given, or the data cannot be used.
    """
    if dataset.root is None:
        raise ValueError(f"dataset.root: got none, wanted the folder of {dataset.name!r}: dataset.root=DIR")
    options = {name: value for name, value in dataset.options.items() if value is not None}
    data = build_dataset(dataset.name, dataset.root, **options)
    if model is not None and "joints" in takes(model):
        data = attach_joints(data, dataset.joints)
    return data


def one_dataset_of(recipe: Recipe) -> TrackletDataset:
    """The data set of a recipe, for what is done with a single one.

    Raises:
        ValueError: as `dataset_of`, or the recipe has several.
    """
    if recipe.also:
        names = ", ".join(each.name for each in recipe.datasets)
        raise ValueError(
            f"dataset: expected one data set, got {names}; choose one: dataset.name=NAME dataset.root=DIR"
        )
    return dataset_of(recipe.dataset, recipe.model)


def datasets_of(recipe: Recipe) -> list[TrackletDataset]:
    """All data sets of a recipe; with `dataset.N` in errors where there are several.

    Raises:
        ValueError: as `dataset_of`; one set is named twice, or they are to have different black boxes.
    """
    sets = recipe.datasets
    for number, each in enumerate(sets[1:], start=1):
        if each in sets[:number]:
            raise ValueError(f"dataset.{number}: expected another data set, got {each.name!r} once more")
        if (each.black_box, each.black_box_seed) != (sets[0].black_box, sets[0].black_box_seed):
            raise ValueError(f"dataset.{number}.black_box: expected that of dataset.0, got {each.black_box}")
    data = []
    for number, each in enumerate(sets):
        if recipe.also and each.root is None:
            raise ValueError(
                f"dataset.{number}.root: expected the folder of {each.name!r}, got none: "
                f"dataset.{number}.root=DIR"
            )
        data.append(dataset_of(each, recipe.model))
    return data


def sampler_of(recipe: Recipe, datasets: Sequence[TrackletDataset]) -> PKBatchSampler | JointBatchSampler:
    """The batches of this process; of several data sets (`datasets_of`) with as many persons of each.

    Raises:
        ValueError: a training set has fewer people than its share of P, or the sets or the processes cannot
            share P.
    """
    rank, processes = world()
    pids = [[tracklet.pid for tracklet in data.train] for data in datasets]
    batch = (recipe.batch.p, recipe.batch.k, recipe.seed)
    if len(pids) == 1:
        return PKBatchSampler(pids[0], *batch, num_replicas=processes, rank=rank)
    return JointBatchSampler(pids, *batch, num_replicas=processes, rank=rank)


def black_box_of(dataset: Dataset) -> BlackBox | None:
    """The occlusion a recipe asks for."""
    return BlackBox(dataset.black_box, dataset.black_box_seed) if dataset.black_box else None


def takes(model: Mapping[str, Any]) -> tuple[str, ...]:
    """The entries of a batch that a recipe's model takes by name beside clip and valid."""
    names: tuple[str, ...] = getattr(model_factory(model["name"]), "takes", ())
    return names


def model_of(options: Mapping[str, Any], num_classes: int, *, start_weights: bool = True) -> nn.Module:
    """Build the model a recipe names; without `start_weights`, for weights that a checkpoint will bring."""
    options = dict(options)
    if not start_weights:
        options.pop("weights", None)
    return build_model(options.pop("name"), num_classes, **options)


def transforms_of(given: Input) -> tuple[ClipTransform, ClipTransform]:
    """(training, test) transforms."""
    train = train_transform(
        given.height, given.width,
        flip=given.flip, crop=given.crop, erase=given.erase, per_frame=given.per_frame,
    )  # fmt: skip
    return train, test_transform(given.height, given.width)


class Objective(nn.Module):
    """The weighted sum of a recipe's loss terms (STA, Eq. 7 and 11; ASTA, Eq. 4).

        softmax * cross-entropy(logits) + triplet * triplet(feature)
        + attributes * sum over streams of BCE(attributes)
        + aitl * AITL(feature, attributes) + itl * ITL(feature) + oim * OIM(feature)

    and each extra of the model times the weight of its name. A term of weight 0 is neither computed nor
    reported.

    Args:
        loss: the recipe's weights and what shapes the terms.
        attribute_sizes: the model's attributes, stream by stream; empty for models without.
        gather: brings the rows of all processes together for the terms that compare samples.
        oim: the loss with its tables, for models that are trained with it.

    Raises:
        ValueError: no term, or a term of attributes for a model without attribute streams.
    """

    def __init__(
        self,
        loss: Loss,
        attribute_sizes: Mapping[str, Mapping[str, int]],
        gather: Callable[[Tensor], Tensor],
        oim: OIMLoss | None = None,
    ) -> None:
        super().__init__()
        names = (
            "softmax", "triplet", "inter_frame", "part_softmax", "part_triplet", "attributes", "aitl", "itl",
            "oim", "diversity",
        )  # fmt: skip
        self.weights = {name: getattr(loss, name) for name in names if getattr(loss, name)}
        if not self.weights:
            raise ValueError(f"loss: expected a weight above 0 for one of {', '.join(names)}; got 0 for all")
        for name in ("attributes", "aitl"):
            if name in self.weights and not attribute_sizes:
                raise ValueError(
                    f"loss.{name}: the model has no stream that recognises attributes; set it to 0"
                )
        self.gather, self.dvdp, self.metric = gather, loss.dvdp, loss.metric
        self.cross_entropy = CrossEntropyLoss(loss.label_smoothing)
        self.drawn = loss.mining == "drawn"
        triplet = DrawnTripletLoss if self.drawn else TripletLoss
        self.triplet = triplet(loss.margin, metric=loss.metric)
        self.attributes = nn.ModuleDict({name: AttributeLoss(each) for name, each in attribute_sizes.items()})
        self.columns = [len(sizes) for sizes in attribute_sizes.values()]
        self.by_stream = loss.aitl_form == "authors"
        mining: dict[str, Any] = (
            {"attribute_metric": "euclidean", "include_self": True} if self.by_stream else {}
        )
        self.aitl = AITLoss(metric=loss.metric, **mining)
        self.itl = ITLoss(metric=loss.metric)
        self.oim = oim

    def forward(
        self, output: TrainingOutput, labels: Tensor, attributes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Unweighted terms by name and their weighted sum under "loss".

        Args:
            output: of the model.
            labels: (B,), one per clip.
            attributes: (B,A) classes, the streams' one after the other; for the terms that need them.
        """
        labels = labels.repeat_interleave(len(output.feature) // len(labels))
        terms: dict[str, Tensor] = {}
        if self.dvdp or self.weights.keys() & {"triplet", "aitl", "itl"}:
            features, identities = self.gather(output.feature), self.gather(labels)
        for name in self.weights:
            if name == "softmax":
                terms[name] = self.cross_entropy(output.logits, labels)
            elif name == "triplet":
                draws = [self.gather(draws_for(output.feature))] if self.drawn else []
                terms[name] = self.triplet(features, identities, *draws)
            elif name == "attributes":
                terms[name] = self._attributes(output.attributes, attributes)
            elif name == "aitl":
                terms[name] = self._aitl(features, output.attributes, identities)
            elif name == "itl":
                terms[name] = self.itl(features, identities)
            elif name == "oim" and self.oim is not None:
                terms[name] = self.oim(output.feature, labels)
            elif name in output.extras:
                terms[name] = output.extras[name]
            else:
                raise ValueError(
                    f"loss.{name}: the model gives no such term, it has {sorted(output.extras)}; set it to 0"
                )
        terms["loss"] = sum(
            (self.weights[name] * term for name, term in terms.items()), output.logits.new_zeros(())
        )
        if self.dvdp:
            total, count = ops.dvdp(features.detach(), identities, metric=self.metric)
            terms["dvdp"] = total / count.clamp(min=1)
        return terms

    def _attributes(self, logits: Mapping[str, Tensor], attributes: Tensor | None) -> Tensor:
        if attributes is None:
            raise ValueError("attributes: got None, wanted the classes of every clip")
        parts = zip(self.attributes.items(), attributes.split(self.columns, 1), strict=True)
        return torch.stack([loss(logits[name], part) for (name, loss), part in parts]).sum()

    def _aitl(self, features: Tensor, logits: Mapping[str, Tensor], identities: Tensor) -> Tensor:
        if self.by_stream:
            vectors = [self.gather(each.detach()) for each in logits.values()]
        else:
            vectors = [self.gather(torch.cat([each.detach().sigmoid() for each in logits.values()], 1))]
        return torch.stack([self.aitl(features, each, identities) for each in vectors]).mean()
