"""Proposal of a recipe for a folder of tracklets, with comments that give the reason for each setting."""

import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vreid_ext._files import whole_file
from vreid_ext.engine.recipe import escaped
from vreid_ext.engine.survey import Survey, survey

_PASSES = {"none": 20, "other": 6}  # times that every training tracklet is used
_STEPS = 60  # at least


@dataclass(frozen=True)
class Proposal:
    """Settings of a recipe, named as its keys; `steps` is the number of optimizer steps."""

    height: int
    width: int
    frames: int
    p: int
    k: int
    epochs: int
    steps: int
    pooling: str
    backbone: str


def propose(found: Survey, *, gpu: bool, weights: str = "imagenet") -> Proposal:
    """Choose the settings for a folder.

    Without a GPU they are those of docs/accuracy.md, as far as the data allows. With a GPU, images, batches
    and the network are larger.
    """
    tall, wide = found.heights[1], found.widths[1]
    height = int(np.clip(64 * -(-tall // 64), 64, 256 if gpu else 128))
    width = int(np.clip(16 * round(height * wide / tall / 16), 16, height))
    frames = max(1, min(4, found.lengths[1]))
    p = min(16 if gpu else 8, found.persons)
    k = 4 if gpu and found.per_person >= 4 else 2
    passes = _PASSES.get(weights, _PASSES["other"])
    steps_per_epoch = found.persons // p
    steps = max(_STEPS, passes * len(found.data.train) // (p * k))
    epochs = -(-steps // steps_per_epoch)
    return Proposal(
        height=height,
        width=width,
        frames=frames,
        p=p,
        k=k,
        epochs=epochs,
        steps=epochs * steps_per_epoch,
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
    """Look at a folder of tracklets, and write a recipe for it.

    Args:
        root: folder of the tracklets, in any of the known layouts.
        out: the recipe, a new `.yaml` file.
        weights: initial weights of the network: "imagenet", "none" or the path of a file; see
            `models.build_backbone`.
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
    if weights not in ("imagenet", "none"):
        if not Path(weights).is_file():
            raise ValueError(f"weights: expected imagenet, none or an existing file, got {weights!r}")
        weights = os.path.abspath(weights)
    gpu = torch.cuda.is_available() if gpu is None else gpu
    found = survey(root)
    proposal = propose(found, gpu=gpu, weights=weights)
    text = _recipe(found, proposal, _place(root, out), weights, gpu)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return found, proposal


def _place(root: str | os.PathLike[str], out: Path) -> str:
    """The root as a recipe file in this place names it: relative if it is below the file's folder."""
    folder, absolute = Path(os.path.abspath(out)).parent, Path(os.path.abspath(root))
    return os.fspath(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def _recipe(found: Survey, proposal: Proposal, root: str, weights: str, gpu: bool) -> str:
    data, chosen, lengths = found.data, proposal, found.lengths
    table = "\n".join(f"#     {line}" for line in data.summary().splitlines()[1:5])
    cameras = f"{found.cameras} cameras" if found.cameras > 1 else "one camera"
    facts = [
        f"{found.matched} of {len(data.query)} queries have a match in the gallery ({cameras}). "
        f"Protocol: {data.protocol}.",
        *found.notes,
    ]
    options = ", ".join(f"{name}: {value}" for name, value in found.options.items())
    if "split" in found.options:
        options_line = f"\n  options: {{{options}}}  # half of the persons train; null: all train and test"
    else:
        options_line = f"\n  options: {{{options}}}" if options else ""
    if chosen.pooling == "consensus":
        pooling = _comment(
            "Every frame is trained as an image. In evaluation, a part of a frame that disagrees with the "
            "other frames of its tracklet counts less, which helps if some frames show occlusions.",
            "  ",
        )
    else:
        pooling = f"  # Clips of {chosen.frames} frames are too short to weight the frames: a mean."
    images = chosen.p * chosen.k * chosen.frames
    largest = "16 persons are usual on a GPU" if gpu else "more than 8 persons are slow without a GPU"
    tracklets = "1 training tracklet" if found.per_person == 1 else f"{found.per_person} training tracklets"
    if weights == "none":
        optim = "optim: {name: adam, lr: 5.0e-4, weight_decay: 5.0e-4}"
    else:
        optim = (
            "optim: {name: adam, lr: 3.0e-4, weight_decay: 5.0e-4, "
            "groups: [{parts: [classifier], lr_factor: 10}]}"
        )
    frozen = ""
    if weights != "none" and not gpu:
        parts = ", ".join(f"backbone.features.{number}" for number in range(4))
        frozen = (
            "\n# The first blocks keep their initial weights, which saves time and suits small sets."
            f"\nstages: [{{epochs: {chosen.epochs}, freeze: [{parts}]}}]"
        )
    warmup = max(1, chosen.epochs // 20)
    clips = (
        f"T: of the training tracklets, three of four have at least {lengths[1]} frames, all {lengths[0]} to "
        f"{lengths[3]}. STA's paper uses 4."
    )
    passes = chosen.steps * chosen.p * chosen.k / len(data.train)
    return f"""\
# A proposal of `vreid init`. Change any setting here, or on the command line: vreid train FILE optim.lr=1e-4
#
{table}
#
{_comment(" ".join(facts))}

dataset:
  name: {data.name}
  root: {_quoted(root)}{options_line}

model:
  name: sta
  backbone: {chosen.backbone}{"" if gpu else "  # small enough for a CPU; use resnet50 on a GPU"}
  weights: {_quoted(weights)}  # imagenet (downloaded once), the path of a file, or none
  neck: bn
{pooling}
  pooling: {chosen.pooling}
  regularizer: false

input:
  height: {chosen.height}  # images are {_range(found.heights)} pixels high; up to the next multiple of 64
  width: {chosen.width}  # and {_range(found.widths)} pixels wide; this keeps the shape of the median
{_comment(clips, "  ")}
  frames: {chosen.frames}
  sampling: restricted  # one random frame from each of T equal parts
  flip: 0.5

batch:
  # P: of {found.persons} training persons; {largest}.
  p: {chosen.p}
  # K: the median person has {tracklets}. The triplet loss needs 2 clips of each person, which may be
  # different frames of one tracklet. A batch of P x K clips of T frames has {images} images.
  k: {chosen.k}

loss: {{softmax: 1.0, triplet: 1.0, margin: 0.3}}
{optim}
schedule: {{name: cosine, milestones: [], warmup_epochs: {warmup}, warmup_factor: 0.1}}{frozen}

train:
  # {chosen.steps} steps: every training tracklet is used about {passes:.0f} times.
  epochs: {chosen.epochs}
  workers: {4 if gpu else 0}
  checkpoint_every: {max(1, chosen.epochs // 8)}
  channels_last: true

# One clip of evenly spaced frames per tracklet. `sampling: dense` uses all frames and takes longer.
eval: {{sampling: evenly, frames: [{chosen.frames}], metric: cosine}}
"""


def _comment(text: str, indent: str = "") -> str:
    first = f"{indent}# "
    return textwrap.fill(text, 110, initial_indent=first, subsequent_indent=first, break_long_words=False)


def _quoted(value: str) -> str:
    """A YAML string that OmegaConf does not interpolate."""
    return json.dumps(escaped(value), ensure_ascii=False)


def _range(sizes: tuple[int, int, int]) -> str:
    low, median, high = sizes
    return f"{median}" if low == high else f"{low} to {high} (median {median})"
