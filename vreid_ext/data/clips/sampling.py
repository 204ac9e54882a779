"""Selection of the frames of a clip."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Sampling = Literal["random", "evenly", "restricted", "consecutive", "first_of_chunk"]
"""How the frames of a clip are chosen, see `sample_clip`."""


def sample_clip(
    num_frames: int, frames: int, how: Sampling = "restricted", generator: torch.Generator | None = None
) -> Tensor:
    """Sample the frame indices of one clip, in ascending order.

    With n = num_frames, T = frames and chunk i = [floor(i n / T), floor((i + 1) n / T)), `how` is

        "random"          T frames drawn without replacement; if n < T all frames, and T - n
                          frames drawn with replacement
        "evenly"          round(i (n - 1) / (T - 1)): equal steps from first to last frame; if T = 1 the
                          middle frame
        "restricted"      one random frame of each chunk (restricted random sampling; DRSTA, section 3.1)
        "consecutive"     T consecutive frames from a random start; if n < T all frames, then the last frame
                          repeated
        "first_of_chunk"  the first frame of each chunk, usually the test-time counterpart of "restricted"

    If n < T some chunks are empty; an empty chunk i gives the frame floor(i n / T).

    Args:
        num_frames: n, number of frames of the tracklet.
        frames: T, number of frames of the clip.
        how: see above.
        generator: random number generator; None: torch's default generator. Not used by "evenly" and
            "first_of_chunk".

    Returns:
        (T,) int64 in [0, n).

    Raises:
        ValueError: num_frames or frames is less than 1, or `how` is unknown.
    """
    n, t = _at_least_one("num_frames", num_frames), _at_least_one("frames", frames)
    if how == "random":
        extra = torch.randint(n, (max(t - n, 0),), generator=generator)
        return torch.cat([torch.randperm(n, generator=generator)[:t], extra]).sort().values
    if how == "evenly":
        if t == 1:
            return torch.tensor([n // 2], dtype=torch.int64)
        # Rounds half up in integer arithmetic, which is exact for every n.
        return (2 * torch.arange(t) * (n - 1) + (t - 1)) // (2 * (t - 1))
    if how == "consecutive":
        start = int(torch.randint(max(n - t, 0) + 1, (), generator=generator))
        return torch.arange(start, start + t).clamp_(max=n - 1)
    if how in ("restricted", "first_of_chunk"):
        edges = torch.arange(t + 1) * n // t
        first, size = edges[:-1], edges.diff().clamp_(min=1)
        if how == "first_of_chunk":
            return first
        # In float64, floor(u * size) < size for every uniform u < 1.
        return first + (torch.rand(t, generator=generator, dtype=torch.float64) * size).long()
    raise ValueError(f"how: expected one of {', '.join(get_args(Sampling))}, got {how!r}")


def dense_clips(num_frames: int, frames: int) -> tuple[Tensor, Tensor]:
    """Split a tracklet into N = ceil(n / T) consecutive clips: indices (N,T) int64, valid (N,T) bool.

    The last clip is padded with the last frame; valid is False for padded frames.
    Raises ValueError if num_frames or frames is less than 1.
    """
    n, t = _at_least_one("num_frames", num_frames), _at_least_one("frames", frames)
    index = torch.arange(-(-n // t) * t).view(-1, t)
    return index.clamp(max=n - 1), index < n


def count_clips(num_frames: int, frames: int, how: Sampling | Literal["dense"]) -> int:
    """Number of clips of a tracklet: ceil(n / T) with "dense", otherwise 1."""
    return -(-num_frames // frames) if how == "dense" else 1


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)
