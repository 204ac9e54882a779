// Inter-frame distance (STA, Eq. 6): the mean of ||g_i - g_j|| over the pairs.
#include "cpu/kernels.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class A>
Status distance(const InterFrameDistance& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t b = 0; b < op.B; ++b) {
        const A* clip = static_cast<const A*>(op.attention) + b * op.T * op.L;
        const int64_t* pairs = op.pairs + b * op.M * 2;
        A total = 0;
        for (int64_t m = 0; m < op.M; ++m)
            total += difference_norm(clip + pairs[2 * m] * op.L, clip + pairs[2 * m + 1] * op.L, op.L);
        static_cast<A*>(op.distance)[b] = total / A(op.M);
    }
    return Status::ok;
}

template <class A>
Status distance_backward(const InterFrameDistanceBackward& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t b = 0; b < op.B; ++b) {
        const A* clip = static_cast<const A*>(op.attention) + b * op.T * op.L;
        A* gradient = static_cast<A*>(op.dattention) + b * op.T * op.L;
        const int64_t* pairs = op.pairs + b * op.M * 2;
        memset(gradient, 0, size_t(op.T * op.L) * sizeof(A));
        for (int64_t m = 0; m < op.M; ++m) {
            const int64_t i = pairs[2 * m] * op.L, j = pairs[2 * m + 1] * op.L;
            const A length = difference_norm(clip + i, clip + j, op.L);
            if (length == 0) continue;
            const A factor = static_cast<const A*>(op.grad)[b] / (A(op.M) * length);
            for (int64_t l = 0; l < op.L; ++l) {
                const A step = factor * (clip[i + l] - clip[j + l]);
                gradient[i + l] += step;
                gradient[j + l] -= step;
            }
        }
    }
    return Status::ok;
}

}  // namespace

Status inter_frame_distance(const InterFrameDistance& op) {
    return op.dtype == DType::f64 ? distance<double>(op) : distance<float>(op);
}

Status inter_frame_distance_backward(const InterFrameDistanceBackward& op) {
    return op.dtype == DType::f64 ? distance_backward<double>(op) : distance_backward<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
