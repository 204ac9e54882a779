// Farthest and nearest row of the same identity. Formulas: vreid_ext/ops/mining.py.
#include "cuda/kernels.h"
#include "cuda/row_distance.cuh"

namespace vreid {
namespace cuda {
namespace {

// One warp per anchor, over the rows of its identity.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 4)
    identity_extremes(IdentityHard op, const float* scale, const int64_t* begin, const int64_t* end) {
    const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (i >= op.x.N) return;
    float far = 0, near = 0;
    int64_t farthest = -1, nearest = -1;
    for (int64_t place = begin[i]; place < end[i]; ++place) {
        const int64_t j = op.order[place];
        if (j == i && !op.include_self) continue;
        const float value = distance<VEC>(row_of<T>(op.x, i), scale_of(scale, i), row_of<T>(op.x, j),
                                          scale_of(scale, j), op.x.D, op.metric);
        if (farthest < 0 || value > far) far = value, farthest = j;
        if (nearest < 0 || value < near) near = value, nearest = j;
    }
    if (threadIdx.x % kWarp != 0) return;
    op.index[i] = farthest;
    op.index[op.x.N + i] = nearest;
}

}  // namespace

cudaError_t identity_hard(const IdentityHard& op, const float* scale, const int64_t* begin,
                          const int64_t* end, cudaStream_t stream) {
    return for_rows(op.x, Rows{}, [&](auto element, auto vec) {
        return launch(identity_extremes<decltype(element), vec()>, ceil_div(op.x.N, kWarps), stream, op,
                      scale, begin, end);
    });
}

}  // namespace cuda
}  // namespace vreid
