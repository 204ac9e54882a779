"""Preprocessing of the YAML text of recipes, so that string-typed keys never become numbers or dates."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

import yaml

from vreid_ext._options import is_text, option_types
from vreid_ext.data.registry import dataset_builder, dataset_names
from vreid_ext.engine.recipe import Dataset, Recipe
from vreid_ext.models import model_factory, model_names

# Numbers in recipes. YAML 1.1 also parses 007 as 7, 1:30 as 90 and 2024_01_15 as 20240115.
_NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
# Tags that YAML resolves for unquoted scalars. null is not included, because any key may be null.
_BOOL = "tag:yaml.org,2002:bool"
_RESOLVED = {_BOOL, *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "timestamp", "value"))}


def quoted(text: str, node: yaml.Node | None, kind: Any) -> str:
    """Quote all scalars that are strings by the type of their key or, for untyped keys, by their form.

    Args:
        text: YAML source.
        node: root node that `yaml.compose` returned for `text`.
        kind: expected type of the root.
    """
    edits: dict[int, tuple[int, str]] = {}
    seen = set()

    def visit(node: yaml.Node | None, kind: Any) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, entry_type(kind, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item, item_type(kind))
        elif is_plain_text(node, kind):
            end = node.end_mark.index
            start = end - len(node.value)
            if text[start:end] == node.value:  # else it is folded over several lines and already a string
                edits[start] = end, json.dumps(node.value, ensure_ascii=False)

    visit(node, kind)
    for start, (end, value) in sorted(edits.items(), reverse=True):
        text = text[:start] + value + text[end:]
    return text


def is_plain_text(node: yaml.Node | None, kind: Any) -> bool:
    """Whether a node is an unquoted string, by its expected type or by its form."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or node.tag not in _RESOLVED:
        return False
    return is_text(kind) or not (node.tag == _BOOL or _NUMBER.fullmatch(node.value))


def entry_type(kind: Any, name: str) -> Any:
    """Expected type of the entry `name` in a mapping of type `kind`."""
    if kind is Recipe and name == "model":
        return {**_option_types(map(model_factory, model_names())), "name": str}
    if kind is Dataset and str(name).isdecimal():  # index into a list of data sets
        return Dataset
    if kind is Dataset and name == "options":
        return _option_types(map(dataset_builder, dataset_names()))
    if is_dataclass(kind):
        return next((entry.type for entry in fields(kind) if entry.name == name), Any)
    if isinstance(kind, dict):
        return kind.get(name, Any)
    return get_args(kind)[1] if get_origin(kind) is dict else Any


def item_type(kind: Any) -> Any:
    """Expected type of the items of a list for a key of type `kind`. `dataset` may be one group or a list."""
    if kind is Dataset:
        return Dataset
    return get_args(kind)[0] if get_origin(kind) is list else Any


def _option_types(factories: Iterable[Callable[..., Any]]) -> dict[str, Any]:
    """Types of all options: `str | None` for those that are strings in every factory, else `Any`."""
    types: dict[str, Any] = {}
    for factory in factories:
        for name, kind in (option_types(factory) or {}).items():
            types[name] = str | None if is_text(kind) and types.get(name, str) is not Any else Any
    return types
