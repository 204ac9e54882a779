"""Measures tile sizes on the current GPU, for the tables of `configs`."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from vreid_ext.backends import signatures
from vreid_ext.backends.triton import mining, part_metric, sta
from vreid_ext.backends.triton.configs import TABLES, ProductTile, Table, only

# Minimum relative saving of another tile; a smaller one does not justify a different order of sums.
_MIN_SAVING = 0.03

_PRODUCTS = [
    ProductTile(*shape, depth, warps, 3)
    for shape, depth, warps in product(
        [(32, 32), (64, 32), (64, 64), (128, 64), (128, 128)], [32, 64], [4, 8]
    )
]

# (name of a table, size limit of an entry, tile) -> milliseconds of the table's kernels at that size.
Timer = Callable[[str, int, Any], float]


def tune(timer: Timer, report: Callable[[str], None]) -> dict[str, Table]:
    """The tables with the fastest tiles. Candidates that fail to run on this GPU are skipped.

    Args:
        timer: `measure`.
        report: called with one line of text for each entry.
    """
    tables = {}
    for name, table in TABLES.items():
        entries = []
        for limit, present in table:
            before = timer(name, limit, present)
            times = {tile: _time(timer, name, limit, tile) for tile in candidates(present)}
            best = min(times, key=lambda tile: times[tile])
            time = times[best]
            if time > (1 - _MIN_SAVING) * before:
                best, time = present, before
            report(f"{name}, up to {limit}: {time:.4f} ms with {best}, before {before:.4f} ms")
            entries.append((limit, best))
        tables[name] = tuple(entries)
    return tables


def candidates(present: Any) -> list[Any]:
    """Alternatives to a tile: all of `_PRODUCTS`, or for maps other numbers of channels and warps."""
    if isinstance(present, ProductTile):
        return [tile for tile in _PRODUCTS if tile != present]
    channels = [present.BLOCK_C // 2, present.BLOCK_C, present.BLOCK_C * 2]
    tiles = [present._replace(BLOCK_C=c, num_warps=warps) for c, warps in product(channels, [2, 4, 8])]
    return [tile for tile in tiles if tile != present]


def as_json(tables: dict[str, dict[str, Table]]) -> dict[str, Any]:
    """Tables by GPU name, in the format that `configs.read_tables` reads."""
    return {
        gpu: {name: [[limit, tile._asdict()] for limit, tile in rows] for name, rows in each.items()}
        for gpu, each in tables.items()
    }


def measure(name: str, limit: int, tile: Any) -> float:
    """A `Timer` on the current GPU: median time of the op, for maps of forward plus backward."""
    run = _CASES[name](limit)
    with only(name, tile):
        return float(triton.testing.do_bench(run, return_mode="median"))


def _time(timer: Timer, name: str, limit: int, tile: Any) -> float:
    try:
        return timer(name, limit, tile)
    except (TritonError, RuntimeError):
        return float("inf")


def _mining(limit: int) -> Callable[[], object]:
    n = min(int(limit**0.5), 8192)
    x, labels = torch.randn(n, 2048, dtype=torch.float32, device="cuda"), torch.arange(n, device="cuda") // 4
    args = signatures.BatchHard(x, labels, None, None, "euclidean")
    return lambda: mining.batch_hard(args)


def _part_metric(limit: int) -> Callable[[], object]:
    n = min(int(limit**0.5), 2048)
    sides = [
        (
            torch.randn(n, 6, 1024, dtype=torch.float32, device="cuda"),
            torch.rand(n, 6, dtype=torch.float32, device="cuda"),
        )
        for _ in range(2)
    ]
    args = signatures.PartDistance(*sides[0], *sides[1])
    return lambda: part_metric.part_distance(args)


def _maps(*, channels_last: bool) -> Callable[[int], Callable[[], object]]:
    def case(limit: int) -> Callable[[], object]:
        x = torch.randn(16, 4, 2048, 16, min(limit, 128) // 2, dtype=torch.float32, device="cuda").relu()
        if channels_last:
            x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

        def run() -> Tensor:
            pooled, *saved = sta.sta_pool(signatures.StaPool(x, None, 8))
            return sta.sta_pool_backward(signatures.StaPoolBackward(pooled, None, None, x, None, *saved))

        return run

    return case


_CASES = {
    "planes": _maps(channels_last=False),
    "channels": _maps(channels_last=True),
    "mining": _mining,
    "part_metric": _part_metric,
}
