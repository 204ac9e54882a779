#include "cpu/product.h"

#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/panels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// Computes the products of the rows of a micro-tile and the first V vectors of a panel, and adds them to
// `out`
// (`add`) or overwrites `out`. Prefetches what is multiplied next, because hardware prefetchers stop at page
// boundaries: the next block of packed rows, and `next`, `pace` elements per term. Not inlined, so that all
// pointers fit into registers.
template <int V, class Micro, class A>
__attribute__((noinline)) void micro_tile(const Micro& given, const A* y, int64_t depth, A* out,
                                          int64_t stride, bool add, const A* next, int64_t pace) {
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    const Micro x = given;
    Vec<A> sum[P::kMicro][V] = {};
    for (int64_t d = 0; d < depth; ++d, y += P::kRows, next += pace) {
        if constexpr (V > 1) {  // a tile of one vector is limited by its loads
            x.prefetch(depth + d);
            __builtin_prefetch(next, 0, 2);
        }
        Vec<A> column[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) column[v] = load(y + v * N);
#pragma GCC unroll 8
        for (int r = 0; r < P::kMicro; ++r) {
            const Vec<A> row = broadcast<A>(x.element(r, d));
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
// at most V. Results are also written beyond the last row, up to a whole micro-tile.
template <int V, class Side, class A>
void multiply_panel(Side x, int64_t top, int64_t end, const A* y, int64_t columns, int64_t d, int64_t depth,
                    A* out, int64_t stride, int64_t pace) {
    using P = Panel<A>;
    if constexpr (V > 1) {
        if (columns <= (V - 1) * P::kLanes)
            return multiply_panel<V - 1>(x, top, end, y, columns, d, depth, out, stride, pace);
    }
    const A* next = y + (d + depth) * P::kRows;
    for (int64_t r = top; r < end; r += P::kMicro, next += pace * depth)
        micro_tile<V>(x.micro(r, end, d, depth), y + d * P::kRows, depth, out + r * stride, stride, d > 0,
                      next, pace);
}

template <class T>
Status pack(const PackRows& op) {
    using A = Acc<T>;
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    const A* scale = static_cast<const A*>(op.scale);
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t first = 0; first < op.x.N; first += N) {
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
    // The micro-tiles of a group share the prefetches of the next block of a panel.
    const int64_t pace = group > P::kMicro ? (P::kRows * P::kMicro + group - 1) / group : 0;
    for (int64_t top = 0; top < rows; top += group)
        for (int64_t d = 0; d < D; d += kDepth)
            for (int64_t c = 0, size; c < columns; c += size) {
                size = smaller(P::kRows - (left + c) % P::kRows, columns - c);
                multiply_panel<P::kVectors>(x, top, smaller(top + group, rows), y + P::offset(left + c, D),
                                            size, d, smaller(kDepth, D - d), out + c, stride, pace);
            }
}

VREID_MULTIPLY(PackedRows, float);
VREID_MULTIPLY(PackedRows, double);
VREID_MULTIPLY(PlainRows, float);
VREID_MULTIPLY(PlainRows, double);
VREID_MULTIPLY(PlainColumns, float);
VREID_MULTIPLY(PlainColumns, double);

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
