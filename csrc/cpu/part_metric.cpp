// The weighted part metric (STAL, Eq. 8) of one tile and one part, after the matrix product that gives f . g.
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// f.f + g.g - 2 f.g loses digits where f and g are close. Below this share of f.f + g.g the distance is
// summed from differences: above it the rounding of float leaves four digits, and equal features are at
// exactly zero.
constexpr double kClose = 1e-3;

// Row i of the products becomes the distances ||f_i - g_j||.
template <class A>
inline void to_distances(const PartTile& tile, int64_t i, A* row) {
    const A square = static_cast<const A*>(tile.query_square)[i];
    const A* squares = static_cast<const A*>(tile.gallery_square);
    int any_close = 0;
    for (int64_t j = 0; j < tile.cols; ++j) {
        const A sum = square + squares[j], squared = sum - 2 * row[j];
        const bool close = !(squared >= A(kClose) * sum);  // true for NaN, too
        any_close |= close;
        row[j] = close ? A(-1) : root(squared);
    }
    if (!any_close) return;
    const A* query = static_cast<const A*>(tile.query) + i * tile.query_stride;
    const A* gallery = static_cast<const A*>(tile.gallery);
    for (int64_t j = 0; j < tile.cols; ++j)
        if (row[j] < 0) row[j] = difference_norm(query, gallery + j * tile.gallery_stride, tile.D);
}

template <class A>
Status distance(const PartDistance& op) {
    const PartTile& tile = op.tile;
    const A* weights = static_cast<const A*>(tile.gallery_weight);
#pragma omp parallel for num_threads(tile.threads) schedule(static)
    for (int64_t i = 0; i < tile.rows; ++i) {
        A* row = static_cast<A*>(op.products) + i * tile.cols;
        A* out = static_cast<A*>(op.distance) + i * op.distance_stride;
        const A weight = static_cast<const A*>(tile.query_weight)[i];
        to_distances(tile, i, row);
        for (int64_t j = 0; j < tile.cols; ++j) out[j] += weight * weights[j] * row[j];
    }
    return Status::ok;
}

template <class A>
Status distance_backward(const PartDistanceBackward& op) {
    const PartTile& tile = op.tile;
    const A* weights = static_cast<const A*>(tile.gallery_weight);
#pragma omp parallel for num_threads(tile.threads) schedule(static)
    for (int64_t i = 0; i < tile.rows; ++i) {
        A* row = static_cast<A*>(op.products) + i * tile.cols;
        A* lengths = static_cast<A*>(op.lengths) + i * tile.cols;
        const A* grad = static_cast<const A*>(op.grad) + i * op.grad_stride;
        const A weight = static_cast<const A*>(tile.query_weight)[i];
        to_distances(tile, i, row);
        for (int64_t j = 0; j < tile.cols; ++j) {
            const A length = row[j];
            lengths[j] = grad[j] * length;
            row[j] = length == 0 ? A(0) : grad[j] * weight * weights[j] / length;
        }
    }
    return Status::ok;
}

}  // namespace

Status part_distance(const PartDistance& op) {
    return op.tile.dtype == DType::f64 ? distance<double>(op) : distance<float>(op);
}

Status part_distance_backward(const PartDistanceBackward& op) {
    return op.tile.dtype == DType::f64 ? distance_backward<double>(op) : distance_backward<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
