// Hardest pairs from tiles of a matrix product: each tile is searched while it is in the cache, and only the
// best candidates are kept.
#include <omp.h>

#include "cpu/centred_rows.h"
#include "cpu/hardest.h"
#include "cpu/kernels.h"
#include "cpu/row_distance.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
Prepared<Acc<T>> divide(const Rows& x, int64_t first, Acc<T>* out) {
    using A = Acc<T>;
    Vec<A> factor{}, special{};
    for (int i = 0; i < Lanes<A>::N && first + i < x.N; ++i) {
        const A square = squared_norm(row<T>(x, first + i), x.D);
        factor[i] = inverse_norm(square);
        special[i] = square - square;
    }
    pack_lanes<T>(x, first, out, Panel<A>::kRows, [&](int64_t, Vec<A> v) { return v * factor; });
    return {Vec<A>{}, special};
}

template <class T>
Status prepare(PrepareRows& op) {
    using A = Acc<T>;
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    constexpr int64_t kColumns = 512;
    const int64_t D = op.x.D;
    int64_t special = op.x.N, large = op.x.N;
#pragma omp parallel num_threads(op.threads) reduction(min : special, large)
    {
        if (op.centre) {
#pragma omp for schedule(static)
            for (int64_t d = 0; d < D; d += kColumns)
                mean<T>(columns_of<T>(op.x, d, smaller(kColumns, D - d)), static_cast<A*>(op.offset) + d);
        }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < op.x.N; first += N) {
            A* out = static_cast<A*>(op.panels) + P::offset(first, D);
            const Prepared<A> result = op.offset
                                           ? subtract<T>(op.x, first, static_cast<const A*>(op.offset), out)
                                           : divide<T>(op.x, first, out);
            for (int i = 0; i < N && first + i < op.x.N; ++i) {
                const A square = result.square[i];
                static_cast<A*>(op.square)[first + i] = square;
                if (result.special[i] != 0) special = smaller(special, first + i);  // NaN != 0
                if (square - square != 0) large = smaller(large, first + i);
            }
        }
    }
    // After centering, one non-finite row makes the squares of all rows NaN; report the row that was
    // non-finite.
    op.bad_row = special < op.x.N ? special : large < op.x.N ? large : -1;
    return Status::ok;
}

template <class A>
Status mine_all(const Mine& op) {
    const Panels& ref = op.ref.data ? op.ref : op.x;
    const int64_t N = op.x.N, D = op.x.D;
    const Tiling<A> tiles(N, ref.N, op.threads);
    const Scratch memory(op.threads, Found<A>::bytes(N));
    const Scratch products(op.threads, tiles.kNumbers * int64_t(sizeof(A)));
    if (!memory || !products) return Status::out_of_memory;
    for (int thread = 0; thread < op.threads; ++thread) Found<A>(memory, thread, N).clear();
#pragma omp parallel num_threads(op.threads)
    {
        const Found<A> found(memory, omp_get_thread_num(), N);
        A* tile = products.of<A>(omp_get_thread_num());
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tiles.size(); ++t) {
            const Cut cut = tiles.cut(t);
            const int64_t bottom = cut.top + cut.rows, right = cut.left + cut.columns;
            // The upper triangle of a symmetric product is enough. A tile on the diagonal is computed in
            // strips, each from the column of its first row on.
            const bool crossed = !op.ref.data && cut.left < bottom;
            const int64_t height = crossed ? tiles.kUnit : cut.rows;
            for (int64_t top = cut.top; top < bottom; top += height) {
                const int64_t rows = smaller(height, bottom - top);
                const int64_t left = crossed && cut.left < top ? top : cut.left, columns = right - left;
                if (columns <= 0) break;
                multiply(PackedRows<A>{static_cast<const A*>(op.x.data), top, D}, rows,
                         static_cast<const A*>(ref.data), left, columns, D, tile, tiles.width);
                MineTile<A>{op, tile, tiles.width, top, rows, left, columns, found}.search();
            }
        }
    }
    for (int64_t i = 0; i < 2 * N; ++i) op.index[i] = Found<A>::candidate(memory, op.threads, N, i);
    return Status::ok;
}

}  // namespace

Status prepare_rows(PrepareRows& op) {
    return dispatch(op.x.dtype, [&](auto element) { return prepare<decltype(element)>(op); });
}

Status mine(const Mine& op) {
    return op.dtype == DType::f64 ? mine_all<double>(op) : mine_all<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
