"""Extraction of tracklet features. The chunk size bounds the memory use, also for long tracklets."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext.data.clips.corruption import Corruption
from vreid_ext.data.clips.dataset import ClipDataset
from vreid_ext.data.clips.occlusion import BlackBox
from vreid_ext.data.clips.sampling import count_clips
from vreid_ext.data.records import Tracklet
from vreid_ext.distributed import interleave, world
from vreid_ext.engine.loader import load
from vreid_ext.engine.seeds import seed_of


def extract_features(
    model: nn.Module,
    tracklets: Sequence[Tracklet],
    *,
    chunk: int = 32,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Tensor:
    """Extract one feature per tracklet: the mean of the model's features of its clips.

    Args:
        model, tracklets, chunk, device, options: see `extract_blocks`.

    Returns:
        (N,D) float32 on the CPU, in the order of `tracklets`. Under `torchrun`, the processes share the work
        and each returns all rows. The composition of each forward pass does not depend on the number of
        processes.

    Raises:
        ValueError: no tracklets, or chunk is less than 1.
    """
    if not tracklets:
        raise ValueError("tracklets: expected at least one, got none")
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    rank, size = world()
    count = len(tracklets)
    blocks = [range(first, min(first + chunk, count)) for first in range(0, count, chunk)]
    share = blocks[rank::size] or blocks[:1]
    rows = extract_blocks(model, tracklets, share, chunk=chunk, device=device, **options)
    full = torch.stack([F.pad(block, (0, 0, 0, chunk - len(block))) for block in rows])
    return interleave(full.to(device), len(blocks)).flatten(0, 1)[:count].cpu()


@torch.no_grad()
def extract_blocks(
    model: nn.Module,
    tracklets: Sequence[Tracklet],
    blocks: Sequence[Sequence[int]],
    *,
    frames: int,
    sampling: Literal["evenly", "first_of_chunk", "dense", "random"] = "evenly",
    transform: Callable[[Tensor], Tensor],
    chunk: int = 32,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    forward: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    black_box: BlackBox | None = None,
    corruption: Corruption | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Extract features block by block; yields the features (n,D) of each block once they are complete.

    Args:
        model: module with forward(clips (B,T,3,h,w), valid (B,T) | None) -> (B,D). It is set to evaluation
            mode during the extraction. Batch entries named in its attribute `takes` (e.g. joints) are passed
            as keyword arguments if the tracklets have them.
        blocks: lists of indices into `tracklets`. The features of a block depend only on its own tracklets.
        frames: T, number of frames per clip.
        sampling: "evenly" or "first_of_chunk": one clip of T frames per tracklet. "dense": all n frames in
            ceil(n / T) clips, the last one padded and masked by `valid`. "random": one random clip, which
            depends only on `seed` and the index of the tracklet.
        transform: (T,3,h,w) uint8 -> (T,3,H,W) float32.
        chunk: maximum number of clips per forward pass. A forward pass may contain clips of several tracklets
            of a block, and the clips of a tracklet may be split over several forward passes.
        workers: number of worker processes that decode images; 0: decode in the main process.
        progress: called as `progress(clips_done, total_clips)`.
        forward: function called instead of `model`, with the same arguments, to compute the rows.
        black_box: occludes a part of every frame.
        corruption: corrupts some frames.
        seed: random seed of "random".
    """
    selected = [tracklets[index] for block in blocks for index in block]
    dataset = ClipDataset(selected, frames, sampling, transform, black_box=black_box, corruption=corruption)

    number = itertools.count()
    items = [
        [
            (next(number), seed_of(seed, index))
            for index in block
            for _ in range(count_clips(len(tracklets[index]), frames, sampling))
        ]
        for block in blocks
    ]
    batches = [[part[i : i + chunk] for i in range(0, len(part), chunk)] for part in items]
    loader = load(dataset, list(itertools.chain(*batches)), workers)
    was_training = model.training
    model.eval()
    first = done = 0
    try:
        for block, part in zip(blocks, batches, strict=True):
            total: Tensor | None = None
            count = torch.zeros(len(block), 1, dtype=torch.float32, device="cpu")
            for batch in (next(loader) for _ in part):
                feature = features_of(batch, forward or model, getattr(model, "takes", ()), device)
                if total is None:
                    total = feature.new_zeros(len(block), feature.shape[1])
                row = batch["index"] - first
                total.index_add_(0, row, feature)
                count.index_add_(0, row, feature.new_ones(len(feature), 1))
                done += len(feature)
                if progress is not None:
                    progress(done, len(dataset))
            assert total is not None
            yield total / count
            first += len(block)
    finally:
        model.train(was_training)


def features_of(
    batch: Mapping[str, Tensor],
    forward: Callable[..., Tensor],
    takes: Sequence[str],
    device: torch.device | str,
) -> Tensor:
    """Features (n,D) float32 on the CPU of a batch of clips of `ClipDataset`.

    Args:
        forward: called with the clips, `valid` and the entries of the batch named in `takes`.
    """
    valid = batch["valid"].to(device) if "valid" in batch else None
    inputs = {name: batch[name].to(device) for name in takes if name in batch}
    return forward(batch["clip"].to(device), valid, **inputs).float().cpu()
