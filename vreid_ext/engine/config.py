"""Loading of recipes: YAML files with `base` files and `key=value` overrides."""

import difflib
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import reduce
from importlib import resources
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vreid_ext._options import is_text, members
from vreid_ext.engine.recipe import (
    Dataset,
    Recipe,
    by_number,
    check,
    escaped,
    items,
    leaves,
    of_any_set,
    unfolded,
)
from vreid_ext.engine.recipe_text import entry_type, is_plain_text, item_type, quoted

_OPEN_GROUPS = ("model", "dataset.options", "paper.rows", "paper.sets")

# Keys of files and folders. `model.weights` may also be the name of weights, e.g. "imagenet".
_PATHS = ("dataset.root", "dataset.labels", "dataset.joints", "dataset.options.attributes", "model.weights")
_WEIGHT_FILES = (".pt", ".pth", ".safetensors", ".bin", ".ckpt", ".tar", ".onnx", ".xml")


def recipe_names() -> list[str]:
    """Names of the built-in recipes. Names with a leading underscore only serve as `base` and are omitted."""
    files = resources.files("vreid_ext.recipes").iterdir()
    names = (file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
    return sorted(name for name in names if not name.startswith("_"))


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Load a built-in recipe by name or a YAML file by path, and apply `key=value` overrides.

    Base: a file may extend other recipes, listed under `base:` (a name or path, or a list of them, merged in
    that order). Paths are relative to the file.

    Values: string-typed keys take the value literally, e.g. `dataset.root=2024_01_15 #2`; `null` sets an
    optional one to None. All other values are YAML, e.g. `eval.frames=[2,4]`.

    Several data sets: the items of a list of data sets are addressed by index, `dataset.0.root=DIR`, or
    `dataset: {0: {root: DIR}}` in a file with a base. `dataset.name=NAME` replaces the list with a single
    data set. A list replaces a single data set.

    Paths: `dataset.root`, `dataset.labels`, `dataset.joints`, `dataset.options.attributes` and
    `model.weights` may start with `~`. In a file they are relative to the folder of that file, in an override
    to the working directory. The returned recipe contains absolute paths.

    Raises:
        ValueError: the recipe does not exist, a key is unknown (the message suggests the nearest known key),
            or a value has the wrong type or is out of range.
    """
    source, tree, folders = _read(str(name_or_path), relative_to=Path())
    if "name" not in tree:
        tree["name"] = escaped(source)
    changes = _overrides(overrides)
    folders |= dict.fromkeys(_paths_in(changes), Path())
    return _typed(_merged(tree, changes, str(name_or_path)), str(name_or_path), folders)


def recipe_from_dict(tree: Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """Inverse of `Recipe.to_dict`; applies overrides as `load_recipe` does."""
    with _errors_of("recipe"):
        created = OmegaConf.create(escaped(dict(tree)))
    return _typed(_merged(created, _overrides(overrides), "recipe"), "recipe", {})


def _merged(tree: DictConfig, changes: DictConfig, source: str) -> Any:
    """Merge `changes` into `tree`. `changes` may address a list of data sets by index."""
    sets, given = tree.get("dataset"), changes.get("dataset")
    if isinstance(sets, DictConfig) and isinstance(given, ListConfig):
        tree = _without_sets(tree)
    elif isinstance(sets, ListConfig) and isinstance(given, DictConfig):
        numbers = {str(n): n for n in range(len(sets))}
        parts = {str(key): part for key, part in given.items()}
        unknown = next((key for key in parts if key not in numbers), None)
        if "name" in parts:  # a single data set replaces the list
            tree = _without_sets(tree)
        elif unknown is not None:
            raise ValueError(
                f"dataset.{unknown}: expected the index of one of the {len(sets)} data sets before the key, "
                "e.g. dataset.0.root, or dataset.name to replace them with a single one"
            )
        else:
            with _errors_of(source):
                changes.dataset = [
                    OmegaConf.merge(each, parts.get(str(n), {})) for n, each in enumerate(sets)
                ]
    with _errors_of(source):
        return OmegaConf.merge(tree, changes)


def _without_sets(tree: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "dataset"])


@contextmanager
def _errors_of(source: str, within: str = "") -> Iterator[None]:
    """Convert errors of YAML and OmegaConf to a ValueError with a single line that names the recipe.

    Args:
        source: the recipe or override.
        within: prefix for the keys in OmegaConf's messages.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{within}{error.full_key}: " if error.full_key else ""
        raise ValueError(f"{source}: {key}{str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ValueError(f"{source}: nested too deeply") from error
    except TypeError as error:  # raised by OmegaConf for a mapping instead of a list
        raise ValueError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: invalid UTF-8 or invalid numbers
        raise ValueError(f"{source}: invalid YAML: {' '.join(str(error).split())}") from error


def _read(
    name: str, relative_to: Path, above: tuple[Path, ...] = ()
) -> tuple[str, DictConfig, dict[str, Path]]:
    """Read a recipe and its bases.

    Args:
        name: name of a built-in recipe, or path of a file.
        relative_to: folder to which the path is relative.
        above: files that extend this one, to detect cycles.

    Returns:
        The short name of the recipe, its tree merged with its bases, and, for each key of `_PATHS`
        that is set, the folder to which its value is relative.
    """
    path = relative_to / name
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"recipe: expected an existing file, got {str(path)!r}")
        if path.resolve() in above:
            raise ValueError(f"recipe {name!r}: base: expected no cycle, got a recipe that extends itself")
        above = (*above, path.resolve())
        content = path.read_bytes()
    else:
        file = resources.files("vreid_ext.recipes") / f"{name}.yaml"
        if not file.is_file():
            near = difflib.get_close_matches(name, recipe_names(), n=3, cutoff=0.3) or recipe_names()
            raise ValueError(
                f"recipe: expected the name of a recipe or a .yaml file, got {name!r}; "
                f"nearest: {', '.join(near)}"
            )
        content = file.read_bytes()
    with _errors_of(f"recipe {name!r}"):
        text = content.decode()
        root = yaml.compose(text, yaml.SafeLoader)
    if root is not None and not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ValueError(f"recipe {name!r}: expected keys and values, got {kind}")
    with _errors_of(f"recipe {name!r}"):
        tree = OmegaConf.create(quoted(text, root, Recipe))
        assert isinstance(tree, DictConfig)
        given = tree.pop("base", [])
        bases = list(given) if isinstance(given, ListConfig | list) else [given]
    if not all(isinstance(base, str) for base in bases):
        raise ValueError(
            f"recipe {name!r}: base: expected the name of a recipe or a list of names, got {given}"
        )
    own_folders = dict.fromkeys(_paths_in(tree), path.parent)
    folders: dict[str, Path] = {}
    merged = OmegaConf.create()
    for base in bases:
        _, part, base_folders = _read(base, path.parent, above)
        part.pop("name", None)
        merged = _merged(merged, part, f"recipe {name!r}")
        folders |= base_folders
    return path.stem, _merged(merged, tree, f"recipe {name!r}"), folders | own_folders


def _overrides(pairs: Iterable[str]) -> DictConfig:
    tree = OmegaConf.create()
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"override: expected key=value, got {pair!r}")
        kind = reduce(entry_type, key.split("."), Recipe)
        with _errors_of(f"override {pair!r}"):
            node = None if is_text(kind) else yaml.compose(text, yaml.SafeLoader)
            if text in ("", "null") and NoneType in members(kind):
                OmegaConf.update(tree, key, None)
            elif is_text(kind) or is_plain_text(node, kind):
                OmegaConf.update(tree, key, escaped(text))
            else:
                tree.merge_with_dotlist([f"{key}={quoted(text, node, kind)}"])
    return tree


