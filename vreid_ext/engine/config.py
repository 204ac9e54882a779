"""Recipes: one typed YAML file says everything that a training run and its evaluation depend on."""

import difflib
import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_OPEN_GROUPS = ("model", "dataset.options", "paper.rows", "paper.sets")


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
    black_box: int = 0
    black_box_seed: int = 0


@dataclass
class Input:
    """height, width in pixels; `frames` per training clip, chosen by `sampling`.

    flip, erase: probabilities; crop: padding in pixels before a random crop, 0 for none.
    per_frame: flip, crop and erase are drawn for each frame by itself, not once for a clip.
    """

    height: int = 256
    width: int = 128
    frames: int = 4
    sampling: Literal["random", "evenly", "restricted", "consecutive", "first_of_chunk"] = "random"
    flip: float = 0.5
    crop: int = 0
    erase: float = 0.0
    per_frame: bool = False


@dataclass
class Batch:
    """p persons with k tracklets each over all processes; `accumulate` batches make one step."""

    p: int = 16
    k: int = 4
    accumulate: int = 1


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

    softmax: float = 1.0
    label_smoothing: float = 0.0
    triplet: float = 1.0
    margin: float = 0.3
    mining: Literal["hardest", "drawn"] = "hardest"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    inter_frame: float = 0.0
    attributes: float = 0.0
    aitl: float = 0.0
    aitl_form: Literal["paper", "authors"] = "paper"
    itl: float = 0.0
    dvdp: bool = False
    oim: float = 0.0
    oim_scalar: float = 30.0
    oim_momentum: float = 0.5
    diversity: float = 0.0
    part_softmax: float = 0.0
    part_triplet: float = 0.0


@dataclass
class Group:
    """Parameters that learn at `lr_factor` times the rate: those of the parts of the model named in `parts`,
    such as `backbone`, as far as no earlier group has them.
    """

    parts: list[str] = field(default_factory=list)
    lr_factor: float = 1.0


@dataclass
class Optim:
    """`momentum` and `nesterov` are SGD's. `weight_decay` is the L2 term of "adam" and "sgd"; "adamw" shrinks
    the weights by lr x weight_decay instead (Loshchilov and Hutter, ICLR 2019).

    groups: parts with rates of their own; parameters in none learn at `lr`.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 3e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = False
    groups: list[Group] = field(default_factory=list)


@dataclass
class Schedule:
    """step: lr times `gamma` at every milestone (epochs); cosine: half a period down to 0.

    The first `warmup_epochs` epochs rise linearly from `warmup_factor` x lr.
    """

    name: Literal["step", "cosine"] = "step"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    warmup_epochs: int = 0
    warmup_factor: float = 0.01


@dataclass
class Train:
    """workers: loader processes; eval_every, checkpoint_every: epochs (0: at the end only).

    checkpoint_steps: a further checkpoint every so many steps within an epoch (0: none). sync_bn: batch
    normalisation over the batches of all GPUs; in a single process it is the usual one.
    """

    epochs: int = 800
    precision: Literal["no", "bf16", "fp16"] = "no"
    sync_bn: bool = False
    workers: int = 4
    eval_every: int = 0
    checkpoint_every: int = 1
    checkpoint_steps: int = 0


@dataclass
class Stage:
    """So many epochs in which the parts of the model named in `freeze`, such as `backbone`, stay as they are:
    parameters without gradient, modules in evaluation mode.
    """

    epochs: int = 1
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
    frames: list[int] = field(default_factory=lambda: [4])
    metric: Literal["cosine", "euclidean"] = "cosine"
    ap: Literal["precision", "trapezoid"] = "precision"
    rerank: bool = False
    rerank_k1: int = 20
    rerank_k2: int = 6
    rerank_lambda: float = 0.3
    chunk: int = 32
    shard: int = 128


@dataclass
class Paper:
    """The published figures in per cent, a row for every test length, kept beside those measured.

    rerank: whether they are of re-ranked distances; they are shown beside figures of the same kind alone.
    sets: for several data sets in place of `rows`: the figures of each by its name, at every test length.
    """

    source: str = ""
    rerank: bool = False
    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Recipe:
    """A complete run. `model` holds the registered name and the options of that model.

    In a file `dataset` may be a list: the model is trained on all of them, with as many persons of each in a
    batch, and tested on each. Here the first is `dataset` and the others are `also`.

    `stages` come one after another from the first epoch on; the epochs that they leave train everything, and
    a run of fewer epochs ends in one of them.
    """

    name: str = ""
    seed: int = 0
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
        tree = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(self)))
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(_folded(tree))), encoding="utf-8")
        temporary.rename(path)


def recipe_names() -> list[str]:
    """The recipes that come with the package; a leading underscore marks parts for `base`."""
    files = resources.files("vreid_ext.recipes").iterdir()
    names = (file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
    return sorted(name for name in names if not name.startswith("_"))


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe of the package by name, or a YAML file by path, with `key=value` overrides on top.

    A file may start from others, named under `base:` (one name or a list, merged in that order; a path
    is taken relative to the file). Values of overrides are YAML: `eval.frames=[2,4]`, `dataset.root=DIR`. The
    data sets of a list are named by their number, `dataset.0.root=DIR`; `dataset.name=NAME` puts a single one
    in the place of the list.

    Raises:
        ValueError: no such recipe, an unknown key (the message names the nearest known one), a value
            of the wrong type or out of range.
    """
    source, tree = _read(str(name_or_path), relative_to=Path())
    if "name" not in tree:
        tree["name"] = source
    return _typed(_merged(tree, _overrides(overrides), str(name_or_path)), str(name_or_path))


