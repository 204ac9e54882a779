// The weighted part metric (STAL, Eq. 8) and its gradient, from the products f . g.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/panels.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// The tasks of `products` products (rows, columns) with sums of `depth` terms. A task packs the right side of
// its columns into memory of its thread and multiplies it by its rows, which are not packed: 1 / rows of the
// time of the task. So tasks have many rows, unless there are too few tasks for the threads.
template <class A>
struct Tasks {
    int64_t products, rows, columns, height, width, down, across;

    Tasks(int64_t products, int64_t rows, int64_t columns, int64_t depth, int threads)
        : products(products),
          rows(rows),
          columns(columns),
          width(smaller(Panel<A>::count(columns), widest(depth)) * Panel<A>::kRows),
          across((columns + width - 1) / width) {
        const int64_t without = products * across;  // tasks that have all rows
        const int64_t many = (8 * threads + without - 1) / without,
                      few = (2 * threads + without - 1) / without;
        down = larger(smaller(many, rows / kMany), larger(smaller(few, rows / kFew), 1));
        height = ((rows + down - 1) / down + kFew - 1) / kFew * kFew;
        down = (rows + height - 1) / height;
    }
    int64_t size() const { return products * down * across; }
    int64_t product(int64_t task) const { return task / (down * across); }
    Cut cut(int64_t task) const {
        const int64_t top = task / across % down * height, left = task % across * width;
        return {top, left, smaller(height, rows - top), smaller(width, columns - left)};
    }
    // Elements of the packed columns and of the products of one tile.
    int64_t packed(int64_t depth) const { return width * depth; }
    int64_t tile() const { return kTileRows * width; }

  private:
    static constexpr int64_t kPacked = 1 << 18;  // elements: half of an L2 cache in float32
    static constexpr int64_t kMany = 2 * kTileRows, kFew = 32;
    static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
    // The largest number of panels that a task packs.
    static int64_t widest(int64_t depth) {
        constexpr int64_t kRows = Panel<A>::kRows;
        return smaller(kTileColumns / kRows, larger(kPacked / larger(depth * kRows, 1), 1));
    }
};

template <class A>
Rows part_rows(const PartTile& tile, const PartSide& side, int64_t part, int64_t rows) {
    return {static_cast<const A*>(side.features) + part * side.part_stride, tile.dtype, rows, tile.D,
            side.row_stride};
}

template <class A>
A weight_of(const PartSide& side, int64_t part, int64_t row) {
    return static_cast<const A*>(side.weights)[row * side.weight_stride + part];
}

// weights (parts,cols) = the weights of the gallery items.
template <class A>
void transpose_weights(const PartTile& tile, A* weights) {
#pragma omp for schedule(static) nowait
    for (int64_t part = 0; part < tile.parts; ++part)
        for (int64_t j = 0; j < tile.cols; ++j)
            weights[part * tile.cols + j] = weight_of<A>(tile.gallery, part, j);
}

inline float magnitude(float x) {
    return fabsf(x);
}
inline double magnitude(double x) {
    return fabs(x);
}

// Distances of pairs in one part at a time. Every thread has one.
template <class A>
class Distances {
  public:
    Distances(const PartTile& tile, const Tasks<A>& tasks, A* squares, A* memory)
        : tile_(tile),
          tasks_(tasks),
          squares_(squares),
          panels_(memory),
          products_(panels_ + tasks.packed(tile.D)),
          column_squares_(products_ + tasks.tile()) {}

    // Elements of the memory of a thread, and of the squared norms of the queries.
    static int64_t memory(const PartTile& tile, const Tasks<A>& tasks) {
        return tasks.packed(tile.D) + tasks.tile() + tasks.width;
    }
    static int64_t squares(const PartTile& tile) { return tile.parts * padded(tile.rows); }

    // Computes the squared norms of the queries; for all threads. The sums have the order of those of the
    // packed columns, so that a distance does not depend on which of its rows is the query.
    void square_queries() const {
#pragma omp for schedule(static) collapse(2)
        for (int64_t part = 0; part < tile_.parts; ++part)
            for (int64_t i = 0; i < tile_.rows; i += Lanes<A>::N) {
                // Packed rows are not needed: all are written to the same place.
                const Rows queries = part_rows<A>(tile_, tile_.query, part, tile_.rows);
                store(squares_ + part * padded(tile_.rows) + i, pack(queries, i, products_, 0));
            }
    }

