// The weighted part metric (STAL, Eq. 8) of one tile, after the matrix products that give f . g.
#include <algorithm>

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

    // The products become the distances ||f_i - g_j||, -1 where `between` has to find them. Whether there is
    // such a pair.
    bool to_distances() const {
        int any_close = 0;
        for (int64_t j = 0; j < tile.cols; ++j) {
            const A sum = square + squares[j], squared = sum - 2 * values[j];
            const bool close = !(squared >= A(kClose) * sum);  // true for NaN, too
            any_close |= close;
            values[j] = close ? A(-1) : root(squared);
        }
        return any_close;
    }

    const A* item(int64_t j) const { return gallery + j * tile.gallery.row_stride; }
    A between(int64_t j) const { return difference_norm(query, item(j), tile.D); }

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
            if (row.to_distances())
                for (int64_t j = 0; j < tile.cols; ++j)
                    if (row.values[j] < 0) row.values[j] = row.between(j);
            for (int64_t j = 0; j < tile.cols; ++j) out[j] += row.weight * row.weights[j] * row.values[j];
        }
    }
    return Status::ok;
}

// A row of a tile in one part on the way back.
template <class A>
struct RowBackward : Row<A> {
    RowBackward(const PartDistanceBackward& op, int64_t part, int64_t i)
        : Row<A>(op.tile, op.products, part, i),
          grad(static_cast<const A*>(op.grad) + i * op.grad_stride),
          lengths(static_cast<A*>(op.lengths) + (part * op.tile.rows + i) * op.tile.cols) {}

    using Row<A>::values;

    // The products become grad w_i w_j / distance, 0 for close and equal pairs, and lengths grad * distance.
    // Whether there are close pairs.
    bool to_slopes() const {
        const int64_t cols = this->tile.cols;
        const bool any_close = this->to_distances();
        if (any_close)
            for (int64_t j = 0; j < cols; ++j)
                if (values[j] < 0) lengths[j] = this->between(j);
        for (int64_t j = 0; j < cols; ++j) {
            const bool close = values[j] < 0;
            const A length = close ? lengths[j] : values[j], slope = upstream(j) / length;
            lengths[j] = grad[j] * length;
            values[j] = close || length == 0 ? A(0) : slope;
        }
        return any_close;
    }

    // Adds `sign` grad w_i w_j (f_i - g_j) / distance to `target`, if the pair is close.
    void add_close(int64_t j, A sign, A* target) const {
        if (values[j] != 0 || lengths[j] == 0 || upstream(j) == 0) return;
        const A slope = sign * upstream(j) / this->between(j);
        const A *f = this->query, *g = this->item(j);
        for_vectors<A>(this->tile.D, [&](int64_t d, auto part) {
            part.store(target + d, part.load(target + d) + slope * (part.load(f + d) - part.load(g + d)));
        });
    }

  private:
    A upstream(int64_t j) const { return grad[j] * this->weight * this->weights[j]; }

    const A* grad;
    A* lengths;
};

// The gradients of close pairs, from differences: slope * f - slope * g would lose the digits that f and g
// share. Every sum is over one axis in its order, whatever the number of threads.
template <class A>
void add_close_pairs(const PartDistanceBackward& op) {
    constexpr int64_t kColumns = 64;
    const PartTile& tile = op.tile;
    const auto target = [&](void* gradient, int64_t part, int64_t row) {
        return static_cast<A*>(gradient) + row * op.row_stride + part * op.part_stride;
    };
#pragma omp parallel num_threads(tile.threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tile.rows; ++i)
            for (int64_t part = 0; part < tile.parts; ++part) {
                const RowBackward<A> row(op, part, i);
                for (int64_t j = 0; j < tile.cols; ++j) row.add_close(j, A(1), target(op.dquery, part, i));
            }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < tile.cols; first += kColumns)
            for (int64_t part = 0; part < tile.parts; ++part)
                for (int64_t i = 0; i < tile.rows; ++i) {
                    const RowBackward<A> row(op, part, i);
                    for (int64_t j = first; j < std::min(first + kColumns, tile.cols); ++j)
                        row.add_close(j, A(-1), target(op.dgallery, part, j));
                }
    }
}

template <class A>
Status distance_backward(const PartDistanceBackward& op) {
    const PartTile& tile = op.tile;
    int any_close = 0;
#pragma omp parallel for num_threads(tile.threads) schedule(static) reduction(| : any_close)
    for (int64_t i = 0; i < tile.rows; ++i)
        for (int64_t part = 0; part < tile.parts; ++part)
            any_close |= RowBackward<A>(op, part, i).to_slopes();
    if (any_close) add_close_pairs<A>(op);
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
