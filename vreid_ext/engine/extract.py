"""Features of whole tracklets, in memory bounded by the chunk whatever their length."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vreid_ext.data.clip_dataset import ClipDataset
from vreid_ext.data.occlusion import BlackBox
from vreid_ext.data.records import Tracklet
from vreid_ext.engine.distributed import interleave
from vreid_ext.engine.seeds import seed_of
from vreid_ext.losses.gather import world


@torch.no_grad()
def extract_features(
    model: nn.Module,
    tracklets: Sequence[Tracklet],
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
) -> Tensor:
    """One feature per tracklet: the mean over its clips of the model's features.

    Args:
        model: `model(clips (B,T,3,h,w), valid (B,T) | None)` gives (B,D) in evaluation mode, into which it
            is put for the call. What its attribute `takes` names, and the tracklets have, it gets by name.
        frames: T, frames of a clip.
        sampling: "evenly" or "first_of_chunk" take one clip of T frames from a tracklet, "dense" takes all
            its frames in ceil(n / T) clips, the last one filled up and masked; "random" draws one clip, which
            depends on `seed` and the tracklet's place alone.
        transform: (T,3,h,w) uint8 -> (T,3,H,W) float32.
        chunk: most clips in one forward pass. A chunk may hold clips of several tracklets, and a long
            tracklet is spread over several chunks.
        workers: processes that decode images; 0 decodes in this one.
        progress: called with (clips done, clips in all).
        forward: what gives the rows that are averaged, in the place of `model`; called with the model in
            evaluation mode.
        black_box: hides a part of every frame.
        seed: for "random".

    Returns:
        (N,D) float32 on the CPU, in the order of `tracklets`. Under `torchrun` every process embeds its share
        and gets all rows.

    Raises:
        ValueError: no tracklets, or chunk below 1.
    """
    if not tracklets:
        raise ValueError("tracklets: got none, wanted at least one")
    if chunk < 1:
        raise ValueError(f"chunk: got {chunk}, wanted at least 1")
    rank, size = world()
    share = tracklets[rank::size] or tracklets[:1]
    dataset = ClipDataset(share, frames, sampling, transform, black_box=black_box)
    items = [(index, seed_of(seed, rank + size * index)) for index in range(len(dataset))]
    loader = DataLoader(dataset, batch_size=chunk, num_workers=workers, sampler=items)
    was_training = model.training
    model.eval()
    total: Tensor | None = None
    count = torch.zeros(len(share), 1)
    done = 0
    try:
        for batch in loader:
            valid = batch["valid"].to(device) if "valid" in batch else None
            inputs = {name: batch[name].to(device) for name in getattr(model, "takes", ()) if name in batch}
            feature = (forward or model)(batch["clip"].to(device), valid, **inputs).float().cpu()
            if total is None:
                total = feature.new_zeros(len(share), feature.shape[1])
            total.index_add_(0, batch["index"], feature)
            count.index_add_(0, batch["index"], torch.ones(len(feature), 1))
            done += len(feature)
            if progress is not None:
                progress(done, len(dataset))
    finally:
        model.train(was_training)
    assert total is not None
    return interleave((total / count).to(device), len(tracklets)).cpu()
