"""Proposal of a recipe for a folder of tracklets: the settings follow from what the folder contains."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vreid_ext._files import whole_file
from vreid_ext.data import DatasetError, Tracklet, TrackletDataset, build_dataset
from vreid_ext.data.detect import detect_dataset
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.recipe import escaped

_SIZES = 200  # images whose size is read
_SPLIT = 0.5  # share of the persons for training, if the folder has no splits


@dataclass(frozen=True)
class Survey:
    """What a folder contains, as far as the settings of a recipe depend on it.

    Attributes:
        data: the data set, with the split that the recipe uses.
        options: options of the data set in the recipe.
        heights, widths: smallest, median and largest size of the images in pixels, from up to 200 images.
        lengths: smallest, lower quartile, median and largest number of frames of a training tracklet.
        persons: number of training persons.
        per_person: median number of training tracklets of a person.
        matched: number of queries with a match in the gallery.
        cameras: number of cameras of the test tracklets; 0 if every tracklet counts as a camera of its own.
        notes: sentences about limits of the data, for the reader of the recipe.
    """

    data: TrackletDataset
    options: dict[str, Any]
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    lengths: tuple[int, int, int, int]
    persons: int
    per_person: int
    matched: int
    cameras: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """Settings of a recipe; the names are those of the keys. `steps` is the number of optimizer steps."""

    height: int
    width: int
    frames: int
    p: int
    k: int
    epochs: int
    steps: int
    pooling: str
    backbone: str


def survey(root: str | os.PathLike[str]) -> Survey:
    """Look at a folder of tracklets in any of the known layouts.

    A folder without splits is split by persons into two halves, if there are at least four persons.

    Raises:
        DatasetError: unknown layout (`data.detect.detect_dataset`), fewer than two persons for training, or
            no query with a match in the gallery, so that nothing can be evaluated.
    """
    data = detect_dataset(root)
    everyone = {tracklet.pid for split in (data.train, data.query, data.gallery) for tracklet in split}
    if len(everyone) < 2:
        raise DatasetError(
            f"root: expected tracklets of at least two persons, got one person in {root}, read as "
            f"{data.name} ({len(data.train)} tracklets, the first is {data.train[0].name}). If these are "
            "several persons, use the folder that contains one folder per person"
        )
    options: dict[str, Any] = {"on_error": "skip"} if data.skipped else {}
    notes = []
    matched = Comparison(data).count_matched()
    if not matched:
        raise DatasetError(_without_matches(data))
    if data.train == data.query:  # no splits
        try:
            halves = build_dataset(data.name, root, split=_SPLIT, **options) if len(everyone) > 3 else None
        except ValueError:  # the fraction leaves no person for one of the halves
            halves = None
        if halves is not None and (in_halves := Comparison(halves).count_matched()):
            data, matched = halves, in_halves
            options["split"] = _SPLIT
        else:
            notes.append(
                "The same persons train and test, because there are too few to divide: the figures show "
                "that the system works, not how well it finds persons that it has not seen."
            )
    per_person = Counter(tracklet.pid for tracklet in data.train)
    if len(per_person) < 2:
        raise DatasetError(f"root: expected at least two persons for training, got one in {root}")
    cameras = len({tracklet.camid for tracklet in (*data.query, *data.gallery)})
    if "one camera" in data.protocol:
        cameras = 0
        notes.append(
            "There is one camera, so every tracklet is compared with the other tracklets of the same camera. "
            "This is easier than the search across cameras, and its figures cannot be compared with those."
        )
    if data.skipped:
        notes.append(f"{len(data.skipped)} tracklets cannot be used; `vreid data` lists them.")
    lengths = [len(tracklet) for tracklet in data.train]
    return Survey(
        data=data,
        options=options,
        heights=_three(heights_widths := _sizes([*data.train, *data.query]), 0),
        widths=_three(heights_widths, 1),
        lengths=tuple(int(each) for each in np.quantile(lengths, (0, 0.25, 0.5, 1), method="lower")),
        persons=len(per_person),
        per_person=int(np.median(list(per_person.values()))),
        matched=matched,
        cameras=cameras,
        notes=tuple(notes),
    )


def propose(found: Survey, *, gpu: bool, weights: str = "imagenet") -> Proposal:
    """Choose the settings for a folder.

    Without a GPU they are those of docs/accuracy.md, as far as the data allows; with one, images, batches and
    the network are larger.
    """
    tall, aspect = found.heights[1], found.heights[1] / found.widths[1]
    height = int(np.clip(64 * round(tall / 64), 64, 256 if gpu else 128))
    width = int(np.clip(16 * round(height / aspect / 16), 16, height))
    frames = max(1, min(4, found.lengths[1]))
    p = min(16 if gpu else 8, found.persons)
    k = 4 if gpu and found.per_person >= 4 else 2
    passes = 20 if weights == "none" else 6
    needed = max(60, -(-passes * len(found.data.train) // (p * k)))
    in_epoch = found.persons // p
    epochs = -(-needed // in_epoch)
    return Proposal(
        height=height,
        width=width,
        frames=frames,
        p=p,
        k=k,
        epochs=epochs,
        steps=epochs * in_epoch,
        pooling="consensus" if frames > 2 else "frame",
        backbone="resnet50" if gpu else "mobilenet_v2",
    )


def write_proposal(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    weights: str = "imagenet",
    gpu: bool | None = None,
    force: bool = False,
) -> tuple[Survey, Proposal]:
    """Look at a folder of tracklets, and write a recipe for it in which comments explain the settings.

    Args:
        root: folder of the tracklets, in any of the known layouts.
        out: the recipe, a new `.yaml` file.
        weights: initial weights of the network, see `models.build_backbone`.
        gpu: whether the recipe is for a GPU; None: if there is one.
        force: replace an existing file.

    Raises:
        FileExistsError: the file exists already.
        DatasetError: the folder cannot be used, see `survey`.
        ValueError: `out` is not a YAML file, or `weights` is not a file.
    """
    out = Path(out)
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"out: expected a file that ends in .yaml, got {out}")
    if out.exists() and not force:
        raise FileExistsError(f"out: expected a new file, got {out}, which exists; --force replaces it")
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ValueError(f"weights: expected imagenet, none or an existing file, got {weights!r}")
    gpu = torch.cuda.is_available() if gpu is None else gpu
    found = survey(root)
    proposal = propose(found, gpu=gpu, weights=weights)
    text = _recipe(found, proposal, Path(root), out, weights, gpu)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        checked = temporary.with_name(f"{temporary.name}.yaml")  # `load_recipe` reads files of this suffix
        try:
            checked.write_text(text, encoding="utf-8")
            load_recipe(checked)
            checked.replace(temporary)
        finally:
            checked.unlink(missing_ok=True)
    return found, proposal


def _without_matches(data: TrackletDataset) -> str:
    tracklets = {tracklet.paths: tracklet for tracklet in (*data.query, *data.gallery)}.values()
    repeated = max(Counter(tracklet.pid for tracklet in tracklets).values())
    if repeated == 1:
        return (
            f"root: expected persons with at least two tracklets, got {len(tracklets)} tracklets of as many "
            f"persons in {data.root}: no query has a match, and training has no pairs. Name the persons "
            "(`vreid tracklets --boxes`), or use a trained model (`vreid extract`, `vreid search`)"
        )
    return (
        f"root: expected persons in more than one camera, got none among the queries of {data.root}, read as "
        f"{data.name}, whose protocol ignores the tracklets of the query's own camera. For one camera, use "
        "the layout of tracklet_folder"
    )


def _sizes(tracklets: Sequence[Tracklet]) -> list[tuple[int, int]]:
    """(height, width) of images from evenly spaced tracklets. Only the headers of the files are read."""
    sizes = []
    for tracklet in tracklets[:: max(1, len(tracklets) // _SIZES)]:
        path = tracklet.paths[len(tracklet) // 2]
        try:
            with Image.open(path) as image:
                sizes.append((image.height, image.width))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: cannot read the size of this image ({error})") from error
    return sizes


def _three(sizes: Sequence[tuple[int, int]], axis: int) -> tuple[int, int, int]:
    values = [size[axis] for size in sizes]
    return min(values), int(np.median(values)), max(values)


def _text(value: str) -> str:
    """A YAML string that OmegaConf does not interpolate."""
    return json.dumps(escaped(value), ensure_ascii=False)


def _range(low: int, median: int, high: int) -> str:
    return f"{median}" if low == high else f"{low} to {high}, {median} in the median"


def _recipe(
    found: Survey, proposal: Proposal, root: Path, out: Path, weights: str, gpu: bool
) -> str:
    data, low, lengths = found.data, proposal, found.lengths
    root, folder = Path(os.path.abspath(root)), Path(os.path.abspath(out)).parent
    place = os.fspath(root.relative_to(folder) if root.is_relative_to(folder) else root)
    start = weights if weights in ("imagenet", "none") else os.path.abspath(weights)
    options = ", ".join(f"{name}: {value}" for name, value in found.options.items())
    cameras = f"{found.cameras} cameras" if found.cameras else "one camera"
    lines = ["# A proposal of `vreid init`. Change any setting here, or on the command line:"]
    lines += ["#     vreid train FILE optim.lr=1e-4", "#"]
    lines += [f"#     {line}" for line in data.summary().splitlines()[1:5]]  # the table
    lines += [
        "#",
        f"# {found.matched} of {len(data.query)} queries have a match in the gallery ({cameras}). "
        f"Protocol: {data.protocol}."
    ]
    lines += [f"# {note}" for note in found.notes]
    lines += ["", "dataset:", f"  name: {data.name}", f"  root: {_text(place)}"]
    if options:
        lines += [f"  options: {{{options}}}"]
        if "split" in found.options:
            lines[-1] += "  # half of the persons train, the others test; null: all of them do both"
    lines += [
        "",
        "model:",
        "  name: sta",
        f"  backbone: {low.backbone}"
        + ("" if gpu else "  # small enough for a CPU; use resnet50 on a GPU"),
        f"  weights: {_text(start)}  # imagenet (downloaded once), the path of a file, or none",
        "  neck: bn",
    ]
    if low.pooling == "consensus":
        lines += [
            "  # Frames are trained one by one. In evaluation, a part of a frame that disagrees with the other",
            "  # frames of the tracklet counts less, which helps if some frames show occlusions.",
        ]
    else:
        lines += [f"  # With {low.frames} frames per clip there is nothing to weight: features are averaged."]
    lines += [f"  pooling: {low.pooling}", "  regularizer: false", ""]
    lines += [
        "input:",
        f"  height: {low.height}  # the images are {_range(*found.heights)} pixels high; a multiple of 64",
        f"  width: {low.width}  # and {_range(*found.widths)} pixels wide; keeps the median shape",
        f"  # T: training tracklets have {lengths[0]} to {lengths[3]} frames, three of four at least "
        f"{lengths[1]}; more than 4 are rarely better.",
        f"  frames: {low.frames}",
        "  sampling: restricted  # one random frame from each of T equal parts",
        "  flip: 0.5",
        "",
        "batch:",
        f"  # P: {found.persons} persons in training. A batch of {low.p} x {low.k} clips of {low.frames} frames "
        f"has {low.p * low.k * low.frames} images;",
        f"  # {'16 persons are usual on a GPU' if gpu else 'more than 8 persons are slow without a GPU'}.",
        f"  p: {low.p}",
        f"  # K: a person has {found.per_person} training tracklet{'s' if found.per_person != 1 else ''} in the "
        "median; the triplet loss needs at least 2 clips per person,",
        "  # which may be different frames of the same tracklet.",
        f"  k: {low.k}",
        "",
        "loss: {softmax: 1.0, triplet: 1.0, margin: 0.3}",
    ]
    if start == "none":
        lines += ["optim: {name: adam, lr: 5.0e-4, weight_decay: 5.0e-4}"]
    else:
        lines += [
            "optim:",
            "  {name: adam, lr: 3.0e-4, weight_decay: 5.0e-4, groups: [{parts: [classifier], lr_factor: 10}]}",
        ]
    lines += [
        "schedule: "
        f"{{name: cosine, milestones: [], warmup_epochs: {max(1, low.epochs // 20)}, warmup_factor: 0.1}}"
    ]
    if start != "none" and not gpu:
        frozen = ", ".join(f"backbone.features.{number}" for number in range(4))
        lines += [
            "# The first blocks keep their initial weights, which saves time and suits small sets.",
            f"stages: [{{epochs: {low.epochs}, freeze: [{frozen}]}}]",
        ]
    passes = low.steps * low.p * low.k / len(data.train)
    lines += [
        "",
        "train:",
        f"  # {low.steps} steps: every training tracklet is used about {passes:.0f} times. The loss in the log "
        "shows whether more help.",
        f"  epochs: {low.epochs}",
        f"  workers: {4 if gpu else 0}",
        f"  checkpoint_every: {max(1, low.epochs // 8)}",
        "  channels_last: true",
        "",
        "# One clip of evenly spaced frames per tracklet. sampling: dense uses all frames, which is slower.",
        f"eval: {{sampling: evenly, frames: [{low.frames}], metric: cosine}}",
        "",
    ]
    return "\n".join(lines)
