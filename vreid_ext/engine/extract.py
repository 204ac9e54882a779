"""Features of whole tracklets, in memory bounded by the chunk whatever their length."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext.data.clips.dataset import ClipDataset
from vreid_ext.data.clips.occlusion import BlackBox
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
    """One feature per tracklet: the mean over its clips of the model's features.

    Args:
        model, tracklets, chunk, device, options: as for `extract_blocks`.

    Returns:
        (N,D) float32 on the CPU, in the order of `tracklets`. Under `torchrun` every process embeds its share
        and gets all rows; a forward pass holds the same clips for any number of processes.

    Raises:
        ValueError: no tracklets, or chunk below 1.
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
    seed: int = 0,
) -> Iterator[Tensor]:
    """The features (n,D) of a block of tracklets after the other, each as soon as it is complete.

    Args:
        model: `model(clips (B,T,3,h,w), valid (B,T) | None)` gives (B,D) in evaluation mode, into which it
            is put meanwhile. What its attribute `takes` names, and the tracklets have, it gets by name.
        blocks: places in `tracklets`. A block's features depend on nothing outside of it.
        frames: T, frames of a clip.
        sampling: "evenly" or "first_of_chunk" take one clip of T frames from a tracklet, "dense" takes all
            its frames in ceil(n / T) clips, the last one filled up and masked; "random" draws one clip, which
            depends on `seed` and the tracklet's place alone.
        transform: (T,3,h,w) uint8 -> (T,3,H,W) float32.
        chunk: most clips in one forward pass. A chunk may hold clips of several tracklets of a block, and a
            long tracklet is spread over several chunks.
        workers: processes that decode images; 0 decodes in this one.
        progress: called with (clips done, clips in all).
        forward: what gives the rows that are averaged, in the place of `model`; called with the model in
            evaluation mode.
        black_box: hides a part of every frame.
        seed: for "random".
    """
    own = [tracklets[place] for block in blocks for place in block]
    dataset = ClipDataset(own, frames, sampling, transform, black_box=black_box)

    def clips_of(place: int) -> range:
        return range(-(-len(tracklets[place]) // frames) if sampling == "dense" else 1)

    number = itertools.count()
    items = [
        [(next(number), seed_of(seed, place)) for place in block for _ in clips_of(place)] for block in blocks
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
                valid = batch["valid"].to(device) if "valid" in batch else None
                inputs = {
                    name: batch[name].to(device) for name in getattr(model, "takes", ()) if name in batch
                }
                feature = (forward or model)(batch["clip"].to(device), valid, **inputs).float().cpu()
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
