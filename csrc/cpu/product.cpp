#include "cpu/product.h"

#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/panels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// Computes the products of kMicro rows and the first V vectors of a panel, and adds them to `out` (`add`) or
// overwrites `out`. The elements of a row are Step apart.
template <int V, int64_t Step, class A>
VREID_INLINE void micro_tile(const A* const (&x)[Panel<A>::kMicro], const A* y, int64_t depth, A* out,
                             int64_t stride, bool add) {
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    Vec<A> sum[P::kMicro][V] = {};
    for (int64_t d = 0; d < depth; ++d, y += P::kRows) {
        Vec<A> column[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) column[v] = load(y + v * N);
#pragma GCC unroll 8
        for (int r = 0; r < P::kMicro; ++r) {
            const Vec<A> row = broadcast<A>(x[r][d * Step]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] += row * column[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < P::kMicro; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            A* target = out + r * stride + v * N;
            store(target, add ? load(target) + sum[r][v] : sum[r][v]);
        }
}

// Multiplies rows `top` to `end` by the first `columns` columns of a panel, with as few vectors as hold them,
// at most V.
template <int V, class Side, class A>
void multiply_panel(Side x, int64_t top, int64_t end, const A* y, int64_t columns, int64_t d, int64_t depth,
                    A* out, int64_t stride) {
    using P = Panel<A>;
    if constexpr (V > 1) {
        if (columns <= (V - 1) * P::kLanes)
            return multiply_panel<V - 1>(x, top, end, y, columns, d, depth, out, stride);
    }
    for (int64_t r = top; r < end; r += P::kMicro) {
        const A* from[P::kMicro];  // beyond the last row, results are written but no row is read
        for (int i = 0; i < P::kMicro; ++i) {
            from[i] = x.row(smaller(r + i, end - 1)) + d * Side::kStep;
            x.expect(r + P::kMicro + i, d, depth);
        }
        micro_tile<V, Side::kStep>(from, y + d * P::kRows, depth, out + r * stride, stride, d > 0);
    }
}

template <class T>
Status pack(const PackRows& op) {
    using A = Acc<T>;
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    const A* scale = static_cast<const A*>(op.scale);
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t first = 0; first < P::count(op.x.N) * P::kRows; first += N) {
        A* out = static_cast<A*>(op.panels) + P::offset(first, op.x.D);
        Vec<A> factor = broadcast<A>(1);
        for (int i = 0; scale && i < N && first + i < op.x.N; ++i) factor[i] = scale[first + i];
        BlockSum<A> square;
        pack_lanes<T>(op.x, first, out, P::kRows, [&](int64_t d, Vec<A> v) {
            v *= factor;
            square.add(d, v * v);
            return v;
        });
        const Vec<A> squares = square.value();
        for (int i = 0; op.square && i < N && first + i < op.x.N; ++i)
            static_cast<A*>(op.square)[first + i] = squares[i];
    }
    return Status::ok;
}

template <class A>
Status all_products(const Products& op) {
    const Tiling<A> tiles(op.x.N, op.y.N, op.threads);
    const Scratch memory(op.threads, tiles.kNumbers * int64_t(sizeof(A)));
    if (!memory) return Status::out_of_memory;
    const int64_t D = op.x.D;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t t = 0; t < tiles.size(); ++t) {
        const Cut cut = tiles.cut(t);
        A* tile = memory.of<A>(omp_get_thread_num());
        multiply(PackedRows<A>{static_cast<const A*>(op.x.data), cut.top, D}, cut.rows,
                 static_cast<const A*>(op.y.data), cut.left, cut.columns, D, tile, tiles.width);
        for (int64_t r = 0; r < cut.rows; ++r)
            memcpy(static_cast<A*>(op.out) + (cut.top + r) * op.stride + cut.left, tile + r * tiles.width,
                   size_t(cut.columns) * sizeof(A));
    }
    return Status::ok;
}

}  // namespace

template <class Side, class A>
void multiply(Side x, int64_t rows, const A* y, int64_t left, int64_t columns, int64_t D, A* out,
              int64_t stride) {
    using P = Panel<A>;
    if (D == 0) {
        for (int64_t r = 0; r < rows; ++r) memset(out + r * stride, 0, size_t(columns) * sizeof(A));
        return;
    }
    // Rows that are multiplied by one panel only are read from memory, each from its first element to its
    // last.
    const int64_t group = columns > P::kRows ? rows : P::kMicro;
    for (int64_t top = 0; top < rows; top += group)
        for (int64_t d = 0; d < D; d += kDepth)
            for (int64_t c = 0, size; c < columns; c += size) {
                size = smaller(P::kRows - (left + c) % P::kRows, columns - c);
                multiply_panel<P::kVectors>(x, top, smaller(top + group, rows), y + P::offset(left + c, D),
                                            size, d, smaller(kDepth, D - d), out + c, stride);
            }
}

VREID_MULTIPLY(PackedRows, float);
VREID_MULTIPLY(PackedRows, double);
VREID_MULTIPLY(PlainRows, float);

int64_t panel_rows(DType dtype) {
    return dtype == DType::f64 ? Panel<double>::kRows : Panel<float>::kRows;
}

Status pack_rows(const PackRows& op) {
    return dispatch(op.x.dtype, [&](auto element) { return pack<decltype(element)>(op); });
}

Status products(const Products& op) {
    return op.dtype == DType::f64 ? all_products<double>(op) : all_products<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
