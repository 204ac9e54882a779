"""Tile sizes in fixed tables. Autotuning would change the order of sums between runs and between ranks.

The tables in this file are the defaults for all GPUs. `vreid tune` measures tiles on one GPU and writes a
file that replaces the defaults on GPUs with the same name. Its path is `VREID_TRITON_TABLES`, or by default
vreid_ext/triton.json in the user's configuration folder.
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
    """Tile of a streaming kernel on a map: BLOCK_C channels x BLOCK_K blocks x BLOCK_I cells per step,
    CHUNK channels per program, `num_warps` warps.
    """

    BLOCK_C: int
    BLOCK_K: int
    BLOCK_I: int
    CHUNK: int
    num_warps: int


class ProductTile(NamedTuple):
    """Tile of a matrix product: BLOCK_N rows of the left by BLOCK_M rows of the right matrix, BLOCK_K
    columns per step, `num_warps` warps, prefetched `num_stages` - 1 steps ahead.
    """

    BLOCK_N: int
    BLOCK_M: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


Table = tuple[tuple[int, Any], ...]
_ANY = 2**63

# Entries (largest size, tile); the first entry with a sufficient size is used.
#
# Maps: the size is the number of cells of a block. The tile is the smallest that holds a whole block; longer
# blocks are split into several of the largest tiles. With contiguous planes ("planes"), a tile has 64 or 128
# cells of each channel: one to four coalesced cache lines. With contiguous channels ("channels"), it has 64
# channels. Each thread then has 16 to 32 values in flight: 30 to 60 KB per SM at the resulting occupancy.
#
# Products: the size is the number of pairs. Small products use small tiles so that every SM gets at least
# one. BLOCK_M must divide BLOCK_N for symmetric mining. Tiles of the part metric are smaller, because its
# kernels have two accumulators.
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
# Gradients of the part metric: BLOCK_N rows, BLOCK_M feature dimensions, BLOCK_K other rows per step.
PART_GRADIENTS = ProductTile(64, 32, 32, 4, 3)
PRODUCT_GROUP = 8  # tile rows that are processed together, for cache reuse
# Mining: elements of a row (MINING_D), rows of an identity (MINING_N) and anchors of the triplet loss
# (MINING_ANCHORS) per step.
MINING_D, MINING_N, MINING_ANCHORS = 1024, 8, 1024
# The kernels over frames, clips and pairs read only about 1 % of the data of a map, so they have no tables.
# In this order: chunks of channels, frames, blocks, channels, pairs, cells per step; channels per step of the
# gradient of the scores.
BLOCK_N, BLOCK_T, BLOCK_K, BLOCK_C, BLOCK_M, BLOCK_L, SCORE_C = 8, 4, 4, 128, 16, 128, 512
# DRSTA: channels and cells of a tile of the map (its product with the regions stays in registers), cells per
# step of the overlap, features per step of the pooling over frames.
REGION_C, REGION_I, REGION_OVERLAP_I, REGION_D = 64, 8, 16, 256

FILE_VARIABLE = "VREID_TRITON_TABLES"

_only: dict[str, Any] = {}


def chosen(table: str, size: int, device: torch.device) -> Any:
    """The tile of a table for a given size and device."""
    if table in _only:
        return _only[table]
    tables = tables_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else TABLES
    return _first(tables[table], size)


def fuse_gradient_tile(x: Tensor, cells: int) -> Tile:
    """The tile for the gradient of `fuse`: it holds two maps, so half of the channels and more warps."""
    tile = streaming_tile(x, cells)
    return tile._replace(BLOCK_C=tile.BLOCK_C // 2, num_warps=8)


def streaming_tile(x: Tensor, cells: int) -> Tile:
    """The tile for a map (B,T,C,H,W) with blocks of `cells` cells."""
    *_, stride_c, stride_h, stride_w = x.stride()
    step = stride_w if x.shape[4] > 1 else stride_h
    tile: Tile = chosen("channels" if stride_c == 1 and step != 1 else "planes", cells, x.device)
    return tile


def small_tile(cells: int) -> Tile:
    """The tile for contiguous maps with one value per cell, such as the attention."""
    tile: Tile = _first(TABLES["planes"], cells)
    return tile


def _first(table: Table, size: int) -> Any:
    return next(tile for limit, tile in table if size <= limit)


@contextmanager
def only(table: str, tile: Any) -> Iterator[None]:
    """Use one tile for all sizes of a table during the block."""
    _only[table] = tile
    try:
        yield
    finally:
        del _only[table]


def tables_file() -> Path:
    """The file that `vreid tune` writes and the kernels read."""
    if FILE_VARIABLE in os.environ:
        return Path(os.environ[FILE_VARIABLE])
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "vreid_ext", "triton.json")


@cache
def tables_of(gpu: str) -> dict[str, Table]:
    """The tables for a GPU name: the tuned ones if they exist, otherwise the defaults.

    Raises:
        ValueError: `VREID_TRITON_TABLES` is set to a path that does not exist, or the file is invalid.
    """
    path = tables_file()
    if FILE_VARIABLE in os.environ and not path.is_file():
        raise ValueError(f"{FILE_VARIABLE}: expected a file that `vreid tune` wrote, got {str(path)!r}")
    if not path.exists():
        return TABLES
    return TABLES | read_tables(path).get(gpu, {})


def read_tables(path: Path) -> dict[str, dict[str, Table]]:
    """Tables by GPU name and table name, from a file that `vreid tune` wrote.

    Raises:
        ValueError: the file has another format.
        OSError: the file cannot be read.
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
        sizes = [limit for limit, _ in TABLES[name]]
        raise ValueError(f"{name}: expected the sizes {sizes}, got {[limit for limit, _ in table]}")
    for _, tile in table:
        if not all(type(n) is int and n > 0 for n in tile) or any(n & (n - 1) for n in tile[:3]):
            raise ValueError(f"{name}: expected positive ints and powers of two for BLOCK_*, got {tile}")
        if kind is ProductTile and (min(tile[:3]) < 16 or tile.BLOCK_N % tile.BLOCK_M):
            raise ValueError(f"{name}: expected BLOCK_* >= 16 and BLOCK_M a divisor of BLOCK_N, got {tile}")
    return table
