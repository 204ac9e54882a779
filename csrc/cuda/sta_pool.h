// STA pooling on a GPU: device addresses and a stream in, a CUDA status out. Nothing here allocates or waits.
#pragma once

#include <cuda_runtime_api.h>

#include "common/types.h"

namespace vreid {
namespace cuda {

// Sizes of the scratch memory: every thread block leaves its own sums, so that they add up in a fixed order.
struct Partials {
    int64_t squares;  // sums of squares (B,T,squares,L), one for each piece of the channels
    int64_t sums;     // block sums (B,T,K,sums,C), one for each piece of a block; 1: StaPool::sums itself
};
Partials partials(const FeatureMap& x, int64_t K);

// squares and sums: float, as sized above.
cudaError_t sta_pool(const StaPool& op, float* squares, float* sums, cudaStream_t stream);

// slope (2,B,T,K) and weight (B,T,L): float scratch.
cudaError_t sta_pool_backward(const StaPoolBackward& op, float* slope, float* weight, cudaStream_t stream);

// Whether the current device can run the kernels: cudaErrorNoKernelImageForDevice where none was built for
// it.
cudaError_t usable();

}  // namespace cuda
}  // namespace vreid