    // Calls f(row, distances) for each row of `cut`. The distances of close pairs are negative.
    template <class F>
    void for_rows(int64_t part, const Cut& cut, F f) const {
        using P = Panel<A>;
        const Rows queries = part_rows<A>(tile_, tile_.query, part, tile_.rows);
        const Rows items = part_rows<A>(tile_, tile_.gallery, part, tile_.cols);
        for (int64_t j = 0; j < cut.columns; j += P::kLanes)
            store(column_squares_ + j, pack(items, cut.left + j, panels_ + P::offset(j, tile_.D), P::kRows));
        const int64_t bottom = cut.top + cut.rows;
        for (int64_t top = cut.top; top < bottom; top += kTileRows) {
            const int64_t rows = smaller(kTileRows, bottom - top);
            multiply(PlainRows<A>{row<A>(queries, top), queries.stride}, rows, panels_, 0, cut.columns,
                     tile_.D, products_, tasks_.width);
            for (int64_t i = 0; i < rows; ++i) {
                A* distances = products_ + i * tasks_.width;
                const A square = squares_[part * padded(tile_.rows) + top + i];
                if (from_products(square, cut.columns, distances)) {
                    const A* query = row<A>(queries, top + i);
                    for (int64_t j = 0; j < cut.columns; ++j)
                        if (distances[j] < 0)
                            distances[j] = -difference_norm(query, row<A>(items, cut.left + j), tile_.D);
                }
                f(top + i, distances);
            }
        }
    }

  private:
    static int64_t padded(int64_t rows) { return (rows + Lanes<A>::N - 1) / Lanes<A>::N * Lanes<A>::N; }

    // Packs kLanes rows. Returns their squared norms.
    static Vec<A> pack(const Rows& rows, int64_t first, A* out, int64_t stride) {
        BlockSum<A> square;
        pack_lanes<A>(rows, first, out, stride, [&](int64_t d, Vec<A> v) {
            square.add(d, v * v);
            return v;
        });
        return square.value();
    }

    // Replaces the products of a row by the distances, and by -1 for close pairs. Returns whether there is
    // one.
    bool from_products(A square, int64_t columns, A* values) const {
        const A* const other = column_squares_;
        int any_close = 0;
#pragma omp simd reduction(| : any_close)
        for (int64_t j = 0; j < columns; ++j) {
            const A sum = square + other[j], squared = sum - 2 * values[j];
            const bool close = !(squared >= A(kClosePair) * sum);  // true for NaN, too
            any_close |= close;
            values[j] = close ? A(-1) : root(squared);
        }
        return any_close;
    }

    const PartTile& tile_;
    const Tasks<A>& tasks_;
    A *const squares_, *const panels_, *const products_, *const column_squares_;
};

template <class A>
Status distance(const PartDistance& op) {
    const PartTile& tile = op.tile;
    // With memory for the distances of every part, a task is a block of one part, otherwise of all parts.
    const Tasks<A> tasks(op.distances ? tile.parts : 1, tile.rows, tile.cols, tile.D, tile.threads);
    const Scratch memory(tile.threads, Distances<A>::memory(tile, tasks) * int64_t(sizeof(A)));
    const Scratch shared(1, (tile.parts * tile.cols + Distances<A>::squares(tile)) * int64_t(sizeof(A)));
    if (!memory || !shared) return Status::out_of_memory;
    A *const item_weights = shared.of<A>(0), *const squares = item_weights + tile.parts * tile.cols;
    A* const kept = static_cast<A*>(op.distances);
    // Adds the weighted distances of one part in `cols` columns from `left` on.
    const auto add = [&](int64_t part, int64_t i, int64_t left, int64_t cols, const A* values) {
        A* const out = static_cast<A*>(op.distance) + i * tile.cols + left;
        const A* const weights = item_weights + part * tile.cols + left;
        const A weight = weight_of<A>(tile.query, part, i);
        const bool first = part == 0;
#pragma omp simd
        for (int64_t j = 0; j < cols; ++j) {
            const A value = weight * weights[j] * magnitude(values[j]);
            out[j] = first ? value : out[j] + value;
        }
    };
#pragma omp parallel num_threads(tile.threads)
    {
        const Distances<A> distances(tile, tasks, squares, memory.of<A>(omp_get_thread_num()));
        transpose_weights(tile, item_weights);
        distances.square_queries();
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tasks.size(); ++t) {
            const Cut cut = tasks.cut(t);
            const int64_t first = tasks.product(t), end = kept ? first + 1 : tile.parts;
            for (int64_t part = first; part < end; ++part)
                distances.for_rows(part, cut, [&](int64_t i, const A* values) {
                    if (kept) {
                        memcpy(kept + (part * tile.rows + i) * tile.cols + cut.left, values,
                               size_t(cut.columns) * sizeof(A));
                    } else {
                        add(part, i, cut.left, cut.columns, values);
                    }
                });
        }
        if (kept) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < tile.rows; ++i)
                for (int64_t part = 0; part < tile.parts; ++part)
                    add(part, i, 0, tile.cols, kept + (part * tile.rows + i) * tile.cols);
        }
    }
    return Status::ok;
}

