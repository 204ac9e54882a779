// STA pooling (Fu et al., AAAI 2019, Eq. 1 to 4 and Algorithm 1) in one read of the feature map; backward in
// one read and one write. Formulas: vreid_ext/ops/sta.py.
#include <omp.h>

#include "cpu/clip.h"
#include "cpu/frame.h"
#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// q and P of a frame, then g = q / Q and the block sums of g.
template <class T>
void pool_frame(const StaPool& op, int64_t b, int64_t t) {
    using A = Acc<T>;
    const int64_t L = op.x.L, C = op.x.C, K = op.K, frame = b * op.x.T + t;
    A* attention = static_cast<A*>(op.attention) + frame * L;
    A* scores = static_cast<A*>(op.scores) + frame * K;
    A* sums = static_cast<A*>(op.sums) + frame * K * C;
    A& energy = static_cast<A*>(op.energy)[frame];
    if (!is_valid(op.valid, frame)) {
        memset(attention, 0, size_t(L) * sizeof(A));
        memset(scores, 0, size_t(K) * sizeof(A));
        memset(sums, 0, size_t(K * C) * sizeof(A));
        energy = 0;
        return;
    }
    accumulate<T, true>(op.x, frame_of<T>(op.x, b, t), K, attention, sums);
    energy = sum(attention, L);
    for (int64_t i = 0; i < L; ++i) attention[i] = energy != 0 ? attention[i] / energy : A(1) / A(L);
    for (int64_t k = 0; k < K; ++k) scores[k] = sum(attention + k * (L / K), L / K);
}

// pooled[c] = 1/L sum_k P[choice_k,k,c] and pooled[C+c] = 1/L sum_{t,k} S[t,k] P[t,k,c].
template <class T>
void pool_clip(const StaPool& op, int64_t b) {
    using A = Acc<T>;
    const int64_t frames = op.x.T, C = op.x.C, K = op.K;
    A* scores = static_cast<A*>(op.scores) + b * frames * K;
    const A* sums = static_cast<const A*>(op.sums) + b * frames * K * C;
    const bool* valid = op.valid ? op.valid + b * frames : nullptr;
    int64_t* choice = op.choice + b * K;
    normalize_scores(scores, valid, frames, K, static_cast<A*>(op.total) + b * K);
    choose_frames(scores, valid, frames, K, choice);
    T* pooled = static_cast<T*>(op.pooled) + b * 2 * C;
    const Vec<T> cell = broadcast<T>(A(1) / A(op.x.L));
    for_vectors<T>(C, [&](int64_t c, auto part) {
        Vec<T> best{}, weighted{};
        for (int64_t k = 0; k < K; ++k) {
            if (choice[k] >= 0) best += part.load(sums + (choice[k] * K + k) * C + c);
            for (int64_t t = 0; t < frames; ++t) {
                if (is_valid(valid, t))
                    weighted += broadcast<T>(scores[t * K + k]) * part.load(sums + (t * K + k) * C + c);
            }
        }
        part.store(pooled + c, best * cell);
        part.store(pooled + C + c, weighted * cell);
    });
}

template <class T>
Status pool(const StaPool& op) {
    const int64_t clips = op.x.B, frames = op.x.T;
#pragma omp parallel num_threads(op.threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t frame = 0; frame < clips * frames; ++frame)
            pool_frame<T>(op, frame / frames, frame % frames);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < clips; ++b) pool_clip<T>(op, b);
    }
    return Status::ok;
}

// dS[k] of one frame = grad_scores + 1/L sum_c grad_pooled[C+c] P[k,c]; the block sums save a read of x.
template <class T>
void score_gradients(const StaPoolBackward& op, int64_t b, int64_t t, Acc<T>* dscores) {
    using A = Acc<T>;
    const int64_t C = op.x.C, K = op.K, frame = b * op.x.T + t;
    const A* sums = static_cast<const A*>(op.sums) + frame * K * C;
    for (int64_t k = 0; k < K; ++k) {
        A total = op.grad_scores ? static_cast<const A*>(op.grad_scores)[frame * K + k] : 0;
        if (op.grad_pooled) {
            const T* gradient = static_cast<const T*>(op.grad_pooled) + b * 2 * C + C;
            Vec<T> products{};
            for_vectors<T>(C, [&](int64_t c, auto part) {
                products += part.load(gradient + c) * part.load(sums + k * C + c);
            });
            total += sum_lanes(products) / A(op.x.L);
        }
        dscores[k] = total;
    }
}

