// The part of CUDA's runtime and device language that the kernels use, on the host (simt.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "simt.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

#define CUDART_VERSION 0

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
};

inline const char* cudaGetErrorName(cudaError_t status) {
    switch (status) {
        case cudaSuccess:
            return "cudaSuccess";
        case cudaErrorInvalidConfiguration:
            return "cudaErrorInvalidConfiguration";
        case cudaErrorLaunchFailure:
            return "cudaErrorLaunchFailure";
        default:
            return "cudaErrorInvalidValue";
    }
}
inline const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorLaunchFailure ? simt::failure() : cudaGetErrorName(status);
}
inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}

struct cudaFuncAttributes {
    int ptxVersion = 90;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    *attributes = cudaFuncAttributes();
    return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 132;
    return cudaSuccess;
}

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct dim3 : simt::Index {
    dim3(unsigned x = 1, unsigned y = 1) : Index{x, y} {}
};
using simt::blockDim;
using simt::blockIdx;
using simt::gridDim;
using simt::threadIdx;

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        struct {
            unsigned x, y, z;
        } clusterDim;
    } val;
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const unsigned cluster = config->numAttrs ? config->attrs->val.clusterDim.x : 1;
    const bool good =
        simt::launch(config->gridDim.x, cluster, config->blockDim, [&] { kernel(Parameters(arguments)...); });
    return good ? cudaSuccess : cudaErrorLaunchFailure;
}

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    simt::barrier(file, line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    const simt::Combine pick = [](const uint64_t* sent, unsigned members, int64_t from) -> uint64_t {
        if (!(members >> from & 1))
            simt::fail("a shuffle reads lane %d, which is not in its mask %08x", int(from), members);
        return sent[from];
    };
    const int64_t from = int(simt::here().thread % simt::kWarp) ^ other;
    return simt::unpacked<T>(
        simt::warp(pick, mask, simt::packed(value), from, "__shfl_xor_sync", file, line));
}

inline long long atomicMax(long long* address, long long value) {
    return simt::atomic_max(reinterpret_cast<int64_t*>(address), value);
}

inline int __float_as_int(float value) {
    return int(simt::packed(value));
}
inline float __int_as_float(int value) {
    return simt::unpacked<float>(simt::packed(value));
}

using std::max;
using std::min;
