"""Which frames of a tracklet make a clip."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Sampling = Literal["random", "evenly", "restricted", "consecutive", "first_of_chunk"]


def sample_clip(
    num_frames: int, frames: int, how: Sampling = "restricted", generator: torch.Generator | None = None
) -> Tensor:
    """Frame indices of one clip, ascending.

    With n = num_frames, T = frames and chunk i = [floor(i n / T), floor((i + 1) n / T)), `how` is

        "random"          T frames without replacement; if n < T every frame and T - n more with replacement
        "evenly"          round(i (n - 1) / (T - 1)): equal steps, first to last frame; the middle if T = 1
        "restricted"      one random frame of each chunk (restricted random sampling; DRSTA, section 3.1)
        "consecutive"     T neighbours from a random start; if n < T all frames, the last one repeated
        "first_of_chunk"  the first frame of each chunk, the usual test clip beside "restricted"

    A chunk that is empty because n < T gives the frame floor(i n / T).

    Args:
        num_frames: n, frames of the tracklet.
        frames: T, frames of the clip.
        how: see above.
        generator: source of randomness, torch's default one if None; "evenly" and "first_of_chunk" draw
            nothing.

    Returns:
        (T,) int64 in [0, n).

    Raises:
        ValueError: num_frames or frames below 1, unknown `how`.
    """
    n, t = _at_least_one("num_frames", num_frames), _at_least_one("frames", frames)
    if how == "random":
        extra = torch.randint(n, (max(t - n, 0),), generator=generator)
        return torch.cat([torch.randperm(n, generator=generator)[:t], extra]).sort().values
    if how == "evenly":
        if t == 1:
            return torch.tensor([n // 2], dtype=torch.int64)
        # Integer arithmetic: round half up, exact for every n.
        return (2 * torch.arange(t) * (n - 1) + (t - 1)) // (2 * (t - 1))
    if how == "consecutive":
        start = int(torch.randint(max(n - t, 0) + 1, (), generator=generator))
        return torch.arange(start, start + t).clamp_(max=n - 1)
    if how in ("restricted", "first_of_chunk"):
        edges = torch.arange(t + 1) * n // t
        first, size = edges[:-1], edges.diff().clamp_(min=1)
        if how == "first_of_chunk":
            return first
        # float64 keeps floor(u * size) below size for every u < 1 that a float64 uniform can be.
        return first + (torch.rand(t, generator=generator, dtype=torch.float64) * size).long()
    raise ValueError(f"how: expected one of {', '.join(get_args(Sampling))}, got {how!r}")


def dense_clips(num_frames: int, frames: int) -> tuple[Tensor, Tensor]:
    """All frames of a tracklet as N = ceil(n / T) consecutive clips: indices (N,T) int64, valid (N,T) bool.

    The last clip is filled up with the last frame, and valid is False there.
    Raises ValueError if num_frames or frames is below 1.
    """
    n, t = _at_least_one("num_frames", num_frames), _at_least_one("frames", frames)
    index = torch.arange(-(-n // t) * t).view(-1, t)
    return index.clamp(max=n - 1), index < n


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)