def override(key: str, value: str) -> str:
    """The override that sets `key` to exactly this text, such as a path with spaces or brackets in it.

    The value of an override is YAML, of which a JSON string is a part.
    """
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def recipe_from_dict(tree: Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """The inverse of `Recipe.to_dict`, with overrides as for `load_recipe`."""
    with _errors_of("recipe"):
        created = OmegaConf.create(dict(tree))
    return _typed(_merged(created, _overrides(overrides), "recipe"), "recipe")


def differences(a: Recipe, b: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """One line "key: a, b" for every key in which two recipes differ."""
    left, right = (dict(_leaves(_numbered(recipe.to_dict()))) for recipe in (a, b))
    return [
        f"{key}: {left.get(key)!r}, {right.get(key)!r}"
        for key in sorted(left.keys() | right.keys())
        if re.sub(r"^dataset\.\d+\.", "dataset.", key) not in ignore and left.get(key) != right.get(key)
    ]


def _folded(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tree with its data sets as files have them: one group of keys, or a list of groups."""
    also = tree.pop("also")
    return tree | {"dataset": [tree["dataset"], *also]} if also else tree


def _numbered(tree: dict[str, Any]) -> dict[str, Any]:
    """A list of data sets as a group for each number, for keys such as dataset.0.root."""
    sets = tree["dataset"]
    return (
        tree | {"dataset": {str(n): each for n, each in enumerate(sets)}} if isinstance(sets, list) else tree
    )


def _unfolded(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """The inverse of `_folded`, of a tree that may hold anything."""
    if "also" in tree:
        raise ValueError(f"{source}: unknown key 'also'; nearest known key: 'dataset', which may be a list")
    sets = tree.get("dataset")
    if not isinstance(sets, list):
        return tree
    if not sets or not all(isinstance(each, dict) for each in sets):
        raise ValueError(f"{source}: dataset: expected a data set or a list of them, got {sets!r}")
    return tree | {"dataset": sets[0], "also": sets[1:]}


def _merged(tree: DictConfig, changes: DictConfig, source: str) -> Any:
    """The tree with overrides on top; those of a list of data sets name each by its number."""
    sets, given = tree.get("dataset"), changes.get("dataset")
    if isinstance(sets, ListConfig) and isinstance(given, DictConfig):
        numbers = {str(n): n for n in range(len(sets))}
        parts = {str(key): part for key, part in given.items()}
        odd = next((key for key in parts if key not in numbers), None)
        if "name" in parts:  # a single one in the place of the list
            tree = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "dataset"])
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


@contextmanager
def _errors_of(source: str) -> Iterator[None]:
    """What YAML and OmegaConf find wrong, as an error of one line that names the recipe."""
    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ValueError(f"{source}: {key}{str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ValueError(f"{source}: nested too deeply") from error
    except TypeError as error:  # OmegaConf's, of keys in the place of a list
        raise ValueError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes and numbers that Python does not read
        raise ValueError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error


def _read(name: str, relative_to: Path, above: tuple[Path, ...] = ()) -> tuple[str, DictConfig]:
    """The tree of a recipe with its bases merged under it, and the recipe's short name.

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
        tree = OmegaConf.create(text)
        assert isinstance(tree, DictConfig)
        given = tree.pop("base", [])
        bases = list(given) if isinstance(given, ListConfig | list) else [given]
    if not all(isinstance(base, str) for base in bases):
        raise ValueError(
            f"recipe {name!r}: base: got {given}, wanted the name of a recipe or a list of names"
        )
    parts = [_read(base, path.parent, above)[1] for base in bases]
    with _errors_of(f"recipe {name!r}"):
        for part in parts:
            part.pop("name", None)
        merged = OmegaConf.merge(*parts, tree)
    assert isinstance(merged, DictConfig)
    return path.stem, merged


def _overrides(pairs: Iterable[str]) -> DictConfig:
    pairs = list(pairs)
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"override: got {pair!r}, wanted key=value")
    with _errors_of(f"override {' '.join(pairs)!r}"):
        return OmegaConf.from_dotlist(pairs)


def _typed(tree: Any, source: str) -> Recipe:
    with _errors_of(source):
        plain = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(plain, dict)
    plain = _unfolded(cast(dict[str, Any], plain), source)
    known = _known_keys(Recipe)
    for key, value in _leaves(plain):
        if key not in known and not key.startswith(tuple(f"{group}." for group in _OPEN_GROUPS)):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ValueError(f"{source}: unknown key {key!r}; nearest known key: {near[0]!r}")
        if key in ("model", "dataset.options") and not isinstance(value, dict):
            raise ValueError(f"{source}: {key}: got {value!r}, wanted keys and values")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not isfinite(number):
                raise ValueError(f"{source}: {key}: got {number}, wanted a finite number")
            if isinstance(number, int) and abs(number) >= 2**63:
                raise ValueError(f"{source}: {key}: got {reprlib.repr(number)}, wanted a number below 2^63")
    for group in fields(Recipe):
        value = plain.get(group.name, {})
        if is_dataclass(group.type) and not isinstance(value, dict):
            raise ValueError(
                f"{source}: {group.name}: got {value!r}, wanted a group of keys: {group.name}.KEY=VALUE"
            )
    lengths = plain.get("eval", {}).get("frames")
    if isinstance(lengths, int):
        plain["eval"]["frames"] = [lengths]
    if plain.get("train", {}).get("precision") is False:  # YAML reads a bare `no` as false
        plain["train"]["precision"] = "no"
    paper = plain.get("paper", {})
    rows = paper.get("rows", {})
    # JSON has no integer keys.
    if not isinstance(rows, dict) or not all(str(frames).isdecimal() for frames in rows):
        raise ValueError(f"{source}: paper.rows: got {rows!r}, wanted rows by their frames")
    if rows:
        paper["rows"] = {int(frames): row for frames, row in rows.items()}
    with _errors_of(source):
        recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), plain))
    assert isinstance(recipe, Recipe)
    _check(recipe)
    return recipe


