// Region pooling with diversity (Li et al., "DRSTA", CVPR 2018, Eq. 2, 3 and 9) in one read of the feature
// map for up to kRegions regions; backward in one read and one write. Formulas: vreid_ext/ops/region.py.
#include "cuda/kernels.h"
#include "cuda/walk.cuh"

namespace vreid {
namespace cuda {
namespace {

constexpr int kRegions = 8;  // in one pass: a thread has their sums in registers
constexpr int kLoads = 2;    // in flight per thread

// The K x L weights of a frame and the gradient of its K x C features, as matrices over the inner and the
// outer axis of a walk.
template <class T, bool PLANES>
struct Matrices {
    const float* weights;
    const T* grad;
    int64_t K, C, L;

    __device__ float inner(int64_t k, int64_t i) const {
        return PLANES ? weights[k * L + i] : to_float(grad[k * C + i]);
    }
    __device__ float outer(int64_t k, int64_t o) const {
        return PLANES ? to_float(grad[k * C + o]) : weights[k * L + o];
    }
};

// Products of x with K rows, along the inner axis (sums over lanes) or along the outer axis (sums in
// registers):
//     forward    features[k,c] = sum_l w[k,l] x[c,l]
//     GRADIENT   slope[k,l] = sum_c g[k,c] x[c,l], and dx[c,l] = sum_k g[k,c] w[k,l]
// for the regions from `first` on; the first pass also writes dx. The sums go to parts[frame,piece,k,.], or
// to features if parts is null.
template <class T, bool PLANES, int VEC, bool GRADIENT>
__global__ void __launch_bounds__(kThreads, 1)
    region_products(FeatureMap x, FeatureMap dx, Walk walk, const float* weights, const T* grad, int64_t K,
                    int64_t first, float* parts, T* features) {
    constexpr bool ALONG = PLANES != GRADIENT;
    const Place<PLANES, VEC> at(walk);
    const Matrices<T, PLANES> matrix{weights + at.frame * K * x.L,
                                     GRADIENT ? grad + at.frame * K * x.C : nullptr, K, x.C, x.L};
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    T* target = GRADIENT ? frame_of<T>(dx, at.frame) + at.inner : nullptr;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    const int64_t target_stride = PLANES ? dx.stride_c : dx.stride_l;
    const int64_t count = min(K - first, int64_t(kRegions)), length = GRADIENT ? x.L : x.C;
    const int64_t pieces = ALONG ? walk.splits : walk.chunks, piece = ALONG ? at.split : at.chunk;
    const auto put = [&](int k, int64_t position, float value) {
        if (parts)
            parts[((at.frame * pieces + piece) * K + first + k) * length + position] = value;
        else
            assign(features[(at.frame * K + first + k) * length + position], value);
    };

    float own[kRegions][VEC], sums[kRegions][VEC];
#pragma unroll
    for (int k = 0; k < kRegions; ++k) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            own[k][v] = 0;
            sums[k][v] = 0;
            if ((ALONG || GRADIENT) && at.active && k < count)
                own[k][v] = matrix.inner(first + k, at.inner + v);
        }
    }
    for (int64_t begin = at.begin; begin < at.end; begin += int64_t(walk.rows) * kLoads) {
        Pack<T, VEC> batch[kLoads];
#pragma unroll
        for (int u = 0; u < kLoads; ++u) {
            const int64_t outer = begin + u * walk.rows + at.row;
            batch[u] = {};
            if (at.active && outer < at.end) batch[u] = load<VEC>(source + outer * stride);
        }
#pragma unroll
        for (int u = 0; u < kLoads; ++u) {
            const int64_t outer = begin + u * walk.rows + at.row;
            const bool inside = at.active && outer < at.end;
            float gradient[VEC] = {};
#pragma unroll
            for (int k = 0; k < kRegions; ++k) {
                const bool takes_part = k < count && inside;
                const float factor = (!ALONG || GRADIENT) && takes_part ? matrix.outer(first + k, outer) : 0;
                float row = 0;
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    const float value = to_float(batch[u].element[v]);
                    if (ALONG) row += own[k][v] * value;
                    if (!ALONG && takes_part) sums[k][v] += factor * value;
                    if (GRADIENT) gradient[v] += factor * own[k][v];
                }
                if (ALONG && k < count) {
                    row = sum_over_lanes(row, walk.lanes);
                    if (at.lane == 0 && inside) put(k, outer, row);
                }
            }
            if constexpr (GRADIENT) {
                if (first > 0 || !inside) continue;
                for (int64_t k = kRegions; k < K; ++k) {
                    const float factor = matrix.outer(k, outer);
#pragma unroll
                    for (int v = 0; v < VEC; ++v) gradient[v] += factor * matrix.inner(k, at.inner + v);
                }
                Pack<T, VEC> result;
#pragma unroll
                for (int v = 0; v < VEC; ++v) assign(result.element[v], gradient[v]);
                store(target + outer * target_stride, result);
            }
        }
    }
    if constexpr (!ALONG) {
        __shared__ float rows[kThreads][VEC];
#pragma unroll
        for (int k = 0; k < kRegions; ++k) {
            if (k >= count) break;
#pragma unroll
            for (int v = 0; v < VEC; ++v) rows[threadIdx.x][v] = sums[k][v];
            __syncthreads();
            if (at.row == 0 && at.active) {
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    float sum = 0;
                    for (int other = threadIdx.x; other < kThreads; other += kThreads / walk.rows)
                        sum += rows[other][v];
                    put(k, at.inner + v, sum);
                }
            }
            __syncthreads();
        }
    }
}

