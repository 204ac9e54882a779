// Region pooling with diversity (Li et al., "DRSTA", CVPR 2018, Eq. 2, 3, 9 and 10) in one read of the
// feature map; backward in one read and one write. Formulas: vreid_ext/ops/region.py.
#include <omp.h>

#include "cpu/frame.h"
#include "cpu/kernels.h"
#include "cpu/region_products.h"
#include "cpu/softmax.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// A = R R^T - I. If the rows of R have norm one (`unit`), the diagonal is exactly zero.
template <class A>
inline void residual(const A* R, int64_t K, int64_t L, bool unit, A* out) {
    for (int64_t i = 0; i < K; ++i) {
        out[i * K + i] = unit ? A(0) : dot(R + i * L, R + i * L, L) - A(1);
        for (int64_t j = 0; j < i; ++j) out[i * K + j] = out[j * K + i] = dot(R + i * L, R + j * L, L);
    }
}

// Row k of A R.
template <class A>
inline void residual_times(const A* residual, const A* R, int64_t K, int64_t L, int64_t k, A* out) {
    memset(out, 0, size_t(L) * sizeof(A));
    for (int64_t j = 0; j < K; ++j) {
        const A a = residual[k * K + j];
        for (int64_t i = 0; i < L; ++i) out[i] += a * R[j * L + i];
    }
}

template <class T>
Status pool(const RegionPool& op) {
    using A = Acc<T>;
    const int64_t frames = op.x.B * op.x.T, K = op.K, L = op.x.L, C = op.x.C;
    const int64_t arranged = gather_scratch<T>(op.x, K);
    const Scratch own(op.threads, (arranged + K * L + K * K) * int64_t(sizeof(A)));
    if (!own) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t frame = 0; frame < frames; ++frame) {
        A* scratch = own.of<A>(omp_get_thread_num());
        A *R = scratch + arranged, *products = R + K * L;
        A* s = static_cast<A*>(op.weights) + frame * K * L;
        const A* logits = static_cast<const A*>(op.logits) + frame * K * L;
        for (int64_t k = 0; k < K; ++k) softmax(logits + k * L, L, s + k * L);
        gather<T>(op.x, frame / op.x.T, frame % op.x.T, K, s, static_cast<T*>(op.features) + frame * K * C,
                  scratch);
        for (int64_t i = 0; i < K * L; ++i) R[i] = root(s[i]);
        residual(R, K, L, true, products);
        static_cast<A*>(op.overlap)[frame] = dot(products, products, K * K);
    }
    return Status::ok;
}

// From ds: de = s (ds - sum_j s ds) + dQ 2 (R (AR) - s sum_j R (AR)), row by row and in place.
template <class A>
inline void logit_gradients(const A* s, const A* grad_weights, const A* grad_overlap, int64_t K, int64_t L,
                            A* R, A* products, A* row, A* de) {
    if (grad_weights) {
        for (int64_t i = 0; i < K * L; ++i) de[i] += grad_weights[i];
    }
    for (int64_t k = 0; k < K; ++k) {
        const A mean = dot(s + k * L, de + k * L, L);
        for (int64_t i = k * L; i < (k + 1) * L; ++i) de[i] = s[i] * (de[i] - mean);
    }
    if (!grad_overlap) return;
    for (int64_t i = 0; i < K * L; ++i) R[i] = root(s[i]);
    residual(R, K, L, true, products);
    const A factor = 2 * *grad_overlap;
    for (int64_t k = 0; k < K; ++k) {
        residual_times(products, R, K, L, k, row);
        const A mean = dot(R + k * L, row, L);
        for (int64_t i = 0; i < L; ++i)
            de[k * L + i] += factor * (R[k * L + i] * row[i] - s[k * L + i] * mean);
    }
}

// The gradient of a frame's features in the accumulator type: itself, or a copy in `wide`.
template <class T>
inline const Acc<T>* widened(const T* gradient, int64_t size, Acc<T>* wide) {
    if constexpr (sizeof(T) == sizeof(Acc<T>)) {
        return gradient;
    } else {
        for_vectors<T>(size, [&](int64_t i, auto part) { part.store(wide + i, part.load(gradient + i)); });
        return wide;
    }
}

