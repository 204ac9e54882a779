// Shared by the ops on frames: sums over the channels and over the cells of a frame in one read, attention
// maps from these sums, and the gradient of the frame in one read and one write.
#include "cuda/frame.cuh"

namespace vreid {
namespace cuda {
namespace {

// Three thread blocks per multiprocessor, not four, leave enough registers for the loads in flight.
template <class T, bool PLANES, int VEC, bool SUMS>
__global__ void __launch_bounds__(kThreads, 3)
    channel_sums_kernel(FeatureMap x, const bool* valid, Walk walk, float* squares, float* sums) {
    add_channels<T, PLANES, VEC, SUMS>(Place<PLANES, VEC>(walk), x, valid, walk, squares, sums);
}

// One thread block per frame.
__global__ void __launch_bounds__(kThreads)
    normalize_energy_kernel(const float* squares, int64_t pieces, const bool* valid, int64_t L, int64_t K,
                            Energy form, float* attention, float* norm, float* mass) {
    normalize_frame(blockIdx.x, true, squares, pieces, valid, L, K, form, attention, norm, mass);
}

// One thread block per frame. ds = (dS - sum_t dS S) / total, dg = grad_attention + ds, weight = dx / x from
// de = (dg - sum_j dg g u) / N with u = 1 for the sum and g for the norm. slope (dS) may be null; ds is
// scratch.
__global__ void __launch_bounds__(kThreads, 4) energy_gradient(EnergyGradient op, Energy form) {
    const int64_t frame = blockIdx.x, clip = frame / op.T, cells = op.L / op.K;
    float* ds = op.ds + frame * op.K;
    for (int64_t k = threadIdx.x; k < op.K && op.slope; k += kThreads) {
        float mean = 0;
        for (int64_t row = clip * op.T * op.K + k; row < (clip + 1) * op.T * op.K; row += op.K)
            mean += op.slope[row] * op.scores[row];
        const float sum = op.total[clip * op.K + k];
        ds[k] = sum != 0 ? (op.slope[frame * op.K + k] - mean) / sum : 0;
    }
    __syncthreads();
    const float* attention = op.attention + frame * op.L;
    const float* gradient = op.grad_attention ? op.grad_attention + frame * op.L : nullptr;
    const auto dg = [&](int64_t i) {
        return (op.slope ? ds[i / cells] : 0.f) + (gradient ? gradient[i] : 0.f);
    };
    float product = 0;
    for (int64_t i = threadIdx.x; i < op.L; i += kThreads) product += dg(i) * attention[i];
    const float mean = sum_over_block(product), norm = op.norm[frame];
    for (int64_t i = threadIdx.x; i < op.L; i += kThreads) {
        const float g = attention[i], de = norm != 0 ? (dg(i) - (form.l2 ? mean * g : mean)) / norm : 0;
        op.weight[frame * op.L + i] = !form.root ? 2 * de : g * norm != 0 ? de / (g * norm) : 0;
    }
}

// dx = A + x weight, A[t,k,c] = (1[t = choice_k] df_max[c] + S[t,k] df_sum[c]) / L (0 without grad_pooled).
template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads)
    map_gradient_kernel(FeatureMap x, FeatureMap dx, const bool* valid, Walk walk, const float* weight,
                        const T* grad_pooled, const float* scores, const int64_t* choice) {
    const Place<PLANES, VEC> at(walk);
    if (!at.active) return;
    const bool readable = !valid || valid[at.frame];
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    T* target = frame_of<T>(dx, at.frame) + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    const int64_t target_stride = PLANES ? dx.stride_c : dx.stride_l;
    const int64_t clip = at.frame / x.T;
    const float cell = 1.f / x.L, share = grad_pooled ? scores[at.frame * walk.K + at.block] * cell : 0;
    const bool chosen = grad_pooled && choice[clip * walk.K + at.block] == at.frame % x.T;
    const T* df_max = grad_pooled ? grad_pooled + clip * 2 * x.C : nullptr;
    const auto additive = [&](int64_t c) {
        if (!df_max) return 0.f;
        const float weighted = to_float(df_max[x.C + c]) * share;
        return chosen ? weighted + to_float(df_max[c]) * cell : weighted;
    };
    weight += at.frame * x.L;

    // The terms that depend on the thread's elements only: their weights, or (channels last) their A.
    float own[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) own[v] = PLANES ? weight[at.inner + v] : additive(at.inner + v);
    for (int64_t first = at.begin; first < at.end; first += int64_t(walk.rows) * kBatch) {
        Pack<T, VEC> batch[kBatch];
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            if (readable && outer < at.end) batch[u] = load<VEC>(source + outer * stride);
        }
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            if (outer >= at.end) continue;
            Pack<T, VEC> result = {};
            if (readable) {
                const float common = PLANES ? additive(outer) : weight[outer];
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    const float value = to_float(batch[u].element[v]);
                    assign(result.element[v], PLANES ? common + value * own[v] : own[v] + value * common);
                }
            }
            store(target + outer * target_stride, result);
        }
    }
}

Pieces pieces_of(const FeatureMap& x, const Walk& walk) {
    return x.planes() ? Pieces{walk.chunks, walk.splits} : Pieces{walk.splits, 1};
}

template <bool SUMS>
cudaError_t sums_of(const FeatureMap& x, const bool* valid, int64_t K, float* squares, float* sums,
                    cudaStream_t stream) {
    const int vec = vector_size(x, K);
    const Walk walk = walk_of(x, K, vec);
    return for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        return launch(channel_sums_kernel<decltype(element), planes(), vector(), SUMS>,
                      thread_blocks(x, walk), stream, x, valid, walk, squares, sums);
    });
}

}  // namespace

Pieces pieces(const FeatureMap& x, int64_t K) {
    return pieces_of(x, walk_of(x, K, vector_size(x, K)));
}

cudaError_t channel_sums(const FeatureMap& x, const bool* valid, int64_t K, float* squares, float* sums,
                         cudaStream_t stream) {
    return sums ? sums_of<true>(x, valid, K, squares, sums, stream)
                : sums_of<false>(x, valid, K, squares, sums, stream);
}

cudaError_t normalize_energy(const float* squares, int64_t pieces, const bool* valid, int64_t frames,
                             int64_t L, int64_t K, Energy form, float* attention, float* norm, float* mass,
                             cudaStream_t stream) {
    return launch(normalize_energy_kernel, frames, stream, squares, pieces, valid, L, K, form, attention,
                  norm, mass);
}

cudaError_t map_gradient(const FeatureMap& x, const FeatureMap& dx, const bool* valid,
                         const EnergyGradient& op, Energy form, const void* grad_pooled,
                         const int64_t* choice, cudaStream_t stream) {
    const cudaError_t status = launch(energy_gradient, x.B * x.T, stream, op, form);
    if (status != cudaSuccess) return status;
    const int vec = vector_size(x, op.K) == 1 ? 1 : vector_size(dx, op.K);
    const Walk walk = walk_of(x, op.K, vec);
    return for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        using T = decltype(element);
        return launch(map_gradient_kernel<T, planes(), vector()>, thread_blocks(x, walk), stream, x, dx,
                      valid, walk, op.weight, static_cast<const T*>(grad_pooled), op.scores, choice);
    });
}

cudaError_t usable() {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, energy_gradient);
    cudaGetLastError();  // clear the sticky error: it is returned here, the next launch must not report it
                         // again
    return status;
}

}  // namespace cuda
}  // namespace vreid
