// Feature fusion (STA, Algorithm 1): per block, the chosen frame and the score-weighted sum of all frames.
// Formulas: vreid_ext/ops/sta.py. Fused maps have the memory layout of x, so that the accesses to both are
// contiguous.
#include "cuda/clip.cuh"
#include "cuda/kernels.h"
#include "cuda/walk.cuh"

namespace vreid {
namespace cuda {
namespace {

// One thread per (clip, k).
__global__ void __launch_bounds__(kThreads)
    choose(const float* scores, const bool* valid, int64_t B, int64_t T, int64_t K, int64_t* choice) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * K) return;
    const Column column(index, valid, T, K);
    choice[index] = chosen_frame(scores, column);
}

// The walk's frames are the clips.
template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads, 2)
    fuse_frames(FeatureMap x, FeatureMap fused, const bool* valid, Walk walk, const float* scores,
                const int64_t* choice) {
    const Place<PLANES, VEC> at(walk);
    if (!at.active) return;
    const T* source = static_cast<const T*>(x.data) + at.frame * x.stride_b + at.inner;
    T* target = static_cast<T*>(fused.data) + at.frame * fused.stride_b + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    const int64_t target_stride = PLANES ? fused.stride_c : fused.stride_l;
    const int64_t chosen = choice[at.frame * walk.K + at.block];
    for (int64_t outer = at.begin + at.row; outer < at.end; outer += walk.rows) {
        Pack<T, VEC> best{}, result;
        float weighted[VEC] = {};
        for (int64_t t = 0; t < x.T; ++t) {
            if (valid && !valid[at.frame * x.T + t]) continue;
            const float score = scores[(at.frame * x.T + t) * walk.K + at.block];
            const Pack<T, VEC> own = load<VEC>(source + t * x.stride_t + outer * stride);
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                weighted[v] += score * to_float(own.element[v]);
                if (t == chosen) best.element[v] = own.element[v];
            }
        }
#pragma unroll
        for (int v = 0; v < VEC; ++v) assign(result.element[v], weighted[v]);
        store(target + outer * target_stride, best);
        store(target + x.C * fused.stride_c + outer * target_stride, result);
    }
}

// dx = 1[t = choice_k] d1 + S d2; parts[frame,k,piece] = sum of x d2 over the elements of a thread block.
template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads)
    fuse_gradient(FeatureMap x, FeatureMap dx, FeatureMap grad, const bool* valid, Walk walk,
                  const float* scores, const int64_t* choice, float* parts) {
    const Place<PLANES, VEC> at(walk);
    const int64_t clip = at.frame / x.T;
    const bool readable = at.active && (!valid || valid[at.frame]);
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    T* target = frame_of<T>(dx, at.frame) + at.inner;
    const T* gradient = static_cast<const T*>(grad.data) + clip * grad.stride_b + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    const int64_t target_stride = PLANES ? dx.stride_c : dx.stride_l;
    const int64_t grad_stride = PLANES ? grad.stride_c : grad.stride_l;
    const float score = readable ? scores[at.frame * walk.K + at.block] : 0;
    const bool chosen = readable && choice[clip * walk.K + at.block] == at.frame % x.T;
    float product = 0;
    for (int64_t outer = at.begin + at.row; at.active && outer < at.end; outer += walk.rows) {
        Pack<T, VEC> result{};
        if (readable) {
            const T* slope = gradient + outer * grad_stride;
            const Pack<T, VEC> own = load<VEC>(source + outer * stride);
            const Pack<T, VEC> second = load<VEC>(slope + x.C * grad.stride_c);
            Pack<T, VEC> first{};
            if (chosen) first = load<VEC>(slope);
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                const float d2 = to_float(second.element[v]);
                product += to_float(own.element[v]) * d2;
                assign(result.element[v], score * d2 + (chosen ? to_float(first.element[v]) : 0.f));
            }
        }
        store(target + outer * target_stride, result);
    }

    __shared__ float products[kThreads];
    products[threadIdx.x] = product;
    __syncthreads();
    // The first lane of each block of cells adds the products of its lanes and rows.
    const int columns = walk.lanes * walk.blocks;
    if (at.lane != 0 || at.row != 0 || at.block >= walk.K) return;
    float sum = 0;
    for (int row = 0; row < walk.rows; ++row)
        for (int lane = 0; lane < walk.lanes; ++lane) sum += products[row * columns + threadIdx.x + lane];
    parts[((at.frame * walk.K + at.block) * walk.chunks + at.chunk) * walk.splits + at.split] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_pieces(const float* parts, int64_t rows, int64_t pieces, float* sums) {
    const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (row >= rows) return;
    float sum = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) sum += parts[row * pieces + piece];
    sums[row] = sum;
}

// The clips of a map as the frames of a walk.
FeatureMap clips_of(FeatureMap x) {
    x.T = 1;
    return x;
}

// The largest access, in elements, that is aligned in all maps.
template <class... Maps>
int common_vector_size(int64_t K, const FeatureMap& x, const Maps&... others) {
    const int vec = vector_size(x, K);
    const bool all = (... && (vector_size(others, K) == vec));
    return all ? vec : 1;
}

int fuse_vector_size(const FuseBackward& op, const FeatureMap& grad) {
    FeatureMap second = grad;  // the second half of the channels, which may be unaligned
    second.C = op.x.C;
    second.data = static_cast<char*>(grad.data) + op.x.C * grad.stride_c * element_size(grad);
    return common_vector_size(op.K, op.x, op.dx, grad, second);
}

}  // namespace

cudaError_t fuse(const Fuse& op, const FeatureMap& fused, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const float* scores = static_cast<const float*>(op.scores);
    const cudaError_t status =
        launch(choose, ceil_div(x.B * op.K, kThreads), stream, scores, op.valid, x.B, x.T, op.K, op.choice);
    if (status != cudaSuccess) return status;
    FeatureMap second = fused;
    second.data = static_cast<char*>(fused.data) + x.C * fused.stride_c * element_size(x);
    const int vec = common_vector_size(op.K, x, fused, second);
    const Walk walk = walk_of(x, op.K, vec);
    return for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        return launch(fuse_frames<decltype(element), planes(), vector()>, thread_blocks(clips_of(x), walk),
                      stream, x, fused, op.valid, walk, scores, op.choice);
    });
}

int64_t fuse_pieces(const FeatureMap& x, int64_t K) {
    // Single accesses need at least as many pieces as vector accesses.
    const Walk walk = walk_of(x, K, 1);
    return walk.chunks * walk.splits;
}

cudaError_t fuse_backward(const FuseBackward& op, const FeatureMap& grad, float* parts, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const int vec = fuse_vector_size(op, grad);
    const Walk walk = walk_of(x, op.K, vec);
    const cudaError_t status = for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        return launch(fuse_gradient<decltype(element), planes(), vector()>, thread_blocks(x, walk), stream, x,
                      op.dx, grad, op.valid, walk, static_cast<const float*>(op.scores), op.choice, parts);
    });
    if (status != cudaSuccess) return status;
    const int64_t rows = x.B * x.T * op.K;
    return launch(add_pieces, ceil_div(rows, kThreads), stream, parts, rows, walk.chunks * walk.splits,
                  static_cast<float*>(op.dscores));
}

}  // namespace cuda
}  // namespace vreid
