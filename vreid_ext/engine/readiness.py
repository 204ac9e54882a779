"""Everything that would end a run after hours of training, checked before its first step."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import torch
from torch import nn

from vreid_ext.data import Tracklet, TrackletDataset, read_image, sample_clip
from vreid_ext.engine.config import Recipe
from vreid_ext.engine.evaluate import TestSet, evaluate_model
from vreid_ext.losses.gather import world


def check_batch(recipe: Recipe, model: nn.Module) -> None:
    """See that batches hold the pairs that the losses compare, and as many clips as the model needs.

    Raises:
        ValueError: naming the keys.
    """
    p, k, loss = recipe.batch.p, recipe.batch.k, recipe.loss
    for name in ("triplet", "part_triplet"):
        if getattr(loss, name) and min(p, k) < 2:
            raise ValueError(
                f"batch.p, batch.k: expected at least 2 each, as loss.{name} takes positives and negatives; "
                f"got {p} and {k}"
            )
    for name in ("aitl", "itl"):
        if getattr(loss, name) and k < 2:
            raise ValueError(
                f"batch.k: expected at least 2, as loss.{name} compares the clips of a person; got {k}"
            )
    _, processes = world()
    if p * k == processes and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise ValueError(
            "batch.p, batch.k: expected more than one clip for each process, as the model has batch "
            f"normalisation; got {p} persons x {k} clips for {processes} processes"
        )


def check_images(
    tracklets: Iterable[Tracklet], recipe: Recipe, progress: Callable[[int, int], None] | None = None
) -> None:
    """Decode every image that the recipe's evaluation reads of these tracklets; processes share them.

    Raises:
        DatasetError: naming an image that cannot be read.
    """
    rank, size = world()
    share = list(tracklets)[rank::size]

    def read(tracklet: Tracklet) -> None:
        for frame in _test_frames(len(tracklet), recipe):
            read_image(tracklet.paths[frame])

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(read, share), start=1):
            if progress is not None:
                progress(done, len(share))


def rehearse_evaluation(
    model: nn.Module, dataset: TrackletDataset, recipe: Recipe, device: torch.device | str
) -> None:
    """Evaluate one query with one match in every test length, for the errors that an evaluation may raise."""
    query, match = TestSet(dataset).first_match()
    pair = replace(dataset, query=[dataset.query[query]], gallery=[dataset.gallery[match]])
    evaluate_model(model, pair, replace(recipe, train=replace(recipe.train, workers=0)), device=device)


def _test_frames(count: int, recipe: Recipe) -> Iterable[int]:
    """The frames that an evaluation takes of a tracklet with so many."""
    sampling = recipe.eval.sampling
    if sampling == "dense":
        return range(count)
    clips = (sample_clip(count, frames, sampling).tolist() for frames in recipe.eval.frames)
    return sorted(set(chain.from_iterable(clips)))
