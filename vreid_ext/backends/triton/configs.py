"""Tile sizes, in fixed tables: tuning at run time would change the order of sums between runs and ranks.

The tables here are for any GPU. `vreid tune` measures tiles on one GPU and writes a file that takes their
place on GPUs of that name. It is where `VREID_TRITON_TABLES` says, or vreid_ext/triton.json in the user's
configuration folder.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """How a streaming kernel walks a map: BLOCK_C channels of BLOCK_K blocks of BLOCK_I cells at a time,
    CHUNK channels in all, by `num_warps` warps.
    """

    BLOCK_C: int
    BLOCK_K: int
    BLOCK_I: int
    CHUNK: int
    num_warps: int


class ProductTile(NamedTuple):
    """A tile of a matrix product: BLOCK_N rows of the left by BLOCK_M rows of the right, BLOCK_K numbers of
    each at a time, by `num_warps` warps that load `num_stages` - 1 steps ahead.
    """

    BLOCK_N: int
    BLOCK_M: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


Table = tuple[tuple[int, Any], ...]
_ANY = 2**63

# (largest size, tile), of which the first that fits serves.
#
# Maps, by the cells of a block. A tile is the smallest that holds a block; longer blocks take several of the
# largest. Planes in one run of memory: a row of a tile is 128 cells, one to four coalesced lines. Channels in
# one run: 64 channels. A thread then has 16 to 32 numbers in flight, and with the occupancy that leaves an SM
# 30 to 60 KB.
#
# Products, by their pairs. One of few is cut small, so that all multiprocessors have a tile of it. BLOCK_M
# divides BLOCK_N, as mirrored mining wants. Tiles of the part metric are smaller: they keep two sums.
TABLES: dict[str, Table] = {
    "planes": (
        (8, Tile(32, 8, 8, 128, 4)),
        (16, Tile(16, 8, 16, 128, 4)),
        (32, Tile(16, 4, 32, 128, 4)),
        (64, Tile(16, 2, 64, 128, 4)),
        (_ANY, Tile(16, 1, 128, 128, 4)),
    ),
    "channels": (
        (8, Tile(64, 4, 8, 128, 4)),
        (16, Tile(64, 2, 16, 128, 4)),
        (32, Tile(64, 1, 32, 128, 4)),
        (_ANY, Tile(64, 1, 64, 128, 8)),
    ),
    "mining": (
        (256 * 256, ProductTile(32, 32, 32, 4, 4)),
        (2048 * 2048, ProductTile(64, 64, 32, 4, 3)),
        (_ANY, ProductTile(128, 64, 32, 8, 3)),
    ),
    "part_metric": (
        (256 * 256, ProductTile(32, 32, 32, 8, 3)),
        (_ANY, ProductTile(64, 64, 32, 8, 3)),
    ),
}
# Gradients of the part metric: rows, numbers of a feature, and others at a time.
PART_GRADIENTS = ProductTile(64, 32, 32, 4, 3)
PRODUCT_GROUP = 8  # tile rows that run together
# Mining reads rows of embeddings MINING_D numbers at a time, of an identity MINING_N rows, of the batch
# MINING_ANCHORS pairs.
MINING_D, MINING_N, MINING_ANCHORS = 1024, 8, 1024
# The kernels over frames, clips and pairs touch a hundredth of the map; one size does (chunks of channels,
# frames, blocks, channels, pairs, cells).
BLOCK_N, BLOCK_T, BLOCK_K, BLOCK_C, BLOCK_M, BLOCK_L = 8, 4, 4, 128, 16, 128
# The DRSTA kernels: channels and cells of a tile of the map, whose product with the regions stays in
# registers; cells of the overlap; features of the pooling over frames.
REGION_C, REGION_I, REGION_OVERLAP_I, REGION_D = 64, 8, 16, 256

FILE_VARIABLE = "VREID_TRITON_TABLES"

_only: dict[str, Any] = {}


def chosen(table: str, size: int, device: torch.device) -> Any:
    """The tile of a table for a size on a device."""
    if table in _only:
        return _only[table]
    tables = tables_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else TABLES
    return _first(tables[table], size)


def streaming_tile(x: Tensor, cells: int) -> Tile:
    """The tile for a map (B,T,C,H,W) with blocks of `cells` cells."""
    *_, stride_c, stride_h, stride_w = x.stride()
    step = stride_w if x.shape[4] > 1 else stride_h
    tile: Tile = chosen("channels" if stride_c == 1 and step != 1 else "planes", cells, x.device)
    return tile


def small_tile(cells: int) -> Tile:
    """Tile of the contiguous maps of numbers that have one per cell."""
    tile: Tile = _first(TABLES["planes"], cells)
    return tile


def _first(table: Table, size: int) -> Any:
    return next(tile for limit, tile in table if size <= limit)


@contextmanager
def only(table: str, tile: Any) -> Iterator[None]:
    """In the block, one tile for all sizes of a table."""
    _only[table] = tile
    try:
        yield
    finally:
        del _only[table]


def tables_file() -> Path:
    """Where `vreid tune` writes and the kernels read."""
    if FILE_VARIABLE in os.environ:
        return Path(os.environ[FILE_VARIABLE])
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "vreid_ext", "triton.json")


@cache
def tables_of(gpu: str) -> dict[str, Table]:
    """The tables for GPUs of a name: what was tuned for them, else what stands here.

    Raises:
        ValueError: `tables_file` is named by the environment and is no file, or holds something else.
    """
    path = tables_file()
    if FILE_VARIABLE in os.environ and not path.is_file():
        raise ValueError(f"{FILE_VARIABLE}: expected a file that `vreid tune` wrote, got {str(path)!r}")
    if not path.exists():
        return TABLES
    return TABLES | read_tables(path).get(gpu, {})


def read_tables(path: Path) -> dict[str, dict[str, Table]]:
    """Tables by name of the GPU and name of the table, from a file that `vreid tune` wrote.

    Raises:
        ValueError: it is another file.
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return {
            gpu: {name: _table(name, rows) for name, rows in tables.items()}
            for gpu, tables in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: expected tiles as `vreid tune` writes them, got {error!r}") from error


def _table(name: str, rows: list[list[Any]]) -> Table:
    kind = type(TABLES[name][0][1])
    table = tuple((limit, kind(**tile)) for limit, tile in rows)
    if [limit for limit, _ in table] != [limit for limit, _ in TABLES[name]]:
        raise ValueError(f"sizes of {name}: {[limit for limit, _ in table]}")
    for _, tile in table:
        if not all(type(n) is int and n > 0 for n in tile) or any(n & (n - 1) for n in tile[:3]):
            raise ValueError(f"{name}: {tile}")
        if kind is ProductTile and (min(tile[:3]) < 16 or tile.BLOCK_N % tile.BLOCK_M):
            raise ValueError(f"{name}: {tile}")
    return table
