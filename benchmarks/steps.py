"""A run of the package on a few tracklets whose steps, and parts of a step, can be timed."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vreid_ext.data import ClipDataset, PKBatchSampler, Tracklet
from vreid_ext.engine.build import dataset_of, transforms_of
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.loader import load
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.train import _Run

P, K, FRAMES, BATCHES = 4, 2, 4, 2
CLIPS = P * K * BATCHES  # of one call


def recipe_of(root: Path, backbone: str, size: tuple[int, int], pooling: str = "sta", **train: Any) -> Recipe:
    """A recipe with triplet loss, cross-entropy and Adam on a data set in the layout of MARS."""
    options = {"regularizer": True} if pooling == "sta" else {}
    return recipe_from_dict(
        {
            "name": backbone,
            "dataset": {"name": "mars", "root": str(root)},
            "model": {"name": "sta", "pooling": pooling, "neck": "bn", "backbone": backbone, **options},
            "input": {"height": size[0], "width": size[1], "frames": FRAMES, "sampling": "restricted"},
            "batch": {"p": P, "k": K},
            "loss": {"inter_frame": float(pooling == "sta")},
            "train": {"epochs": 1, "workers": 0, "evaluate": False, **train},
            "eval": {"frames": [FRAMES], "chunk": P * K},
        }
    )


class Fixed:
    """A batch sampler that yields the same batches in every epoch."""

    def __init__(self, batches: list[list[tuple[int, int]]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""


class Steps:
    """Trains and extracts with the package's own engine.

    Attributes:
        model: the network that is trained.
        batches: indices of the tracklets of each batch, without the seeds of their clips.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.data = recipe, dataset_of(recipe.dataset)
        self._run = _Run(recipe, out, quiet=True)
        self.model = self._run.model
        pids = [tracklet.pid for tracklet in self.data.train]
        self._run.sampler = Fixed(list(PKBatchSampler(pids, P, K, batches=BATCHES)))  # type: ignore[assignment]
        self.batches = [[index for index, _ in batch] for batch in self._run.sampler]

    def close(self) -> None:
        assert self._run.log is not None
        self._run.log.close()

    @property
    def tracklets(self) -> list[Tracklet]:
        """The tracklets of the batches, for the extraction."""
        return [self.data.train[index] for index in chain(*self.batches)]

    def train(self) -> None:
        """Train one epoch, which consists of the `BATCHES` batches."""
        self._run._train_epoch(0)
        self._run.position.batch, self._run.position.sums = 0, {}

    def extract(self) -> Tensor:
        """Features (CLIPS,D) in batches of P K clips."""
        return extract_features(
            self._run.model, self.tracklets,
            frames=FRAMES, transform=transforms_of(self.recipe.input)[1], chunk=P * K,
        )  # fmt: skip

    def clip(self, index: int) -> Tensor:
        """The test clip (T,3,H,W) of a training tracklet."""
        test = ClipDataset(self.data.train, FRAMES, "evenly", transforms_of(self.recipe.input)[1])
        clip: Tensor = test[index]["clip"]
        return clip

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Functions that do one part of the work of `train` alone, and "backbone", forward and backward."""
        run = self._run
        loaded = list(self._load())
        maps = [run.model.maps(batch["clip"]).detach().requires_grad_() for batch in loaded]  # type: ignore[operator]
        upstream = [torch.randn_like(each) * 1e-3 for each in maps]

        def backbone() -> None:
            for batch, gradient in zip(loaded, upstream, strict=True):
                run.model.maps(batch["clip"]).backward(gradient)  # type: ignore[operator]
                run.optimizer.zero_grad()

        def head() -> None:
            whole, run.model.maps = run.model.maps, None  # type: ignore[assignment]
            try:
                for batch, given in zip(loaded, maps, strict=True):
                    run.model.maps = lambda clips, valid, given=given: given  # type: ignore[assignment, misc]
                    run.objective(run.model(batch["clip"]), batch["label"])["loss"].backward()
                    run.optimizer.zero_grad()
            finally:
                run.model.maps = whole  # type: ignore[assignment]

        gradients = [
            torch.full_like(each, 1e-3) for group in run.optimizer.param_groups for each in group["params"]
        ]

        def optimizer() -> None:
            parameters = chain(*(group["params"] for group in run.optimizer.param_groups))
            for each, gradient in zip(parameters, gradients, strict=True):
                each.grad = gradient
            for _ in loaded:
                run.optimizer.step()
            run.optimizer.zero_grad()

        def log() -> None:
            for _ in loaded:
                run._write("step", epoch=0, softmax=1.0, triplet=1.0, inter_frame=1.0, loss=3.0)
                run.progress.step(0, 1, 3.0)

        return {
            "backbone": backbone,
            "loader": lambda: list(self._load()),
            "head and loss": head,
            "optimizer": optimizer,
            "log": log,
        }

    def _load(self) -> Iterator[dict[str, Any]]:
        return load(self._run.clips, list(self._run.sampler), 0)
