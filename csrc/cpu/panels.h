// Packs rows into the panels of cpu/product.h.
#pragma once

#include "cpu/product.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// One step of a transposition: exchanges the off-diagonal blocks of Half x Half elements of two vectors.
template <int Half, class V, int... I>
VREID_INLINE void exchange(V& a, V& b, Pack<I...>) {
    constexpr int N = sizeof...(I);
    const V first = __builtin_shufflevector(a, b, (I & Half ? N + I - Half : I)...);
    b = __builtin_shufflevector(a, b, (I & Half ? N + I : I + Half)...);
    a = first;
}
template <int Half, int N, class V>
VREID_INLINE void transpose(V (&v)[N]) {
    if constexpr (Half < N) {
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
            if (!(i & Half)) exchange<Half>(v[i], v[i + Half], typename Count<N>::type{});
        }
        transpose<2 * Half>(v);
    }
}

// Sums of D terms, computed in the same blocks as the products.
template <class A>
struct BlockSum {
    Vec<A> total{}, block{};

    void add(int64_t d, Vec<A> term) {
        if (d % kDepth == 0) {
            total += block;
            block = Vec<A>{};
        }
        block += term;
    }
    Vec<A> value() const { return total + block; }
};

// Transposes kLanes rows of x, starting at row `first`; rows beyond the last are zero. Row d of `out` is f(d,
// v), where v is the vector of the elements d of these rows. Rows of `out` start `stride` elements apart.
template <class T, class F>
void pack_lanes(const Rows& x, int64_t first, Acc<T>* out, int64_t stride, F f) {
    using A = Acc<T>;
    constexpr int N = Lanes<A>::N;
    const int64_t rest = x.N - first;
    const int rows = rest >= N ? N : rest > 0 ? int(rest) : 0;
    const T* from[N];
    for (int i = 0; i < N; ++i) from[i] = row<T>(x, i < rows ? first + i : 0);
    int64_t d = 0;
    if (rows == N) {
        for (; d + N <= x.D; d += N) {
            Vec<A> v[N];
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) v[i] = load(from[i] + d);
            transpose<1>(v);
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) store(out + (d + i) * stride, f(d + i, v[i]));
        }
    }
    for (; d < x.D; d += N) {
        const int numbers = x.D - d < N ? int(x.D - d) : N;
        Vec<A> v[N] = {};
        for (int i = 0; i < rows; ++i) v[i] = load(from[i] + d, numbers);
        transpose<1>(v);
        for (int i = 0; i < numbers; ++i) store(out + (d + i) * stride, f(d + i, v[i]));
    }
}

// Packs rows that are given transposed: row d of the matrix x has element d of all N rows to pack. Packs rows
// `first` to `last` of x, which start `stride` elements apart. Panels start `panel` elements apart.
template <class A>
void pack_columns(const A* x, int64_t stride, int64_t first, int64_t last, int64_t N, A* panels,
                  int64_t panel) {
    using P = Panel<A>;
    for (int64_t left = 0; left < N; left += P::kRows, panels += panel) {
        const int64_t rows = smaller(P::kRows, N - left);
        for (int64_t d = first; d < last; ++d) {
            const A* from = x + d * stride + left;
            A* out = panels + d * P::kRows;
            if (rows == P::kRows) {
                for (int i = 0; i < P::kRows; i += P::kLanes) store(out + i, load(from + i));
            } else {
                for_vectors<A>(rows, [&](int64_t i, auto part) { part.store(out + i, part.load(from + i)); });
            }
        }
    }
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
