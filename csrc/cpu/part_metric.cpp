// The weighted part metric (STAL, Eq. 8) of one tile, after the matrix products that give f . g.
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// f.f + g.g - 2 f.g loses digits where f and g are close. Below this share of f.f + g.g the distance is
// summed from differences: above it the rounding of float leaves four digits, and equal features are at
// exactly zero.
constexpr double kClose = 1e-3;

// A row of a tile in one part.
template <class A>
struct Row {
    Row(const PartTile& tile, void* products, int64_t part, int64_t i)
        : tile(tile),
          values(static_cast<A*>(products) + (part * tile.rows + i) * tile.cols),
          query(features(tile.query, part) + i * tile.query.row_stride),
          gallery(features(tile.gallery, part)),
          square(numbers(tile.query.squares, tile.query, part)[i]),
          weight(numbers(tile.query.weights, tile.query, part)[i]),
          squares(numbers(tile.gallery.squares, tile.gallery, part)),
          weights(numbers(tile.gallery.weights, tile.gallery, part)) {}

    // The products become the distances ||f_i - g_j||.
    void to_distances() const {
        int any_close = 0;
        for (int64_t j = 0; j < tile.cols; ++j) {
            const A sum = square + squares[j], squared = sum - 2 * values[j];
            const bool close = !(squared >= A(kClose) * sum);  // true for NaN, too
            any_close |= close;
            values[j] = close ? A(-1) : root(squared);
        }
        if (!any_close) return;
        for (int64_t j = 0; j < tile.cols; ++j)
            if (values[j] < 0)
                values[j] = difference_norm(query, gallery + j * tile.gallery.row_stride, tile.D);
    }

    const PartTile& tile;
    A* values;
    const A *query, *gallery;
    A square, weight;
    const A *squares, *weights;

  private:
    static const A* features(const PartSide& side, int64_t part) {
        return static_cast<const A*>(side.features) + part * side.part_stride;
    }
    static const A* numbers(const void* data, const PartSide& side, int64_t part) {
        return static_cast<const A*>(data) + part * side.stride;
    }
};

template <class A>
Status distance(const PartDistance& op) {
    const PartTile& tile = op.tile;
#pragma omp parallel for num_threads(tile.threads) schedule(static)
    for (int64_t i = 0; i < tile.rows; ++i) {
        A* out = static_cast<A*>(op.distance) + i * op.distance_stride;
        for (int64_t part = 0; part < tile.parts; ++part) {
            const Row<A> row(tile, op.products, part, i);
            row.to_distances();
            for (int64_t j = 0; j < tile.cols; ++j) out[j] += row.weight * row.weights[j] * row.values[j];
        }
    }
    return Status::ok;
}

template <class A>
Status distance_backward(const PartDistanceBackward& op) {
    const PartTile& tile = op.tile;
#pragma omp parallel for num_threads(tile.threads) schedule(static)
    for (int64_t i = 0; i < tile.rows; ++i) {
        const A* grad = static_cast<const A*>(op.grad) + i * op.grad_stride;
        for (int64_t part = 0; part < tile.parts; ++part) {
            const Row<A> row(tile, op.products, part, i);
            A* lengths = static_cast<A*>(op.lengths) + (part * tile.rows + i) * tile.cols;
            row.to_distances();
            for (int64_t j = 0; j < tile.cols; ++j) {
                const A length = row.values[j];
                lengths[j] = grad[j] * length;
                row.values[j] = length == 0 ? A(0) : grad[j] * row.weight * row.weights[j] / length;
            }
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
