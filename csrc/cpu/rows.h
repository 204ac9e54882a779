// Distances between rows of embeddings, taken from differences, so that near-equal rows keep their precision.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
inline Acc<T> squared_norm(const T* x, int64_t D) {
    Vec<T> total{};
    for_vectors<T>(D, [&](int64_t i, auto part) {
        const Vec<T> v = part.load(x + i);
        total += v * v;
    });
    return sum_lanes(total);
}

// 1 / norm of a row with this squared norm; zero where the square is too small to have all its digits, NaN
// where it overflowed or is NaN.
template <class A>
inline A inverse_norm(A square) {
    constexpr A least = sizeof(A) == 8 ? A(0x1p-1022) : A(0x1p-126);
    return square < least ? A(0) : square - square + 1 / root(square);
}

// What a row is multiplied with before rows are compared.
template <class T>
inline Acc<T> row_scale(const T* x, int64_t D, MiningMetric metric) {
    return metric == MiningMetric::cosine ? inverse_norm(squared_norm(x, D)) : 1;
}

// || x sx - y sy ||^2
template <class T>
inline Acc<T> squared_distance(const T* x, Acc<T> sx, const T* y, Acc<T> sy, int64_t D) {
    constexpr int64_t N = Lanes<T>::N;
    const Vec<T> a = broadcast<T>(sx), b = broadcast<T>(sy);
    const auto add = [&](int64_t i, auto part, Vec<T>& total) {
        const Vec<T> difference = part.load(x + i) * a - part.load(y + i) * b;
        total += difference * difference;
    };
    Vec<T> total[4]{};  // four chains of additions, so that none waits for the last
    int64_t i = 0;
    for (; i + 4 * N <= D; i += 4 * N) {
        for (int k = 0; k < 4; ++k) add(i + k * N, Whole{}, total[k]);
    }
    for_vectors<T>(D - i, [&](int64_t rest, auto part) { add(i + rest, part, total[0]); });
    return sum_lanes((total[0] + total[1]) + (total[2] + total[3]));
}

// The cosine distance of unit rows is half the squared length of their difference; that of a zero row is 1.
template <class T>
inline Acc<T> distance(const T* x, Acc<T> sx, const T* y, Acc<T> sy, int64_t D, MiningMetric metric) {
    if (metric == MiningMetric::cosine && (sx == 0 || sy == 0)) return 1;
    const Acc<T> square = squared_distance(x, sx, y, sy, D);
    if (metric == MiningMetric::squared) return square;
    return metric == MiningMetric::cosine ? square / 2 : root(square);
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
