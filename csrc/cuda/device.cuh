// Shared by all kernels: 16-byte or single loads and stores, conversions, sums over lanes and thread blocks,
// launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/tensors.h"

namespace vreid {
namespace {

// Some kernels also set the minimum number of blocks per multiprocessor in __launch_bounds__: by default,
// ptxas spills a few registers to fit one block more.
constexpr int kWarp = 32, kThreads = 256;
constexpr int kCluster = 8;  // blocks of a cluster: the most that every GPU with clusters supports

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline float to_float(__half value) {
    return __half2float(value);
}

__device__ inline void assign(float& target, float value) {
    target = value;
}
__device__ inline void assign(__nv_bfloat16& target, float value) {
    target = __float2bfloat16_rn(value);
}
__device__ inline void assign(__half& target, float value) {
    target = __float2half_rn(value);
}

// N contiguous elements, loaded or stored by one instruction.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
    T element[N];
};

// A GPU faults on an access that is not aligned to its size, a CPU does not.
template <class T, int N>
__device__ void check_alignment([[maybe_unused]] const T* pointer) {
#ifdef VREID_SIMT
    simt::check_alignment(pointer, sizeof(Pack<T, N>));
#endif
}

template <int N, class T>
__device__ Pack<T, N> load(const T* source) {
    check_alignment<T, N>(source);
    return *reinterpret_cast<const Pack<T, N>*>(source);
}

template <class T, int N>
__device__ void store(T* target, const Pack<T, N>& pack) {
    check_alignment<T, N>(target);
    *reinterpret_cast<Pack<T, N>*>(target) = pack;
}

// The sum over each group of `lanes` (a power of two) consecutive lanes of a warp, in every lane of the
// group. All lanes of the warp must call it.
template <class T>
__device__ T sum_over_lanes(T value, int lanes) {
    for (int offset = 1; offset < lanes; offset *= 2) value += __shfl_xor_sync(0xffffffff, value, offset);
    return value;
}

// The sum over the kThreads threads of a block, or of each of its GROUPS rows of threads, in every thread;
// always added in the same order.
template <int GROUPS = 1, class T>
__device__ T sum_over_block(T value) {
    __shared__ T warps[GROUPS][kThreads / kWarp];
    const int group = GROUPS == 1 ? 0 : threadIdx.y;
    value = sum_over_lanes(value, kWarp);
    if (threadIdx.x % kWarp == 0) warps[group][threadIdx.x / kWarp] = value;
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += warps[group][warp];
    __syncthreads();  // the next sum writes to the same memory
    return sum;
}

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// A barrier of all threads of a cluster. What they wrote before it, also to global memory, can be read after.
__device__ inline void synchronize_cluster() {
#if defined(VREID_SIMT)
    simt::cluster_barrier(__FILE__, __LINE__);
#elif __CUDA_ARCH__ >= 900
    asm volatile(
        "barrier.cluster.arrive.release;\n"
        "barrier.cluster.wait.acquire;" ::
            : "memory");
#endif
}

// Launches blocks of kThreads threads. A grid that is too large for the hardware is a launch error.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, cudaStream_t stream,
                   const Arguments&... arguments) {
    if (blocks == 0) return cudaSuccess;
    if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(blocks));
    config.blockDim = dim3(kThreads);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// Whether the GPU and its code of a kernel have clusters.
template <class... Parameters>
cudaError_t has_clusters(void (*kernel)(Parameters...), bool& result) {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
    result = status == cudaSuccess && attributes.ptxVersion >= 90;
    return status;
}

// Launches clusters of kCluster blocks of `groups` rows of kThreads threads.
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), int64_t clusters, int groups, cudaStream_t stream,
                            const Arguments&... arguments) {
    if (clusters == 0) return cudaSuccess;
    if (clusters > INT32_MAX / kCluster) return cudaErrorInvalidConfiguration;
    cudaLaunchAttribute size{};
    size.id = cudaLaunchAttributeClusterDimension;
    size.val.clusterDim.x = kCluster;
    size.val.clusterDim.y = size.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(clusters * kCluster));
    config.blockDim = dim3(kThreads, unsigned(groups));
    config.stream = stream;
    config.attrs = &size;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// Calls `function(T())` with the element type T of `dtype`.
template <class F>
cudaError_t dispatch(DType dtype, const F& function) {
    switch (dtype) {
        case DType::f32:
            return function(float());
        case DType::bf16:
            return function(__nv_bfloat16());
        case DType::f16:
            return function(__half());
        default:
            return cudaErrorInvalidValue;
    }
}

}  // namespace
}  // namespace vreid
