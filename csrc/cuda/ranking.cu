// Ranks by counting: the number of items of a tile of distances that rank before each positive. Formulas:
// vreid_ext/ops/ranking.py.
#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

constexpr int kPositives = 8;  // counted in one pass over a row

struct Positive {
    float bound;
    double distance;
    int64_t index;

    // Whether an item ranks before the positive. `bound` is the float nearest to the distance, so a float
    // below the bound is also below the distance.
    __device__ bool follows(float value, int64_t item) const {
        if (value != bound) return value < bound;
        const double exact = double(value);
        return exact < distance || (exact == distance && item < index);
    }
};

// One thread block per query. Items that are left out are counted first and subtracted afterwards.
template <int VEC>
__global__ void __launch_bounds__(kThreads) count_before(RankCounts op) {
    const Tile& tile = op.tile;
    const int64_t query = blockIdx.x, last = op.start[query + 1];
    const float* values = static_cast<const float*>(tile.values) + query * tile.G;
    for (int64_t first = op.start[query]; first < last; first += kPositives) {
        Positive positive[kPositives];
        int64_t before[kPositives] = {};
#pragma unroll
        for (int p = 0; p < kPositives; ++p) {
            const int64_t place = min(first + p, last - 1);
            const double distance = op.distance[place];
            positive[p] = {float(distance), distance, op.index[place]};
        }
        for (int64_t j = int64_t(threadIdx.x) * VEC; j < tile.G; j += kThreads * VEC) {
            const auto batch = load<VEC>(values + j);
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                if (tile.kept && !tile.kept[j + v]) continue;
#pragma unroll
                for (int p = 0; p < kPositives; ++p)
                    before[p] += positive[p].follows(batch.element[v], tile.offset + j + v);
            }
        }
        if (tile.left) {
            for (int64_t l = tile.left_start[query] + threadIdx.x; l < tile.left_start[query + 1];
                 l += kThreads) {
                const int64_t item = tile.left[l], j = item - tile.offset;
                if (j < 0 || j >= tile.G || (tile.kept && !tile.kept[j])) continue;
#pragma unroll
                for (int p = 0; p < kPositives; ++p) before[p] -= positive[p].follows(values[j], item);
            }
        }
#pragma unroll
        for (int p = 0; p < kPositives; ++p) {
            const int64_t sum = sum_over_block(before[p]);
            if (threadIdx.x == 0 && first + p < last) op.counts[first + p] = sum;
        }
    }
}

}  // namespace

cudaError_t rank_counts(const RankCounts& op, cudaStream_t stream) {
    const Tile& tile = op.tile;
    const bool aligned = tile.G % 4 == 0 && reinterpret_cast<uintptr_t>(tile.values) % 16 == 0;
    return launch(aligned ? count_before<4> : count_before<1>, tile.Q, stream, op);
}

}  // namespace cuda
}  // namespace vreid
