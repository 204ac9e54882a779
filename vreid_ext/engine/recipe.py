"""Recipes: all settings of a training run and its evaluation, with the valid range of each number."""

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
    """Dataclass field for a number, or a list or dict of numbers, with bounds that `check` enforces."""
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"bounds": {name: bound for name, bound in bounds.items() if bound is not None}}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def weight(default: float) -> Any:
    """Dataclass field of `Loss` for the weight of a loss term."""
    return field(default=default, metadata={"bounds": {"at_least": 0}, "term": True})


@dataclass
class Dataset:
    """name: a registered data set; root: its folder; options: further keyword arguments of `build_dataset`.

    Options that are null are ignored. Use null to unset an option of a base or of a checkpoint.
    labels: file with labels of the training tracklets, used instead of their persons (`data.labels`).
    Tracklets without a label are not used. Null: the persons of the data set.
    joints: joints file, for models that take joints; null: the joints file in the root if it exists.
    black_box: side in pixels of a black square in all training and test images (0: none). Its position is
    random for each image, but fixed by `black_box_seed`.
    """

    name: str = "mars"
    root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    labels: str | None = None
    joints: str | None = None
    black_box: int = number(0, at_least=0)
    black_box_seed: int = number(0, at_least=0)


@dataclass
class Input:
    """height, width: in pixels; frames, sampling: number and selection of the frames of a training clip.

    flip, erase: probabilities; crop: padding in pixels before a random crop (0: no crop).
    per_frame: draw flip, crop and erase for each frame instead of once per clip.
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
    """p persons x k tracklets over all processes; accumulate: number of batches per optimizer step."""

    p: int = number(16, at_least=1)
    k: int = number(4, at_least=1)
    accumulate: int = number(1, at_least=1)


@dataclass
class Loss:
    """Weights of the loss terms (0: the term is not computed) and their parameters.

    mining: "hardest": triplets of the hardest positive and negative in the batch; "drawn": one random triplet
    per clip.
    metric: metric of the triplet loss and of the distances of `aitl`, `itl` and `dvdp`.
    attributes, aitl: for models with attribute streams. aitl_form: "paper": one term that mines with the
    predictions of all streams and the cosine distance; "authors": as in the authors' code, the mean of one
    term per stream, which mines with logits and the Euclidean distance and accepts an anchor as its own
    positive.
    oim_scalar, oim_momentum: see `losses.OIMLoss`. center_alpha: see `losses.CenterLoss`.
    diversity: for DRSTA's attention maps.
    branch_softmax, branch_triplet, frame_softmax, memory: see `models.TFCLIP`.
    pml: losses of pytorch-metric-learning with their weights, e.g. "CircleLoss(m=0.25, gamma=256)" or
    "0.5 * ArcFaceLoss() + SupConLoss(temperature=0.1)". Each compares the features of the triplet loss.
    dvdp: log the DVDP of each batch and plot it at the end. It is not part of the loss.
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
    center: float = weight(0.0)
    center_alpha: float = number(0.5, at_least=0, at_most=1)
    diversity: float = weight(0.0)
    part_softmax: float = weight(0.0)
    part_triplet: float = weight(0.0)
    branch_softmax: float = weight(0.0)
    branch_triplet: float = weight(0.0)
    frame_softmax: float = weight(0.0)
    memory: float = weight(0.0)
    pml: str = ""


# Names of the loss terms, which are the fields of `Loss` made by `weight`.
TERMS = tuple(entry.name for entry in fields(Loss) if entry.metadata.get("term"))


@dataclass
class Group:
    """Parameter group with learning rate lr x lr_factor.

    parts: modules or parameters of the model, e.g. `backbone`. Parameters of earlier groups are excluded.
    """

    parts: list[str] = field(default_factory=list)
    lr_factor: float = number(1.0, at_least=0)


