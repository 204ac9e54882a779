// STA pooling (Fu et al., AAAI 2019, Eq. 1 to 4 and Algorithm 1) in one read of the feature map; backward in
// one read and one write. Formulas: vreid_ext/ops/sta.py.
//
// Bitwise deterministic: no atomics, and every sum has a fixed order. A *frame* is one (b,t) with the index b
// T + t.
#include "cuda/clip.cuh"
#include "cuda/frame.h"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

// One thread per (clip, k).
__global__ void __launch_bounds__(kThreads)
    score_frames(float* scores, const bool* valid, int64_t B, int64_t T, int64_t K, float* total,
                 int64_t* choice) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * K) return;
    const Column column(index, valid, T, K);
    total[index] = normalize_scores(scores, column);
    choice[index] = chosen_frame(scores, column);
}

// One thread per (clip, channel). P = the sums over the pieces;
// pooled = [1/L sum_k P[choice_k,k,c], 1/L sum_k sum_t S P].
template <class T>
__global__ void __launch_bounds__(kThreads)
    pool(const float* parts, int64_t pieces, const float* scores, const int64_t* choice, int64_t B,
         int64_t frames, int64_t C, int64_t L, int64_t K, float* sums, T* pooled) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * C) return;
    const int64_t clip = index / C, c = index % C;
    float chosen = 0, weighted = 0;
    for (int64_t t = 0; t < frames; ++t) {
        for (int64_t k = 0; k < K; ++k) {
            const int64_t row = (clip * frames + t) * K + k;
            float sum = parts[row * pieces * C + c];
            if (pieces > 1) {
                for (int64_t piece = 1; piece < pieces; ++piece) sum += parts[(row * pieces + piece) * C + c];
                sums[row * C + c] = sum;
            }
            weighted += scores[row] * sum;
            if (choice[clip * K + k] == t) chosen += sum;
        }
    }
    assign(pooled[clip * 2 * C + c], chosen / L);
    assign(pooled[clip * 2 * C + C + c], weighted / L);
}

// One thread block per (frame, k). slope = dS = grad_scores + 1/L sum_c grad_pooled[C+c] P[k,c].
template <class T>
__global__ void __launch_bounds__(kThreads)
    score_gradient(const float* grad_scores, const T* grad_pooled, const float* sums, const bool* valid,
                   int64_t frames, int64_t C, int64_t L, int64_t K, float* slope) {
    const int64_t row = blockIdx.x, frame = row / K;
    float product = 0;
    if (grad_pooled) {
        grad_pooled += frame / frames * 2 * C + C;
        for (int64_t c = threadIdx.x; c < C; c += kThreads)
            product += to_float(grad_pooled[c]) * sums[row * C + c];
    }
    product = sum_over_block(product);
    if (threadIdx.x != 0) return;
    if (valid && !valid[frame])
        slope[row] = 0;
    else
        slope[row] = product / L + (grad_scores ? grad_scores[row] : 0);
}

}  // namespace

cudaError_t sta_pool(const StaPool& op, float* squares, float* parts, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const Pieces piece = pieces(x, op.K);
    float *scores = static_cast<float*>(op.scores), *attention = static_cast<float*>(op.attention);
    cudaError_t status = channel_sums(x, op.valid, op.K, squares, parts, stream);
    if (status == cudaSuccess)
        status = normalize_energy(squares, piece.squares, op.valid, x.B * x.T, x.L, op.K, Energy{}, attention,
                                  static_cast<float*>(op.energy), scores, stream);
    if (status == cudaSuccess)
        status = launch(score_frames, ceil_div(x.B * op.K, kThreads), stream, scores, op.valid, x.B, x.T,
                        op.K, static_cast<float*>(op.total), op.choice);
    if (status != cudaSuccess) return status;
    return dispatch(x.dtype, [&](auto element) {
        using T = decltype(element);
        return launch(pool<T>, ceil_div(x.B * x.C, kThreads), stream, parts, piece.sums, scores, op.choice,
                      x.B, x.T, x.C, x.L, op.K, static_cast<float*>(op.sums), static_cast<T*>(op.pooled));
    });
}

cudaError_t sta_pool_backward(const StaPoolBackward& op, float* slope, float* weight, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const float *scores = static_cast<const float*>(op.scores), *sums = static_cast<const float*>(op.sums);
    const bool through_scores = op.grad_pooled || op.grad_scores;
    cudaError_t status = cudaSuccess;
    if (through_scores) {
        status = dispatch(x.dtype, [&](auto element) {
            using T = decltype(element);
            return launch(score_gradient<T>, x.B * x.T * op.K, stream,
                          static_cast<const float*>(op.grad_scores), static_cast<const T*>(op.grad_pooled),
                          sums, op.valid, x.T, x.C, x.L, op.K, slope);
        });
    }
    if (status != cudaSuccess) return status;
    const EnergyGradient gradient{x.T,
                                  x.L,
                                  op.K,
                                  static_cast<const float*>(op.grad_attention),
                                  through_scores ? slope : nullptr,
                                  scores,
                                  static_cast<const float*>(op.total),
                                  static_cast<const float*>(op.attention),
                                  static_cast<const float*>(op.energy),
                                  slope + x.B * x.T * op.K,
                                  weight};
    return map_gradient(x, op.dx, op.valid, gradient, Energy{}, op.grad_pooled, op.choice, stream);
}

}  // namespace cuda
}  // namespace vreid
