// Sums over the lanes of vectors, and over rows.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// a and b hold partial sums over `Part` lanes each; adds the two halves of every part.
template <int Part, class V, int... I>
VREID_INLINE V fold(V a, V b, Pack<I...>) {
    constexpr int half = Part / 2;
    return __builtin_shufflevector(a, b, ((I / half) * Part + I % half)...) +
           __builtin_shufflevector(a, b, ((I / half) * Part + half + I % half)...);
}
// The sums of the lanes of N vectors, as the lanes of one: N-1 additions and 2(N-1) shuffles, where separate
// sums would take N log2(N) of each. With N / Stop vectors the result holds partial sums over Stop lanes.
template <int N, int Part, int Stop = 1, class V>
VREID_INLINE V sum_each(V (&v)[N / Stop]) {
    if constexpr (Part == Stop) {
        return v[0];
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < Part / Stop / 2; ++i)
            v[i] = fold<Part>(v[2 * i], v[2 * i + 1], typename Count<N>::type{});
        return sum_each<N, Part / 2, Stop>(v);
    }
}

// Adds the halves, recursively: a chain of log2 N additions instead of N.
template <class V>
inline auto sum_lanes(V v) {
    constexpr int N = sizeof(V) / sizeof(v[0]);
    if constexpr (N == 2) {
        return v[0] + v[1];
    } else {
        typedef decltype(v[0] + 0) Half __attribute__((vector_size(sizeof(V) / 2)));
        Half halves[2];
        memcpy(halves, &v, sizeof v);
        return sum_lanes(halves[0] + halves[1]);
    }
}

template <class T>
inline T sum(const T* p, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) { total += part.load(p + i); });
    return sum_lanes(total);
}

template <class T>
inline T dot(const T* p, const T* q, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) { total += part.load(p + i) * part.load(q + i); });
    return sum_lanes(total);
}

inline float root(float x) {
    return sqrtf(x);
}
inline double root(double x) {
    return sqrt(x);
}

// || p - q ||
template <class T>
inline T difference_norm(const T* p, const T* q, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) {
        const Vec<T> difference = part.load(p + i) - part.load(q + i);
        total += difference * difference;
    });
    return root(sum_lanes(total));
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