@dataclass
class Optim:
    """momentum, nesterov: for "sgd". weight_decay: L2 penalty for "adam" and "sgd"; decoupled weight decay
    (Loshchilov and Hutter, ICLR 2019) for "adamw".

    groups: parameter groups with their own learning rates; all other parameters use `lr`.
    layer_decay: factor of the learning rate from each layer of the backbone to the layer before it (1: none);
    see `engine.layer_decay.layer_factors`. Usual for ViTs, with 0.65 to 0.9.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = number(3e-4, at_least=0)
    weight_decay: float = number(5e-4, at_least=0)
    momentum: float = number(0.9, at_least=0, below=1)
    nesterov: bool = False
    layer_decay: float = number(1.0, above=0, at_most=1)
    groups: list[Group] = field(default_factory=list)


@dataclass
class Schedule:
    """name: "step": multiply lr by `gamma` at each milestone (epoch); "cosine": cosine annealing to 0;
    "transreid": that of TransReID's code, a cosine over all epochs that ends at 0.002 lr.

    In the first `warmup_epochs` epochs the learning rate rises linearly from warmup_factor x lr to lr.
    """

    name: Literal["step", "cosine", "transreid"] = "step"
    milestones: list[int] = number([], at_least=1)
    gamma: float = number(0.1, at_least=0)
    warmup_epochs: int = number(0, at_least=0)
    warmup_factor: float = number(0.01, at_least=0, at_most=1)


@dataclass
class Train:
    """workers: number of loader processes; eval_every, checkpoint_every: in epochs (0: only at the end).

    channels_last: store the weights of the model's convolutions in the channels_last memory format, also in
    the evaluation of its checkpoints. Results differ by rounding.
    evaluate: evaluate the model after the training. Requires query and gallery tracklets of known persons.
    checkpoint_steps: additional checkpoints within an epoch, every so many optimizer steps (0: none).
    ema: decay of the exponential moving average of weights and buffers, updated after each optimizer step (0:
    none). The evaluation uses the average, and it is the model of the checkpoints.
    sync_bn: use SyncBatchNorm if there are several processes, which requires GPUs.
    """

    epochs: int = number(800, at_least=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    sync_bn: bool = False
    workers: int = number(4, at_least=0)
    evaluate: bool = True
    eval_every: int = number(0, at_least=0)
    checkpoint_every: int = number(1, at_least=0)
    checkpoint_steps: int = number(0, at_least=0)
    ema: float = number(0.0, at_least=0, below=1)


@dataclass
class Stage:
    """epochs: length of the stage; freeze: modules or parameters of the model, e.g. `backbone`.

    Frozen parameters get no gradient, frozen modules are in evaluation mode.
    """

    epochs: int = number(1, at_least=1)
    freeze: list[str] = field(default_factory=list)


@dataclass
class Eval:
    """sampling: "evenly", "first_of_chunk": one clip per tracklet; "random": one random clip, which depends
    only on the recipe's seed and is the same in every evaluation; "dense": all frames, in several clips.

    frames: clip lengths, each evaluated with the same model; chunk: maximum number of clips per forward pass.
    flip: the feature of a clip is the mean of those of the clip and its mirror image.
    shard: number of tracklets per feature file; an interrupted extraction repeats at most one file.
    metric: metric for comparing features; ignored for models with their own distance function (STAL).
    ap: definition of the average precision, see `metrics.evaluate`.
    corrupt: share of the frames of query and gallery that are corrupted (`data.Corruption`), 0: none; their
    choice is random but fixed by `corrupt_seed`.
    rerank: rank by k-reciprocal re-ranked distances with the parameters rerank_k1, rerank_k2 and
    rerank_lambda (`ops.k_reciprocal`); not supported for models with their own distance function.
    """

    sampling: Literal["evenly", "first_of_chunk", "random", "dense"] = "evenly"
    frames: list[int] = number([4], at_least=1)
    flip: bool = False
    metric: Literal["cosine", "euclidean"] = "cosine"
    ap: Literal["precision", "trapezoid"] = "precision"
    corrupt: float = number(0.0, at_least=0, at_most=1)
    corrupt_seed: int = number(0, at_least=0)
    rerank: bool = False
    rerank_k1: int = number(20, at_least=1)
    rerank_k2: int = number(6, at_least=1)
    rerank_lambda: float = number(0.3, at_least=0, at_most=1)
    chunk: int = number(32, at_least=1)
    shard: int = number(128, at_least=1)


@dataclass
class Adapt:
    """Adaptation to a data set without its labels (`vreid adapt`); not used by a training.

    rounds: number of times that the training tracklets are clustered; epochs: epochs of training after each.
    method, eps, min_samples, min_cluster_size, k1, k2: see `metrics.cluster`.
    noise: tracklets in no cluster: "own": each is a class of its own, as in SpCL; "drop": not used in this
    round.
    """

    rounds: int = number(10, at_least=1)
    epochs: int = number(1, at_least=1)
    method: Literal["dbscan", "hdbscan"] = "dbscan"
    eps: float = number(0.6, above=0, below=1)
    min_samples: int = number(4, at_least=1)
    min_cluster_size: int = number(2, at_least=2)
    k1: int = number(30, at_least=1)
    k2: int = number(6, at_least=1)
    noise: Literal["own", "drop"] = "own"


@dataclass
class Paper:
    """Published metrics in percent, reported next to the measured ones.

    rows: test length -> {metric: value}.
    rerank: whether the values were computed with re-ranking; they are only compared with metrics computed in
    the same way.
    sets: for several data sets, instead of `rows`: data set name -> {metric: value}, for all test lengths.
    """

    source: str = ""
    rerank: bool = False
    rows: dict[int, dict[str, float]] = number({}, at_least=0, at_most=100)
    sets: dict[str, dict[str, float]] = number({}, at_least=0, at_most=100)


@dataclass
class Recipe:
    """A complete recipe. `model` contains the registered name of the model and its options.

    In a file, `dataset` may be a list: the model is trained on all data sets jointly, with an equal number of
    persons from each in every batch, and tested on each. In this class, `dataset` is the first and `also` the
    others.

    `stages` are applied one after the other from the first epoch. After the last stage nothing is frozen. If
    the run has fewer epochs than the stages, it ends within a stage.
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
    adapt: Adapt = field(default_factory=Adapt)
    paper: Paper = field(default_factory=Paper)

    def __str__(self) -> str:
        return self.to_yaml()

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts and lists that can be written as JSON. The keys of `paper.rows` become strings."""
        tree = folded(asdict(self))
        tree["paper"]["rows"] = {str(frames): row for frames, row in self.paper.rows.items()}
        return tree

    @property
    def datasets(self) -> list[Dataset]:
        """All data sets, in order."""
        return [self.dataset, *self.also]

    def of_set(self, number: int) -> "Recipe":
        """The recipe with data set `number` only, and with the published metrics of that data set."""
        if not self.also:
            return self
        dataset = self.datasets[number]
        published = self.paper.sets.get(dataset.name)
        rows = dict.fromkeys(self.eval.frames, published) if published else {}
        return replace(self, dataset=dataset, also=[], paper=replace(self.paper, rows=rows, sets={}))

    def save(self, path: Path) -> None:
        """Write the complete recipe as YAML, without `base`. The file is replaced atomically."""
        with whole_file(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The text that `save` writes."""
        return OmegaConf.to_yaml(OmegaConf.create(escaped(folded(asdict(self)))))