def _paths_in(tree: DictConfig) -> list[str]:
    """The keys of paths that are set in a tree."""
    plain: Any = OmegaConf.to_container(tree)
    return [key for key, _ in leaves(by_number(plain)) if of_any_set(key) in _PATHS]


def _set_paths(plain: dict[str, Any], folders: Mapping[str, Path]) -> None:
    """Make all paths absolute, relative to their entry in `folders` or else to the working directory."""
    numbered = by_number(plain)
    sets = [f"dataset.{n}." for n in numbered["dataset"]] if numbered is not plain else ["dataset."]
    for key in dict.fromkeys(path.replace("dataset.", each) for path in _PATHS for each in sets):
        *groups, name = key.split(".")
        tree = numbered
        for group in groups:
            tree = tree.get(group, {})
        value = tree.get(name)
        if isinstance(value, str) and (name != "weights" or _is_path(value)):
            path = folders.get(key, Path()) / os.path.expanduser(value)
            tree[name] = str(path.absolute()) if value else None


def _is_path(weights: str) -> bool:
    """Whether `model.weights` is a file or a folder, not a name or an address such as hf:OWNER/NAME."""
    if re.match(r"[\w-]{2,}:", weights):  # a drive of Windows has one letter
        return False
    return weights.endswith(_WEIGHT_FILES) or "/" in weights or os.sep in weights


