"""Recipes: one typed YAML file says everything that a training run and its evaluation depend on."""

import difflib
import json
import operator
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import reduce
from importlib import resources
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vreid_ext._options import is_text, members, option_types
from vreid_ext.data.registry import dataset_builder, dataset_names
from vreid_ext.models import model_factory, model_names

_OPEN_GROUPS = ("model", "dataset.options", "paper.rows", "paper.sets")

# Files and folders. Other texts of `model.weights`, such as "imagenet", are no paths.
_PATHS = ("dataset.root", "dataset.joints", "dataset.options.attributes", "model.weights")
_WEIGHT_FILES = (".pt", ".pth", ".safetensors")

# What a number looks like. YAML 1.1 also reads 007 as 7, 1:30 as 90 and 2024_01_15 as 20240115.
_NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
# Tags that YAML gives to a scalar without quotes by its looks; null, which any key may be, is not among them.
_BOOL = "tag:yaml.org,2002:bool"
_RESOLVED = {_BOOL, *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "timestamp", "value"))}

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def number(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a recipe for a number, or for a list or dict of numbers, and the bounds of each."""
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"bounds": {name: bound for name, bound in bounds.items() if bound is not None}}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Dataset:
    """name: a registered data set; root: its folder; options: what `build_dataset` takes besides.

    An option that is null is as if it were not there: so a base's, or a checkpoint's, can be taken back.
    joints: the joints file, for models that take joints; without it the one in the root, if there is one.
    black_box: side in pixels of a black square in every image, training and test, its place drawn once with
    `black_box_seed`; 0 for none.
    """

    name: str = "mars"
    root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    joints: str | None = None
    black_box: int = number(0, at_least=0)
    black_box_seed: int = number(0, at_least=0)


@dataclass
class Input:
    """height, width in pixels; `frames` per training clip, chosen by `sampling`.

    flip, erase: probabilities; crop: padding in pixels before a random crop, 0 for none.
    per_frame: flip, crop and erase are drawn for each frame by itself, not once for a clip.
    """

    height: int = number(256, at_least=1)
    width: int = number(128, at_least=1)
    frames: int = number(4, at_least=1)
    sampling: Literal["random", "evenly", "restricted", "consecutive", "first_of_chunk"] = "random"
    flip: float = number(0.5, at_least=0, at_most=1)
    crop: int = number(0, at_least=0)
    erase: float = number(0.0, at_least=0, at_most=1)
    per_frame: bool = False


@dataclass
class Batch:
    """p persons with k tracklets each over all processes; `accumulate` batches make one step."""

    p: int = number(16, at_least=1)
    k: int = number(4, at_least=1)
    accumulate: int = number(1, at_least=1)


@dataclass
class Loss:
    """Weights of the terms (0 leaves a term out), and what shapes them.

    mining: triplets of the hardest pairs of the batch, or one drawn at random for every clip.
    metric: of the triplet loss and of the distances of `aitl`, `itl` and `dvdp`.
    attributes, aitl: for models with attribute streams. aitl_form: "paper", one term that mines with the
    predictions of all streams by cosine; "authors", as their code does, the mean over streams of terms that
    mine with logits by Euclidean distance and let the anchor be its own positive.
    oim_scalar, oim_momentum: see `losses.OIMLoss`. diversity: of DRSTA's attentions.
    dvdp: log the DVDP of every batch and draw it at the end; it is no part of the loss.
    """

    softmax: float = number(1.0, at_least=0)
    label_smoothing: float = number(0.0, at_least=0, below=1)
    triplet: float = number(1.0, at_least=0)
    margin: float = number(0.3, at_least=0)
    mining: Literal["hardest", "drawn"] = "hardest"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    inter_frame: float = number(0.0, at_least=0)
    attributes: float = number(0.0, at_least=0)
    aitl: float = number(0.0, at_least=0)
    aitl_form: Literal["paper", "authors"] = "paper"
    itl: float = number(0.0, at_least=0)
    dvdp: bool = False
    oim: float = number(0.0, at_least=0)
    oim_scalar: float = number(30.0, above=0)
    oim_momentum: float = number(0.5, at_least=0, below=1)
    diversity: float = number(0.0, at_least=0)
    part_softmax: float = number(0.0, at_least=0)
    part_triplet: float = number(0.0, at_least=0)


@dataclass
class Group:
    """Parameters that learn at `lr_factor` times the rate: those of the parts of the model named in `parts`,
    such as `backbone`, as far as no earlier group has them.
    """

    parts: list[str] = field(default_factory=list)
    lr_factor: float = number(1.0, at_least=0)


@dataclass
class Optim:
    """`momentum` and `nesterov` are SGD's. `weight_decay` is the L2 term of "adam" and "sgd"; "adamw" shrinks
    the weights by lr x weight_decay instead (Loshchilov and Hutter, ICLR 2019).

    groups: parts with rates of their own; parameters in none learn at `lr`.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = number(3e-4, at_least=0)
    weight_decay: float = number(5e-4, at_least=0)
    momentum: float = number(0.9, at_least=0, below=1)
    nesterov: bool = False
    groups: list[Group] = field(default_factory=list)


@dataclass
class Schedule:
    """step: lr times `gamma` at every milestone (epochs); cosine: half a period down to 0.

    The first `warmup_epochs` epochs rise linearly from `warmup_factor` x lr.
    """

    name: Literal["step", "cosine"] = "step"
    milestones: list[int] = number([], at_least=1)
    gamma: float = number(0.1, at_least=0)
    warmup_epochs: int = number(0, at_least=0)
    warmup_factor: float = number(0.01, at_least=0, at_most=1)


@dataclass
class Train:
    """workers: loader processes; eval_every, checkpoint_every: epochs (0: at the end only).

    checkpoint_steps: a further checkpoint every so many steps within an epoch (0: none). sync_bn: batch
    normalisation over the batches of all GPUs; in a single process it is the usual one.
    """

    epochs: int = number(800, at_least=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    sync_bn: bool = False
    workers: int = number(4, at_least=0)
    eval_every: int = number(0, at_least=0)
    checkpoint_every: int = number(1, at_least=0)
    checkpoint_steps: int = number(0, at_least=0)


@dataclass
class Stage:
    """So many epochs in which the parts of the model named in `freeze`, such as `backbone`, stay as they are:
    parameters without gradient, modules in evaluation mode.
    """

    epochs: int = number(1, at_least=1)
    freeze: list[str] = field(default_factory=list)


@dataclass
class Eval:
    """sampling "evenly" or "first_of_chunk": one clip a tracklet; "random": one clip drawn from the recipe's
    seed, the same one in every evaluation; "dense": all its frames in clips.

    frames: clip lengths, each evaluated with the same model; chunk: most clips in one forward pass.
    shard: tracklets of a file of features, the part that an interrupted extraction repeats at most.
    metric: of the features; a model with a distance of its own (STAL) is compared by that.
    rerank: rank by k-reciprocal re-ranked distances, with rerank_k1, rerank_k2 and rerank_lambda
    (`ops.k_reciprocal`); not for a model with a distance of its own.
    """

    sampling: Literal["evenly", "first_of_chunk", "random", "dense"] = "evenly"
    frames: list[int] = number([4], at_least=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    ap: Literal["precision", "trapezoid"] = "precision"
    rerank: bool = False
    rerank_k1: int = number(20, at_least=1)
    rerank_k2: int = number(6, at_least=1)
    rerank_lambda: float = number(0.3, at_least=0, at_most=1)
    chunk: int = number(32, at_least=1)
    shard: int = number(128, at_least=1)


@dataclass
class Paper:
    """The published figures in per cent, a row for every test length, kept beside those measured.

    rerank: whether they are of re-ranked distances; they are shown beside figures of the same kind alone.
    sets: for several data sets in place of `rows`: the figures of each by its name, at every test length.
    """

    source: str = ""
    rerank: bool = False
    rows: dict[int, dict[str, float]] = number({}, at_least=0, at_most=100)
    sets: dict[str, dict[str, float]] = number({}, at_least=0, at_most=100)


@dataclass
class Recipe:
    """A complete run. `model` holds the registered name and the options of that model.

    In a file `dataset` may be a list: the model is trained on all of them, with as many persons of each in a
    batch, and tested on each. Here the first is `dataset` and the others are `also`.

    `stages` come one after another from the first epoch on; the epochs that they leave train everything, and
    a run of fewer epochs ends in one of them.
    """

    name: str = ""
    seed: int = number(0, at_least=0)
    dataset: Dataset = field(default_factory=Dataset)
    also: list[Dataset] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=lambda: {"name": "sta"})
    input: Input = field(default_factory=Input)
    batch: Batch = field(default_factory=Batch)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    train: Train = field(default_factory=Train)
    stages: list[Stage] = field(default_factory=list)
    eval: Eval = field(default_factory=Eval)
    paper: Paper = field(default_factory=Paper)

    def __str__(self) -> str:
        return self.to_yaml()

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON (whose keys are strings: so are the test lengths of `paper`)."""
        tree = _folded(asdict(self))
        tree["paper"]["rows"] = {str(frames): row for frames, row in self.paper.rows.items()}
        return tree

    @property
    def datasets(self) -> list[Dataset]:
        """All data sets, in their order."""
        return [self.dataset, *self.also]

    def of_set(self, number: int) -> "Recipe":
        """The recipe with one of its data sets, and with the figures published for that one."""
        if not self.also:
            return self
        dataset = self.datasets[number]
        figures = self.paper.sets.get(dataset.name)
        rows = dict.fromkeys(self.eval.frames, figures) if figures else {}
        return replace(self, dataset=dataset, also=[], paper=replace(self.paper, rows=rows, sets={}))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML, whole, without a base; the file is never half there."""
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(self.to_yaml(), encoding="utf-8")
        temporary.rename(path)

    def to_yaml(self) -> str:
        """The text that `save` writes."""
        return OmegaConf.to_yaml(OmegaConf.create(_escaped(_folded(asdict(self)))))


def recipe_names() -> list[str]:
    """The recipes that come with the package; a leading underscore marks parts for `base`."""
    files = resources.files("vreid_ext.recipes").iterdir()
    names = (file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
    return sorted(name for name in names if not name.startswith("_"))


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe of the package by name, or a YAML file by path, with `key=value` overrides on top.

    A file may start from others, named under `base:` (one name or a list, merged in that order; a path
    is taken relative to the file). A key for text takes it as it is typed: `dataset.root=2024_01_15 #2`. If
    it may be empty, `null` leaves it so. Other values are YAML: `eval.frames=[2,4]`. The data sets of a list
    are named by their number: `dataset.0.root=DIR`, or `dataset: {0: {root: DIR}}` in a file with a base.
    `dataset.name=NAME` puts a single one in the place of the list; a list takes that of a single one.

    The paths `dataset.root`, `dataset.joints`, `dataset.options.attributes` and `model.weights` may begin
    with `~`. In a file they are relative to its folder, in an override to the working folder. The recipe that
    is returned holds absolute ones.

    Raises:
        ValueError: no such recipe, an unknown key (the message names the nearest known one), a value
            of the wrong type or out of range.
    """
    source, tree, folders = _read(str(name_or_path), relative_to=Path())
    if "name" not in tree:
        tree["name"] = _escaped(source)
    changes = _overrides(overrides)
    folders |= dict.fromkeys(_paths_in(changes), Path())
    return _typed(_merged(tree, changes, str(name_or_path)), str(name_or_path), folders)


def recipe_from_dict(tree: Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """The inverse of `Recipe.to_dict`, with overrides as for `load_recipe`."""
    with _errors_of("recipe"):
        created = OmegaConf.create(_escaped(dict(tree)))
    return _typed(_merged(created, _overrides(overrides), "recipe"), "recipe", {})


def differences(a: Recipe, b: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """One line "key: a, b" for every key in which two recipes differ."""
    left, right = (dict(_leaves(_numbered(recipe.to_dict()))) for recipe in (a, b))
    return [
        f"{key}: {left.get(key)!r}, {right.get(key)!r}"
        for key in sorted(left.keys() | right.keys())
        if _of_any_set(key) not in ignore and left.get(key) != right.get(key)
    ]


def _folded(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tree with its data sets as files have them: one group of keys, or a list of groups."""
    also = tree.pop("also")
    return tree | {"dataset": [tree["dataset"], *also]} if also else tree


def _numbered(tree: dict[str, Any]) -> dict[str, Any]:
    """A list of data sets as a group for each number, for keys such as dataset.0.root."""
    sets = tree.get("dataset")
    if not isinstance(sets, list):
        return tree
    return tree | {"dataset": {str(number): each for number, each in enumerate(sets)}}


def _of_any_set(key: str) -> str:
    """A key without the number of a data set in it."""
    return re.sub(r"^dataset\.\d+\.", "dataset.", key)


def _unfolded(tree: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_folded`."""
    sets = tree.get("dataset")
    return tree | {"dataset": sets[0], "also": sets[1:]} if isinstance(sets, list) else tree


def _merged(tree: DictConfig, changes: DictConfig, source: str) -> Any:
    """The tree with another on top, which names those of a list of data sets by their numbers."""
    sets, given = tree.get("dataset"), changes.get("dataset")
    if isinstance(sets, DictConfig) and isinstance(given, ListConfig):
        tree = _without_sets(tree)
    elif isinstance(sets, ListConfig) and isinstance(given, DictConfig):
        numbers = {str(n): n for n in range(len(sets))}
        parts = {str(key): part for key, part in given.items()}
        odd = next((key for key in parts if key not in numbers), None)
        if "name" in parts:  # a single one in the place of the list
            tree = _without_sets(tree)
        elif odd is not None:
            raise ValueError(
                f"dataset.{odd}: expected the number of one of {len(sets)} data sets before the key, such as "
                "dataset.0.root, or dataset.name for a single one"
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
    """What YAML and OmegaConf find wrong, as an error of one line that names the recipe.

    within: what comes before the keys that OmegaConf names.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{within}{error.full_key}: " if error.full_key else ""
        raise ValueError(f"{source}: {key}{str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ValueError(f"{source}: nested too deeply") from error
    except TypeError as error:  # OmegaConf's, of keys in the place of a list
        raise ValueError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes and numbers that Python does not read
        raise ValueError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error


def _read(
    name: str, relative_to: Path, above: tuple[Path, ...] = ()
) -> tuple[str, DictConfig, dict[str, Path]]:
    """A recipe's short name, its tree with its bases merged under it, and the folder to which the value of
    each key of `_PATHS` is relative.

    above: the files that start from this one.
    """
    path = relative_to / name
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"recipe: no file {str(path)!r}")
        if path.resolve() in above:
            raise ValueError(f"recipe {name!r}: base: starts from itself")
        above = (*above, path.resolve())
        content = path.read_bytes()
    else:
        file = resources.files("vreid_ext.recipes") / f"{name}.yaml"
        if not file.is_file():
            near = difflib.get_close_matches(name, recipe_names(), n=3, cutoff=0.3) or recipe_names()
            raise ValueError(f"recipe: no recipe {name!r}; nearest: {', '.join(near)}, or give a .yaml file")
        content = file.read_bytes()
    with _errors_of(f"recipe {name!r}"):
        text = content.decode()
        root = yaml.compose(text, yaml.SafeLoader)
    if root is not None and not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ValueError(f"recipe {name!r}: got {kind}, wanted keys and values")
    with _errors_of(f"recipe {name!r}"):
        tree = OmegaConf.create(_quoted(text, root, Recipe))
        assert isinstance(tree, DictConfig)
        given = tree.pop("base", [])
        bases = list(given) if isinstance(given, ListConfig | list) else [given]
    if not all(isinstance(base, str) for base in bases):
        raise ValueError(
            f"recipe {name!r}: base: got {given}, wanted the name of a recipe or a list of names"
        )
    own = dict.fromkeys(_paths_in(tree), path.parent)
    folders: dict[str, Path] = {}
    merged = OmegaConf.create()
    for base in bases:
        _, part, places = _read(base, path.parent, above)
        part.pop("name", None)
        merged = _merged(merged, part, f"recipe {name!r}")
        folders |= places
    return path.stem, _merged(merged, tree, f"recipe {name!r}"), folders | own


def _overrides(pairs: Iterable[str]) -> DictConfig:
    tree = OmegaConf.create()
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"override: got {pair!r}, wanted key=value")
        kind = reduce(_entry_type, key.split("."), Recipe)
        with _errors_of(f"override {pair!r}"):
            node = None if is_text(kind) else yaml.compose(text, yaml.SafeLoader)
            if text in ("", "null") and NoneType in members(kind):
                OmegaConf.update(tree, key, None)
            elif is_text(kind) or _is_text(node, kind):
                OmegaConf.update(tree, key, _escaped(text))
            else:
                tree.merge_with_dotlist([f"{key}={_quoted(text, node, kind)}"])
    return tree


def _entry_type(kind: Any, name: str) -> Any:
    """The type of an entry of a group of keys of this type."""
    if kind is Recipe and name == "model":
        return {**_option_types(map(model_factory, model_names())), "name": str}
    if kind is Dataset and str(name).isdecimal():  # of a list of them
        return Dataset
    if kind is Dataset and name == "options":
        return _option_types(map(dataset_builder, dataset_names()))
    if is_dataclass(kind):
        return next((entry.type for entry in fields(kind) if entry.name == name), Any)
    if isinstance(kind, dict):
        return kind.get(name, Any)
    return get_args(kind)[1] if get_origin(kind) is dict else Any


def _item_type(kind: Any) -> Any:
    """The type of the items of a list in the place of this type: data sets are a list or a single one."""
    if kind is Dataset:
        return Dataset
    return get_args(kind)[0] if get_origin(kind) is list else Any


def _option_types(factories: Iterable[Callable[..., Any]]) -> dict[str, Any]:
    """The options that are text for every factory that has them."""
    types: dict[str, Any] = {}
    for factory in factories:
        for name, kind in (option_types(factory) or {}).items():
            types[name] = str | None if is_text(kind) and types.get(name, str) is not Any else Any
    return types


def _quoted(text: str, node: yaml.Node | None, kind: Any) -> str:
    """YAML in which everything is quoted that is text by its type, or by its looks where any type will do.

    Args:
        text, node: YAML and what it is composed of.
        kind: the type that is wanted of it.
    """
    edits: dict[int, tuple[int, str]] = {}
    seen = set()

    def visit(node: yaml.Node | None, kind: Any) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, _entry_type(kind, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item, _item_type(kind))
        elif _is_text(node, kind):
            end = node.end_mark.index
            start = end - len(node.value)
            if text[start:end] == node.value:  # else it is folded over lines, and text as it stands
                edits[start] = end, json.dumps(node.value, ensure_ascii=False)

    visit(node, kind)
    for start, (end, value) in sorted(edits.items(), reverse=True):
        text = text[:start] + value + text[end:]
    return text


def _is_text(node: yaml.Node | None, kind: Any) -> bool:
    """Whether a node is text without quotes, by the type that is wanted or by its looks."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or node.tag not in _RESOLVED:
        return False
    return is_text(kind) or not (node.tag == _BOOL or _NUMBER.fullmatch(node.value))


def _escaped(value: Any) -> Any:
    """The same texts, in which OmegaConf finds nothing to interpolate."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


def _paths_in(tree: DictConfig) -> list[str]:
    """The keys of paths that a tree gives."""
    plain: Any = OmegaConf.to_container(tree)
    return [key for key, _ in _leaves(_numbered(plain)) if _of_any_set(key) in _PATHS]


def _set_paths(plain: dict[str, Any], folders: Mapping[str, Path]) -> None:
    """Make all paths absolute: each relative to its folder, or else to the working folder."""
    numbered = _numbered(plain)
    sets = [f"dataset.{n}." for n in numbered["dataset"]] if numbered is not plain else ["dataset."]
    for key in dict.fromkeys(path.replace("dataset.", each) for path in _PATHS for each in sets):
        *groups, name = key.split(".")
        tree = numbered
        for group in groups:
            tree = tree.get(group, {})
        value = tree.get(name)
        if isinstance(value, str) and (name != "weights" or value.endswith(_WEIGHT_FILES)):
            path = folders.get(key, Path()) / os.path.expanduser(value)
            tree[name] = str(path.absolute()) if value else None


def _typed(tree: Any, source: str, folders: Mapping[str, Path]) -> Recipe:
    with _errors_of(source):
        plain: Any = OmegaConf.to_container(tree, resolve=True)
    if "also" in plain:
        raise ValueError(f"{source}: unknown key 'also'; nearest known key: 'dataset', which may be a list")
    sets = plain.get("dataset")
    if isinstance(sets, list) and not (sets and all(isinstance(each, dict) for each in sets)):
        raise ValueError(f"{source}: dataset: expected a data set or a list of them, got {sets!r}")
    numbered = _numbered(plain)
    known = _known_keys(Recipe)
    for key, value in _leaves(numbered):
        name = key if numbered is plain else _of_any_set(key)
        if name not in known and not name.startswith(tuple(f"{group}." for group in _OPEN_GROUPS)):
            (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            if name != key:  # of a list of data sets
                near = near.replace("dataset.", key.removesuffix(name.removeprefix("dataset.")))
            raise ValueError(f"{source}: unknown key {key!r}; nearest known key: {near!r}")
        if name in ("model", "dataset.options") and not isinstance(value, dict):
            raise ValueError(f"{source}: {key}: got {value!r}, wanted keys and values")
        for item in _items(value):
            if isinstance(item, str) and not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError as error:  # bytes of the command line or of a name on the disk
                    raise ValueError(f"{source}: {key}: expected text in UTF-8, got {item!r}") from error
            if isinstance(item, float) and not isfinite(item):
                raise ValueError(f"{source}: {key}: got {item}, wanted a finite number")
            if isinstance(item, int) and abs(item) >= 2**63:
                raise ValueError(f"{source}: {key}: got {reprlib.repr(item)}, wanted a number below 2^63")
    for group in fields(Recipe):
        value = numbered.get(group.name, {})
        if is_dataclass(group.type) and not isinstance(value, dict):
            raise ValueError(
                f"{source}: {group.name}: got {value!r}, wanted a group of keys: {group.name}.KEY=VALUE"
            )
    lengths = plain.get("eval", {}).get("frames")
    if isinstance(lengths, int):
        plain["eval"]["frames"] = [lengths]
    _set_paths(plain, folders)
    paper = plain.get("paper", {})
    rows = paper.get("rows", {})
    # JSON has no integer keys.
    if not isinstance(rows, dict) or not all(str(frames).isdecimal() for frames in rows):
        raise ValueError(f"{source}: paper.rows: got {rows!r}, wanted rows by their frames")
    if rows:
        paper["rows"] = {int(frames): row for frames, row in rows.items()}
    _check_items(plain, Recipe, source)
    with _errors_of(source):
        recipe = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Recipe), _escaped(_unfolded(plain)))
        )
    assert isinstance(recipe, Recipe)
    _check(recipe)
    return recipe


def _check_items(tree: Mapping[str, Any], group: Any, source: str, prefix: str = "") -> None:
    """Every item of a list of groups has the right keys and types. Each is merged by itself, since OmegaConf
    names the keys of an item without the list.
    """
    for entry in fields(group):
        key, value, kind = prefix + entry.name, tree.get(entry.name), _item_type(entry.type)
        if is_dataclass(entry.type) and isinstance(value, Mapping):
            _check_items(value, entry.type, source, f"{key}.")
        elif is_dataclass(kind) and isinstance(value, list):
            for number, item in enumerate(value):
                within = f"{key}.{number}." if kind is Dataset else f"{key}[{number}]."
                if isinstance(item, Mapping):
                    with _errors_of(source, within):
                        OmegaConf.merge(OmegaConf.structured(kind), _escaped(item))


def _known_keys(group: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe, groups included."""
    keys = []
    for entry in fields(group):
        key = prefix + entry.name
        if key != "also":  # which files have under `dataset`
            keys.append(key)
        if is_dataclass(entry.type):
            keys += _known_keys(entry.type, f"{key}.")
    return keys


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check(recipe: Recipe) -> None:
    if recipe.also:
        for number, each in enumerate(recipe.datasets):
            _check_group(each, f"dataset.{number}.")
    _check_group(recipe, "")
    if not recipe.eval.frames:
        raise ValueError("eval.frames: expected at least one clip length, got []")
    if recipe.optim.nesterov and (recipe.optim.name != "sgd" or not recipe.optim.momentum > 0):
        raise ValueError(
            "optim.nesterov: expected false, or optim.name=sgd with optim.momentum above 0, got true"
        )
    if not isinstance(recipe.model.get("name"), str):
        raise ValueError(f"model.name: got {recipe.model.get('name')!r}, wanted a registered model's name")


def _check_group(group: Any, prefix: str) -> None:
    """Every number of a group of keys is within the bounds of its field, every list holds what it should."""
    for entry in fields(group):
        key, value = prefix + entry.name, getattr(group, entry.name)
        if is_dataclass(value):
            _check_group(value, f"{key}.")
        elif isinstance(value, list):
            (kind,) = get_args(entry.type)
            if not all(isinstance(item, kind) for item in value):  # OmegaConf lets lists in lists pass
                raise ValueError(f"{key}: got {value}, wanted a list of {kind.__name__}")
            for number, item in enumerate(value):
                if is_dataclass(item):
                    _check_group(item, f"{key}[{number}].")
        bounds = entry.metadata.get("bounds", {})
        if not all(_COMPARISONS[name](item, bounds[name]) for name in bounds for item in _items(value)):
            wanted = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items())
            raise ValueError(f"{key}: expected {wanted}, got {value}")


def _items(value: Any) -> Iterator[Any]:
    """The value, or those in a list or dict, at any depth."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _items(item)
    else:
        yield value
