"""Models by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from vreid_ext._options import check_options
from vreid_ext._registry import Factory, Registry

_models = Registry[nn.Module]("model")
model_names = _models.names
model_factory = _models.factory


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Class or function decorator: make `factory(num_classes, **options)` known to `build_model` as `name`.

    Raises:
        ValueError: the name is taken.
    """
    return _models.register(name)


def build_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a registered model.

    Args:
        name: "asta", "drsta", "sta", "stal", or a name given to `register_model`.
        num_classes: training identities.
        options: passed to the model; see its class.

    Raises:
        ValueError: unknown name or option (with the nearest known one).
        TypeError: an option of another type.
    """
    factory = model_factory(name)
    check_options(f"model {name!r}", factory, options)
    return factory(num_classes, **options)
