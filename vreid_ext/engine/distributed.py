"""What several processes exchange."""

import torch
import torch.distributed as dist
from torch import Tensor

from vreid_ext.losses.gather import world


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
