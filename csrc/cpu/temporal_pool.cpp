// Temporal pooling (Li et al., "DRSTA", CVPR 2018, Eq. 13): pooled[k] = sum_t w[t,k] features[t,k] of each
// clip.
#include <omp.h>

#include "cpu/clip.h"
#include "cpu/kernels.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
Status pool(const TemporalPool& op) {
    using A = Acc<T>;
    const int64_t frames = op.T, K = op.K, D = op.D;
    const A* weights = static_cast<const A*>(op.weights);
    const T* features = static_cast<const T*>(op.features);
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t item = 0; item < op.B * K; ++item) {
        const int64_t b = item / K, k = item % K;
        for_vectors<T>(D, [&](int64_t d, auto part) {
            Vec<T> total{};
            for (int64_t t = 0; t < frames; ++t) {
                if (!is_valid(op.valid, b * frames + t)) continue;
                const int64_t row = (b * frames + t) * K + k;
                total += broadcast<T>(weights[row]) * part.load(features + row * D + d);
            }
            part.store(static_cast<T*>(op.pooled) + item * D + d, total);
        });
    }
    return Status::ok;
}

// dfeatures = w g and, through the softmax, dscores = w (dw - sum_t w dw) with dw = features . g.
template <class T>
Status pool_backward(const TemporalPoolBackward& op) {
    using A = Acc<T>;
    const int64_t frames = op.T, K = op.K, D = op.D;
    const A* weights = static_cast<const A*>(op.weights);
    const T* features = static_cast<const T*>(op.features);
    A* dscores = static_cast<A*>(op.dscores);
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t item = 0; item < op.B * K; ++item) {
        const int64_t b = item / K, k = item % K;
        const T* g = static_cast<const T*>(op.grad) + item * D;
        A mean = 0;
        for (int64_t t = 0; t < frames; ++t) {
            const int64_t row = (b * frames + t) * K + k;
            const bool valid = is_valid(op.valid, b * frames + t);
            const A w = valid ? weights[row] : A(0);
            Vec<T> products{};
            for_vectors<T>(D, [&](int64_t d, auto part) {
                const Vec<T> gradient = part.load(g + d);
                if (valid) products += gradient * part.load(features + row * D + d);
                part.store(static_cast<T*>(op.dfeatures) + row * D + d, broadcast<T>(w) * gradient);
            });
            dscores[row] = sum_lanes(products);
            mean += w * dscores[row];
        }
        for (int64_t t = 0; t < frames; ++t) {
            const int64_t row = (b * frames + t) * K + k;
            dscores[row] = is_valid(op.valid, b * frames + t) ? weights[row] * (dscores[row] - mean) : A(0);
        }
    }
    return Status::ok;
}

}  // namespace

Status temporal_pool(const TemporalPool& op) {
    return dispatch(op.dtype, [&](auto element) { return pool<decltype(element)>(op); });
}

Status temporal_pool_backward(const TemporalPoolBackward& op) {
    return dispatch(op.dtype, [&](auto element) { return pool_backward<decltype(element)>(op); });
}

}  // namespace VREID_ISA
}  // namespace vreid