def differences(a: Recipe, b: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """One line "key: value in a, value in b" for each key in which two recipes differ."""
    left, right = (dict(leaves(by_number(recipe.to_dict()))) for recipe in (a, b))
    return [
        f"{key}: {left.get(key)!r}, {right.get(key)!r}"
        for key in sorted(left.keys() | right.keys())
        if of_any_set(key) not in ignore and left.get(key) != right.get(key)
    ]


def folded(tree: dict[str, Any]) -> dict[str, Any]:
    """Merge `also` into `dataset`, as in recipe files: a single group of keys or a list of groups."""
    also = tree.pop("also")
    return tree | {"dataset": [tree["dataset"], *also]} if also else tree


def by_number(tree: dict[str, Any]) -> dict[str, Any]:
    """Convert a list of data sets to a mapping from indices, for keys such as dataset.0.root."""
    sets = tree.get("dataset")
    if not isinstance(sets, list):
        return tree
    return tree | {"dataset": {str(number): each for number, each in enumerate(sets)}}


def unfolded(tree: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `folded`."""
    sets = tree.get("dataset")
    return tree | {"dataset": sets[0], "also": sets[1:]} if isinstance(sets, list) else tree


def of_any_set(key: str) -> str:
    """Remove the index of the data set from a key: dataset.0.root -> dataset.root."""
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
            "optim.nesterov: expected optim.name=sgd and optim.momentum above 0, or false, got true"
        )
    if not isinstance(recipe.model.get("name"), str):
        raise ValueError(
            f"model.name: expected the name of a registered model, got {recipe.model.get('name')!r}"
        )


def _check_group(group: Any, prefix: str) -> None:
    """Check the bounds of all numbers and the item types of all lists in a group of keys."""
    for entry in fields(group):
        key, value = prefix + entry.name, getattr(group, entry.name)
        if is_dataclass(value):
            _check_group(value, f"{key}.")
        elif isinstance(value, list):
            (kind,) = get_args(entry.type)
            if not all(isinstance(item, kind) for item in value):  # OmegaConf does not reject nested lists
                raise ValueError(f"{key}: expected a list of {kind.__name__}, got {value}")
            for number, item in enumerate(value):
                if is_dataclass(item):
                    _check_group(item, f"{key}[{number}].")
        bounds = entry.metadata.get("bounds", {})
        if not all(_COMPARISONS[name](item, bounds[name]) for name in bounds for item in items(value)):
            expected = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items())
            raise ValueError(f"{key}: expected {expected}, got {value}")


def items(value: Any) -> Iterator[Any]:
    """Yield the value itself, or the values in nested lists and dicts."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from items(item)
    else:
        yield value


def escaped(value: Any) -> Any:
    """Escape `${` in all strings, so that OmegaConf does not interpolate them."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value