// features = the sums over the pieces.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_pieces(const float* parts, int64_t size, int64_t pieces, int64_t frame_size, T* features) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= size) return;
    parts += index / frame_size * pieces * frame_size + index % frame_size;
    float sum = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) sum += parts[piece * frame_size];
    assign(features[index], sum);
}

// One thread block per frame, its warps over pairs of regions: A = R R^T - I with R = sqrt(weights), whose
// diagonal is zero; overlap = ||A||^2, unless null.
__global__ void __launch_bounds__(kThreads)
    overlap_residual(const float* weights, int64_t K, int64_t L, float* residual, float* overlap) {
    const int64_t frame = blockIdx.x;
    weights += frame * K * L;
    residual += frame * K * K;
    float squares = 0;
    for (int64_t pair = threadIdx.x / kWarp; pair < K * K; pair += kThreads / kWarp) {
        const int64_t i = pair / K, j = pair % K;
        if (i > j) continue;
        float product = 0;
        for (int64_t l = threadIdx.x % kWarp; i < j && l < L; l += kWarp)
            product += sqrtf(weights[i * L + l]) * sqrtf(weights[j * L + l]);
        product = sum_over_lanes(product, kWarp);
        if (threadIdx.x % kWarp != 0) continue;
        residual[i * K + j] = residual[j * K + i] = product;
        squares += 2 * product * product;
    }
    squares = sum_over_block(squares);
    if (overlap && threadIdx.x == 0) overlap[frame] = squares;
}

// One warp per (frame, k): with t = s (dS + pieces' sums) + 2 dQ R (A R), dlogits = t - s sum_l t. Each
// gradient may be null.
__global__ void __launch_bounds__(kThreads, 3)
    logit_gradient(const float* weights, const float* grad_weights, const float* parts, int64_t pieces,
                   const float* grad_overlap, const float* residual, int64_t rows, int64_t K, int64_t L,
                   float* dlogits) {
    const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
    const int64_t frame = row / K, k = row % K;
    float sum = 0;
    for (int64_t l = threadIdx.x % kWarp; row < rows && l < L; l += kWarp) {
        const float s = weights[row * L + l];
        float slope = grad_weights ? grad_weights[row * L + l] : 0;
        for (int64_t piece = 0; piece < pieces; ++piece)
            slope += parts[((frame * pieces + piece) * K + k) * L + l];
        float t = s * slope;
        if (grad_overlap) {
            float product = 0;
            for (int64_t j = 0; j < K; ++j)
                if (j != k) product += residual[row * K + j] * sqrtf(weights[(frame * K + j) * L + l]);
            t += 2 * grad_overlap[frame] * sqrtf(s) * product;
        }
        dlogits[row * L + l] = t;
        sum += t;
    }
    sum = sum_over_lanes(sum, kWarp);
    for (int64_t l = threadIdx.x % kWarp; row < rows && l < L; l += kWarp)
        dlogits[row * L + l] -= weights[row * L + l] * sum;
}