// With slope_ij = grad_ij w_i w_j / ||f_i - g_j||, the gradient of f_i is sum_j slope_ij (f_i - g_j). Pairs
// that are not close contribute f_i times the sum of the slopes, minus a matrix product of the slopes and g;
// close pairs contribute their differences. Every sum runs along one axis in order, for any number of
// threads.
template <class A>
class Backward {
  public:
    explicit Backward(const PartDistanceBackward& op)
        : op_(op),
          tile_(op.tile),
          stride_(padded(tile_.cols)),
          distance_tasks_(tile_.parts, tile_.rows, tile_.cols, tile_.D, tile_.threads),
          query_tasks_(tile_.parts, tile_.rows, tile_.D, tile_.cols, tile_.threads),
          gallery_tasks_(tile_.parts, tile_.cols, tile_.D, tile_.rows, tile_.threads),
          slopes_(static_cast<A*>(op.scratch)),
          computed_(op.distances ? nullptr : slopes_ + tile_.parts * tile_.rows * stride_),
          distances_(op.distances ? static_cast<const A*>(op.distances) : computed_),
          memory_(tile_.threads, largest() * int64_t(sizeof(A))),
          shared_(1, (tile_.parts * (2 * tile_.cols + tile_.rows) + Distances<A>::squares(tile_)) *
                         int64_t(sizeof(A))),
          close_(1, tile_.parts * (tile_.rows + tile_.cols)) {}

    // Elements of op.scratch.
    static int64_t numbers(const PartTile& tile) {
        return tile.parts * tile.rows * (padded(tile.cols) + tile.cols);
    }

    Status run() {
        if (!memory_ || !shared_ || !close_) return Status::out_of_memory;
        item_weights_ = shared_.of<A>(0);
        item_sums_ = item_weights_ + tile_.parts * tile_.cols;
        query_sums_ = item_sums_ + tile_.parts * tile_.cols;
        close_query_ = close_.of<bool>(0);
        close_item_ = close_query_ + tile_.parts * tile_.rows;
#pragma omp parallel num_threads(tile_.threads)
        {
            A* memory = memory_.of<A>(omp_get_thread_num());
            transpose_weights(tile_, item_weights_);
            if (computed_) {
                compute_distances(memory);
            } else {
#pragma omp barrier
            }
#pragma omp for schedule(static) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t i = 0; i < tile_.rows; ++i) query_row(part, i);
#pragma omp for schedule(static) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t left = 0; left < tile_.cols; left += kColumns)
                    item_columns(part, left, smaller(kColumns, tile_.cols - left));
#pragma omp for schedule(dynamic) nowait
            for (int64_t t = 0; t < query_tasks_.size(); ++t)
                gradients(query_tasks_, t, tile_.query, tile_.gallery, tile_.cols, op_.query, query_sums_,
                          close_query_, memory, [&](int64_t part, int64_t top) {
                              return PlainRows<A>{slopes(part, top), stride_};
                          });
#pragma omp for schedule(dynamic)
            for (int64_t t = 0; t < gallery_tasks_.size(); ++t)
                gradients(gallery_tasks_, t, tile_.gallery, tile_.query, tile_.rows, op_.gallery, item_sums_,
                          close_item_, memory, [&](int64_t part, int64_t top) {
                              return PlainColumns<A>{slopes(part, 0) + top, stride_};
                          });
        }
        return Status::ok;
    }

  private:
    static constexpr int64_t kColumns = 64;

