// Distances of mined pairs, and their gradient. Formulas: vreid_ext/ops/mining.py.
#include "cuda/kernels.h"
#include "cuda/row_distance.cuh"

namespace vreid {
namespace cuda {
namespace {

// One warp per pair.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads)
    pair_distances(Rows x, Rows ref, const int64_t* index, int64_t pairs, Metric metric, const float* scale,
                   const float* ref_scale, float* result) {
    const int64_t pair = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (pair >= pairs) return;
    const int64_t i = pair % x.N, j = index[pair];
    float value = 0;
    if (j >= 0)
        value = distance<VEC>(row_of<T>(x, i), scale_of(scale, i), row_of<T>(ref, j), scale_of(ref_scale, j),
                              x.D, metric);
    if (threadIdx.x % kWarp == 0) result[pair] = value;
}

// The gradient of a row u is s sum_pairs factor (u s - other s' - shrink u s), with the scales s and s' of
// both rows. One thread per VEC elements of a row adds the pairs one after another, so always in the same
// order.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads, 4) pair_gradient(PairGradient g) {
    const MinedDistanceBackward& op = g.op;
    const Rows& rows = g.of_ref ? op.ref : op.x;
    const Rows& candidates = op.ref.data ? op.ref : op.x;
    const bool anchor = !g.of_ref, chosen = g.of_ref || !op.ref.data;
    const float* candidate_scale = op.ref.data ? g.ref_scale : g.scale;
    const float *grad = static_cast<const float*>(op.grad),
                *distances = static_cast<const float*>(op.distance);
    const int64_t N = op.x.N, columns = rows.D / VEC;
    const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t row = item / columns, d = item % columns * VEC;
    if (row >= rows.N) return;
    const float scale = scale_of(g.of_ref ? g.ref_scale : g.scale, row);
    const auto own = load<VEC>(row_of<T>(rows, row) + d);

    float sum[VEC] = {};
    const auto add = [&](int64_t pair, int64_t i, int64_t j, bool as_anchor) {
        const float distance = distances[pair];
        if (j < 0 || distance == 0) return;
        const float scale_i = scale_of(g.scale, i), scale_j = scale_of(candidate_scale, j);
        if (scale_i == 0 || scale_j == 0) return;
        const float factor = op.metric == Metric::euclidean ? grad[pair] / distance
                             : op.metric == Metric::squared ? 2 * grad[pair]
                                                            : grad[pair];
        const float shrink = op.metric == Metric::cosine ? distance : 0;
        const auto other = load<VEC>((as_anchor ? row_of<T>(candidates, j) : row_of<T>(op.x, i)) + d);
        const float other_scale = as_anchor ? scale_j : scale_i;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            const float number = to_float(own.element[v]) * scale;
            sum[v] += factor * (number - to_float(other.element[v]) * other_scale - shrink * number);
        }
    };
    if (anchor)
        for (int64_t m = 0; m < op.M; ++m) add(m * N + row, row, op.index[m * N + row], true);
    if (chosen)
        for (int64_t place = g.begin[row]; place < g.begin[row + 1]; ++place)
            add(g.order[place], g.order[place] % N, row, false);
    Pack<T, VEC> result;
#pragma unroll
    for (int v = 0; v < VEC; ++v) assign(result.element[v], sum[v] * scale);
    store(static_cast<T*>(g.of_ref ? op.dref : op.dx) + row * rows.D + d, result);
}

}  // namespace

cudaError_t mined_distance(const MinedDistance& op, const float* scale, const float* ref_scale,
                           cudaStream_t stream) {
    const bool own = !op.ref.data;
    const int64_t pairs = op.M * op.x.N;
    return for_rows(op.x, op.ref, [&](auto element, auto vec) {
        return launch(pair_distances<decltype(element), vec()>, ceil_div(pairs, kWarps), stream, op.x,
                      own ? op.x : op.ref, op.index, pairs, op.metric, scale, own ? scale : ref_scale,
                      static_cast<float*>(op.distance));
    });
}

cudaError_t mined_distance_backward(const PairGradient& gradient, cudaStream_t stream) {
    const MinedDistanceBackward& op = gradient.op;
    const Rows& rows = gradient.of_ref ? op.ref : op.x;
    return for_rows(op.x, op.ref, [&](auto element, auto vec) {
        return launch(pair_gradient<decltype(element), vec()>, ceil_div(rows.N * (rows.D / vec()), kThreads),
                      stream, gradient);
    });
}

}  // namespace cuda
}  // namespace vreid
