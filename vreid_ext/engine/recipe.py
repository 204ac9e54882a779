"""Recipes: every setting of a training run and its evaluation, each number with its range."""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import OmegaConf

from vreid_ext._files import whole_file

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


def weight(default: float) -> Any:
    """A field of `Loss` for the weight of a term."""
    return field(default=default, metadata={"bounds": {"at_least": 0}, "term": True})


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

    softmax: float = weight(1.0)
    label_smoothing: float = number(0.0, at_least=0, below=1)
    triplet: float = weight(1.0)
    margin: float = number(0.3, at_least=0)
    mining: Literal["hardest", "drawn"] = "hardest"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    inter_frame: float = weight(0.0)
    attributes: float = weight(0.0)
    aitl: float = weight(0.0)
    aitl_form: Literal["paper", "authors"] = "paper"
    itl: float = weight(0.0)
    dvdp: bool = False
    oim: float = weight(0.0)
    oim_scalar: float = number(30.0, above=0)
    oim_momentum: float = number(0.5, at_least=0, below=1)
    diversity: float = weight(0.0)
    part_softmax: float = weight(0.0)
    part_triplet: float = weight(0.0)


# The terms of the loss, each with its weight in a recipe.
TERMS = tuple(entry.name for entry in fields(Loss) if entry.metadata.get("term"))


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
        tree = folded(asdict(self))
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
        """Write the recipe as YAML, whole, without a base, as a whole file or not at all."""
        with whole_file(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The text that `save` writes."""
        return OmegaConf.to_yaml(OmegaConf.create(escaped(folded(asdict(self)))))


def differences(a: Recipe, b: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """One line "key: a, b" for every key in which two recipes differ."""
    left, right = (dict(leaves(by_number(recipe.to_dict()))) for recipe in (a, b))
    return [
        f"{key}: {left.get(key)!r}, {right.get(key)!r}"
        for key in sorted(left.keys() | right.keys())
        if of_any_set(key) not in ignore and left.get(key) != right.get(key)
    ]


def folded(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tree with its data sets as files have them: one group of keys, or a list of groups."""
    also = tree.pop("also")
    return tree | {"dataset": [tree["dataset"], *also]} if also else tree


def by_number(tree: dict[str, Any]) -> dict[str, Any]:
    """A list of data sets as a group for each number, for keys such as dataset.0.root."""
    sets = tree.get("dataset")
    if not isinstance(sets, list):
        return tree
    return tree | {"dataset": {str(number): each for number, each in enumerate(sets)}}


def unfolded(tree: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `folded`."""
    sets = tree.get("dataset")
    return tree | {"dataset": sets[0], "also": sets[1:]} if isinstance(sets, list) else tree


def of_any_set(key: str) -> str:
    """A key without the number of a data set in it."""
    return re.sub(r"^dataset\.\d+\.", "dataset.", key)


def leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check(recipe: Recipe) -> None:
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
        raise ValueError(f"model.name: expected a registered model's name, got {recipe.model.get('name')!r}")


def _check_group(group: Any, prefix: str) -> None:
    """Every number of a group of keys is within the bounds of its field, every list holds what it should."""
    for entry in fields(group):
        key, value = prefix + entry.name, getattr(group, entry.name)
        if is_dataclass(value):
            _check_group(value, f"{key}.")
        elif isinstance(value, list):
            (kind,) = get_args(entry.type)
            if not all(isinstance(item, kind) for item in value):  # OmegaConf lets lists in lists pass
                raise ValueError(f"{key}: expected a list of {kind.__name__}, got {value}")
            for number, item in enumerate(value):
                if is_dataclass(item):
                    _check_group(item, f"{key}[{number}].")
        bounds = entry.metadata.get("bounds", {})
        if not all(_COMPARISONS[name](item, bounds[name]) for name in bounds for item in items(value)):
            wanted = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items())
            raise ValueError(f"{key}: expected {wanted}, got {value}")


def items(value: Any) -> Iterator[Any]:
    """The value, or those in a list or dict, at any depth."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from items(item)
    else:
        yield value


def escaped(value: Any) -> Any:
    """The same texts, in which OmegaConf finds nothing to interpolate."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value