template <class T>
Status pool_backward(const RegionPoolBackward& op) {
    using A = Acc<T>;
    const int64_t frames = op.x.B * op.x.T, K = op.K, L = op.x.L, C = op.x.C;
    const int64_t wide = sizeof(T) < sizeof(A) ? K * C : 0;
    const Scratch own(op.threads, (wide + K * L + K * K + L) * int64_t(sizeof(A)));
    if (!own) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t frame = 0; frame < frames; ++frame) {
        A* scratch = own.of<A>(omp_get_thread_num());
        A *R = scratch + wide, *products = R + K * L, *row = products + K * K;
        const int64_t b = frame / op.x.T, t = frame % op.x.T;
        const A* s = static_cast<const A*>(op.weights) + frame * K * L;
        A* de = static_cast<A*>(op.dlogits) + frame * K * L;
        if (op.grad_features) {
            const T* gradient = static_cast<const T*>(op.grad_features) + frame * K * C;
            const A* G = widened(gradient, K * C, scratch);
            project<T>(op.x, b, t, K, G, de);
            spread<T>(op.dx, b, t, K, s, G);
        } else {
            clear(op.dx, frame_of<T>(op.dx, b, t));
            memset(de, 0, size_t(K * L) * sizeof(A));
        }
        const A* grad_weights =
            op.grad_weights ? static_cast<const A*>(op.grad_weights) + frame * K * L : nullptr;
        const A* grad_overlap = op.grad_overlap ? static_cast<const A*>(op.grad_overlap) + frame : nullptr;
        logit_gradients(s, grad_weights, grad_overlap, K, L, R, products, row, de);
    }
    return Status::ok;
}

// Calls f(frame, W, A) for each frame of weights that need not sum to one: W = R or, without `op.root`, the
// weights, and A = W W^T - I.
template <class A, class Op, class F>
Status for_residuals(const Op& op, F f) {
    const int64_t K = op.K, L = op.L;
    const Scratch own(op.threads, (K * L + K * K) * int64_t(sizeof(A)));
    if (!own) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t frame = 0; frame < op.frames; ++frame) {
        A *W = own.of<A>(omp_get_thread_num()), *products = W + K * L;
        const A* s = static_cast<const A*>(op.weights) + frame * K * L;
        for (int64_t i = 0; i < K * L; ++i) W[i] = op.root ? root(s[i]) : s[i];
        residual(W, K, L, false, products);
        f(frame, W, products);
    }
    return Status::ok;
}

// ||A||^2
template <class A>
Status overlap(const HellingerOverlap& op) {
    return for_residuals<A>(op, [&](int64_t frame, const A*, const A* products) {
        static_cast<A*>(op.overlap)[frame] = dot(products, products, op.K * op.K);
    });
}

// d/dW = 4 A W; with W = sqrt(s), d/ds = 2 A W / W, and zero if the weight is zero.
template <class A>
Status overlap_backward(const HellingerOverlapBackward& op) {
    const int64_t K = op.K, L = op.L;
    return for_residuals<A>(op, [&](int64_t frame, const A* W, const A* products) {
        A* ds = static_cast<A*>(op.dweights) + frame * K * L;
        const A grad = static_cast<const A*>(op.grad)[frame];
        for (int64_t k = 0; k < K; ++k) {
            residual_times(products, W, K, L, k, ds + k * L);
            for (int64_t i = k * L; i < (k + 1) * L; ++i)
                ds[i] *= op.root ? (W[i] != 0 ? 2 * grad / W[i] : A(0)) : 4 * grad;
        }
    });
}

}  // namespace

Status region_pool(const RegionPool& op) {
    return dispatch(op.x.dtype, [&](auto element) { return pool<decltype(element)>(op); });
}

Status region_pool_backward(const RegionPoolBackward& op) {
    return dispatch(op.x.dtype, [&](auto element) { return pool_backward<decltype(element)>(op); });
}

Status hellinger_overlap(const HellingerOverlap& op) {
    return op.dtype == DType::f64 ? overlap<double>(op) : overlap<float>(op);
}

Status hellinger_overlap_backward(const HellingerOverlapBackward& op) {
    return op.dtype == DType::f64 ? overlap_backward<double>(op) : overlap_backward<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
