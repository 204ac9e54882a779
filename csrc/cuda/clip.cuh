// Operations across the frames of a clip: scores over time and the choice of a frame per block.
#pragma once

#include "cuda/device.cuh"

namespace vreid {
namespace cuda {
namespace {

// The scores of one (clip, k) over the frames.
struct Column {
    const bool* valid;  // of the clip; may be null
    int64_t T, K;
    int64_t first;  // index of the first frame's score

    __device__ Column(int64_t index, const bool* valid, int64_t T, int64_t K) : T(T), K(K) {
        const int64_t clip = index / K;
        this->valid = valid ? valid + clip * T : nullptr;
        first = clip * T * K + index - clip * K;
    }
    __device__ bool counts(int64_t t) const { return !valid || valid[t]; }
};

// In place s -> S = s / total; if the total is 0, S is uniform over the valid frames. Returns the total.
__device__ inline float normalize_scores(float* scores, const Column& column) {
    scores += column.first;
    float sum = 0, frames = 0;
    for (int64_t t = 0; t < column.T; ++t) {
        if (!column.counts(t)) continue;
        sum += scores[t * column.K];
        frames += 1;
    }
    for (int64_t t = 0; t < column.T; ++t) {
        float& score = scores[t * column.K];
        score = !column.counts(t) ? 0 : sum != 0 ? score / sum : 1 / frames;
    }
    return sum;
}

// The first frame with the largest score; NaN counts as the largest, as in torch. -1 without a valid frame.
__device__ inline int64_t chosen_frame(const float* scores, const Column& column) {
    scores += column.first;
    float best = 0;
    int64_t frame = -1;
    for (int64_t t = 0; t < column.T; ++t) {
        const float score = scores[t * column.K];
        if (!column.counts(t)) continue;
        if (frame < 0 || score > best || (score != score && best == best)) {
            best = score;
            frame = t;
        }
    }
    return frame;
}

}  // namespace
}  // namespace cuda
}  // namespace vreid
