// Distances of chosen pairs with their gradient, and the hardest pairs within an identity. Formulas:
// vreid_ext/ops/mining.py.
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

constexpr int64_t kWarps = kThreads / kWarp;

template <class T>
__device__ const T* row_of(const Rows& x, int64_t i) {
    return static_cast<const T*>(x.data) + i * x.stride;
}

__device__ inline float scale_of(const float* scale, int64_t i) {
    return scale ? scale[i] : 1.f;
}

// Of two rows, each scaled; by a warp, in every lane. A zero row has the cosine distance 1 to every row.
template <int VEC, class T>
__device__ float distance(const T* x, float scale_x, const T* y, float scale_y, int64_t D,
                          MiningMetric metric) {
    float sum = 0;
    for (int64_t d = threadIdx.x % kWarp * VEC; d < D; d += kWarp * VEC) {
        const auto first = load<VEC>(x + d), second = load<VEC>(y + d);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            const float difference =
                to_float(first.element[v]) * scale_x - to_float(second.element[v]) * scale_y;
            sum += difference * difference;
        }
    }
    sum = sum_over_lanes(sum, kWarp);
    if (metric == MiningMetric::euclidean) return sqrtf(sum);
    if (metric == MiningMetric::squared) return sum;
    return scale_x == 0 || scale_y == 0 ? 1.f : sum / 2;
}

// One warp per pair.
template <class T, int VEC>
__global__ void __launch_bounds__(kThreads)
    pair_distances(Rows x, Rows ref, const int64_t* index, int64_t pairs, MiningMetric metric,
                   const float* scale, const float* ref_scale, float* result) {
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
// both. One thread per VEC numbers of a row; its pairs one after another, so always in the same order.
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
        const float factor = op.metric == MiningMetric::euclidean ? grad[pair] / distance
                             : op.metric == MiningMetric::squared ? 2 * grad[pair]
                                                                  : grad[pair];
        const float shrink = op.metric == MiningMetric::cosine ? distance : 0;
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

// One thread block: the mean loss over the anchors that have both, and its slope by each distance.
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
        // NaN passes where a comparison would hide it.
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

// Calls `function(element, vec)` with the type, and the elements of a 16-byte access or, where rows are not
// aligned, 1.
template <class F>
cudaError_t for_rows(const Rows& x, const Rows& ref, const F& function) {
    return dispatch(x.dtype, [&](auto element) {
        using Vector = std::integral_constant<int, 16 / sizeof(element)>;
        const auto fits = [](const Rows& rows) {
            return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.D % Vector() == 0 &&
                   rows.stride % Vector() == 0;
        };
        return fits(x) && fits(ref) ? function(element, Vector())
                                    : function(element, std::integral_constant<int, 1>());
    });
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

cudaError_t triplet(const Triplet& op, cudaStream_t stream) {
    return launch(triplet_loss, 1, stream, op);
}

cudaError_t identity_hard(const IdentityHard& op, const float* scale, const int64_t* begin,
                          const int64_t* end, cudaStream_t stream) {
    return for_rows(op.x, Rows{}, [&](auto element, auto vec) {
        return launch(identity_extremes<decltype(element), vec()>, ceil_div(op.x.N, kWarps), stream, op,
                      scale, begin, end);
    });
}

}  // namespace cuda
}  // namespace vreid