// weight[i] = 2 dq[i] from the gradients of scores and attention.
template <class T>
void energy_gradients(const StaPoolBackward& op, int64_t b, int64_t t, const Acc<T>* dscores,
                      Acc<T>* weight) {
    using A = Acc<T>;
    const int64_t L = op.x.L, K = op.K, frame = b * op.x.T + t, cells = L / K;
    const A* attention = static_cast<const A*>(op.attention) + frame * L;
    const A* scores = static_cast<const A*>(op.scores) + b * op.x.T * K;
    const A* total = static_cast<const A*>(op.total) + b * K;
    const A energy = static_cast<const A*>(op.energy)[frame];
    const bool* valid = op.valid ? op.valid + b * op.x.T : nullptr;
    for (int64_t k = 0; k < K; ++k) {
        const A ds = score_gradient(dscores, scores, valid, total, op.x.T, K, t, k);
        for (int64_t i = k * cells; i < (k + 1) * cells; ++i) weight[i] = ds;
    }
    if (op.grad_attention) {
        const A* gradient = static_cast<const A*>(op.grad_attention) + frame * L;
        for (int64_t i = 0; i < L; ++i) weight[i] += gradient[i];
    }
    const A mean = dot(weight, attention, L);
    for (int64_t i = 0; i < L; ++i) weight[i] = energy != 0 ? 2 * (weight[i] - mean) / energy : 0;
}

// A[k,c] = (1[t = choice_k] grad_max[c] + S[k] grad_sum[c]) / L
template <class T>
void pooled_gradients(const StaPoolBackward& op, int64_t b, int64_t t, Acc<T>* additive) {
    using A = Acc<T>;
    const int64_t C = op.x.C, K = op.K;
    const A* scores = static_cast<const A*>(op.scores) + (b * op.x.T + t) * K;
    const T* gradient = static_cast<const T*>(op.grad_pooled) + b * 2 * C;
    for (int64_t k = 0; k < K; ++k) {
        const bool chosen = op.choice[b * K + k] == t;
        const Vec<T> s = broadcast<T>(scores[k] / A(op.x.L)), cell = broadcast<T>(A(1) / A(op.x.L));
        for_vectors<T>(C, [&](int64_t c, auto part) {
            Vec<T> a = part.load(gradient + C + c) * s;
            if (chosen) a += part.load(gradient + c) * cell;
            part.store(additive + k * C + c, a);
        });
    }
}

template <class T>
Status pool_backward(const StaPoolBackward& op) {
    using A = Acc<T>;
    const int64_t clips = op.x.B, frames = op.x.T, L = op.x.L, C = op.x.C, K = op.K;
    const Scratch shared(1, clips * frames * K * int64_t(sizeof(A)));
    const Scratch own(op.threads, (L + K * C) * int64_t(sizeof(A)));
    if (!shared || !own) return Status::out_of_memory;
    A* dscores = shared.of<A>(0);
#pragma omp parallel num_threads(op.threads)
    {
        A* weight = own.of<A>(omp_get_thread_num());
        A* additive = op.grad_pooled ? weight + L : nullptr;
#pragma omp for schedule(static)
        for (int64_t frame = 0; frame < clips * frames; ++frame)
            score_gradients<T>(op, frame / frames, frame % frames, dscores + frame * K);
#pragma omp for schedule(dynamic)
        for (int64_t frame = 0; frame < clips * frames; ++frame) {
            const int64_t b = frame / frames, t = frame % frames;
            T* dx = frame_of<T>(op.dx, b, t);
            if (!is_valid(op.valid, frame)) {
                clear(op.dx, dx);
                continue;
            }
            energy_gradients<T>(op, b, t, dscores + b * frames * K, weight);
            if (additive) pooled_gradients<T>(op, b, t, additive);
            scale<T>(op.x, frame_of<T>(op.x, b, t), op.dx, dx, K, weight, additive);
        }
    }
    return Status::ok;
}

}  // namespace

Status sta_pool(const StaPool& op) {
    return dispatch(op.x.dtype, [&](auto element) { return pool<decltype(element)>(op); });
}

Status sta_pool_backward(const StaPoolBackward& op) {
    return dispatch(op.x.dtype, [&](auto element) { return pool_backward<decltype(element)>(op); });
}

}  // namespace VREID_ISA
}  // namespace vreid
