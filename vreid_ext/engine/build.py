"""From a recipe to the objects it names: data set, model, transforms."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

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
from vreid_ext.data.clips.transforms import ClipTransform
from vreid_ext.distributed import world
from vreid_ext.engine.recipe import Dataset, Input, Recipe
from vreid_ext.models import build_model, model_factory


def dataset_of(dataset: Dataset, model: Mapping[str, Any] | None = None) -> TrackletDataset:
    """Read the data set a recipe names, with joints where the model (`Recipe.model`) takes them.

    Raises:
        ValueError: no root is given, or the data cannot be used.
    """
    if dataset.root is None:
        raise ValueError(f"dataset.root: expected the folder of {dataset.name!r}: dataset.root=DIR, got none")
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
