// The weighted part metric (STAL, Eq. 8) and its gradient, from the products f . g.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/product.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// f.f + g.g - 2 f.g loses digits where f and g are close. Below this share of f.f + g.g the distance is
// summed from differences: above it the rounding of float leaves five digits, and equal features are at
// exactly zero.
constexpr double kClose = 1e-2;

template <class A>
const A* panel(const PartSide& side, int64_t part, int64_t rows, int64_t D, int64_t first) {
    return static_cast<const A*>(side.panels) + (part * Panel<A>::count(rows) * Panel<A>::kRows + first) * D;
}

// Row i of a tile in one part: `cols` columns from `left` on, whose products are in `values`.
template <class A>
struct Row {
    Row(const PartTile& tile, A* values, int64_t part, int64_t i, int64_t left, int64_t cols)
        : D(tile.D),
          cols(cols),
          stride(tile.gallery.row_stride),
          values(values),
          query(features(tile.query, part, i)),
          gallery(features(tile.gallery, part, left)),
          square(numbers(tile.query.squares, tile.query, part)[i]),
          weight(numbers(tile.query.weights, tile.query, part)[i]),
          squares(numbers(tile.gallery.squares, tile.gallery, part) + left),
          weights(numbers(tile.gallery.weights, tile.gallery, part) + left) {}

    // The products become the distances ||f_i - g_j||, -1 where `between` has to find them. Whether there is
    // such a pair.
    bool to_distances() const {
        int any_close = 0;
        for (int64_t j = 0; j < cols; ++j) {
            const A sum = square + squares[j], squared = sum - 2 * values[j];
            const bool close = !(squared >= A(kClose) * sum);  // true for NaN, too
            any_close |= close;
            values[j] = close ? A(-1) : root(squared);
        }
        return any_close;
    }

    const A* item(int64_t j) const { return gallery + j * stride; }
    A between(int64_t j) const { return difference_norm(query, item(j), D); }

    const int64_t D, cols, stride;
    A* const values;
    const A *query, *gallery;
    const A square, weight;
    const A *squares, *weights;

  private:
    static const A* features(const PartSide& side, int64_t part, int64_t row) {
        return static_cast<const A*>(side.features) + part * side.part_stride + row * side.row_stride;
    }
    static const A* numbers(const void* data, const PartSide& side, int64_t part) {
        return static_cast<const A*>(data) + part * side.stride;
    }
};

// f(top, left, rows, columns, tile, stride) for the tiles of all pairs, with memory for their products.
template <class A, class F>
Status for_tiles(const PartTile& tile, F f) {
    const Tiling<A> tiles(tile.rows, tile.cols, tile.threads);
    const Scratch memory(tile.threads, tiles.kNumbers * int64_t(sizeof(A)));
    if (!memory) return Status::out_of_memory;
#pragma omp parallel for num_threads(tile.threads) schedule(dynamic)
    for (int64_t t = 0; t < tiles.size(); ++t) {
        const int64_t top = t / tiles.across * tiles.height, left = t % tiles.across * tiles.width;
        f(top, left, smaller(tiles.height, tile.rows - top), smaller(tiles.width, tile.cols - left),
          memory.of<A>(omp_get_thread_num()), tiles.width);
    }
    return Status::ok;
}

template <class A>
void part_products(const PartTile& tile, int64_t part, int64_t top, int64_t left, int64_t rows, int64_t cols,
                   A* out, int64_t stride) {
    multiply(panel<A>(tile.query, part, tile.rows, tile.D, top), rows,
             panel<A>(tile.gallery, part, tile.cols, tile.D, left), cols, tile.D, out, stride);
}

template <class A>
Status distance(const PartDistance& op) {
    const PartTile& tile = op.tile;
    return for_tiles<A>(tile, [&](int64_t top, int64_t left, int64_t rows, int64_t cols, A* products,
                                  int64_t stride) {
        for (int64_t part = 0; part < tile.parts; ++part) {
            part_products(tile, part, top, left, rows, cols, products, stride);
            for (int64_t i = 0; i < rows; ++i) {
                A* out = static_cast<A*>(op.distance) + (top + i) * op.distance_stride + left;
                const Row<A> row(tile, products + i * stride, part, top + i, left, cols);
                if (row.to_distances())
                    for (int64_t j = 0; j < cols; ++j)
                        if (row.values[j] < 0) row.values[j] = row.between(j);
                for (int64_t j = 0; j < cols; ++j) out[j] += row.weight * row.weights[j] * row.values[j];
            }
        }
    });
}

template <class A>
class Backward {
  public:
    explicit Backward(const PartDistanceBackward& op)
        : op_(op),
          tile_(op.tile),
          memory_(1, tile_.parts * tile_.rows * tile_.cols * int64_t(sizeof(A))),
          lengths_(memory_.of<A>(0)) {}

