// Rows for the products: centred or scaled, split into pairs of float16 numbers, and their squared norms.
#include "cuda/kernels.h"
#include "cuda/row_distance.cuh"

namespace vreid {
namespace cuda {
namespace {

constexpr int kPairs = 16;  // of a slice of 64 bytes: 16 high parts, then 16 low parts

// One warp per row. The row is multiplied by the power of two that takes its largest number to 2^14, so that
// the low parts lose digits only below 2^-38 of it. `factor` is the inverse of that power.
template <class T>
__global__ void __launch_bounds__(kThreads) split(SplitRows op) {
    const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (row >= op.x.N) return;
    const T* x = row_of<T>(op.x, row);
    const float scale = scale_of(op.scale, row);
    const auto value = [&](int64_t d) { return to_float(x[d]) * scale - (op.mean ? op.mean[d] : 0.f); };
    float largest = 0, square = 0;
    for (int64_t d = lane; d < op.x.D; d += kWarp) {
        const float element = value(d);
        largest = fmaxf(largest, fabsf(element));  // NaN is left out
        square += element * element;
    }
    square = sum_over_lanes(square, kWarp);
    if (lane == 0) op.square[row] = op.scale ? 0.f : square;
    if (!op.pairs) return;
    for (int other = 1; other < kWarp; other *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, other));
    const int exponent = (__float_as_int(largest) >> 23) - 127;  // -127 if the largest is subnormal or zero
    const int shift = min(14 - exponent, 126);                   // both powers are normal numbers
    const float up = __int_as_float((127 + shift) << 23);
    if (lane == 0) op.factor[row] = __int_as_float((127 - shift) << 23);
    __half* pairs = static_cast<__half*>(op.pairs) + row * ceil_div(op.x.D, kPairs) * 2 * kPairs;
    for (int64_t d = lane; d < ceil_div(op.x.D, kPairs) * kPairs; d += kWarp) {
        const float element = d < op.x.D ? value(d) * up : 0.f;
        const __half high = __float2half_rn(element);
        __half* slice = pairs + d / kPairs * 2 * kPairs + d % kPairs;
        slice[0] = high;
        slice[kPairs] = __float2half_rn(element - to_float(high));
    }
}

}  // namespace

cudaError_t split_rows(const SplitRows& op, cudaStream_t stream) {
    return dispatch(op.x.dtype, [&](auto element) {
        return launch(split<decltype(element)>, ceil_div(op.x.N, kWarps), stream, op);
    });
}

}  // namespace cuda
}  // namespace vreid
