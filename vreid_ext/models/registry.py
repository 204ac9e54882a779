"""Models by name."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from torch import nn

from vreid_ext._options import check_options

_models: dict[str, Callable[..., nn.Module]] = {}

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Class or function decorator: make `factory(num_classes, **options)` known to `build_model` as `name`.

    Raises:
        ValueError: the name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _models:
            raise ValueError(f"name: got {name!r}, wanted one that is not registered yet")
        _models[name] = factory
        return factory

    return register


def model_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_models)


def model_factory(name: str) -> Callable[..., nn.Module]:
    """The class or function registered under a name.

    Raises:
        ValueError: unknown name (with the nearest known one).
    """
    if name not in _models:
        near = get_close_matches(str(name), _models, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name: got {name!r}, wanted one of {', '.join(model_names())}{hint}")
    return _models[name]


def build_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a registered model.

    Args:
        name: "asta", "sta", "stal", or a name given to `register_model`.
        num_classes: training identities.
        options: passed to the model; see its class.

    Raises:
        ValueError: unknown name or option (with the nearest known one).
        TypeError: an option of another type.
    """
    factory = model_factory(name)
    check_options(f"model {name!r}", factory, options)
    return factory(num_classes, **options)
