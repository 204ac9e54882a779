// Attention maps (STA, Eq. 1) and their block scores (Eq. 3 and 4). Formulas: vreid_ext/ops/sta.py.
#include "cuda/clip.cuh"
#include "cuda/frame.h"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

// One warp per (frame, k): mass = sum |g| over the block's cells.
__global__ void __launch_bounds__(kThreads) block_mass(const float* attention, const bool* valid,
                                                       int64_t rows, int64_t K, int64_t cells, float* mass) {
    const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
    const bool counts = row < rows && (!valid || valid[row / K]);
    float sum = 0;
    for (int64_t i = threadIdx.x % kWarp; counts && i < cells; i += kWarp)
        sum += fabsf(attention[row * cells + i]);
    sum = sum_over_lanes(sum, kWarp);
    if (row < rows && threadIdx.x % kWarp == 0) mass[row] = sum;
}

// One thread per (clip, k).
__global__ void __launch_bounds__(kThreads)
    normalize(float* scores, const bool* valid, int64_t B, int64_t T, int64_t K, float* total) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * K) return;
    const Column column(index, valid, T, K);
    total[index] = normalize_scores(scores, column);
}

// One warp per (frame, k): dg = sign(g) ds, ds = (dS - sum_t dS S) / total.
__global__ void __launch_bounds__(kThreads)
    block_gradient(const float* grad, const float* attention, const bool* valid, const float* scores,
                   const float* total, int64_t rows, int64_t T, int64_t K, int64_t cells, float* result) {
    const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
    if (row >= rows) return;
    const int64_t frame = row / K, k = row % K, clip = frame / T;
    const float sum = total[clip * K + k];
    float ds = 0;
    if ((!valid || valid[frame]) && sum != 0) {
        float mean = 0;
        for (int64_t t = clip * T; t < (clip + 1) * T; ++t)
            if (!valid || valid[t]) mean += grad[t * K + k] * scores[t * K + k];
        ds = (grad[row] - mean) / sum;
    }
    for (int64_t i = row * cells + threadIdx.x % kWarp; i < (row + 1) * cells; i += kWarp) {
        const float g = attention[i];
        result[i] = g > 0 ? ds : g < 0 ? -ds : ds * 0;
    }
}

}  // namespace

cudaError_t attention_map(const AttentionMap& op, float* squares, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const cudaError_t status = channel_sums(x, nullptr, 1, squares, nullptr, stream);
    if (status != cudaSuccess) return status;
    return normalize_energy(squares, pieces(x, 1).squares, nullptr, x.B * x.T, x.L, 1,
                            Energy{op.root_energy, op.l2_norm}, static_cast<float*>(op.attention),
                            static_cast<float*>(op.norm), nullptr, stream);
}

cudaError_t attention_map_backward(const AttentionMapBackward& op, float* weight, cudaStream_t stream) {
    EnergyGradient gradient{};
    gradient.T = op.x.T;
    gradient.L = op.x.L;
    gradient.K = 1;
    gradient.grad_attention = static_cast<const float*>(op.grad);
    gradient.attention = static_cast<const float*>(op.attention);
    gradient.norm = static_cast<const float*>(op.norm);
    gradient.weight = weight;
    return map_gradient(op.x, op.dx, nullptr, gradient, Energy{op.root_energy, op.l2_norm}, nullptr, nullptr,
                        stream);
}

cudaError_t block_scores(const BlockScores& op, cudaStream_t stream) {
    const int64_t rows = op.B * op.T * op.K;
    float* scores = static_cast<float*>(op.scores);
    const cudaError_t status =
        launch(block_mass, ceil_div(rows, kThreads / kWarp), stream, static_cast<const float*>(op.attention),
               op.valid, rows, op.K, op.L / op.K, scores);
    if (status != cudaSuccess) return status;
    return launch(normalize, ceil_div(op.B * op.K, kThreads), stream, scores, op.valid, op.B, op.T, op.K,
                  static_cast<float*>(op.total));
}

cudaError_t block_scores_backward(const BlockScoresBackward& op, cudaStream_t stream) {
    const int64_t rows = op.B * op.T * op.K;
    return launch(block_gradient, ceil_div(rows, kThreads / kWarp), stream,
                  static_cast<const float*>(op.grad), static_cast<const float*>(op.attention), op.valid,
                  static_cast<const float*>(op.scores), static_cast<const float*>(op.total), rows, op.T, op.K,
                  op.L / op.K, static_cast<float*>(op.dattention));
}

}  // namespace cuda
}  // namespace vreid
