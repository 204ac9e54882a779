// Subtracts the mean of a set of rows before their product: the expanded square then keeps its digits.
#pragma once

#include "cpu/panels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// offset (D) = the mean of the rows, summed row by row: a single column would access one memory page per
// element.
template <class T>
void mean(const Rows& x, Acc<T>* offset) {
    using A = Acc<T>;
    const Vec<T> share = broadcast<T>(A(1) / A(x.N));
    memset(offset, 0, size_t(x.D) * sizeof(A));
    for (int64_t i = 0; i < x.N; ++i) {
        const T* from = row<T>(x, i);
        for_vectors<T>(x.D, [&](int64_t d, auto part) {
            part.store(offset + d, part.load(offset + d) + part.load(from + d));
        });
    }
    for_vectors<T>(x.D, [&](int64_t d, auto part) { part.store(offset + d, part.load(offset + d) * share); });
}

// Columns `first` to `first + size` of rows.
template <class T>
Rows columns_of(const Rows& x, int64_t first, int64_t size) {
    return {row<T>(x, 0) + first, x.dtype, x.N, size, x.stride};
}

// For kLanes rows: `square` is the squared norm; `special` is NaN if an element or its square is not finite,
// otherwise zero.
template <class A>
struct Prepared {
    Vec<A> square, special;
};

template <class T>
Prepared<Acc<T>> subtract(const Rows& x, int64_t first, const Acc<T>* offset, Acc<T>* out) {
    using A = Acc<T>;
    BlockSum<A> square;
    Vec<A> special{};
    pack_lanes<T>(x, first, out, Panel<A>::kRows, [&](int64_t d, Vec<A> v) {
        const Vec<A> own = v * v, centred = v - offset[d];
        special += own - own;
        square.add(d, centred * centred);
        return centred;
    });
    return {square.value(), special};
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
