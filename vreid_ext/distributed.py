"""Several processes: how they come together, and what they exchange."""

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

# How long a process waits for another that is alive but silent. One that dies is noticed at once.
_PATIENCE = timedelta(minutes=30)

T = TypeVar("T")


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) outside `torchrun`."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def join_processes() -> None:
    """Join the process group that `torchrun` describes; does nothing outside of it or within a group."""
    if not dist.is_available() or dist.is_initialized() or launched("WORLD_SIZE", "1") < 2:
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(launched("LOCAL_RANK") % gpus)
    # NCCL wants a GPU for each process. Numbers on the host are exchanged in any case.
    own_gpu = gpus >= launched("LOCAL_WORLD_SIZE")
    dist.init_process_group("cpu:gloo,cuda:nccl" if own_gpu else "gloo", timeout=_PATIENCE)


def is_main() -> bool:
    """Whether this process writes and prints what all of them have computed."""
    rank, _ = world()
    return rank == 0


@contextmanager
def main_writes(
    name: str, target: str | Path, *, inside: bool = False, needed: bool = True
) -> Iterator[None]:
    """`one_writer`, held by the main process for all of them; its error is raised in each.

    Args:
        needed: whether anything will be written; the main process's value counts.
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
    """What the processes have between them, sorted."""
    own = list(items)
    _, size = world()
    parts: list[list[T]] = [own] * size
    if size > 1:
        dist.all_gather_object(parts, own)
    return sorted(item for part in parts for item in part)  # type: ignore[type-var]


def default_device() -> torch.device:
    """The accelerator of this machine, or the CPU."""
    # Without the check a CUDA build of torch answers "cuda" on a machine that has no GPU.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


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
