"""What several processes exchange."""

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


def default_device() -> torch.device:
    """The accelerator of this machine, or the CPU."""
    # Without the check a CUDA build of torch answers "cuda" on a machine that has no GPU.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows (n,...) of all processes, (n * processes,...), in the order of ranks.

    The gradient is the one that makes DistributedDataParallel's mean over processes equal to the gradient
    of a loss that every process computes on the gathered rows. All processes must hold as many rows.
    """
    _, size = world()
    return x if size == 1 else _Gather.apply(x)


def mean_over_processes(values: dict[str, Tensor]) -> dict[str, float]:
    """Each scalar averaged over the processes, on the host: one exchange and one wait."""
    stacked = torch.stack([value.detach().float() for value in values.values()])
    _, size = world()
    if size > 1:
        dist.all_reduce(stacked)
        stacked /= size
    return dict(zip(values, stacked.tolist(), strict=True))


def interleave(rows: Tensor, total: int) -> Tensor:
    """Undo the split `items[rank::processes]`: all `total` rows in their order, from each process's share."""
    _, size = world()
    if size == 1:
        return rows
    padded = rows.new_zeros((-(-total // size), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[:total]
