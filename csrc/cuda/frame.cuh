// The passes of `sta_pool` and `attention_map` over a frame, by the kThreads threads of a block or by one of
// its GROUPS rows of threads. All rows call them at the same time, because they have barriers; a row without
// work is not active.
#pragma once

#include "cuda/frame.h"
#include "cuda/walk.cuh"

namespace vreid {
namespace cuda {
namespace {

// squares[frame,piece,i] = sum of x^2 over a piece of the channels;
// sums[frame,k,piece,c] = sum of x over a piece of the block's cells, unless SUMS is false.
template <class T, bool PLANES, int VEC, bool SUMS, int GROUPS = 1>
__device__ void add_channels(const Place<PLANES, VEC>& at, const FeatureMap& x, const bool* valid,
                             const Walk& walk, float* squares, float* sums) {
    const bool readable = at.active && (!valid || valid[at.frame]);
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    float* along = PLANES ? sums + ((at.frame * walk.K + at.block) * walk.splits + at.split) * x.C
                          : squares + (at.frame * walk.splits + at.split) * x.L;
    float* down = PLANES ? squares + (at.frame * walk.chunks + at.chunk) * x.L
                         : sums + (at.frame * walk.K + at.block) * x.C;

    constexpr bool ALONG = SUMS || !PLANES, DOWN = SUMS || PLANES;
    float column[VEC] = {};
    for (int64_t first = at.begin; first < at.end; first += int64_t(walk.rows) * kBatch) {
        Pack<T, VEC> batch[kBatch];
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            batch[u] = {};
            if (readable && outer < at.end) batch[u] = load<VEC>(source + outer * stride);
        }
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            float row = 0;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                const float value = to_float(batch[u].element[v]), square = value * value;
                column[v] += PLANES ? square : value;
                row += PLANES ? value : square;
            }
            if constexpr (ALONG) {
                row = sum_over_lanes(row, walk.lanes);
                if (at.active && at.lane == 0 && outer < at.end) along[outer] = row;
            }
        }
    }

    if constexpr (DOWN) {
        __shared__ float columns[GROUPS][kThreads][VEC];
        float (*rows)[VEC] = columns[GROUPS == 1 ? 0 : threadIdx.y];
#pragma unroll
        for (int v = 0; v < VEC; ++v) rows[threadIdx.x][v] = column[v];
        __syncthreads();
        if (at.row != 0 || !at.active) return;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float sum = 0;
            for (int other = threadIdx.x; other < kThreads; other += kThreads / walk.rows)
                sum += rows[other][v];
            down[at.inner + v] = sum;
        }
    }
}

// e = q or its root, g = e / N (uniform if N is 0) with N the sum or the norm of e, mass[k] = block sums of
// g, unless null.
template <int GROUPS = 1>
__device__ void normalize_frame(int64_t frame, bool active, const float* squares, int64_t pieces,
                                const bool* valid, int64_t L, int64_t K, Energy form, float* attention,
                                float* norm, float* mass) {
    const int64_t cells = L / K, end = active ? L : 0;
    squares += frame * pieces * L;
    attention += frame * L;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < end; i += kThreads) {
        float q = 0;
        for (int64_t piece = 0; piece < pieces; ++piece) q += squares[piece * L + i];
        if (form.root) q = sqrtf(q);
        attention[i] = q;
        sum += form.l2 ? q * q : q;
    }
    sum = sum_over_block<GROUPS>(sum);
    const float total = form.l2 ? sqrtf(sum) : sum;
    const float share = form.l2 ? 1 / sqrtf(float(L)) : 1.f / L;
    const float uniform = !valid || (active && valid[frame]) ? share : 0.f;
    for (int64_t i = threadIdx.x; i < end; i += kThreads)
        attention[i] = total != 0 ? attention[i] / total : uniform;
    if (active && threadIdx.x == 0) norm[frame] = total;
    if (!mass) return;
    __syncthreads();
    for (int64_t k = threadIdx.x / kWarp; k < (active ? K : 0); k += kThreads / kWarp) {
        float part = 0;
        for (int64_t i = threadIdx.x % kWarp; i < cells; i += kWarp) part += attention[k * cells + i];
        part = sum_over_lanes(part, kWarp);
        if (threadIdx.x % kWarp == 0) mass[frame * K + k] = part;
    }
}

}  // namespace
}  // namespace cuda
}  // namespace vreid