    Status run() {
        if (!memory_) return Status::out_of_memory;
        const Status status = for_tiles<A>(
            tile_, [&](int64_t top, int64_t left, int64_t rows, int64_t cols, A* products, int64_t stride) {
                for (int64_t part = 0; part < tile_.parts; ++part) {
                    part_products(tile_, part, top, left, rows, cols, products, stride);
                    for (int64_t i = 0; i < rows; ++i)
                        memcpy(slopes(part, top + i) + left, products + i * stride, size_t(cols) * sizeof(A));
                }
            });
        if (status != Status::ok) return status;
#pragma omp parallel num_threads(tile_.threads)
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < tile_.rows; ++i)
                for (int64_t part = 0; part < tile_.parts; ++part) query_row(part, i);
            // A thread's columns fill whole cache lines.
#pragma omp for schedule(static)
            for (int64_t left = 0; left < tile_.cols; left += kColumns)
                for (int64_t part = 0; part < tile_.parts; ++part)
                    gallery_rows(part, left, smaller(kColumns, tile_.cols - left));
        }
        return Status::ok;
    }

  private:
    static constexpr int64_t kColumns = 64;

    A* slopes(int64_t part, int64_t i) const {
        return static_cast<A*>(op_.slopes) + (part * tile_.rows + i) * tile_.cols;
    }
    A* lengths(int64_t part, int64_t i) const { return lengths_ + (part * tile_.rows + i) * tile_.cols; }
    A* target(void* gradient, int64_t part, int64_t row) const {
        return static_cast<A*>(gradient) + row * op_.row_stride + part * op_.part_stride;
    }
    // grad w_i w_j, where `row` begins at column `left`.
    A upstream(const Row<A>& row, int64_t i, int64_t left, int64_t j) const {
        return static_cast<const A*>(op_.grad)[i * op_.grad_stride + left + j] * row.weight * row.weights[j];
    }

    // Row i's products become slopes and lengths; the gradients of its features and of its weight.
    void query_row(int64_t part, int64_t i) const {
        const A* grad = static_cast<const A*>(op_.grad) + i * op_.grad_stride;
        const Row<A> row(tile_, slopes(part, i), part, i, 0, tile_.cols);
        A *length = lengths(part, i), *slope = row.values, *out = target(op_.dquery, part, i);
        if (row.to_distances())
            for (int64_t j = 0; j < tile_.cols; ++j)
                if (slope[j] < 0) {
                    const A distance = row.between(j), factor = upstream(row, i, 0, j);
                    length[j] = distance;
                    if (distance != 0 && factor != 0) add_difference(row, j, factor / distance, out);
                }
        for (int64_t j = 0; j < tile_.cols; ++j) {
            const bool close = slope[j] < 0;
            const A distance = close ? length[j] : slope[j];
            length[j] = grad[j] * distance;
            slope[j] = close || distance == 0 ? A(0) : upstream(row, i, 0, j) / distance;
        }
        add(row.query, sum(slope, tile_.cols), out);
        static_cast<A*>(op_.dquery_weights)[part * op_.weight_stride_query + i] +=
            dot(length, row.weights, tile_.cols);
    }

    // The gradients of some gallery rows and their weights: sums over the query rows in their order.
    void gallery_rows(int64_t part, int64_t left, int64_t cols) const {
        A slope_sum[kColumns] = {}, length_sum[kColumns] = {};
        for (int64_t i = 0; i < tile_.rows; ++i) {
            const Row<A> row(tile_, nullptr, part, i, left, cols);
            const A *slope = slopes(part, i) + left, *length = lengths(part, i) + left;
            for (int64_t j = 0; j < cols; ++j) {
                slope_sum[j] += slope[j];
                length_sum[j] += row.weight * length[j];
                if (slope[j] != 0 || length[j] == 0) continue;
                const A factor = upstream(row, i, left, j);
                if (factor != 0)
                    add_difference(row, j, -factor / row.between(j), target(op_.dgallery, part, left + j));
            }
        }
        const Row<A> row(tile_, nullptr, part, 0, left, cols);
        for (int64_t j = 0; j < cols; ++j) {
            add(row.item(j), slope_sum[j], target(op_.dgallery, part, left + j));
            static_cast<A*>(op_.dgallery_weights)[part * op_.weight_stride_gallery + left + j] += length_sum[j];
        }
    }

    // Adds slope (f - g): slope f - slope g would lose the digits that f and g share.
    void add_difference(const Row<A>& row, int64_t j, A slope, A* out) const {
        const A *f = row.query, *g = row.item(j);
        for_vectors<A>(tile_.D, [&](int64_t d, auto part) {
            part.store(out + d, part.load(out + d) + slope * (part.load(f + d) - part.load(g + d)));
        });
    }
    void add(const A* features, A factor, A* out) const {
        for_vectors<A>(tile_.D, [&](int64_t d, auto part) {
            part.store(out + d, part.load(out + d) + factor * part.load(features + d));
        });
    }

    const PartDistanceBackward& op_;
    const PartTile& tile_;
    const Scratch memory_;
    A* const lengths_;
};

}  // namespace

Status part_distance(const PartDistance& op) {
    return op.tile.dtype == DType::f64 ? distance<double>(op) : distance<float>(op);
}

Status part_distance_backward(const PartDistanceBackward& op) {
    return op.tile.dtype == DType::f64 ? Backward<double>(op).run() : Backward<float>(op).run();
}

}  // namespace VREID_ISA
}  // namespace vreid
