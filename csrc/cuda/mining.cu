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

constexpr int64_t kThreadBlocks = 132;  // the minimum: one for each multiprocessor of an H100
constexpr int64_t kGroup = 8;           // rows of tiles that run together, so that their rows stay in the L2 cache

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

// Thread block (tile): the tiles in groups of kGroup rows.
template <class T, int MT, int NT>
__global__ void __launch_bounds__(kThreads, 1) mine_tiles(Mine op) {
    using Tile = Product<T, MT, NT>;
    __shared__ typename Tile::Shared shared;
    const int64_t N = op.anchors.rows.rows, M = op.candidates.rows.rows;
    const int64_t height = ceil_div(N, Tile::kRows), group = kGroup * ceil_div(M, Tile::kColumns);
    const int64_t above = blockIdx.x / group * kGroup, within = blockIdx.x % group;
    const int64_t lines = min(kGroup, height - above);
    const int64_t top = (above + within % lines) * Tile::kRows, left = within / lines * Tile::kColumns;
    Tile product;
    product.compute(op.anchors.rows, top, op.candidates.rows, left, shared);
    Hardest of_row[MT][2];
#pragma unroll
    for (int n = 0; n < NT; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const int j = int(left) + Tile::column(n, side);
            if (j >= int(M)) continue;
            const float factor = op.candidates.factor[j], square = op.candidates.square[j];
            const int64_t label = op.candidates.labels[j];
#pragma unroll
            for (int m = 0; m < MT; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int i = int(top) + Tile::row(m, 2 * half);
                    if (i >= int(N) || (op.one_set && i == j)) continue;
                    const float dot = product.sum[m][n][2 * half + side] * op.anchors.factor[i] * factor;
                    of_row[m][half].take(op.anchors.labels[i] == label, 2 * dot - square, j);
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MT; ++m)
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

template <class T, int MT, int NT>
cudaError_t mine(const Mine& op, Product<T, MT, NT>, cudaStream_t stream) {
    using Tile = Product<T, MT, NT>;
    const int64_t blocks =
        ceil_div(op.anchors.rows.rows, Tile::kRows) * ceil_div(op.candidates.rows.rows, Tile::kColumns);
    return launch(mine_tiles<T, MT, NT>, blocks, stream, op);
}

// Large tiles read less memory, small ones use more multiprocessors.
template <class T>
cudaError_t mine(const Mine& op, T, cudaStream_t stream) {
    const auto enough = [&](int64_t size) {
        const int64_t tiles =
            ceil_div(op.anchors.rows.rows, size) * ceil_div(op.candidates.rows.rows, size);
        return (op.one_set ? tiles / 2 : tiles) >= kThreadBlocks;
    };
    if (enough(128)) return mine(op, Product<T, 4, 4>(), stream);
    if (enough(64)) return mine(op, Product<T, 2, 2>(), stream);
    return mine(op, Product<T, 1, 1>(), stream);
}

}  // namespace

cudaError_t batch_hard(const Mine& op, cudaStream_t stream) {
    const int64_t N = op.anchors.rows.rows;
    if (N > INT32_MAX - 128 || op.candidates.rows.rows > INT32_MAX - 128) return cudaErrorInvalidValue;
    const cudaError_t status =
        dispatch(op.dtype, [&](auto element) { return mine(op, element, stream); });
    if (status != cudaSuccess) return status;
    return launch(decode, ceil_div(2 * N, kThreads), stream, op);
}

}  // namespace cuda
}  // namespace vreid
