// Distances of rows of embeddings by a warp.
#pragma once

#include <type_traits>

#include "cuda/device.cuh"

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

// The distance of two rows, each multiplied by its scale: computed by a warp, returned in every lane. The
// cosine distance of a zero row to any row is 1.
template <int VEC, class T>
__device__ float distance(const T* x, float scale_x, const T* y, float scale_y, int64_t D, Metric metric) {
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
    if (metric == Metric::euclidean) return sqrtf(sum);
    if (metric == Metric::squared) return sum;
    return scale_x == 0 || scale_y == 0 ? 1.f : sum / 2;
}

// Calls `function(element, vec)` with the element type and the number of elements of a 16-byte access, or 1
// if rows are not aligned.
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
}  // namespace cuda
}  // namespace vreid
