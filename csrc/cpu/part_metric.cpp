// The weighted part metric (STAL, Eq. 8) and its gradient, from the products f . g.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/panels.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class A>
const A* panel(const PartSide& side, int64_t part, int64_t rows, int64_t D) {
    return static_cast<const A*>(side.panels) + part * Panel<A>::count(rows) * Panel<A>::kRows * D;
}

// Row i of a tile in one part, `cols` columns from `left` on; `values` holds their products.
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

    // Replaces the products by the distances ||f_i - g_j||, and by -1 for close pairs, whose distance is
    // `between`. Returns whether there is a close pair.
    bool to_distances() const {
        A* const d = values;
        const A *const other = squares, own = square;
        int any_close = 0;
#pragma omp simd reduction(| : any_close)
        for (int64_t j = 0; j < cols; ++j) {
            const A sum = own + other[j], squared = sum - 2 * d[j];
            const bool close = !(squared >= A(kClosePair) * sum);  // true for NaN, too
            any_close |= close;
            d[j] = close ? A(-1) : root(squared);
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

template <class A>
void part_products(const PartTile& tile, int64_t part, int64_t top, int64_t left, int64_t rows, int64_t cols,
                   A* out, int64_t stride) {
    multiply(PackedRows<A>{panel<A>(tile.query, part, tile.rows, tile.D), top, tile.D}, rows,
             panel<A>(tile.gallery, part, tile.cols, tile.D), left, cols, tile.D, out, stride);
}

template <class A>
Status distance(const PartDistance& op) {
    const PartTile& tile = op.tile;
    const Tiling<A> tiles(tile.rows, tile.cols, tile.threads);
    const Scratch memory(tile.threads, tiles.kNumbers * int64_t(sizeof(A)));
    if (!memory) return Status::out_of_memory;
#pragma omp parallel for num_threads(tile.threads) schedule(dynamic)
    for (int64_t t = 0; t < tiles.size(); ++t) {
        const Cut cut = tiles.cut(t);
        A* products = memory.of<A>(omp_get_thread_num());
        for (int64_t part = 0; part < tile.parts; ++part) {
            part_products(tile, part, cut.top, cut.left, cut.rows, cut.columns, products, tiles.width);
            for (int64_t i = 0; i < cut.rows; ++i) {
                A* out = static_cast<A*>(op.distance) + (cut.top + i) * op.distance_stride + cut.left;
                const Row<A> row(tile, products + i * tiles.width, part, cut.top + i, cut.left, cut.columns);
                if (row.to_distances())
                    for (int64_t j = 0; j < row.cols; ++j)
                        if (row.values[j] < 0) row.values[j] = row.between(j);
                const A *const weights = row.weights, *const distances = row.values, weight = row.weight;
#pragma omp simd
                for (int64_t j = 0; j < row.cols; ++j) out[j] += weight * weights[j] * distances[j];
            }
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
          pairs_(tile_.rows * tile_.cols),
          row_panels_(Panel<A>::count(tile_.rows)),
          col_panels_(Panel<A>::count(tile_.cols)),
          dim_panels_(Panel<A>::count(tile_.D)),
          slopes_(static_cast<A*>(op.scratch)),
          lengths_(slopes_ + tile_.parts * pairs_),
          row_slopes_(lengths_ + tile_.parts * pairs_),
          col_slopes_(row_slopes_ + tile_.parts * row_panels_ * kPanel * tile_.cols),
          query_columns_(col_slopes_ + tile_.parts * col_panels_ * kPanel * tile_.rows),
          gallery_columns_(query_columns_ + tile_.parts * dim_panels_ * kPanel * tile_.rows),
          close_(1, tile_.parts * tile_.rows),
          products_(tile_.threads, Tiling<A>::kNumbers * int64_t(sizeof(A))) {}

    // Elements of op.scratch.
    static int64_t numbers(const PartTile& tile) {
        const auto whole = [](int64_t rows) { return Panel<A>::count(rows) * kPanel; };
        return tile.parts * (2 * tile.rows * tile.cols + whole(tile.rows) * tile.cols +
                             whole(tile.cols) * tile.rows + whole(tile.D) * (tile.rows + tile.cols));
    }

    Status run() {
        if (!close_ || !products_) return Status::out_of_memory;
        const Tiling<A> pairs(tile_.rows, tile_.cols, tile_.threads);
        const Tiling<A> queries(tile_.rows, tile_.D, tile_.threads);
        const Tiling<A> items(tile_.cols, tile_.D, tile_.threads);
#pragma omp parallel num_threads(tile_.threads)
        {
            A* products = products_.of<A>(omp_get_thread_num());
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t t = 0; t < pairs.size(); ++t) pair_products(part, pairs, t, products);
#pragma omp for schedule(static) collapse(2) nowait
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t i = 0; i < tile_.rows; i += kBlock)
                    pack_features(tile_.query, part, i, tile_.rows, query_columns_);
#pragma omp for schedule(static) collapse(2) nowait
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t j = 0; j < tile_.cols; j += kBlock)
                    pack_features(tile_.gallery, part, j, tile_.cols, gallery_columns_);
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t p = 0; p < row_panels_; ++p) query_panel(part, p);
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t left = 0; left < tile_.cols; left += kColumns)
                    gallery_rows(part, left, smaller(kColumns, tile_.cols - left));
#pragma omp for schedule(dynamic) collapse(2) nowait
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t t = 0; t < queries.size(); ++t)
                    subtract_products(part, queries, t,
                                      row_slopes_ + part * row_panels_ * kPanel * tile_.cols,
                                      gallery_columns_, tile_.cols, products, op_.dquery);
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t part = 0; part < tile_.parts; ++part)
                for (int64_t t = 0; t < items.size(); ++t)
                    subtract_products(part, items, t, col_slopes_ + part * col_panels_ * kPanel * tile_.rows,
                                      query_columns_, tile_.rows, products, op_.dgallery);
        }
        return Status::ok;
    }

  private:
    static constexpr int64_t kPanel = Panel<A>::kRows, kColumns = 64, kBlock = 8;

    A* slopes(int64_t part, int64_t i) const { return slopes_ + part * pairs_ + i * tile_.cols; }
    A* lengths(int64_t part, int64_t i) const { return lengths_ + part * pairs_ + i * tile_.cols; }
    A* target(void* gradient, int64_t part, int64_t row) const {
        return static_cast<A*>(gradient) + row * op_.row_stride + part * op_.part_stride;
    }
    // grad w_i w_j, if `row` starts at column `left`.
    A upstream(const Row<A>& row, int64_t i, int64_t left, int64_t j) const {
        return static_cast<const A*>(op_.grad)[i * op_.grad_stride + left + j] * row.weight * row.weights[j];
    }

    void pair_products(int64_t part, const Tiling<A>& tiles, int64_t t, A* products) const {
        const Cut cut = tiles.cut(t);
        part_products(tile_, part, cut.top, cut.left, cut.rows, cut.columns, products, tiles.width);
        for (int64_t i = 0; i < cut.rows; ++i)
            memcpy(slopes(part, cut.top + i) + cut.left, products + i * tiles.width,
                   size_t(cut.columns) * sizeof(A));
    }

    // Packs the columns of the features (n,D), for kBlock of its rows from `first` on.
    void pack_features(const PartSide& side, int64_t part, int64_t first, int64_t n, A* panels) const {
        pack_columns(static_cast<const A*>(side.features) + part * side.part_stride, side.row_stride, first,
                     smaller(first + kBlock, n), tile_.D, panels + part * dim_panels_ * kPanel * n,
                     kPanel * n);
    }

    void query_panel(int64_t part, int64_t p) const {
        const int64_t first = p * kPanel, last = smaller(first + kPanel, tile_.rows);
        for (int64_t i = first; i < last; ++i) query_row(part, i);
        pack_columns(slopes(part, 0), tile_.cols, first, last, tile_.cols,
                     col_slopes_ + part * col_panels_ * kPanel * tile_.rows, kPanel * tile_.rows);
        const Rows rows{slopes(part, 0), tile_.dtype, tile_.rows, tile_.cols, tile_.cols};
        A* out = row_slopes_ + (part * row_panels_ + p) * kPanel * tile_.cols;
        for (int64_t lane = 0; lane < kPanel; lane += Panel<A>::kLanes)
            pack_lanes<A>(rows, p * kPanel + lane, out + lane, kPanel, [](int64_t, Vec<A> v) { return v; });
    }

    void subtract_products(int64_t part, const Tiling<A>& tiles, int64_t t, const A* slope_panels,
                           const A* feature_panels, int64_t n, A* products, void* gradient) const {
        const Cut cut = tiles.cut(t);
        multiply(PackedRows<A>{slope_panels, cut.top, n}, cut.rows,
                 feature_panels + part * dim_panels_ * kPanel * n, cut.left, cut.columns, n, products,
                 tiles.width);
        for (int64_t i = 0; i < cut.rows; ++i) {
            A* out = target(gradient, part, cut.top + i) + cut.left;
            const A* sums = products + i * tiles.width;
            for_vectors<A>(cut.columns,
                           [&](int64_t d, auto p) { p.store(out + d, p.load(out + d) - p.load(sums + d)); });
        }
    }

    // Replaces the products of row i by slopes and lengths, and adds to the gradients of its features and its
    // weight.
    void query_row(int64_t part, int64_t i) const {
        const A* grad = static_cast<const A*>(op_.grad) + i * op_.grad_stride;
        const Row<A> row(tile_, slopes(part, i), part, i, 0, tile_.cols);
        A *length = lengths(part, i), *slope = row.values, *out = target(op_.dquery, part, i);
        const bool any_close = row.to_distances();
        close_.of<bool>(0)[part * tile_.rows + i] = any_close;
        if (any_close)
            for (int64_t j = 0; j < tile_.cols; ++j)
                if (slope[j] < 0) {
                    const A distance = row.between(j), factor = upstream(row, i, 0, j);
                    length[j] = distance;
                    if (distance != 0 && factor != 0) add_difference(row, j, factor / distance, out);
                }
        const A *const weights = row.weights, weight = row.weight;
#pragma omp simd
        for (int64_t j = 0; j < tile_.cols; ++j) {
            const bool close = slope[j] < 0;
            const A distance = close ? length[j] : slope[j], up = grad[j] * weight * weights[j];
            length[j] = grad[j] * distance;
            slope[j] = close || distance == 0 ? A(0) : up / distance;
        }
        add(row.query, sum(slope, tile_.cols), out);
        static_cast<A*>(op_.dquery_weights)[part * op_.query_weight_stride + i] +=
            dot(length, weights, tile_.cols);
    }

    // Adds to the gradients of gallery rows and their weights: sums over the query rows in order.
    void gallery_rows(int64_t part, int64_t left, int64_t cols) const {
        A slope_sum[kColumns] = {}, length_sum[kColumns] = {};
        for (int64_t i = 0; i < tile_.rows; ++i) {
            const Row<A> row(tile_, nullptr, part, i, left, cols);
            const A *slope = slopes(part, i) + left, *length = lengths(part, i) + left, weight = row.weight;
#pragma omp simd
            for (int64_t j = 0; j < cols; ++j) {
                slope_sum[j] += slope[j];
                length_sum[j] += weight * length[j];
            }
            if (!close_.of<bool>(0)[part * tile_.rows + i]) continue;
            for (int64_t j = 0; j < cols; ++j) {
                if (slope[j] != 0 || length[j] == 0) continue;
                const A factor = upstream(row, i, left, j);
                if (factor != 0)
                    add_difference(row, j, -factor / row.between(j), target(op_.dgallery, part, left + j));
            }
        }
        const Row<A> row(tile_, nullptr, part, 0, left, cols);
        for (int64_t j = 0; j < cols; ++j) {
            add(row.item(j), slope_sum[j], target(op_.dgallery, part, left + j));
            static_cast<A*>(op_.dgallery_weights)[part * op_.gallery_weight_stride + left + j] +=
                length_sum[j];
        }
    }

    // Adds slope (f - g); slope f - slope g would lose the digits that f and g have in common.
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
    const int64_t pairs_, row_panels_, col_panels_, dim_panels_;
    // slopes_ and lengths_ (grad * distance) are (parts,rows,cols). The others are packed: the slopes by rows
    // and by columns, and the columns of the features.
    A *const slopes_, *const lengths_, *const row_slopes_, *const col_slopes_, *const query_columns_,
                                                                                   *const gallery_columns_;
    const Scratch close_;  // (parts,rows) bool: whether a row has close pairs
    const Scratch products_;
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
