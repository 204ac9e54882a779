// Operations across the frames of a clip: scores over time and the choice of a frame per block.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

inline bool is_valid(const bool* valid, int64_t frame) {
    return !valid || valid[frame];
}

// In place: s (T,K) -> S = s / total, total (K). If the total is zero, S is uniform over the valid frames.
template <class A>
inline void normalize_scores(A* scores, const bool* valid, int64_t T, int64_t K, A* total) {
    int64_t frames = 0;
    for (int64_t t = 0; t < T; ++t) frames += is_valid(valid, t);
    for (int64_t k = 0; k < K; ++k) {
        A sum = 0;
        for (int64_t t = 0; t < T; ++t) sum += scores[t * K + k];
        for (int64_t t = 0; t < T; ++t) {
            A& s = scores[t * K + k];
            s = !is_valid(valid, t) ? A(0) : sum != 0 ? s / sum : A(1) / A(frames);
        }
        total[k] = sum;
    }
}

// The first frame with the largest score; NaN counts as the largest, as in torch. -1 without a valid frame.
template <class A>
inline void choose_frames(const A* scores, const bool* valid, int64_t T, int64_t K, int64_t* choice) {
    for (int64_t k = 0; k < K; ++k) {
        int64_t best = -1;
        for (int64_t t = 0; t < T; ++t) {
            if (!is_valid(valid, t)) continue;
            const A s = scores[t * K + k];
            const bool is_nan = s != s;
            if (best < 0 || s > scores[best * K + k] ||
                (is_nan && scores[best * K + k] == scores[best * K + k]))
                best = t;
        }
        choice[k] = best;
    }
}

// The gradient of s from that of S, for one frame: (dS - sum_t' dS S) / total. dscores and scores are (T,K).
template <class A>
inline A score_gradient(const A* dscores, const A* scores, const bool* valid, const A* total, int64_t T,
                        int64_t K, int64_t t, int64_t k) {
    if (total[k] == 0) return 0;
    A mean = 0;
    for (int64_t u = 0; u < T; ++u) {
        if (is_valid(valid, u)) mean += dscores[u * K + k] * scores[u * K + k];
    }
    return (dscores[t * K + k] - mean) / total[k];
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
