// Farthest positive and nearest negative of every anchor, from tiles of the matrix product that are not
// stored. The score of a pair is 2 x.y - |y|^2: minus its squared distance plus |x|^2, which is constant for
// an anchor.
//
// Tiles finish in any order. Their results are combined by an atomic maximum of one integer per anchor and
// kind, the score in the upper half and the inverted index in the lower one: the maximum does not depend on
// the order, and the smallest index wins among equal scores.
#include "cuda/kernels.h"
#include "cuda/product.cuh"

namespace vreid {
namespace cuda {
namespace {

// The minimum: one for each multiprocessor of an H100. The tests on the host reach every size with few rows.
#ifdef VREID_SIMT
constexpr int64_t kThreadBlocks = 3;
#else
constexpr int64_t kThreadBlocks = 132;
#endif
// Rows of tiles that run together, so that what they read stays in the L2 cache.
constexpr int64_t kGroup = 8;

// The largest score so far and the first index that has it.
struct Best {
    float score = NAN;  // until there is one
    int index = -1;

    // Indices ascend. NaN must surface, so it is the largest score.
    __device__ void take(float other, int from) {
        other = other == other ? other : INFINITY;
        if (other <= score) return;
        score = other;
        index = from;
    }

    // An integer that is larger for the better of two.
    __device__ int64_t key() const {
        if (index < 0) return INT64_MIN;
        const int bits = __float_as_int(score + 0.f);  // -0 becomes 0
        const int ordered = bits ^ (bits >> 31 & 0x7fffffff);
        return int64_t(uint64_t(uint32_t(ordered)) << 32 | uint32_t(~index));
    }
};

// Both kinds of one anchor.
struct Hardest {
    Best positive, negative;

    __device__ void take(bool same_label, float score, int from) {
        if (same_label)
            positive.take(-score, from);
        else
            negative.take(score, from);
    }

    // Offers the best of the lanes whose numbers differ in the bits from `first` up to `last` to the anchor;
    // all lanes call it.
    __device__ void offer(int64_t* key, int64_t anchors, int64_t anchor, int first, int last) const {
        int64_t best[2] = {positive.key(), negative.key()};
#pragma unroll
        for (int kind = 0; kind < 2; ++kind) {
            for (int other = first; other < last; other *= 2)
                best[kind] = max(best[kind], __shfl_xor_sync(0xffffffff, best[kind], other));
            const bool chosen = (threadIdx.x % kWarp & (last - first)) == 0;
            if (chosen && anchor < anchors && best[kind] != INT64_MIN)
                atomicMax(reinterpret_cast<long long*>(key + kind * anchors + anchor),
                          static_cast<long long>(best[kind]));
        }
    }
};

// Thread block (tile): the tiles in groups of kGroup rows. If the anchors are the candidates (ONE_SET), only
// the pairs i < j are computed, in tiles on and above the diagonal, and each is offered to both of its rows.
template <bool ONE_SET, class T, int SIZE>
__global__ void __launch_bounds__(kThreads, 1) mine_tiles(Mine op) {
    using Tile = Product<T, SIZE, SIZE>;
    __shared__ typename Tile::Shared shared;
    const int64_t N = op.anchors.rows.rows, M = op.candidates.rows.rows;
    const int64_t height = ceil_div(N, Tile::kRows), group = kGroup * ceil_div(M, Tile::kColumns);
    const int64_t above = blockIdx.x / group * kGroup, within = blockIdx.x % group;
    const int64_t lines = min(kGroup, height - above);
    const int64_t top = (above + within % lines) * Tile::kRows, left = within / lines * Tile::kColumns;
    if (ONE_SET && left < top) return;
    Tile product;
    product.compute(op.anchors.rows, top, op.candidates.rows, left, shared);
    Hardest of_row[SIZE][2];
#pragma unroll
    for (int n = 0; n < SIZE; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const int j = int(left) + Tile::column(n, side);
            Hardest of_column;
            if (j < int(M)) {
                const float factor = op.candidates.factor[j], square = op.candidates.square[j];
                const int64_t label = op.candidates.labels[j];
#pragma unroll
                for (int m = 0; m < SIZE; ++m) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int i = int(top) + Tile::row(m, 2 * half);
                        if (i >= int(N) || (ONE_SET && i >= j)) continue;
                        const float dot = product.sum[m][n][2 * half + side] * op.anchors.factor[i] * factor;
                        const bool same_label = op.anchors.labels[i] == label;
                        of_row[m][half].take(same_label, 2 * dot - square, j);
                        if (ONE_SET) of_column.take(same_label, 2 * dot - op.anchors.square[i], i);
                    }
                }
            }
            if (ONE_SET) of_column.offer(op.key, N, j, 4, kWarp);
        }
    }
#pragma unroll
    for (int m = 0; m < SIZE; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            of_row[m][half].offer(op.key, N, top + Tile::row(m, 2 * half), 1, 4);
}

__global__ void __launch_bounds__(kThreads) decode(Mine op) {
    const int64_t place = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (place >= 2 * op.anchors.rows.rows) return;
    const int64_t key = op.key[place];
    op.index[place] = key == INT64_MIN ? -1 : int64_t(~uint32_t(key));
}

template <int SIZE, class T>
cudaError_t mine(const Mine& op, T, cudaStream_t stream) {
    using Tile = Product<T, SIZE, SIZE>;
    static_assert(Tile::kRows == Tile::kColumns, "the tiles of one set need a diagonal");
    const int64_t blocks =
        ceil_div(op.anchors.rows.rows, Tile::kRows) * ceil_div(op.candidates.rows.rows, Tile::kColumns);
    return launch(op.one_set ? mine_tiles<true, T, SIZE> : mine_tiles<false, T, SIZE>, blocks, stream, op);
}

// Large tiles read less memory, small ones use more multiprocessors.
template <class T>
cudaError_t mine(const Mine& op, T element, cudaStream_t stream) {
    const auto enough = [&](int64_t size) {
        const int64_t tiles = ceil_div(op.anchors.rows.rows, size) * ceil_div(op.candidates.rows.rows, size);
        return (op.one_set ? tiles / 2 : tiles) >= kThreadBlocks;
    };
    if (enough(128)) return mine<4>(op, element, stream);
    if (enough(64)) return mine<2>(op, element, stream);
    return mine<1>(op, element, stream);
}

}  // namespace

cudaError_t batch_hard(const Mine& op, cudaStream_t stream) {
    const int64_t N = op.anchors.rows.rows;
    if (N > INT32_MAX - 128 || op.candidates.rows.rows > INT32_MAX - 128) return cudaErrorInvalidValue;
    const cudaError_t status = dispatch(op.dtype, [&](auto element) { return mine(op, element, stream); });
    if (status != cudaSuccess) return status;
    return launch(decode, ceil_div(2 * N, kThreads), stream, op);
}

}  // namespace cuda
}  // namespace vreid
