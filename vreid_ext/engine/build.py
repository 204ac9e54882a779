"""Construction of the objects of a recipe: data sets, sampler, model and transforms."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vreid_ext._options import option_types
from vreid_ext.data import (
    BlackBox,
    Corruption,
    JointBatchSampler,
    PKBatchSampler,
    TrackletDataset,
    attach_joints,
    build_dataset,
    relabeled,
    test_transform,
    train_transform,
)
from vreid_ext.data.clips.transforms import ClipTransform
from vreid_ext.distributed import world
from vreid_ext.engine.recipe import Dataset, Eval, Input, Recipe
from vreid_ext.models import build_model, model_factory


def dataset_of(dataset: Dataset, model: Mapping[str, Any] | None = None) -> TrackletDataset:
    """Read a data set of a recipe, with joints if the model (`Recipe.model`) takes them.

    Raises:
        ValueError: the root is missing, or the data cannot be used.
    """
    if dataset.root is None:
        raise ValueError(
            f"dataset.root: expected the folder of {dataset.name!r}, got none; set dataset.root=DIR"
        )
    options = {name: value for name, value in dataset.options.items() if value is not None}
    data = build_dataset(dataset.name, dataset.root, **options)
    if dataset.labels is not None:
        data = relabeled(data, dataset.labels)
    if model is not None and "joints" in takes(model):
        data = attach_joints(data, dataset.joints)
    return data


def one_dataset_of(recipe: Recipe) -> TrackletDataset:
    """Read the data set of a recipe that has only one.

    Raises:
        ValueError: see `dataset_of`; also if the recipe has several data sets.
    """
    if recipe.also:
        names = ", ".join(each.name for each in recipe.datasets)
        raise ValueError(
            f"dataset: expected one data set, got {names}; set dataset.name=NAME dataset.root=DIR"
        )
    return dataset_of(recipe.dataset, recipe.model)


def datasets_of(recipe: Recipe) -> list[TrackletDataset]:
    """Read all data sets of a recipe.

    Raises:
        ValueError: see `dataset_of`; also if a data set occurs twice, or the data sets have different
            settings of `black_box`.
    """
    sets = recipe.datasets
    for number, each in enumerate(sets[1:], start=1):
        if each in sets[:number]:
            raise ValueError(f"dataset.{number}: expected different data sets, got {each.name!r} twice")
        if (each.black_box, each.black_box_seed) != (sets[0].black_box, sets[0].black_box_seed):
            raise ValueError(
                f"dataset.{number}.black_box: expected the size and seed of dataset.0, "
                f"{sets[0].black_box} and {sets[0].black_box_seed}, got {each.black_box} and "
                f"{each.black_box_seed}"
            )
    data = []
    for number, each in enumerate(sets):
        if recipe.also and each.root is None:
            raise ValueError(
                f"dataset.{number}.root: expected the folder of {each.name!r}, got none; "
                f"set dataset.{number}.root=DIR"
            )
        data.append(dataset_of(each, recipe.model))
    return data


def sampler_of(recipe: Recipe, datasets: Sequence[TrackletDataset]) -> PKBatchSampler | JointBatchSampler:
    """Batch sampler of this process. Batches of several data sets have an equal number of persons from each.

    Raises:
        ValueError: P is larger than the number of persons, or not a multiple of the number of data sets or
            processes.
    """
    rank, processes = world()
    pids = [[tracklet.pid for tracklet in data.train] for data in datasets]
    batch = (recipe.batch.p, recipe.batch.k, recipe.seed)
    if len(pids) == 1:
        return PKBatchSampler(pids[0], *batch, num_replicas=processes, rank=rank)
    return JointBatchSampler(pids, *batch, num_replicas=processes, rank=rank)


def black_box_of(dataset: Dataset) -> BlackBox | None:
    """The occlusion of a data set in a recipe, or None."""
    return BlackBox(dataset.black_box, dataset.black_box_seed) if dataset.black_box else None


def corruption_of(settings: Eval, data: TrackletDataset) -> Corruption | None:
    """The corruption of the test tracklets of a data set in a recipe, or None."""
    if not settings.corrupt:
        return None
    return Corruption([*data.query, *data.gallery], settings.corrupt, settings.corrupt_seed)


def takes(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the batch entries that a model takes as keyword arguments, in addition to clip and valid."""
    names: tuple[str, ...] = getattr(model_factory(model["name"]), "takes", ())
    return names


def model_of(recipe: Recipe, num_classes: int, *, start_weights: bool = True) -> nn.Module:
    """Build the model of a recipe, in its memory format.

    With start_weights=False, pretrained weights are not loaded. An option `input_size` of the model has the
    size of the recipe's input by default.
    """
    options = dict(recipe.model)
    if "input_size" in (option_types(model_factory(options["name"])) or ()):
        options.setdefault("input_size", (recipe.input.height, recipe.input.width))
    if not start_weights:
        options.pop("weights", None)
    model = build_model(options.pop("name"), num_classes, **options)
    return model.to(memory_format=torch.channels_last) if recipe.train.channels_last else model


def transforms_of(settings: Input) -> tuple[ClipTransform, ClipTransform]:
    """The training and test transforms."""
    train = train_transform(
        settings.height, settings.width,
        flip=settings.flip, crop=settings.crop, erase=settings.erase, per_frame=settings.per_frame,
    )  # fmt: skip
    return train, test_transform(settings.height, settings.width)
