"""Backbones by name."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor

from vreid_ext._registry import Registry
from vreid_ext.models.backbones.base import Backbone

Factory = TypeVar("Factory", bound=Callable[..., Backbone])

backbones = Registry[Backbone]("backbone")
published: dict[str, Callable[[], Mapping[str, Tensor]]] = {}


def register_backbone(
    name: str, imagenet: Callable[[], Mapping[str, Tensor]] | None = None
) -> Callable[[Factory], Factory]:
    """Decorator that registers a function `factory(last_stride, **options) -> Backbone` for `build_backbone`.

    Args:
        name: the name of the backbone.
        imagenet: returns the state dict that `weights="imagenet"` loads; None if there is none.

    Raises:
        ValueError: the name is already registered.
    """

    def register(factory: Factory) -> Factory:
        backbones.register(name)(factory)
        if imagenet is not None:
            published[name] = imagenet
        return factory

    return register


def backbone_names() -> list[str]:
    """Names of the registered backbones, sorted. Those of timm (`timm:NAME`) are not among them."""
    return backbones.names()
