// The weighted part metric (STAL, Eq. 8): psi_ij = sum_r w_i^r w_j^r ||f_i^r - f_j^r||, tile by tile.
#include "cuda/kernels.h"
#include "cuda/product.cuh"

namespace vreid {
namespace cuda {
namespace {

using Tile = Product<2, 4>;

__device__ inline Matrix part_of(const float* features, int64_t rows, const PartMetric& op, int64_t r) {
    return {features + r * op.D, rows, op.R * op.D};
}

__device__ inline float part_length(const PartMetric& op, int64_t r, int64_t q, int64_t g, float product) {
    const float squares = op.query_square[q * op.R + r] + op.gallery_square[g * op.R + r];
    float square = squares - 2 * product;
    if (!(square >= float(kClosePair) * squares)) {  // true for NaN, too
        const float *a = op.query + (q * op.R + r) * op.D, *b = op.gallery + (g * op.R + r) * op.D;
        square = 0;
        for (int64_t d = 0; d < op.D; d += 4) {
            const auto first = load<4>(a + d), second = load<4>(b + d);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                const float difference = first.element[v] - second.element[v];
                square += difference * difference;
            }
        }
    }
    return sqrtf(square);
}

// Calls f(q, g, m, n, i) for the pairs of a thread within the bounds; their sum is product.sum[m][n][i].
template <class F>
__device__ void for_pairs(const PartMetric& op, int64_t top, int64_t left, const F& f) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t q = top + Tile::row(m, i), g = left + Tile::column(n, i);
                if (q < op.Q && g < op.G) f(q, g, m, n, i);
            }
}

__device__ inline int64_t top_of(const PartMetric& op) {
    return blockIdx.x / ceil_div(op.G, Tile::kColumns) * Tile::kRows;
}
__device__ inline int64_t left_of(const PartMetric& op) {
    return blockIdx.x % ceil_div(op.G, Tile::kColumns) * Tile::kColumns;
}

__global__ void __launch_bounds__(kThreads, 1) part_distances(PartMetric op, float* distance) {
    __shared__ Tile::Shared shared;
    const int64_t top = top_of(op), left = left_of(op);
    float total[2][4][4] = {};
    Tile product;
    for (int64_t r = 0; r < op.R; ++r) {
        product.compute(part_of(op.query, op.Q, op, r), top, part_of(op.gallery, op.G, op, r), left, op.D,
                        shared);
        for_pairs(op, top, left, [&](int64_t q, int64_t g, int m, int n, int i) {
            total[m][n][i] += op.query_weight[q * op.R + r] * op.gallery_weight[g * op.R + r] *
                              part_length(op, r, q, g, product.sum[m][n][i]);
        });
    }
    for_pairs(op, top, left,
              [&](int64_t q, int64_t g, int m, int n, int i) { distance[q * op.G + g] = total[m][n][i]; });
}

__global__ void __launch_bounds__(kThreads, 1)
    part_gradients(PartMetric op, int64_t r, const float* grad, float* slope, float* length) {
    __shared__ Tile::Shared shared;
    const int64_t top = top_of(op), left = left_of(op);
    Tile product;
    product.compute(part_of(op.query, op.Q, op, r), top, part_of(op.gallery, op.G, op, r), left, op.D,
                    shared);
    for_pairs(op, top, left, [&](int64_t q, int64_t g, int m, int n, int i) {
        const float distance = part_length(op, r, q, g, product.sum[m][n][i]), upstream = grad[q * op.G + g];
        const float weights = op.query_weight[q * op.R + r] * op.gallery_weight[g * op.R + r];
        slope[q * op.G + g] = distance == 0 ? 0 : upstream * weights / distance;
        length[q * op.G + g] = upstream * distance;
    });
}

int64_t tiles(const PartMetric& op) {
    return ceil_div(op.Q, Tile::kRows) * ceil_div(op.G, Tile::kColumns);
}

}  // namespace

cudaError_t part_distance(const PartMetric& op, float* distance, cudaStream_t stream) {
    return launch(part_distances, tiles(op), stream, op, distance);
}

cudaError_t part_slopes(const PartMetric& op, int64_t r, const float* grad, float* slope, float* length,
                        cudaStream_t stream) {
    return launch(part_gradients, tiles(op), stream, op, r, grad, slope, length);
}

}  // namespace cuda
}  // namespace vreid
