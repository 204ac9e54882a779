// Sums, attention maps and gradients of frames.
#pragma once

#include <cuda_runtime_api.h>

#include "common/tensors.h"

namespace vreid {
namespace cuda {

// Every thread block writes its own sums, so that they can be added in a fixed order.
struct Pieces {
    int64_t squares;  // sums of squares (B,T,squares,L), one for each piece of the channels
    int64_t sums;     // block sums (B,T,K,sums,C), one for each piece of a block
};
Pieces pieces(const FeatureMap& x, int64_t K);

// sums may be null.
cudaError_t channel_sums(const FeatureMap& x, const bool* valid, int64_t K, float* squares, float* sums,
                         cudaStream_t stream);

// The form of the attention map: e = sqrt(q) rather than q; divided by ||e||_2 rather than by the sum.
struct Energy {
    bool root, l2;
};

// attention (frames,L), norm (frames), mass (frames,K): block sums of the attention, or null.
cudaError_t normalize_energy(const float* squares, int64_t pieces, const bool* valid, int64_t frames,
                             int64_t L, int64_t K, Energy form, float* attention, float* norm, float* mass,
                             cudaStream_t stream);

struct EnergyGradient {
    int64_t T, L, K;
    const float* grad_attention;  // (B,T,L), or null
    const float* slope;           // (B,T,K): gradient of the scores, or null
    const float *scores, *total;  // (B,T,K), (B,K), with a slope
    const float *attention, *norm;
    float *ds, *weight;  // scratch (B,T,K), (B,T,L)
};

// dx = A + x weight with A[t,k,c] = (1[t = choice_k] df_max[c] + S[t,k] df_sum[c]) / L, or 0 without
// grad_pooled (B,2C).
cudaError_t map_gradient(const FeatureMap& x, const FeatureMap& dx, const bool* valid,
                         const EnergyGradient& op, Energy form, const void* grad_pooled,
                         const int64_t* choice, cudaStream_t stream);

}  // namespace cuda
}  // namespace vreid
