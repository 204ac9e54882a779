// The part of CUDA's runtime and device language that the kernels use, on the host (simt.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

#define CUDART_VERSION 0

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorLaunchFailure = 719,
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

struct cudaFuncAttributes {};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
    return cudaSuccess;
}

struct CUstream_st;
using cudaStream_t = CUstream_st*;

using uint3 = simt::Index;
struct dim3 : uint3 {
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : uint3{x, y, z} {}
};
using simt::blockDim;
using simt::blockIdx;
using simt::gridDim;
using simt::threadIdx;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    void* attrs;
    unsigned numAttrs;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const bool good = simt::launch(config->gridDim, config->blockDim, config->dynamicSmemBytes,
                                   [&] { kernel(Parameters(arguments)...); });
    return good ? cudaSuccess : cudaErrorLaunchFailure;
}

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    simt::barrier(file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffff, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
    simt::warp_barrier(mask, file, line);
}

namespace simt {

// What the lane `source` sent; the lane's own value where that lies outside its group of `width` lanes.
template <class T>
T shuffle(const char* what, unsigned mask, T value, int64_t source, int width, const char* file, int line) {
    const int lane = here().thread % kWarp, first = lane / width * width;
    const bool inside = source >= first && source < first + width;
    const Combine pick = [](const uint64_t* sent, unsigned members, int64_t from) -> uint64_t {
        if (!(members >> from & 1))
            fail("a shuffle reads lane %d, which is not in its mask %08x", int(from), members);
        return sent[from];
    };
    return unpacked<T>(warp(pick, mask, packed(value), inside ? source : lane, what, file, line));
}

template <class T, class Operation>
T reduce(const char* what, unsigned mask, T value, Operation, const char* file, int line) {
    const Combine fold = [](const uint64_t* sent, unsigned members, int64_t) -> uint64_t {
        T total{};
        bool first = true;
        for (unsigned lane = 0; lane < kWarp; ++lane) {
            if (!(members >> lane & 1)) continue;
            const T next = unpacked<T>(sent[lane]);
            total = first ? next : Operation()(total, next);
            first = false;
        }
        return packed(total);
    };
    return unpacked<T>(warp(fold, mask, packed(value), 0, what, file, line));
}

struct Sum {
    template <class T>
    T operator()(T a, T b) const {
        return a + b;
    }
};
struct Least {
    template <class T>
    T operator()(T a, T b) const {
        return b < a ? b : a;
    }
};
struct Most {
    template <class T>
    T operator()(T a, T b) const {
        return a < b ? b : a;
    }
};
struct Either {
    unsigned operator()(unsigned a, unsigned b) const { return a | b; }
};

// Fibers are not interrupted, so an atomic operation is a plain one that races.cpp knows of.
template <class T, class Operation>
__attribute__((no_sanitize("thread"))) T update(T* target, const Operation& next) {
    touch(target, sizeof(T), Access::atomic);
    const T before = *target;
    *target = next(before);
    return before;
}

}  // namespace simt

#define VREID_SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, VREID_SIMT_HERE) {
    const int first = simt::here().thread % 32 / width * width;
    return simt::shuffle("__shfl_sync", mask, value, first + source % width, width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, VREID_SIMT_HERE) {
    return simt::shuffle("__shfl_xor_sync", mask, value, int(simt::here().thread % 32) ^ other, width, file,
                         line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, VREID_SIMT_HERE) {
    return simt::shuffle("__shfl_down_sync", mask, value, int(simt::here().thread % 32) + delta, width, file,
                         line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, VREID_SIMT_HERE) {
    return simt::shuffle("__shfl_up_sync", mask, value, int(simt::here().thread % 32) - delta, width, file,
                         line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, VREID_SIMT_HERE) {
    const unsigned bit = predicate ? 1u << simt::here().thread % 32 : 0u;
    return simt::reduce("__ballot_sync", mask, bit, simt::Either(), file, line);
}
inline int __any_sync(unsigned mask, int predicate, VREID_SIMT_HERE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, VREID_SIMT_HERE) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, VREID_SIMT_HERE) {
    return simt::reduce("__reduce_add_sync", mask, value, simt::Sum(), file, line);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, VREID_SIMT_HERE) {
    return simt::reduce("__reduce_min_sync", mask, value, simt::Least(), file, line);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, VREID_SIMT_HERE) {
    return simt::reduce("__reduce_max_sync", mask, value, simt::Most(), file, line);
}

template <class T>
T atomicAdd(T* target, T value) {
    return simt::update(target, [=](T before) { return T(before + value); });
}
template <class T>
T atomicMax(T* target, T value) {
    return simt::update(target, [=](T before) { return std::max(before, value); });
}
template <class T>
T atomicCAS(T* target, T expected, T value) {
    return simt::update(target, [=](T before) { return before == expected ? value : before; });
}

using std::max;
using std::min;
