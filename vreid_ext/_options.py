"""Options of models and data sets: their names and types, as the signatures of their factories give them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# What YAML can write besides text.
_PLAIN = (bool, int, float, list, tuple, Sequence, dict, Mapping)


def option_types(factory: Callable[..., Any]) -> dict[str, Any] | None:
    """The annotation of every option of a factory, `Any` where there is none; None if it takes any option.

    The first parameter is not an option.
    """
    _, *parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    parameters = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    try:
        hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except NameError:  # a name that is imported for type checkers only
        hints = {}
    return {parameter.name: hints.get(parameter.name, Any) for parameter in parameters}


def check_options(owner: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse what the factory of `owner` does not take.

    Raises:
        ValueError: an unknown option.
        TypeError: a value of another type.
    """
    types = option_types(factory)
    if types is None:
        return
    for name, value in options.items():
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name}: {owner} has no such option; {hint}It has {', '.join(types)}")
        if not _fits(value, types[name]):
            wanted = " or ".join(dict.fromkeys(map(_name, members(types[name]))))
            raise TypeError(f"{name}: {owner} expected {wanted}, got {value!r}")


def members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union and the values of a `Literal`; any other annotation alone."""
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if origin in (Union, UnionType):
        return tuple(part for each in get_args(annotation) for part in members(each))
    return (annotation,)


def is_text(annotation: Any) -> bool:
    """Whether text and None are all that YAML can write for this type."""
    parts = [get_origin(part) or part for part in members(annotation)]
    return any(part is str or isinstance(part, str) for part in parts) and not any(
        part in _PLAIN or isinstance(part, int) for part in parts
    )


def _fits(value: Any, annotation: Any) -> bool:
    return any(_is(value, part) for part in members(annotation))


def _is(value: Any, part: Any) -> bool:
    kind = get_origin(part) or part
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (list, tuple, Sequence):
        items = get_args(part)[:1]
        return (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and all(_fits(item, items[0]) for item in value if items)
        )
    if kind in (bool, str, NoneType, dict, Mapping):
        return isinstance(value, kind)
    if isinstance(kind, str | int):  # of a Literal, whose values the factory compares
        return type(value) is type(kind)
    if isinstance(kind, type) and issubclass(kind, PathLike):
        return isinstance(value, str | PathLike)
    # Nothing that YAML writes is an object of another class; what an object can do is not asked here.
    return kind is Any or not isinstance(value, (str, NoneType, Real, *_PLAIN))


def _name(part: Any) -> str:
    kind = type(part) if isinstance(part, str | int) else get_origin(part) or part
    return "None" if kind is NoneType else getattr(kind, "__name__", str(kind))
