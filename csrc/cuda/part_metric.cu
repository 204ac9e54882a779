// The weighted part metric (STAL, Eq. 8): psi_ij = sum_r w_i^r w_j^r ||f_i^r - f_j^r||, tile by tile.
#include "cuda/kernels.h"
#include "cuda/product.cuh"

namespace vreid {
namespace cuda {
namespace {

template <class T>
using Tile = Product<T, 2, 4>;

// The rows of part r.
__device__ inline Operand part_of(const PartRows& side, int64_t rows, int64_t R, int64_t r) {
    const Operand& all = side.rows;
    return {static_cast<const char*>(all.data) + r * all.stride, rows, R * all.stride, all.width};
}

// The weighted distance of a pair in part r is its length times the product of the weights.
template <class T>
__device__ float part_length(const PartMetric& op, int64_t r, int64_t q, int64_t g, float product) {
    const int64_t a = q * op.R + r, b = g * op.R + r;
    if (op.query.factor) product = product * op.query.factor[a] * op.gallery.factor[b];
    const float squares = op.query.square[a] + op.gallery.square[b];
    float square = squares - 2 * product;
    if (!(square >= float(kClosePair) * squares)) {  // true for NaN, too
        const T *first = static_cast<const T*>(op.query.features) + a * op.D,
                *second = static_cast<const T*>(op.gallery.features) + b * op.D;
        square = 0;
        for (int64_t d = 0; d < op.D; ++d) {
            const float difference = to_float(first[d]) - to_float(second[d]);
            square += difference * difference;
        }
    }
    return sqrtf(square);
}

// Calls f(q, g, m, n, i) for the pairs of a thread within the bounds; their sum is product.sum[m][n][i].
template <class T, class F>
__device__ void for_pairs(const PartMetric& op, int64_t top, int64_t left, const F& f) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t q = top + Tile<T>::row(m, i), g = left + Tile<T>::column(n, i);
                if (q < op.Q && g < op.G) f(q, g, m, n, i);
            }
}

template <class T>
__device__ int64_t top_of(const PartMetric& op) {
    return blockIdx.x / ceil_div(op.G, Tile<T>::kColumns) * Tile<T>::kRows;
}
template <class T>
__device__ int64_t left_of(const PartMetric& op) {
    return blockIdx.x % ceil_div(op.G, Tile<T>::kColumns) * Tile<T>::kColumns;
}

template <class T>
__device__ void multiply(Tile<T>& product, const PartMetric& op, int64_t r,
                         typename Tile<T>::Shared& shared) {
    product.compute(part_of(op.query, op.Q, op.R, r), top_of<T>(op), part_of(op.gallery, op.G, op.R, r),
                    left_of<T>(op), shared);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) part_distances(PartMetric op, float* distance) {
    __shared__ typename Tile<T>::Shared shared;
    const int64_t top = top_of<T>(op), left = left_of<T>(op);
    float total[2][4][4] = {};
    Tile<T> product;
    for (int64_t r = 0; r < op.R; ++r) {
        multiply<T>(product, op, r, shared);
        for_pairs<T>(op, top, left, [&](int64_t q, int64_t g, int m, int n, int i) {
            total[m][n][i] += op.query.weight[q * op.R + r] * op.gallery.weight[g * op.R + r] *
                              part_length<T>(op, r, q, g, product.sum[m][n][i]);
        });
    }
    for_pairs<T>(op, top, left,
                 [&](int64_t q, int64_t g, int m, int n, int i) { distance[q * op.G + g] = total[m][n][i]; });
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    part_gradients(PartMetric op, int64_t r, const float* grad, float* slope, float* length) {
    __shared__ typename Tile<T>::Shared shared;
    Tile<T> product;
    multiply<T>(product, op, r, shared);
    for_pairs<T>(op, top_of<T>(op), left_of<T>(op), [&](int64_t q, int64_t g, int m, int n, int i) {
        const float distance = part_length<T>(op, r, q, g, product.sum[m][n][i]),
                    upstream = grad[q * op.G + g];
        const float weights = op.query.weight[q * op.R + r] * op.gallery.weight[g * op.R + r];
        slope[q * op.G + g] = distance == 0 ? 0 : upstream * weights / distance;
        length[q * op.G + g] = upstream * distance;
    });
}

int64_t tiles(const PartMetric& op) {
    return ceil_div(op.Q, Tile<float>::kRows) * ceil_div(op.G, Tile<float>::kColumns);
}

}  // namespace

cudaError_t part_distance(const PartMetric& op, float* distance, cudaStream_t stream) {
    return dispatch(op.dtype, [&](auto element) {
        return launch(part_distances<decltype(element)>, tiles(op), stream, op, distance);
    });
}

cudaError_t part_slopes(const PartMetric& op, int64_t r, const float* grad, float* slope, float* length,
                        cudaStream_t stream) {
    return dispatch(op.dtype, [&](auto element) {
        return launch(part_gradients<decltype(element)>, tiles(op), stream, op, r, grad, slope, length);
    });
}

}  // namespace cuda
}  // namespace vreid
