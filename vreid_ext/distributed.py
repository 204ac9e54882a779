"""Distributed processes: the process group and the collectives that training and evaluation use."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vreid_ext._lock import InUseError, one_writer
from vreid_ext._process import launched

# Timeout of collectives, which detects processes that hang. A process that dies is detected at once.
_TIMEOUT = timedelta(minutes=30)

T = TypeVar("T")


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) outside `torchrun`."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def join_processes() -> None:
    """Join the process group of `torchrun`. No-op outside `torchrun` or if a group is already initialized."""
    if not dist.is_available() or dist.is_initialized() or launched("WORLD_SIZE", "1") < 2:
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(launched("LOCAL_RANK") % gpus)
    # NCCL requires one GPU for each process. CPU tensors always use gloo.
    own_gpu = gpus >= launched("LOCAL_WORLD_SIZE")
    dist.init_process_group("cpu:gloo,cuda:nccl" if own_gpu else "gloo", timeout=_TIMEOUT)


def is_main() -> bool:
    """Whether this is rank 0, the process that writes files and prints."""
    rank, _ = world()
    return rank == 0


@contextmanager
def main_writes(
    name: str, target: str | Path, *, inside: bool = False, needed: bool = True
) -> Iterator[None]:
    """`one_writer`, held by the main process on behalf of all. Its error is raised in every process.

    Args:
        needed: whether anything will be written; only the main process's value is used.
    """
    rank, size = world()
    error: list[Exception | None] = [None]
    with ExitStack() as lock:
        if rank == 0 and needed:
            try:
                lock.enter_context(one_writer(name, target, inside=inside))
            except (InUseError, OSError) as caught:
                error = [caught]
        if size > 1:
            dist.broadcast_object_list(error)
        if error[0] is not None:
            raise error[0]
        yield


def wait_for_everyone() -> None:
    _, size = world()
    if size > 1:
        dist.barrier()


def union(items: Iterable[T]) -> list[T]:
    """The items of all processes, sorted."""
    own = list(items)
    _, size = world()
    parts: list[list[T]] = [own] * size
    if size > 1:
        dist.all_gather_object(parts, own)
    return sorted(item for part in parts for item in part)  # type: ignore[type-var]


def default_device() -> torch.device:
    """The accelerator of this machine, or the CPU."""
    # Without check_available, a CUDA build of torch returns "cuda" on a machine without a GPU.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def mean_over_processes(values: dict[str, Tensor]) -> dict[str, float]:
    """Average each scalar over the processes, with one all-reduce and one device synchronization."""
    stacked = torch.stack([value.detach().float() for value in values.values()])
    _, size = world()
    if size > 1:
        dist.all_reduce(stacked)
        stacked /= size
    return dict(zip(values, stacked.tolist(), strict=True))


def interleave(rows: Tensor, total: int) -> Tensor:
    """Gather the rows of the split `items[rank::processes]`: all `total` rows in their original order."""
    _, size = world()
    if size == 1:
        return rows
    padded = rows.new_zeros((-(-total // size), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[:total]


def concatenate(rows: Tensor) -> Tensor:
    """The rows of all processes, in order of rank. Each process may have another number of rows."""
    _, size = world()
    if size == 1:
        return rows
    count = torch.tensor([len(rows)], dtype=torch.int64, device=rows.device)
    counts = [torch.empty_like(count) for _ in range(size)]
    dist.all_gather(counts, count)
    padded = rows.new_zeros((int(torch.cat(counts).max()), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])


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
        # Every process computes the same loss on all rows, so it returns only the gradient of its own rows.
        # The factor cancels the division by the number of processes in DistributedDataParallel.
        (grad,) = grads
        return grad[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows] * ctx.size


def gather_with_gradient(x: Tensor) -> Tensor:
    """All-gather of the rows (n,...) of all processes: (n * processes,...), ordered by rank.

    For a loss that every process computes on the gathered rows, the gradient is scaled such that
    DistributedDataParallel's mean over the processes is the gradient of that loss. All processes must hold
    the same number of rows.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor (n,...), got {type(x).__name__}")
    _, size = world()
    return x if size == 1 else _Gather.apply(x)