int common_vector_size(const FeatureMap& x, const FeatureMap& dx) {
    return vector_size(x, 1) == 1 ? 1 : vector_size(dx, 1);
}

template <bool GRADIENT>
cudaError_t products(const FeatureMap& x, const FeatureMap& dx, int vec, const float* weights,
                     const void* grad, int64_t K, float* parts, void* features, cudaStream_t stream) {
    const Walk walk = walk_of(x, 1, vec);
    return for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        using T = decltype(element);
        cudaError_t status = cudaSuccess;
        for (int64_t first = 0; first < K && status == cudaSuccess; first += kRegions)
            status = launch(region_products<T, planes(), vector(), GRADIENT>, thread_blocks(x, walk), stream,
                            x, dx, walk, weights, static_cast<const T*>(grad), K, first, parts,
                            static_cast<T*>(features));
        return status;
    });
}

}  // namespace

int64_t region_pieces(const FeatureMap& x) {
    const Walk walk = walk_of(x, 1, vector_size(x, 1));
    return x.planes() ? walk.splits : walk.chunks;
}

int64_t region_gradient_pieces(const FeatureMap& x, const FeatureMap& dx) {
    const Walk walk = walk_of(x, 1, common_vector_size(x, dx));
    return x.planes() ? walk.chunks : walk.splits;
}

cudaError_t region_pool(const RegionPool& op, float* parts, float* residual, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const float* weights = static_cast<const float*>(op.weights);
    const int64_t pieces = region_pieces(x);
    cudaError_t status = products<false>(x, x, vector_size(x, 1), weights, nullptr, op.K,
                                         pieces > 1 ? parts : nullptr, op.features, stream);
    if (status == cudaSuccess && pieces > 1) {
        status = dispatch(x.dtype, [&](auto element) {
            using T = decltype(element);
            const int64_t frame = op.K * x.C, size = x.B * x.T * frame;
            return launch(add_pieces<T>, ceil_div(size, kThreads), stream, parts, size, pieces, frame,
                          static_cast<T*>(op.features));
        });
    }
    if (status != cudaSuccess) return status;
    return launch(overlap_residual, x.B * x.T, stream, weights, op.K, x.L, residual,
                  static_cast<float*>(op.overlap));
}

cudaError_t region_pool_backward(const RegionPoolBackward& op, float* parts, float* residual,
                                 cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const float* weights = static_cast<const float*>(op.weights);
    const int64_t pieces = op.grad_features ? region_gradient_pieces(x, op.dx) : 0, rows = x.B * x.T * op.K;
    cudaError_t status = cudaSuccess;
    if (op.grad_features)
        status = products<true>(x, op.dx, common_vector_size(x, op.dx), weights, op.grad_features, op.K,
                                parts, nullptr, stream);
    if (status == cudaSuccess && op.grad_overlap)
        status = launch(overlap_residual, x.B * x.T, stream, weights, op.K, x.L, residual,
                        static_cast<float*>(nullptr));
    if (status != cudaSuccess) return status;
    return launch(logit_gradient, ceil_div(rows, kThreads / kWarp), stream, weights,
                  static_cast<const float*>(op.grad_weights), parts, pieces,
                  static_cast<const float*>(op.grad_overlap), residual, rows, op.K, x.L,
                  static_cast<float*>(op.dlogits));
}

}  // namespace cuda
}  // namespace vreid
