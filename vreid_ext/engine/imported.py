"""A run from a weight file of another package: its backbone with its embedding layer, as an image model."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vreid_ext.engine.build import model_of
from vreid_ext.engine.checkpoint import save_checkpoint
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.models.backbones import from_timm
from vreid_ext.models.fits import backbone_fits
from vreid_ext.weights import matched, read_weights
from vreid_ext.weights.origin import origin_of

_STATISTICS = ("weight", "bias", "running_mean", "running_var")
# Batch normalization before the classifier: fast-reid, strong-baseline and its followers.
_NECKS = ("heads.bottleneck.0.", "heads.bnneck.", "bottleneck.")
_GEM = ("heads.pool_layer.p", "pool_layer.p", "gap.p")


def import_weights(
    source: str | Path, out: str | Path, *, height: int = 256, width: int = 128
) -> dict[str, Any]:
    """Write a run whose model has all weights of a file, so that it can be evaluated without training.

    The model is `sta` with the pooling "frame", the feature of every frame averaged over a tracklet. Its
    embedding is that of the file: Linear, BN and ReLU of torchreid's OSNet (`fc.0`, `fc.1`), or the BNNeck of
    fast-reid, strong-baseline and their followers, or none.

    Args:
        source: a file, a folder or `hf:OWNER/NAME` (`weights.read_weights`).
        out: folder of the run. It must not have a checkpoint.
        height, width: size of the input.

    Returns:
        run, model (its options), classes, and embedding: "fc", "bn" or "none".

    Raises:
        ValueError: no backbone has all its tensors in the file, or the embedding has another form.
    """
    file = read_weights(source)
    fits = [(name, fit) for name, fit in backbone_fits(file.tensors).items() if fit.complete]
    if not fits:
        raise ValueError(
            f"weights: expected a file with all tensors of a backbone, got {str(file.path)!r}; "
            f"`vreid weights` counts what fits"
        )
    name, _ = fits[0]
    origin = origin_of(file)
    given = {key.removeprefix(origin.prefix): value for key, value in file.tensors.items()}
    options, tensors = _embedding(given)
    classes = origin.classifier.classes if origin.classifier else 1
    size = {"input_size": [height, width]} if name.startswith(from_timm.PREFIX) else {}
    recipe = recipe_from_dict(
        {
            "name": file.path.stem,
            "model": {"name": "sta", "pooling": "frame", "backbone": name, **size, **options},
            "input": {"height": height, "width": width},
            "eval": {"frames": [1], "sampling": "dense", "metric": "cosine"},
        }
    )
    recipe.model["weights"] = str(file.path)
    model = model_of(recipe, classes)
    state = model.state_dict()
    if origin.classifier and state["classifier.weight"].shape == file.tensors[origin.classifier.name].shape:
        stem = origin.classifier.name.removesuffix("weight")
        tensors |= {f"classifier.{key}": file.tensors[stem + key] for key in ("weight", "bias")
                    if stem + key in file.tensors and f"classifier.{key}" in state}  # fmt: skip
    expected = {key: value for key, value in state.items() if key in tensors}
    if unknown := tensors.keys() - state.keys():
        raise ValueError(f"weights: expected an embedding of the model, got tensors for {sorted(unknown)}")
    model.load_state_dict(matched(expected, tensors, str(file.path)), strict=False)
    folder = Path(out)
    recipe.model["weights"] = "none"
    save_checkpoint(folder / "checkpoints" / "step-00000000", model, recipe.to_dict(), classes)
    return {
        "run": str(folder),
        "model": recipe.model,
        "classes": classes,
        "embedding": options["neck"] if "bn.weight" in tensors else "none",
    }


def _embedding(given: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options of `STA` and its tensors after the backbone."""
    gem = next((given[key] for key in _GEM if key in given), None)
    cells = {} if gem is None else {"cells": "gem"}
    tensors = {} if gem is None else {"cells.p": gem}
    if {"fc.0.weight", "fc.1.weight"} <= given.keys():
        if "fc.3.weight" in given:
            raise ValueError("weights: expected an embedding of one layer, got several (fc.3.weight)")
        tensors |= {f"bn.{key}": given[f"fc.1.{key}"] for key in _STATISTICS}
        # STA's layer has no bias; BN subtracts the mean, so a bias before it moves the mean.
        tensors["bn.running_mean"] = given["fc.1.running_mean"] - given["fc.0.bias"]
        tensors["fc.weight"] = given["fc.0.weight"]
        return {"neck": "fc", "feature_dim": len(given["fc.0.weight"]), **cells}, tensors
    found = next((neck for neck in _NECKS if f"{neck}running_mean" in given), None)
    if found is None:
        warnings.warn(
            "weights: the file has no embedding layer, so the batch normalization after the pooling has its "
            "initial values",
            stacklevel=3,
        )
        return {"neck": "bn", **cells}, tensors
    return {"neck": "bn", **cells}, tensors | {f"bn.{key}": given[found + key] for key in _STATISTICS}
