// Farthest positive and nearest negative of every anchor, from tiles of the matrix product that are not
// stored. The score of a pair is 2 x.y - |y|^2: minus its squared distance plus |x|^2, which is constant for
// an anchor.
#include "cuda/kernels.h"
#include "cuda/product.cuh"

namespace vreid {
namespace cuda {
namespace {

constexpr int64_t kThreadBlocks = 264;  // the minimum: two for each multiprocessor of an H100

// The largest score so far; the first index among equal ones. NaN is never replaced.
struct Best {
    float score = 0;
    int index = -1;

    __device__ void take(float other, int from) {
        if (from < 0) return;
        const bool larger = index < 0 || (!(other <= score) && score == score);
        if (!larger && !(other == score && from < index)) return;
        score = other;
        index = from;
    }
};

// Thread block (rows, split): the best pairs with one piece of the candidates.
template <int MT, int NT>
__global__ void __launch_bounds__(kThreads, 1) mine_tiles(Mine op) {
    using Tile = Product<MT, NT>;
    __shared__ typename Tile::Shared shared;
    __shared__ float scores[4][Tile::kRows];
    __shared__ int indices[4][Tile::kRows];
    const int64_t split = blockIdx.x % op.splits, top = blockIdx.x / op.splits * Tile::kRows;
    const int64_t tiles = ceil_div(op.M, Tile::kColumns), share = ceil_div(tiles, op.splits);
    const int64_t first = split * share, last = min(tiles, first + share);
    const Matrix rows{op.rows, op.N, op.D}, candidates{op.candidates, op.M, op.D};
    Best positive[MT][2], negative[MT][2];
    Tile product;
    for (int64_t tile = first; tile < last; ++tile) {
        const int64_t left = tile * Tile::kColumns;
        product.compute(rows, top, candidates, left, op.D, shared);
#pragma unroll
        for (int n = 0; n < NT; ++n) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int j = int(left) + Tile::column(n, side);
                if (j >= int(op.M)) continue;
                const float square = op.squares[j];
                const int64_t label = op.candidate_labels[j];
#pragma unroll
                for (int m = 0; m < MT; ++m) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int i = int(top) + Tile::row(m, 2 * half);
                        if (i >= int(op.N)) continue;
                        const float score = 2 * product.sum[m][n][2 * half + side] - square;
                        if (op.labels[i] != label)
                            negative[m][half].take(score, j);
                        else if (!op.one_set || i != j)
                            positive[m][half].take(-score, j);
                    }
                }
            }
        }
    }
    // Reduce over the four lanes and the four warps of a row.
    for (int kind = 0; kind < 2; ++kind) {
#pragma unroll
        for (int m = 0; m < MT; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Best best = kind == 0 ? positive[m][half] : negative[m][half];
                for (int other = 1; other < 4; other *= 2) {
                    const float score = __shfl_xor_sync(0xffffffff, best.score, other);
                    best.take(score, __shfl_xor_sync(0xffffffff, best.index, other));
                }
                if (threadIdx.x % 4 != 0) continue;
                scores[threadIdx.x / kWarp % 4][Tile::row(m, 2 * half)] = best.score;
                indices[threadIdx.x / kWarp % 4][Tile::row(m, 2 * half)] = best.index;
            }
        }
        __syncthreads();
        for (int line = threadIdx.x; line < Tile::kRows && top + line < op.N; line += kThreads) {
            Best best;
            for (int warp = 0; warp < 4; ++warp) best.take(scores[warp][line], indices[warp][line]);
            const int64_t place = (split * 2 + kind) * op.N + top + line;
            op.score[place] = best.score;
            op.found[place] = best.index;
        }
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kThreads) best_of_splits(Mine op) {
    const int64_t place = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (place >= 2 * op.N) return;
    Best best;
    for (int64_t split = 0; split < op.splits; ++split)
        best.take(op.score[split * 2 * op.N + place], int(op.found[split * 2 * op.N + place]));
    op.index[place] = best.index;
}

// Large tiles read less memory, small ones use more multiprocessors.
template <class F>
auto with_tile(int64_t N, int64_t M, const F& function) {
    if (ceil_div(N, 64) * ceil_div(M, 128) >= kThreadBlocks) return function(Product<2, 4>());
    return function(Product<1, 2>());
}

template <int MT, int NT>
cudaError_t mine(const Mine& op, Product<MT, NT>, cudaStream_t stream) {
    return launch(mine_tiles<MT, NT>, ceil_div(op.N, Product<MT, NT>::kRows) * op.splits, stream, op);
}

}  // namespace

int64_t mine_splits(int64_t N, int64_t M) {
    return with_tile(N, M, [&](auto tile) {
        using Tile = decltype(tile);
        const int64_t wanted = ceil_div(kThreadBlocks, ceil_div(N, Tile::kRows));
        return std::min(wanted, ceil_div(M, Tile::kColumns));
    });
}

cudaError_t batch_hard(const Mine& op, cudaStream_t stream) {
    if (op.N > INT32_MAX - 128 || op.M > INT32_MAX - 128) return cudaErrorInvalidValue;
    const cudaError_t status = with_tile(op.N, op.M, [&](auto tile) { return mine(op, tile, stream); });
    if (status != cudaSuccess) return status;
    return launch(best_of_splits, ceil_div(2 * op.N, kThreads), stream, op);
}

}  // namespace cuda
}  // namespace vreid
