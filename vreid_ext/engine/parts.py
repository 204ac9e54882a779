"""Selection of parts of a model in recipes, by the dotted names of modules and parameters."""

from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn


def within(name: str, part: str) -> bool:
    """Whether the module or parameter `name` is `part` or is contained in it."""
    return name == part or name.startswith(f"{part}.")


def check_parts(key: str, names: Iterable[str], model: nn.Module) -> None:
    """Check that all names are modules or parameters of the model.

    Raises:
        ValueError: a name is unknown. The message starts with `key`.
    """
    parts = {name for name, _ in (*model.named_modules(), *model.named_parameters()) if name}
    for name in names:
        if name not in parts:
            near = get_close_matches(name, parts, n=1, cutoff=0.0)
            hint = f"; nearest: {near[0]!r}" if near else ""
            raise ValueError(f"{key}: expected a module or parameter of the model, got {name!r}{hint}")
