// Hardest pairs of a small batch in one parallel region. The threads divide the terms of the products, not
// the pairs: each packs its own columns of all rows, a block at a time, into its L1 cache and multiplies them
// there, so no core reads rows that another has packed. The products of the blocks are then added in the
// order of cpu/product.h.
#include <omp.h>

#include "cpu/centred_rows.h"
#include "cpu/hardest.h"
#include "cpu/kernels.h"
#include "cpu/row_distance.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
class SmallBatch {
    using A = Acc<T>;
    using P = Panel<A>;

    static constexpr int64_t kLanes = P::kLanes, kUnit = Tiling<A>::kUnit;

  public:
    explicit SmallBatch(MineBatch& op)
        : op_(op),
          N_(op.x.N),
          padded_((N_ + kUnit - 1) / kUnit * kUnit),
          stride_(P::count(N_) * P::kRows),
          blocks_((op.x.D + kDepth - 1) / kDepth),
          centred_(op.metric != Metric::cosine),
          own_(op.threads, (stride_ * kDepth + kDepth + padded_) * int64_t(sizeof(A))),
          found_(op.threads, Found<A>::bytes(N_)),
          shared_(1, (padded_ + blocks_ * (padded_ + padded_ * stride_)) * int64_t(sizeof(A))) {}

    Status run() {
        if (!own_ || !found_ || !shared_) return Status::out_of_memory;
        for (int thread = 0; thread < op_.threads; ++thread) Found<A>(found_, thread, N_).clear();
        int64_t special = N_, large = N_;
#pragma omp parallel num_threads(op_.threads) reduction(min : special, large)
        {
            if (!centred_) special = smaller(special, invert_norms());
            special = smaller(special, multiply_blocks());
            large = smaller(large, add_squares());
            search();
            measure();
        }
        op_.bad_row = special < N_ ? special : large < N_ ? large : -1;
        return Status::ok;
    }

  private:
    // The memory of this thread: packed rows of a block, their mean, and the squared norms of all rows.
    A* panels() const { return own_.of<A>(omp_get_thread_num()); }
    A* offset() const { return panels() + stride_ * kDepth; }
    A* square() const { return offset() + kDepth; }
    // Shared memory: the factors of the rows for cosine, and for each block squared norms and products.
    A* scale() const { return shared_.of<A>(0); }
    A* squares(int64_t block) const { return scale() + (1 + block) * padded_; }
    A* products(int64_t block) const { return squares(blocks_) + block * padded_ * stride_; }

    // These are for all threads. They return the first row of this thread that is not finite, or N_.
    int64_t invert_norms() const {
        int64_t special = N_;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N_; ++i) {
            const A norm = squared_norm(row<T>(op_.x, i), op_.x.D);
            scale()[i] = inverse_norm(norm);
            if (norm - norm != 0) special = smaller(special, i);  // NaN != 0
        }
        return special;
    }
    int64_t multiply_blocks() const {
        int64_t special = N_;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks_; ++block) {
            const int64_t d = block * kDepth;
            const Rows x = columns_of<T>(op_.x, d, smaller(kDepth, op_.x.D - d));
            if (centred_) {
                special = smaller(special, centre(x, squares(block)));
            } else {
                divide(x);
            }
            multiply_block(x.D, products(block));
        }
        return special;
    }
    int64_t add_squares() const {
        int64_t large = N_;
        for (int64_t i = 0; i < N_; ++i) {
            A total = 0;
            for (int64_t block = 0; centred_ && block < blocks_; ++block) total += squares(block)[i];
            square()[i] = total;
            if (total - total != 0) large = smaller(large, i);
        }
        return large;
    }

    // Adds the products and searches them, a strip of rows at a time.
    void search() const {
        const Mine set{{}, {}, {}, op_.id, op_.id, square(), square(), op_.index, op_.threads};
        const Found<A> found(found_, omp_get_thread_num(), N_);
#pragma omp for schedule(dynamic)
        for (int64_t top = 0; top < N_; top += kUnit) {
            const int64_t rows = smaller(kUnit, N_ - top);
            A* strip = products(0) + top * stride_ + top;
            for (int64_t r = 0; r < rows; ++r) add_blocks(strip + r * stride_, N_ - top);
            MineTile<A>{set, strip, stride_, top, rows, top, N_ - top, found}.search();
        }
    }

    // Combines the results of all threads and computes the distances.
    void measure() const {
        const MinedDistance pairs{op_.x, {}, op_.index, 2, op_.metric, op_.distance, op_.threads};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N_; ++i) {
            for (int64_t n = i; n < 2 * N_; n += N_)
                op_.index[n] = Found<A>::candidate(found_, op_.threads, N_, n);
            mined_distances<T>(pairs, i);
        }
    }

    // Packs columns of all rows, centred, and computes their squared norms.
    int64_t centre(const Rows& x, A* square) const {
        int64_t special = N_;
        mean<T>(x, offset());
        for (int64_t i = 0; i < N_; i += kLanes) {
            const Prepared<A> result = subtract<T>(x, i, offset(), panels() + P::offset(i, x.D));
            store(square + i, result.square);
            for (int64_t n = 0; n < smaller(kLanes, N_ - i); ++n)
                if (result.special[n] != 0) special = smaller(special, i + n);
        }
        return special;
    }
    // Packs columns of all rows, divided by the norms.
    void divide(const Rows& x) const {
        for (int64_t i = 0; i < N_; i += kLanes) {
            const Vec<A> factor = load(scale() + i, int(smaller(kLanes, N_ - i)));
            pack_lanes<T>(x, i, panels() + P::offset(i, x.D), P::kRows,
                          [&](int64_t, Vec<A> v) { return v * factor; });
        }
    }

    // The products of the packed rows. They are symmetric: each strip begins at its first row.
    void multiply_block(int64_t depth, A* products) const {
        for (int64_t top = 0; top < N_; top += kUnit)
            multiply(PackedRows<A>{panels(), top, depth}, smaller(kUnit, N_ - top),
                     static_cast<const A*>(panels()), top, N_ - top, depth, products + top * stride_ + top,
                     stride_);
    }

    // Adds the products of all blocks to those of the first.
    void add_blocks(A* products, int64_t size) const {
        for (int64_t i = 0; i < size; i += kLanes) {
            Vec<A> total = load(products + i);
            for (int64_t block = 1; block < blocks_; ++block)
                total += load(products + block * padded_ * stride_ + i);
            store(products + i, total);
        }
    }

    MineBatch& op_;
    const int64_t N_, padded_, stride_, blocks_;  // padded_ and stride_: rows and columns of the products
    const bool centred_;
    const Scratch own_, found_, shared_;
};

}  // namespace

Status mine_batch(MineBatch& op) {
    return dispatch(op.x.dtype, [&](auto element) { return SmallBatch<decltype(element)>(op).run(); });
}

}  // namespace VREID_ISA
}  // namespace vreid
