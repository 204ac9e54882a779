"""The identity memory of a model, filled before its training."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vreid_ext.data import TrackletDataset
from vreid_ext.engine.build import black_box_of, transforms_of
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.recipe import Recipe


@runtime_checkable
class Remembering(Protocol):
    """A model with an identity memory (`models.TFCLIP`)."""

    memory: Tensor | None

    def describe(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        """The rows (B,D) that the memory averages."""

    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Set the memory from features (N,D) of tracklets and their labels (N,)."""


def fill_memory(model: nn.Module, data: TrackletDataset, recipe: Recipe, device: torch.device) -> None:
    """Fill the memory of a model that has one from its features of all training tracklets.

    The tracklets are transformed and sampled as in the evaluation, with the clip length of the training.
    Under `torchrun`, the processes share the work.
    """
    if not isinstance(model, Remembering) or model.memory is None:
        return
    features = extract_features(
        model, data.train,
        frames=recipe.input.frames, sampling=recipe.eval.sampling, transform=transforms_of(recipe.input)[1],
        chunk=recipe.eval.chunk, workers=recipe.train.workers, device=device, forward=model.describe,
        black_box=black_box_of(recipe.dataset), seed=recipe.seed,
    )  # fmt: skip
    labels = torch.tensor([data.labels[tracklet.pid] for tracklet in data.train], dtype=torch.int64)
    model.remember(features.to(device), labels.to(device))
