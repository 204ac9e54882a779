"""Parts of a model by the dotted names of modules and parameters, as a recipe names them."""

from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn


def within(name: str, part: str) -> bool:
    """Whether a module or parameter is a part of the model or inside of it."""
    return name == part or name.startswith(f"{part}.")


def check_parts(key: str, names: Iterable[str], model: nn.Module) -> None:
    """Raises ValueError, which starts with `key`, for a name that is no part of the model."""
    parts = {name for name, _ in (*model.named_modules(), *model.named_parameters()) if name}
    for name in names:
        if name not in parts:
            near = get_close_matches(name, parts, n=1, cutoff=0.0)
            hint = f"; nearest: {near[0]!r}" if near else ""
            raise ValueError(f"{key}: the model has no part {name!r}{hint}")
