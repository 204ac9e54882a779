"""Everything that would end a run after hours of training, checked before its first step."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import torch
from torch import nn

from vreid_ext.data import TrackletDataset, read_image, sample_clip
from vreid_ext.distributed import world
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.evaluate import evaluate_sets
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.seeds import seed_of


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


def images_of(recipe: Recipe, test: Comparison) -> list[tuple[str, ...]]:
    """The images that the recipe's evaluation reads of each tracklet of a test set."""
    return [
        tuple(tracklet.paths[frame] for frame in _test_frames(len(tracklet), place, recipe))
        for place, tracklet in enumerate(test.tracklets)
    ]


def check_images(images: Iterable[Sequence[str]], progress: Callable[[int, int], None] | None = None) -> None:
    """Decode the images of tracklets; processes share them.

    Raises:
        DatasetError: naming an image that cannot be read.
    """
    rank, size = world()
    share = list(images)[rank::size]

    def read(paths: Sequence[str]) -> None:
        for path in paths:
            read_image(path)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(read, share), start=1):
            if progress is not None:
                progress(done, len(share))


def rehearse_evaluation(
    model: nn.Module, datasets: Iterable[TrackletDataset], recipe: Recipe, device: torch.device | str
) -> None:
    """Evaluate one query with one match of every data set in every test length, for the errors that an
    evaluation may raise.
    """
    pairs = []
    for each in datasets:
        query, match = Comparison(each).first_match()
        pairs.append(replace(each, query=[each.query[query]], gallery=[each.gallery[match]]))
    evaluate_sets(model, pairs, replace(recipe, train=replace(recipe.train, workers=0)), device=device)


def _test_frames(count: int, place: int, recipe: Recipe) -> Iterable[int]:
    """The frames that an evaluation takes of the tracklet at this place, which has so many."""
    sampling = recipe.eval.sampling
    if sampling == "dense":
        return range(count)

    def clip(frames: int) -> list[int]:
        drawn = torch.Generator().manual_seed(seed_of(recipe.seed, place))
        indices: list[int] = sample_clip(count, frames, sampling, drawn).tolist()
        return indices

    clips = map(clip, recipe.eval.frames)
    return sorted(set(chain.from_iterable(clips)))
