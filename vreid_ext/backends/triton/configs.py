"""Tile sizes, in a fixed table: tuning by time would change the order of sums between runs and ranks."""

from typing import NamedTuple

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


# A tile is the smallest that holds a block; longer blocks take several of the largest. Planes in one run of
# memory: a row of a tile is 128 cells, one to four coalesced lines. Channels in one run: 64 channels.
# A thread then has 16 to 32 numbers in flight, and with the occupancy that leaves an SM 30 to 60 KB.
PLANES = (
    Tile(32, 8, 8, 128, 4),
    Tile(16, 8, 16, 128, 4),
    Tile(16, 4, 32, 128, 4),
    Tile(16, 2, 64, 128, 4),
    Tile(16, 1, 128, 128, 4),
)
CHANNELS = (
    Tile(64, 4, 8, 128, 4),
    Tile(64, 2, 16, 128, 4),
    Tile(64, 1, 32, 128, 4),
    Tile(64, 1, 64, 128, 8),
)
# The kernels over frames, clips and pairs touch a hundredth of the map; one size does (chunks of channels,
# frames, blocks, channels, pairs, cells).
BLOCK_N, BLOCK_T, BLOCK_K, BLOCK_C, BLOCK_M, BLOCK_L = 8, 4, 4, 128, 16, 128
# The DRSTA kernels: channels and cells of a tile of the map, whose product with the regions stays in
# registers; cells of the overlap; features of the pooling over frames.
REGION_C, REGION_I, REGION_OVERLAP_I, REGION_D = 64, 8, 16, 256


def streaming_tile(x: Tensor, cells: int) -> Tile:
    """The tile for a map (B,T,C,H,W) with blocks of `cells` cells."""
    *_, stride_c, stride_h, stride_w = x.stride()
    step = stride_w if x.shape[4] > 1 else stride_h
    table = CHANNELS if stride_c == 1 and step != 1 else PLANES
    return next((tile for tile in table if cells <= tile.BLOCK_I), table[-1])


class ProductTile(NamedTuple):
    """A tile of a matrix product: BLOCK_N rows of the left by BLOCK_M rows of the right, BLOCK_K numbers of
    each at a time, by `num_warps` warps that load `num_stages` - 1 steps ahead.
    """

    BLOCK_N: int
    BLOCK_M: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


# A product of few pairs is cut small, so that all multiprocessors have a tile of it: (most pairs, tile).
# BLOCK_M divides BLOCK_N, as mirrored mining wants.
MINING = (
    (256 * 256, ProductTile(32, 32, 32, 4, 4)),
    (2048 * 2048, ProductTile(64, 64, 32, 4, 3)),
    (2**63, ProductTile(128, 64, 32, 8, 3)),
)
PART = (
    (256 * 256, ProductTile(32, 32, 32, 8, 3)),
    (2**63, ProductTile(64, 64, 32, 8, 3)),
)
# Rows, numbers of a feature, and others at a time.
PART_GRADIENTS = ProductTile(64, 32, 32, 4, 3)
PRODUCT_GROUP = 8  # tile rows that run together
# Mining reads rows of embeddings MINING_D numbers at a time, of an identity MINING_N rows, of the batch
# MINING_ANCHORS pairs.
MINING_D, MINING_N, MINING_ANCHORS = 1024, 8, 1024


def product_tile(table: tuple[tuple[int, ProductTile], ...], pairs: int) -> ProductTile:
    return next(tile for limit, tile in table if pairs <= limit)
