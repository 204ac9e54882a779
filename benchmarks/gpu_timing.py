"""Timing of several functions on a device in interleaved rounds."""

from collections.abc import Callable
from time import perf_counter

import torch


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Time of one run. On a GPU the L2 cache is flushed first, and the time is measured with CUDA events."""
    if device == "cpu":
        start = perf_counter()
        run()
        return 1e3 * (perf_counter() - start)
    torch.empty(2**28, dtype=torch.uint8, device=device).zero_()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    run()
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1])


def quantiles(runs: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """20 % quantile, median and 80 % quantile of the times of each run, measured in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 2):
        for name, run in runs.items():
            spent = milliseconds(run, device)
            if round_ >= 2:
                times[name].append(spent)
    at = torch.tensor([0.2, 0.5, 0.8])
    return {name: torch.tensor(values).quantile(at).tolist() for name, values in times.items()}
