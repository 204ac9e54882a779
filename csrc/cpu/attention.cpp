// Attention maps (STA, Eq. 1) and their block scores (Eq. 3 and 4).
#include <omp.h>

#include "cpu/clip.h"
#include "cpu/frame.h"
#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
void map_frame(const AttentionMap& op, int64_t b, int64_t t) {
    using A = Acc<T>;
    const int64_t L = op.x.L, frame = b * op.x.T + t;
    A* q = static_cast<A*>(op.attention) + frame * L;
    accumulate<T, false>(op.x, frame_of<T>(op.x, b, t), 1, q, nullptr);
    if (op.root_energy) {
        for (int64_t i = 0; i < L; ++i) q[i] = root(q[i]);
    }
    const A norm = op.l2_norm ? root(dot(q, q, L)) : sum(q, L);
    const A uniform = A(1) / (op.l2_norm ? root(A(L)) : A(L));
    for (int64_t i = 0; i < L; ++i) q[i] = norm != 0 ? q[i] / norm : uniform;
    static_cast<A*>(op.norm)[frame] = norm;
}

template <class T>
Status map(const AttentionMap& op) {
    const int64_t frames = op.x.T;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t frame = 0; frame < op.x.B * frames; ++frame)
        map_frame<T>(op, frame / frames, frame % frames);
    return Status::ok;
}

// With e the energy and g = e / norm: de = (dg - (dg . g) u) / norm, u = 1 for the sum and g for the l2 norm;
// dx = x weight with weight = 2 de, or de / e if e is the root.
template <class T>
void map_backward_frame(const AttentionMapBackward& op, int64_t b, int64_t t, Acc<T>* weight) {
    using A = Acc<T>;
    const int64_t L = op.x.L, frame = b * op.x.T + t;
    const A* gradient = static_cast<const A*>(op.grad) + frame * L;
    const A* g = static_cast<const A*>(op.attention) + frame * L;
    const A norm = static_cast<const A*>(op.norm)[frame];
    const A mean = dot(gradient, g, L);
    for (int64_t i = 0; i < L; ++i) {
        const A de = norm != 0 ? (gradient[i] - (op.l2_norm ? mean * g[i] : mean)) / norm : 0;
        if (op.root_energy) {
            const A e = g[i] * norm;
            weight[i] = e != 0 ? de / e : 0;
        } else {
            weight[i] = 2 * de;
        }
    }
    scale<T>(op.x, frame_of<T>(op.x, b, t), op.dx, frame_of<T>(op.dx, b, t), 1, weight, nullptr);
}

template <class T>
Status map_backward(const AttentionMapBackward& op) {
    const int64_t frames = op.x.T;
    const Scratch own(op.threads, op.x.L * int64_t(sizeof(Acc<T>)));
    if (!own) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t frame = 0; frame < op.x.B * frames; ++frame)
        map_backward_frame<T>(op, frame / frames, frame % frames, own.of<Acc<T>>(omp_get_thread_num()));
    return Status::ok;
}

template <class A>
inline A magnitude(A x) {
    return x < 0 ? -x : x;
}

template <class A>
Status scores(const BlockScores& op) {
    const int64_t cells = op.L / op.K;
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t b = 0; b < op.B; ++b) {
        const bool* valid = op.valid ? op.valid + b * op.T : nullptr;
        A* s = static_cast<A*>(op.scores) + b * op.T * op.K;
        for (int64_t j = 0; j < op.T * op.K; ++j) {
            const A* block = static_cast<const A*>(op.attention) + (b * op.T * op.K + j) * cells;
            A total = 0;
            for (int64_t i = 0; i < cells; ++i) total += magnitude(block[i]);
            s[j] = is_valid(valid, j / op.K) ? total : 0;
        }
        normalize_scores(s, valid, op.T, op.K, static_cast<A*>(op.total) + b * op.K);
    }
    return Status::ok;
}

template <class A>
Status scores_backward(const BlockScoresBackward& op) {
    const int64_t cells = op.L / op.K;
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t b = 0; b < op.B; ++b) {
        const bool* valid = op.valid ? op.valid + b * op.T : nullptr;
        const A* dscores = static_cast<const A*>(op.grad) + b * op.T * op.K;
        const A* s = static_cast<const A*>(op.scores) + b * op.T * op.K;
        const A* total = static_cast<const A*>(op.total) + b * op.K;
        for (int64_t j = 0; j < op.T * op.K; ++j) {
            const int64_t t = j / op.K, k = j % op.K, offset = (b * op.T * op.K + j) * cells;
            const A* g = static_cast<const A*>(op.attention) + offset;
            A* dg = static_cast<A*>(op.dattention) + offset;
            const A ds = is_valid(valid, t) ? score_gradient(dscores, s, valid, total, op.T, op.K, t, k) : 0;
            for (int64_t i = 0; i < cells; ++i) dg[i] = g[i] > 0 ? ds : g[i] < 0 ? -ds : ds * 0;
        }
    }
    return Status::ok;
}

}  // namespace

Status attention_map(const AttentionMap& op) {
    return dispatch(op.x.dtype, [&](auto element) { return map<decltype(element)>(op); });
}

Status attention_map_backward(const AttentionMapBackward& op) {
    return dispatch(op.x.dtype, [&](auto element) { return map_backward<decltype(element)>(op); });
}

Status block_scores(const BlockScores& op) {
    return op.dtype == DType::f64 ? scores<double>(op) : scores<float>(op);
}

Status block_scores_backward(const BlockScoresBackward& op) {
    return op.dtype == DType::f64 ? scores_backward<double>(op) : scores_backward<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
