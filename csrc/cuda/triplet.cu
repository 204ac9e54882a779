// Triplet loss of mined distances, and its derivatives. Formulas: vreid_ext/ops/mining.py.
#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

// One thread block: the mean loss over the anchors that have both pairs, and its derivative by each distance.
__global__ void __launch_bounds__(kThreads) triplet_loss(Triplet op) {
    const float *positive = static_cast<const float*>(op.distance), *negative = positive + op.N;
    float* slope = static_cast<float*>(op.slope);
    const float margin = float(op.margin);
    float anchors = 0, total = 0;
    for (int64_t i = threadIdx.x; i < op.N; i += kThreads) {
        const bool valid = op.index[i] >= 0 && op.index[op.N + i] >= 0;
        const float gap = positive[i] - negative[i], over = margin + gap;
        const float loss = op.soft ? fmaxf(gap, 0.f) + log1pf(expf(-fabsf(gap))) : over > 0 ? over : 0;
        slope[i] = !valid ? 0 : op.soft ? 1 / (1 + expf(-gap)) : over > 0 ? 1 : 0;
        anchors += valid ? 1 : 0;
        // Add NaN itself: the comparisons in `loss` would drop it.
        total += !valid ? 0 : gap == gap ? loss : gap;
    }
    anchors = sum_over_block(anchors);
    total = sum_over_block(total);
    const float share = 1 / fmaxf(anchors, 1.f);
    for (int64_t i = threadIdx.x; i < op.N; i += kThreads) {
        const float value = slope[i] * share;
        slope[i] = value;
        slope[op.N + i] = -value;
    }
    if (threadIdx.x == 0) *static_cast<float*>(op.loss) = total * share;
}

}  // namespace

cudaError_t triplet(const Triplet& op, cudaStream_t stream) {
    return launch(triplet_loss, 1, stream, op);
}

}  // namespace cuda
}  // namespace vreid
