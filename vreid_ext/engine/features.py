"""Extraction of the features of a recipe's test tracklets, and their storage in folders."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.data import Tracklet
from vreid_ext.data.names import nfc
from vreid_ext.distributed import default_device
from vreid_ext.engine.build import black_box_of, corruption_of, one_dataset_of, transforms_of
from vreid_ext.engine.comparison import Comparison, metric_of
from vreid_ext.engine.extract import extract_blocks
from vreid_ext.engine.flip import Mirrored
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.features.stored import StoredFeatures
from vreid_ext.features.write import store_features


def export_features(
    checkpoint: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[StoredFeatures]:
    """Extract the query and gallery features of a checkpoint's data set, and write them to `out`.

    The format is described in `features.format`. An interrupted call is resumed: features that are already in
    `out` are not extracted again. If the recipe has several test lengths, each has its own folder
    `out/<frames>`. Under `torchrun`, the processes share the work.

    Args:
        checkpoint: checkpoint or run folder.
        out: output folder.
        overrides: see `evaluate_checkpoint`.
        progress: called as `progress(clips_done, total_clips)`.

    Returns:
        The feature folders, one for each test length.

    Raises:
        ValueError: `out` contains other files, or features of another model, recipe or data set.
    """
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    test = Comparison(one_dataset_of(recipe))
    device = default_device()
    model.to(device)
    return [
        stored_features(model, test, recipe, frames, Path(out), device=device, progress=progress)
        for frames in recipe.eval.frames
    ]


def stored_features(
    model: nn.Module,
    test: Comparison,
    recipe: Recipe,
    frames: int,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> StoredFeatures:
    """Open the features of a test set in `folder`, and extract those that are missing.

    If the recipe has several test lengths, the folder is `folder/<frames>`. Under `torchrun`, the processes
    share the extraction.

    Raises:
        ValueError: the folder contains other files, or features of another model, recipe or data set.
    """

    def embed(blocks: Sequence[range]) -> Iterator[dict[str, Tensor]]:
        options = extraction(model, recipe, test, frames, device, progress)
        for rows in extract_blocks(model, test.tracklets, blocks, **options):
            yield parts(model, rows)

    metric = metric_of(model, recipe)
    return store_features(
        folder if len(recipe.eval.frames) == 1 else folder / str(frames),
        identity_of(model, recipe, frames, test.tracklets),
        [
            {
                "name": item.name,
                "pid": item.pid,
                "camid": item.camid,
                "frames": len(item),
                "images": images_of(item),
            }
            | ({"tags": dict(item.tags)} if item.tags else {})
            for item in test.tracklets
        ],
        embed,
        splits={"query": test.query, "gallery": test.gallery},
        shard_rows=recipe.eval.shard,
        metric=None if callable(metric) else metric,
        protocol=test.dataset.protocol,
        junk=test.dataset.junk,
        junk_tags=dict(test.dataset.junk_tags),
        root=os.path.abspath(test.dataset.root),
    )


def extraction(
    model: nn.Module,
    recipe: Recipe,
    test: Comparison,
    frames: int,
    device: torch.device | str,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Keyword arguments of `extract_features` and `extract_blocks` for the test clips of a recipe."""
    forward = _feature_then_attributes(model) if streams(model) else model
    return {
        "frames": frames,
        "sampling": recipe.eval.sampling,
        "transform": transforms_of(recipe.input)[1],
        "chunk": recipe.eval.chunk,
        "workers": recipe.train.workers,
        "device": device,
        "progress": progress,
        "forward": Mirrored(forward) if recipe.eval.flip else forward,
        "black_box": black_box_of(recipe.dataset),
        "corruption": corruption_of(recipe.eval, test.dataset),
        "seed": recipe.seed,
    }


def parts(model: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Split rows of `_feature_then_attributes` into "features" and, if there are any, "attributes"."""
    width = sum(sum(sizes.values()) for sizes in streams(model).values())
    feature, logits = rows.split([rows.shape[1] - width, width], 1)
    return {"features": feature} | ({"attributes": logits} if width else {})


def streams(model: nn.Module) -> dict[str, dict[str, int]]:
    """Number of classes of each attribute, for each attribute stream of a model; empty if it has none."""
    sizes: dict[str, dict[str, int]] = getattr(model, "attribute_sizes", {})
    return sizes


def _feature_then_attributes(model: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Forward function that concatenates the feature and all attribute logits, so one pass computes both."""

    def forward(clips: Tensor, valid: Tensor | None) -> Tensor:
        return torch.cat(model.feature_and_attributes(clips, valid), 1)  # type: ignore[operator]

    return forward


def identity_of(
    model: nn.Module, recipe: Recipe, frames: int, tracklets: Sequence[Tracklet]
) -> dict[str, Any]:
    """Everything that determines the features, except the images: values by recipe key, and digests."""
    joints = {str(n): item.joints for n, item in enumerate(tracklets) if item.joints is not None}
    optional: dict[str, Any] = {"seed": recipe.seed} if recipe.eval.sampling == "random" else {}
    if recipe.eval.flip:
        optional["eval.flip"] = True
    if recipe.eval.corrupt:
        optional["eval.corrupt"] = [recipe.eval.corrupt, recipe.eval.corrupt_seed]
    return optional | {
        "weights": sha256(model.state_dict()),
        "model": {key: value for key, value in recipe.model.items() if key != "weights"},
        "input.height": recipe.input.height,
        "input.width": recipe.input.width,
        "eval.sampling": recipe.eval.sampling,
        "eval.frames": frames,
        "dataset.name": recipe.dataset.name,
        "dataset.options": {key: value for key, value in recipe.dataset.options.items() if value is not None},
        "dataset.joints": sha256(joints) if joints else None,
        "dataset.black_box": [recipe.dataset.black_box, recipe.dataset.black_box_seed],
    }


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def images_of(tracklet: Tracklet) -> str:
    """Digest of the file names of a tracklet's images, in order. It does not depend on their folder."""
    names = "/".join(nfc(os.path.basename(path)) for path in tracklet.paths)
    return hashlib.sha256(os.fsencode(names)).hexdigest()[:16]
