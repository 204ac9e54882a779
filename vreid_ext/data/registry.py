"""Data sets by name, so that a recipe can say which one it wants and a user can add one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from vreid_ext._options import check_options
from vreid_ext.data.records import TrackletDataset

Builder = TypeVar("Builder", bound=Callable[..., TrackletDataset])

_BUILDERS: dict[str, Callable[..., TrackletDataset]] = {}


def register_dataset(name: str) -> Callable[[Builder], Builder]:
    """Decorator that registers `builder(root, **options) -> TrackletDataset` under `name`.

    Example:
        @register_dataset("my_cameras")
        def my_cameras(root, *, season="summer"): ...
    """

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise ValueError(f"name: data set {name!r} is registered already, choose another name")
        _BUILDERS[name] = builder
        return builder

    return register


def dataset_names() -> list[str]:
    """Names of the registered data sets, sorted."""
    return sorted(_BUILDERS)


def dataset_builder(name: str) -> Callable[..., TrackletDataset]:
    """The function registered under a name.

    Raises:
        ValueError: unknown name (with the nearest known one).
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(str(name), _BUILDERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name: unknown data set {name!r}{hint} Known: {', '.join(dataset_names())}")
    return _BUILDERS[name]


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