def _typed(tree: Any, source: str, folders: Mapping[str, Path]) -> Recipe:
    with _errors_of(source):
        plain: Any = OmegaConf.to_container(tree, resolve=True)
    if "also" in plain:
        raise ValueError(f"{source}: unknown key 'also'; use a list of data sets for the key 'dataset'")
    sets = plain.get("dataset")
    if isinstance(sets, list) and not (sets and all(isinstance(each, dict) for each in sets)):
        raise ValueError(f"{source}: dataset: expected a data set or a list of data sets, got {sets!r}")
    numbered = by_number(plain)
    known = _known_keys(Recipe)
    for key, value in leaves(numbered):
        name = key if numbered is plain else of_any_set(key)
        if name not in known and not name.startswith(tuple(f"{group}." for group in _OPEN_GROUPS)):
            (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            if name != key:  # the key has the index of a data set
                near = near.replace("dataset.", key.removesuffix(name.removeprefix("dataset.")))
            raise ValueError(f"{source}: unknown key {key!r}; nearest known key: {near!r}")
        if name in ("model", "dataset.options") and not isinstance(value, dict):
            raise ValueError(f"{source}: {key}: expected keys and values, got {value!r}")
        for item in items(value):
            if isinstance(item, str) and not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError as error:  # undecodable bytes of an argument or a file name
                    raise ValueError(f"{source}: {key}: expected text in UTF-8, got {item!r}") from error
            if isinstance(item, float) and not isfinite(item):
                raise ValueError(f"{source}: {key}: expected a finite number, got {item}")
            if isinstance(item, int) and abs(item) >= 2**63:
                raise ValueError(f"{source}: {key}: expected a number below 2^63, got {reprlib.repr(item)}")
    for group in fields(Recipe):
        value = numbered.get(group.name, {})
        if is_dataclass(group.type) and not isinstance(value, dict):
            raise ValueError(
                f"{source}: {group.name}: expected a group of keys, {group.name}.KEY=VALUE, got {value!r}"
            )
    lengths = plain.get("eval", {}).get("frames")
    if isinstance(lengths, int):
        plain["eval"]["frames"] = [lengths]
    _set_paths(plain, folders)
    paper = plain.get("paper", {})
    rows = paper.get("rows", {})
    # JSON has no integer keys.
    if not isinstance(rows, dict) or not all(str(frames).isdecimal() for frames in rows):
        raise ValueError(
            f"{source}: paper.rows: expected a mapping from numbers of frames to rows, got {rows!r}"
        )
    if rows:
        paper["rows"] = {int(frames): row for frames, row in rows.items()}
    _check_items(plain, Recipe, source)
    with _errors_of(source):
        recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), escaped(unfolded(plain))))
    assert isinstance(recipe, Recipe)
    check(recipe)
    return recipe


def _check_items(tree: Mapping[str, Any], group: Any, source: str, prefix: str = "") -> None:
    """Check the keys and types of the items of all lists of groups.

    Each item is merged separately, because OmegaConf's messages do not name the list that contains the item.
    """
    for entry in fields(group):
        key, value, kind = prefix + entry.name, tree.get(entry.name), item_type(entry.type)
        if is_dataclass(entry.type) and isinstance(value, Mapping):
            _check_items(value, entry.type, source, f"{key}.")
        elif is_dataclass(kind) and isinstance(value, list):
            for number, item in enumerate(value):
                within = f"{key}.{number}." if kind is Dataset else f"{key}[{number}]."
                if isinstance(item, Mapping):
                    with _errors_of(source, within):
                        OmegaConf.merge(OmegaConf.structured(kind), escaped(item))


def _known_keys(group: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a recipe, including those of groups."""
    keys = []
    for entry in fields(group):
        key = prefix + entry.name
        if key != "also":  # in files, it is part of `dataset`
            keys.append(key)
        if is_dataclass(entry.type):
            keys += _known_keys(entry.type, f"{key}.")
    return keys
