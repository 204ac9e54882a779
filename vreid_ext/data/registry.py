"""Registry of data set builders: recipes select a data set by name, users register their own."""

import os
from collections.abc import Callable
from typing import Any

from vreid_ext._options import check_options
from vreid_ext._registry import Factory, Registry
from vreid_ext.data.records import TrackletDataset

_datasets = Registry[TrackletDataset]("data set")


def dataset_names() -> list[str]:
    """Names of the registered data sets, sorted."""
    return _datasets.names()


def dataset_builder(name: str) -> Callable[..., TrackletDataset]:
    """The function that is registered under a name.

    Raises:
        ValueError: unknown name; the message suggests the nearest known one.
    """
    return _datasets.factory(name)


def register_dataset(name: str) -> Callable[[Factory], Factory]:
    """Decorator that registers `builder(root, **options) -> TrackletDataset` under `name`.

    Example:
        @register_dataset("my_cameras")
        def my_cameras(root, *, season="summer"): ...

    Raises:
        ValueError: the name is already registered.
    """
    return _datasets.register(name)


def build_dataset(name: str, root: str | os.PathLike[str], **options: Any) -> TrackletDataset:
    """Read the data set `name` from the folder `root`.

    Args:
        name: one of `dataset_names()`.
        root: folder of the data set.
        options: keyword arguments of the builder. All built-in builders accept
            check: "exists" (default) checks that all images exist by listing each image folder once,
                "decode" also decodes every image, "none" checks no images;
            on_error: "raise" (default), or "skip" to exclude unusable tracklets and list them in
                `TrackletDataset.skipped`.

    Raises:
        ValueError: unknown name or option.
        TypeError: an option has the wrong type.
        DatasetError: the data cannot be used. A subclass of ValueError.
    """
    builder = dataset_builder(name)
    check_options(f"data set {name!r}", builder, options)
    return builder(root, **options)
