"""Data sets by name, so that a recipe can say which one it wants and a user can add one."""

import os
from collections.abc import Callable
from typing import Any

from vreid_ext._options import check_options
from vreid_ext._registry import Factory, Registry
from vreid_ext.data.records import TrackletDataset

_datasets = Registry[TrackletDataset]("data set")
dataset_names = _datasets.names
dataset_builder = _datasets.factory


def register_dataset(name: str) -> Callable[[Factory], Factory]:
    """Decorator that registers `builder(root, **options) -> TrackletDataset` under `name`.

    Example:
        @register_dataset("my_cameras")
        def my_cameras(root, *, season="summer"): ...

    Raises:
        ValueError: the name is taken.
    """
    return _datasets.register(name)


def build_dataset(name: str, root: str | os.PathLike[str], **options: Any) -> TrackletDataset:
    """Read the data set `name` that lies in the folder `root`.

    Args:
        name: one of `dataset_names()`.
        root: its folder.
        options: keyword arguments of its builder. Every built-in one takes
            check: "exists" (default) lists every image folder once, "decode" opens every image, "none"
                trusts;
            on_error: "raise" (default), or "skip" to leave unusable tracklets out and list them in
            `TrackletDataset.skipped`.

    Raises:
        ValueError: unknown name or option.
        TypeError: an option of another type.
        DatasetError: data that cannot be used (a ValueError, too).
    """
    builder = dataset_builder(name)
    check_options(f"data set {name!r}", builder, options)
    return builder(root, **options)
