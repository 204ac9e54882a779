// The distance of two feature rows in double, which decides every ranking. All kernels use this function, so
// equal rows have equal distances.
#pragma once

#include <math.h>

#include "common/ranking.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

typedef float NarrowVector __attribute__((vector_size(kVectorBytes / 2)));

inline DoubleVector load_doubles(const double* p) {
    return load(p);
}
inline DoubleVector load_doubles(const float* p) {
    NarrowVector v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, DoubleVector);
}

// Calls vectors(chain, a, b) with vectors of p and q, alternately for two chains of additions, then
// numbers(a, b) with the remaining elements.
template <class T, class Vectors, class Numbers>
inline void for_doubles(const T* p, const T* q, int64_t D, Vectors vectors, Numbers numbers) {
    constexpr int N = Lanes<double>::N;
    int64_t i = 0;
    for (; i + 2 * N <= D; i += 2 * N) {
        vectors(0, load_doubles(p + i), load_doubles(q + i));
        vectors(1, load_doubles(p + i + N), load_doubles(q + i + N));
    }
    for (; i < D; ++i) numbers(double(p[i]), double(q[i]));
}

template <class T>
inline double squared_norm(const T* p, int64_t D) {
    DoubleVector squares[2] = {};
    double rest = 0;
    for_doubles(
        p, p, D, [&](int chain, DoubleVector a, DoubleVector) { squares[chain] += a * a; },
        [&](double a, double) { rest += a * a; });
    return sum_lanes(squares[0] + squares[1]) + rest;
}

template <class T>
inline double euclidean(const T* p, const T* q, int64_t D) {
    DoubleVector squares[2] = {};
    double rest = 0;
    for_doubles(
        p, q, D, [&](int chain, DoubleVector a, DoubleVector b) { squares[chain] += (a - b) * (a - b); },
        [&](double a, double b) { rest += (a - b) * (a - b); });
    return sqrt(sum_lanes(squares[0] + squares[1]) + rest);
}

inline double cosine_of(double dot, double p2, double q2) {
    const double norms = sqrt(p2) * sqrt(q2);
    return norms == 0 ? 1 : 1 - dot / norms + (norms - norms);  // NaN if the squares overflow
}

// The dot product is summed like the squares, and these like `squared_norm`, so both forms of `cosine` have
// the same bits.
template <class T>
inline double cosine(const T* p, const T* q, int64_t D) {
    DoubleVector dots[2] = {}, first[2] = {}, second[2] = {};
    double dot = 0, p2 = 0, q2 = 0;
    for_doubles(
        p, q, D,
        [&](int chain, DoubleVector a, DoubleVector b) {
            dots[chain] += a * b;
            first[chain] += a * a;
            second[chain] += b * b;
        },
        [&](double a, double b) {
            dot += a * b;
            p2 += a * a;
            q2 += b * b;
        });
    return cosine_of(sum_lanes(dots[0] + dots[1]) + dot, sum_lanes(first[0] + first[1]) + p2,
                     sum_lanes(second[0] + second[1]) + q2);
}

// With known squared norms.
template <class T>
inline double cosine(const T* p, const T* q, int64_t D, double p2, double q2) {
    DoubleVector dots[2] = {};
    double dot = 0;
    for_doubles(
        p, q, D, [&](int chain, DoubleVector a, DoubleVector b) { dots[chain] += a * b; },
        [&](double a, double b) { dot += a * b; });
    return cosine_of(sum_lanes(dots[0] + dots[1]) + dot, p2, q2);
}

// The distance of row i of the query and row c of the gallery.
template <class T>
inline double distance(const Features& f, int64_t i, int64_t c) {
    const T* p = static_cast<const T*>(f.query) + i * f.D;
    const T* q = static_cast<const T*>(f.gallery) + c * f.D;
    if (f.metric == Metric::euclidean) return euclidean(p, q, f.D);
    if (!f.query_square) return cosine(p, q, f.D);
    return cosine(p, q, f.D, f.query_square[i], f.gallery_square[c]);
}

inline double distance(const Features& f, int64_t i, int64_t c) {
    return f.dtype == DType::f64 ? distance<double>(f, i, c) : distance<float>(f, i, c);
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
