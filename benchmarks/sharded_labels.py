"""Evaluation of a gallery whose rows and labels are spread over processes: time and peak memory.

    torchrun --standalone --nproc-per-node 2 benchmarks/sharded_labels.py --rows 100000000 --folder /scratch

Each process writes its part of the gallery to a .npy file in the folder and removes it at the end. The rows
depend on their number only, so that any number of processes gives the same figures. Linux only.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from vreid_ext import metrics
from vreid_ext.distributed import join_processes, world

_BLOCK = 2**20
_PERSON = 50  # tracklets of a person on average
_CAMERAS = 6


def block(number: int, rows: int, dimensions: int, persons: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, pids and camids of rows number * _BLOCK and on."""
    rng = np.random.default_rng(number)
    count = min(_BLOCK, rows - number * _BLOCK)
    pids, camids = rng.integers(0, persons, count), rng.integers(0, _CAMERAS, count)
    return rng.standard_normal((count, dimensions), np.float32), pids, camids


def resident(field: str) -> float:
    """Resident memory in GiB: now (VmRSS) or the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--dimensions", type=int, default=8)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    join_processes()
    rank, size = world()
    blocks = range(-(-options.rows // _BLOCK))
    mine = [number for number in blocks if number * size // len(blocks) == rank]
    first, stop = mine[0] * _BLOCK, min((mine[-1] + 1) * _BLOCK, options.rows)
    persons = options.rows // _PERSON
    path = options.folder / f"gallery-{rank}.npy"
    pids, camids = np.empty((2, stop - first), np.int64)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (stop - first, options.dimensions))
    try:
        for number in mine:
            place = slice(number * _BLOCK - first, min((number + 1) * _BLOCK, options.rows) - first)
            file[place], pids[place], camids[place] = block(number, options.rows, options.dimensions, persons)
        del file
        rng = np.random.default_rng(2**32)
        query = torch.from_numpy(rng.standard_normal((options.queries, options.dimensions), np.float32))
        q_pids, q_camids = (
            rng.integers(0, persons, options.queries),
            rng.integers(0, _CAMERAS, options.queries),
        )
        shard = metrics.Shard(path, first, options.rows) if size > 1 else path
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = resident("VmRSS")
        start = time.perf_counter()
        result = metrics.evaluate(query, shard, q_pids, pids, q_camids, camids)
        seconds = time.perf_counter() - start
        peak = resident("VmHWM")
    finally:
        path.unlink()
    print(
        f"process {rank} of {size}: {stop - first} rows, {seconds:.1f} s, peak {peak:.2f} GiB resident "
        f"({before:.2f} before the call), mAP {result.mAP:.12g}, mINP {result.mINP:.12g}",
        flush=True,
    )


if __name__ == "__main__":
    main()
