// Distances of rows of embeddings, computed from differences so that nearly equal rows keep their precision.
#pragma once

#include "common/mining.h"
#include "cpu/memory.h"
#include "cpu/sums.h"

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

// 1 / norm of a row with this squared norm; zero if the square is subnormal, NaN if it overflowed or is NaN.
template <class A>
inline A inverse_norm(A square) {
    constexpr A least = sizeof(A) == 8 ? A(0x1p-1022) : A(0x1p-126);
    return square < least ? A(0) : square - square + 1 / root(square);
}

// The factor of a row before rows are compared.
template <class T>
inline Acc<T> row_scale(const T* x, int64_t D, Metric metric) {
    return metric == Metric::cosine ? inverse_norm(squared_norm(x, D)) : 1;
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
    Vec<T> total[4]{};  // four independent chains of additions hide their latency
    int64_t i = 0;
    for (; i + 4 * N <= D; i += 4 * N) {
        for (int k = 0; k < 4; ++k) add(i + k * N, Whole{}, total[k]);
    }
    for_vectors<T>(D - i, [&](int64_t rest, auto part) { add(i + rest, part, total[0]); });
    return sum_lanes((total[0] + total[1]) + (total[2] + total[3]));
}

// The cosine distance of unit rows is half their squared distance; that of a zero row to any row is 1.
template <class T>
inline Acc<T> distance(const T* x, Acc<T> sx, const T* y, Acc<T> sy, int64_t D, Metric metric) {
    if (metric == Metric::cosine && (sx == 0 || sy == 0)) return 1;
    const Acc<T> square = squared_distance(x, sx, y, sy, D);
    if (metric == Metric::squared) return square;
    return metric == Metric::cosine ? square / 2 : root(square);
}

// The rows that the indices of a mining op select from.
inline const Rows& candidates(const Rows& x, const Rows& ref) {
    return ref.data ? ref : x;
}

// The distances of the pairs of row i.
template <class T>
void mined_distances(const MinedDistance& op, int64_t i) {
    using A = Acc<T>;
    const Rows& ref = candidates(op.x, op.ref);
    const int64_t N = op.x.N, D = op.x.D;
    A* distances = static_cast<A*>(op.distance);
    const T* x = row<T>(op.x, i);
    const A scale = row_scale(x, D, op.metric);
    for (int64_t m = 0; m < op.M; ++m) {
        const int64_t j = op.index[m * N + i];
        if (j < 0) {
            distances[m * N + i] = 0;
            continue;
        }
        const T* y = row<T>(ref, j);
        distances[m * N + i] = distance(x, scale, y, row_scale(y, D, op.metric), D, op.metric);
    }
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