    // Rows of slopes are padded with zeros: PlainColumns reads whole micro-tiles.
    static int64_t padded(int64_t cols) {
        return (cols + Panel<A>::kMicro - 1) / Panel<A>::kMicro * Panel<A>::kMicro;
    }
    int64_t largest() const {
        const int64_t sizes[] = {computed_ ? Distances<A>::memory(tile_, distance_tasks_) : 0,
                                 query_tasks_.packed(tile_.cols) + query_tasks_.tile(),
                                 gallery_tasks_.packed(tile_.rows) + gallery_tasks_.tile()};
        int64_t most = 0;
        for (const int64_t size : sizes) most = size > most ? size : most;
        return most;
    }

    A* slopes(int64_t part, int64_t i) const { return slopes_ + (part * tile_.rows + i) * stride_; }
    const A* distances(int64_t part, int64_t i) const {
        return distances_ + (part * tile_.rows + i) * tile_.cols;
    }
    const A* features(const PartSide& side, int64_t part, int64_t row) const {
        return static_cast<const A*>(side.features) + part * side.part_stride + row * side.row_stride;
    }
    A* target(const PartGradient& gradient, int64_t part, int64_t row) const {
        return static_cast<A*>(gradient.features) + row * op_.row_stride + part * op_.part_stride;
    }
    void add_weight(const PartGradient& gradient, int64_t part, int64_t row, A value) const {
        A& weight = static_cast<A*>(gradient.weights)[row * op_.weight_stride + part];
        weight = gradient.add ? weight + value : value;
    }

