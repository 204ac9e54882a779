"""Embeddings of all processes, for losses that compare samples."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) outside `torchrun`."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rank, ctx.size = world()
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(ctx.size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every process has computed the same loss, so its own rows of the gradient are all that it needs;
        # DistributedDataParallel then divides by the number of processes, which is taken out here.
        (grad,) = grads
        return grad[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows] * ctx.size


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows (n,...) of all processes, (n * processes,...), in the order of ranks.

    The gradient is the one that makes DistributedDataParallel's mean over processes equal to the gradient
    of a loss that every process computes on the gathered rows. All processes must hold as many rows.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor (n,...), got {type(x).__name__}")
    _, size = world()
    return x if size == 1 else _Gather.apply(x)
