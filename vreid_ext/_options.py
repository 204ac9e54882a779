"""Options of models and data sets: names and types, taken from the signatures of the factories."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Types other than str that YAML can express.
_PLAIN = (bool, int, float, list, tuple, Sequence, dict, Mapping)


def option_types(factory: Callable[..., Any]) -> dict[str, Any] | None:
    """The annotation of every option of a factory (`Any` if missing), or None if it accepts `**kwargs`.

    The first parameter is not an option.
    """
    _, *parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    parameters = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    try:
        hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except NameError:  # a name imported under TYPE_CHECKING
        hints = {}
    return {parameter.name: hints.get(parameter.name, Any) for parameter in parameters}


def check_options(owner: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check names and types of options against the factory of `owner`.

    Raises:
        ValueError: unknown option.
        TypeError: value of the wrong type.
    """
    types = option_types(factory)
    if types is None:
        return
    for name, value in options.items():
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{name}: expected an option of {owner} ({', '.join(types) or 'none'}), got {name!r}{hint}"
            )
        if not _fits(value, types[name]):
            expected = " or ".join(dict.fromkeys(map(_name, members(types[name]))))
            raise TypeError(f"{name}: expected {expected} for {owner}, got {value!r}")


def members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union or the values of a `Literal`, flattened; any other annotation as a 1-tuple."""
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if origin in (Union, UnionType):
        return tuple(part for each in get_args(annotation) for part in members(each))
    return (annotation,)


def is_text(annotation: Any) -> bool:
    """Whether the only YAML values of this type are text and None."""
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
    if isinstance(kind, str | int):  # value of a Literal; the factory checks the value itself
        return type(value) is type(kind)
    if isinstance(kind, type) and issubclass(kind, PathLike):
        return isinstance(value, str | PathLike)
    # Any other class: accept every object that YAML cannot express, without further checks.
    return kind is Any or not isinstance(value, (str, NoneType, Real, *_PLAIN))


def _name(part: Any) -> str:
    kind = type(part) if isinstance(part, str | int) else get_origin(part) or part
    return "None" if kind is NoneType else getattr(kind, "__name__", str(kind))
