// Distances between rows of embeddings, taken from differences, so that near-equal rows keep their precision.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
inline const T* row(const Rows& rows, int64_t i) {
    return static_cast<const T*>(rows.data) + i * rows.stride;
}

template <class T>
inline Acc<T> squared_norm(const T* x, int64_t D) {
    Vec<T> total{};
    for_vectors<T>(D, [&](int64_t i, auto part) {
        const Vec<T> v = part.load(x + i);
        total += v * v;
    });
    return sum_lanes(total);
}

// What a row is multiplied with before rows are compared: 1 / norm for the cosine, zero for a zero row.
template <class T>
inline Acc<T> row_scale(const T* x, int64_t D, MiningMetric metric) {
    if (metric != MiningMetric::cosine) return 1;
    const Acc<T> norm = root(squared_norm(x, D));
    return norm > 0 ? 1 / norm : 0;
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
