// Vectorized softmax of a row of float or double.
#pragma once

#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// e^x for x <= 0 with an error of at most two ulp; results that would be subnormal are zero. NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r^2 p(r), p fitted at Chebyshev points.
inline FloatVector decay(FloatVector x) {
    constexpr float kShift = 0x1.8p23f;  // a number added to it is rounded to an integer in its lowest bits
    const FloatVector shifted = x * 1.44269504f + kShift, n = shifted - kShift;
    const FloatVector r = (x - n * 0x1.62e4p-1f) -
                          n * 0x1.7f7d1cp-20f;  // ln 2 in two parts: the product of n and the first is exact
    const FloatVector p =
        (((1.393373322e-3f * r + 8.363235385e-3f) * r + 4.166646417e-2f) * r + 1.666657664e-1f) * r +
        5.000000014e-1f;
    const FloatVector power = (FloatVector)(((WordVector)shifted << 23) + 0x3f800000u);
    const FloatVector result = (r * r * p + r + 1.0f) * power;
    return x < -87.3f ? FloatVector{} : result;
}

inline DoubleVector decay(DoubleVector x) {
    for (int i = 0; i < Lanes<double>::N; ++i) x[i] = exp(x[i]);
    return x;
}

// weights = softmax(logits), rows of `size` elements. A row with NaN or infinity gives NaN, as in torch.
template <class A>
inline void softmax(const A* logits, int64_t size, A* weights) {
    constexpr int N = Lanes<A>::N;
    A most = logits[0];
    int64_t i = 0;
    if (size >= N) {
        Vec<A> each = load(logits);
        for (i = N; i + N <= size; i += N) {
            const Vec<A> v = load(logits + i);
            each = v > each ? v : each;
        }
        for (int n = 0; n < N; ++n) most = each[n] > most ? each[n] : most;
    }
    for (; i < size; ++i) most = logits[i] > most ? logits[i] : most;
    for_vectors<A>(
        size, [&](int64_t j, auto part) { part.store(weights + j, decay(part.load(logits + j) - most)); });
    Vec<A> total{};
    for_vectors<A>(size, [&](int64_t j, auto part) { total += part.load(weights + j); });
    const A factor = A(1) / sum_lanes(total);
    for_vectors<A>(size,
                   [&](int64_t j, auto part) { part.store(weights + j, part.load(weights + j) * factor); });
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
