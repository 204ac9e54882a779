// Feature fusion (STA, Algorithm 1): per block, the chosen frame and the score-weighted sum of all frames.
#include <omp.h>

#include "cpu/clip.h"
#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// `fused` is contiguous, so a channels-last map is transposed. kTile channels at a time use each cache line
// while it is cached.
constexpr int64_t kTile = 16;

// Copies one row, the `cells` cells from `begin` on in channel c of a frame, to the accumulator type.
template <class T>
inline void gather(const FeatureMap& map, const T* x, int64_t c, int64_t begin, int64_t cells, Acc<T>* row) {
    const T* source = x + c * map.stride_c + begin * map.stride_l;
    if (map.planes()) {
        for_vectors<T>(cells, [&](int64_t i, auto part) { part.store(row + i, part.load(source + i)); });
        return;
    }
    for (int64_t i = 0; i < cells; ++i) {
        T one[Lanes<T>::N] = {source[i * map.stride_l]};
        row[i] = load(one)[0];
    }
}

template <class T>
inline void scatter(const FeatureMap& map, T* x, int64_t c, int64_t begin, int64_t cells, const Acc<T>* row) {
    T* target = x + c * map.stride_c + begin * map.stride_l;
    if (map.planes()) {
        for_vectors<T>(cells, [&](int64_t i, auto part) { part.store(target + i, part.load(row + i)); });
        return;
    }
    for (int64_t i = 0; i < cells; ++i) {
        Vec<T> one{};
        one[0] = row[i];
        store(target + i * map.stride_l, one, 1);
    }
}

// Writes block k of channel c of both fused maps.
template <class T>
void fuse_row(const Fuse& op, int64_t b, int64_t c, int64_t k, Acc<T>* scratch) {
    using A = Acc<T>;
    const FeatureMap& x = op.x;
    const int64_t cells = x.L / op.K, begin = k * cells, chosen = op.choice[b * op.K + k];
    A *row = scratch, *best = row + cells, *weighted = best + cells;
    memset(best, 0, size_t(2 * cells) * sizeof(A));
    for (int64_t t = 0; t < x.T; ++t) {
        if (!is_valid(op.valid, b * x.T + t)) continue;
        const A s = static_cast<const A*>(op.scores)[(b * x.T + t) * op.K + k];
        gather(x, frame_of<T>(x, b, t), c, begin, cells, row);
        if (t == chosen) memcpy(best, row, size_t(cells) * sizeof(A));
        for (int64_t i = 0; i < cells; ++i) weighted[i] += s * row[i];
    }
    const FeatureMap fused{op.fused, x.dtype, x.B, 1, 2 * x.C, x.L, 2 * x.C * x.L, 0, x.L, 1};
    T* clip = frame_of<T>(fused, b, 0);
    scatter(fused, clip, c, begin, cells, best);
    scatter(fused, clip, x.C + c, begin, cells, weighted);
}

template <class T>
Status fuse_maps(const Fuse& op) {
    using A = Acc<T>;
    const FeatureMap& x = op.x;
    const Scratch own(op.threads, 3 * x.L / op.K * int64_t(sizeof(A)));
    if (!own) return Status::out_of_memory;
    for (int64_t b = 0; b < x.B; ++b)
        choose_frames(static_cast<const A*>(op.scores) + b * x.T * op.K,
                      op.valid ? op.valid + b * x.T : nullptr, x.T, op.K, op.choice + b * op.K);
    const int64_t tiles = (x.C + kTile - 1) / kTile;
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t item = 0; item < x.B * tiles; ++item) {
        const int64_t b = item / tiles, first = item % tiles * kTile;
        const int64_t last = first + kTile < x.C ? first + kTile : x.C;
        for (int64_t k = 0; k < op.K; ++k) {
            for (int64_t c = first; c < last; ++c) fuse_row<T>(op, b, c, k, own.of<A>(omp_get_thread_num()));
        }
    }
    return Status::ok;
}

// dx = 1[t = choice_k] d1 + S d2 and dS[t,k] = sum over channels and cells of x d2, frame by frame.
template <class T>
void fuse_backward_frame(const FuseBackward& op, int64_t b, int64_t t, Acc<T>* scratch) {
    using A = Acc<T>;
    const FeatureMap& x = op.x;
    const int64_t cells = x.L / op.K, frame = b * x.T + t;
    const bool valid = is_valid(op.valid, frame);
    const FeatureMap grad{
        const_cast<void*>(op.grad), x.dtype, x.B, 1, 2 * x.C, x.L, 2 * x.C * x.L, 0, x.L, 1};
    const T* gradient = frame_of<T>(grad, b, 0);
    A *row = scratch, *first = row + cells, *second = first + cells;
    for (int64_t k = 0; k < op.K; ++k) {
        const int64_t begin = k * cells;
        const bool chosen = op.choice[b * op.K + k] == t;
        const A s = static_cast<const A*>(op.scores)[frame * op.K + k];
        A total = 0;
        for (int64_t c = 0; c < x.C; ++c) {
            if (valid) {
                gather(grad, gradient, c, begin, cells, first);
                gather(grad, gradient, x.C + c, begin, cells, second);
                gather(x, frame_of<T>(x, b, t), c, begin, cells, row);
                total += dot(row, second, cells);
                for (int64_t i = 0; i < cells; ++i) row[i] = s * second[i] + (chosen ? first[i] : 0);
            } else {
                memset(row, 0, size_t(cells) * sizeof(A));
            }
            scatter(op.dx, frame_of<T>(op.dx, b, t), c, begin, cells, row);
        }
        static_cast<A*>(op.dscores)[frame * op.K + k] = total;
    }
}

template <class T>
Status fuse_maps_backward(const FuseBackward& op) {
    using A = Acc<T>;
    const int64_t frames = op.x.T;
    const Scratch own(op.threads, 3 * op.x.L / op.K * int64_t(sizeof(A)));
    if (!own) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic)
    for (int64_t frame = 0; frame < op.x.B * frames; ++frame)
        fuse_backward_frame<T>(op, frame / frames, frame % frames, own.of<A>(omp_get_thread_num()));
    return Status::ok;
}

}  // namespace

Status fuse(const Fuse& op) {
    return dispatch(op.x.dtype, [&](auto element) { return fuse_maps<decltype(element)>(op); });
}

Status fuse_backward(const FuseBackward& op) {
    return dispatch(op.x.dtype, [&](auto element) { return fuse_maps_backward<decltype(element)>(op); });
}

}  // namespace VREID_ISA
}  // namespace vreid