    void compute_distances(A* memory) const {
        A* squares = query_sums_ + tile_.parts * tile_.rows;
        const Distances<A> all(tile_, distance_tasks_, squares, memory);
        all.square_queries();
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < distance_tasks_.size(); ++t) {
            const int64_t part = distance_tasks_.product(t);
            const Cut cut = distance_tasks_.cut(t);
            all.for_rows(part, cut, [&](int64_t i, const A* values) {
                memcpy(computed_ + (part * tile_.rows + i) * tile_.cols + cut.left, values,
                       size_t(cut.columns) * sizeof(A));
            });
        }
    }

    // The slopes of query i, their sum, and the gradient of its weight. Adds the differences of close pairs
    // to the gradient of its features.
    void query_row(int64_t part, int64_t i) const {
        const A* const grad = static_cast<const A*>(op_.grad) + i * op_.grad_stride;
        const A *const distance = distances(part, i), *const weights = item_weights_ + part * tile_.cols;
        A* const slope = slopes(part, i);
        const Vec<A> weight = broadcast<A>(weight_of<A>(tile_.query, part, i));
        Vec<A> slope_sum{}, length_sum{};
        for_vectors<A>(tile_.cols, [&](int64_t j, auto p) {
            const Vec<A> d = p.load(distance + j), upstream = p.load(grad + j), other = p.load(weights + j);
            const auto far = d > Vec<A>{};
            const Vec<A> own = far ? upstream * weight * other / d : Vec<A>{};
            p.store(slope + j, own);
            slope_sum += own;
            length_sum += upstream * (d < Vec<A>{} ? -d : d) * other;
        });
        for (int64_t j = tile_.cols; j < stride_; ++j) slope[j] = 0;
        query_sums_[part * tile_.rows + i] = sum_lanes(slope_sum);
        add_weight(op_.query, part, i, sum_lanes(length_sum));
        bool& close = close_query_[part * tile_.rows + i];
        close = false;
        for (int64_t j = 0; j < tile_.cols; ++j)
            if (!(distance[j] > 0))
                add_difference(part, i, j, i, features(tile_.query, part, i),
                               features(tile_.gallery, part, j), op_.query, close);
    }

    // The sums of the slopes of some items, and the gradients of their weights: sums over the queries in
    // order. Adds the differences of close pairs to the gradients of the items' features.
    void item_columns(int64_t part, int64_t left, int64_t cols) const {
        A slope_sum[kColumns] = {}, length_sum[kColumns] = {};
        bool* const close = close_item_ + part * tile_.cols + left;
        memset(close, 0, size_t(cols) * sizeof(bool));
        for (int64_t i = 0; i < tile_.rows; ++i) {
            const A *const slope = slopes(part, i) + left, *const distance = distances(part, i) + left;
            const A* const grad = static_cast<const A*>(op_.grad) + i * op_.grad_stride + left;
            const A weight = weight_of<A>(tile_.query, part, i);
#pragma omp simd
            for (int64_t j = 0; j < cols; ++j) {
                slope_sum[j] += slope[j];
                length_sum[j] += weight * (grad[j] * magnitude(distance[j]));
            }
            if (!close_query_[part * tile_.rows + i]) continue;
            for (int64_t j = 0; j < cols; ++j)
                if (!(distance[j] > 0))
                    add_difference(part, i, left + j, left + j, features(tile_.gallery, part, left + j),
                                   features(tile_.query, part, i), op_.gallery, close[j]);
        }
        for (int64_t j = 0; j < cols; ++j) {
            item_sums_[part * tile_.cols + left + j] = slope_sum[j];
            add_weight(op_.gallery, part, left + j, length_sum[j]);
        }
    }

    // Adds slope (f - g) of the close pair (i,j) to the gradient of `row`, whose features are f; slope f -
    // slope g would lose the digits that f and g have in common. `any` is whether the row had such a pair
    // before.
    void add_difference(int64_t part, int64_t i, int64_t j, int64_t row, const A* f, const A* g,
                        const PartGradient& gradient, bool& any) const {
        const A distance = -distances(part, i)[j];
        const A upstream = static_cast<const A*>(op_.grad)[i * op_.grad_stride + j] *
                           weight_of<A>(tile_.query, part, i) * item_weights_[part * tile_.cols + j];
        if (distance == 0 || upstream == 0) return;
        A* const out = target(gradient, part, row);
        const A slope = upstream / distance;
        const bool add = gradient.add || any;
        any = true;
        for_vectors<A>(tile_.D, [&](int64_t d, auto p) {
            const Vec<A> v = slope * (p.load(f + d) - p.load(g + d));
            p.store(out + d, add ? p.load(out + d) + v : v);
        });
    }

    // The gradients of the features in some columns d of some rows: their features times the sums of their
    // slopes, minus the product of their slopes, side(part, first row), and the features of the other side.
    template <class Slopes>
    void gradients(const Tasks<A>& tasks, int64_t t, const PartSide& own, const PartSide& other,
                   int64_t others, const PartGradient& gradient, const A* sums, const bool* close, A* memory,
                   Slopes side) const {
        using P = Panel<A>;
        const int64_t part = tasks.product(t), bottom = tasks.cut(t).top + tasks.cut(t).rows;
        const Cut cut = tasks.cut(t);
        A *const panels = memory, *const products = memory + tasks.packed(others);
        pack_columns(features(other, part, 0) + cut.left, other.row_stride, 0, others, cut.columns, panels,
                     P::kRows * others);
        for (int64_t top = cut.top; top < bottom; top += kTileRows) {
            const int64_t rows = smaller(kTileRows, bottom - top);
            multiply(side(part, top), rows, panels, 0, cut.columns, others, products, tasks.width);
            for (int64_t n = 0; n < rows; ++n) {
                const int64_t i = part * tasks.rows + top + n;
                const bool add = gradient.add || close[i];
                const A *const f = features(own, part, top + n) + cut.left, sum = sums[i];
                const A* const product = products + n * tasks.width;
                A* const out = target(gradient, part, top + n) + cut.left;
                for_vectors<A>(cut.columns, [&](int64_t d, auto p) {
                    const Vec<A> v = sum * p.load(f + d);
                    p.store(out + d, (add ? p.load(out + d) + v : v) - p.load(product + d));
                });
            }
        }
    }

    const PartDistanceBackward& op_;
    const PartTile& tile_;
    const int64_t stride_;  // of slopes_
    const Tasks<A> distance_tasks_, query_tasks_, gallery_tasks_;
    A *const slopes_, *const computed_;  // (parts,rows,stride_), (parts,rows,cols)
    const A* const distances_;           // (parts,rows,cols), negated for close pairs
    const Scratch memory_, shared_, close_;
    A *item_weights_ = nullptr, *item_sums_ = nullptr, *query_sums_ = nullptr;  // (parts,cols), (parts,rows)
    // Whether the gradient of a row has differences of pairs.
    bool *close_query_ = nullptr, *close_item_ = nullptr;
};

}  // namespace

Status part_distance(const PartDistance& op) {
    return op.tile.dtype == DType::f64 ? distance<double>(op) : distance<float>(op);
}

int64_t part_distance_scratch(const PartTile& tile) {
    return tile.dtype == DType::f64 ? Backward<double>::numbers(tile) : Backward<float>::numbers(tile);
}

Status part_distance_backward(const PartDistanceBackward& op) {
    return op.tile.dtype == DType::f64 ? Backward<double>(op).run() : Backward<float>(op).run();
}

}  // namespace VREID_ISA
}  // namespace vreid
