"""Models by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from vreid_ext._options import check_options
from vreid_ext._registry import Factory, Registry

_models = Registry[nn.Module]("model")


def model_names() -> list[str]:
    """Names of the registered models, sorted."""
    return _models.names()


def model_factory(name: str) -> Callable[..., nn.Module]:
    """The class or function that is registered under a name.

    Raises:
        ValueError: unknown name; the message suggests the nearest known one.
    """
    return _models.factory(name)


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Decorator that registers a class or function `factory(num_classes, **options)` for `build_model`.

    Args:
        name: the name of the model.

    Raises:
        ValueError: the name is already registered.
    """
    return _models.register(name)


def build_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a registered model.

    Args:
        name: "asta", "drsta", "sta", "stal", "tfclip", or a name given to `register_model`.
        num_classes: number of training identities.
        options: keyword arguments of the model; see its class.

    Raises:
        ValueError: unknown name or option; the message suggests the nearest known one.
        TypeError: an option has the wrong type.
    """
    factory = model_factory(name)
    check_options(f"model {name!r}", factory, options)
    return factory(num_classes, **options)