def _known_keys(group: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe, groups included."""
    keys = []
    for entry in fields(group):
        key = prefix + entry.name
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
    at_least = {
        "input.height": 1, "input.width": 1, "input.frames": 1, "input.crop": 0, "batch.p": 1, "batch.k": 1,
        "batch.accumulate": 1, "loss.softmax": 0, "loss.triplet": 0, "loss.inter_frame": 0,
        "loss.attributes": 0, "loss.aitl": 0, "loss.itl": 0, "loss.oim": 0,
        "loss.diversity": 0, "loss.part_softmax": 0, "loss.part_triplet": 0, "dataset.black_box": 0,
        "optim.lr": 0,
        "optim.weight_decay": 0, "schedule.warmup_epochs": 0, "train.epochs": 1, "train.workers": 0,
        "train.eval_every": 0, "train.checkpoint_every": 0, "train.checkpoint_steps": 0, "eval.chunk": 1,
        "eval.shard": 1, "eval.rerank_k1": 1, "eval.rerank_k2": 1,
    }  # fmt: skip
    lists: dict[str, tuple[list[Any], type]] = {
        "eval.frames": (recipe.eval.frames, int),
        "schedule.milestones": (recipe.schedule.milestones, int),
        **{f"stages[{i}].freeze": (stage.freeze, str) for i, stage in enumerate(recipe.stages)},
        **{f"optim.groups[{i}].parts": (group.parts, str) for i, group in enumerate(recipe.optim.groups)},
    }
    for key, (items, kind) in lists.items():  # OmegaConf lets lists in lists pass
        if not all(isinstance(item, kind) for item in items):
            raise ValueError(f"{key}: got {items}, wanted a list of {kind.__name__}")
    values = dict(_leaves(asdict(recipe)))
    for key, least in at_least.items():
        if not values[key] >= least:
            raise ValueError(f"{key}: got {values[key]}, wanted at least {least}")
    for key in ("input.flip", "input.erase", "loss.label_smoothing", "eval.rerank_lambda"):
        if not 0 <= values[key] <= 1:
            raise ValueError(f"{key}: got {values[key]}, wanted a number from 0 to 1")
    if recipe.optim.nesterov and (recipe.optim.name != "sgd" or not recipe.optim.momentum > 0):
        raise ValueError(
            "optim.nesterov: expected false, or optim.name=sgd with optim.momentum above 0, got true"
        )
    for number, group in enumerate(recipe.optim.groups):
        if not group.lr_factor >= 0:
            raise ValueError(f"optim.groups[{number}].lr_factor: expected at least 0, got {group.lr_factor}")
    for number, stage in enumerate(recipe.stages):
        if stage.epochs < 1:
            raise ValueError(f"stages[{number}].epochs: got {stage.epochs}, wanted at least 1")
    if not recipe.eval.frames or min(recipe.eval.frames) < 1:
        raise ValueError(f"eval.frames: got {recipe.eval.frames}, wanted clip lengths of at least 1")
    if not isinstance(recipe.model.get("name"), str):
        raise ValueError(f"model.name: got {recipe.model.get('name')!r}, wanted a registered model's name")
