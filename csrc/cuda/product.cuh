// Tiles of a b^T for float matrices, on tensor cores and with nearly float precision: each number is split
// into two TF32 numbers, x = hi + lo, and hi hi + hi lo + lo hi omits 2^-22 of a product.
#pragma once

#include "cuda/device.cuh"

#ifdef VREID_SIMT
#include "mma.h"
#endif

namespace vreid {
namespace cuda {
namespace {

__device__ inline float to_tf32(float value) {
#ifdef VREID_SIMT
    return simt::to_tf32(value);
#else
    unsigned result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
    return __uint_as_float(result);
#endif
}

// c (16 x 8) += a (16 x 8) b (8 x 8), distributed over the lanes of a warp as PTX specifies.
__device__ inline void multiply_add(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
#ifdef VREID_SIMT
    simt::mma_m16n8k8(c, a, b, __FILE__, __LINE__);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

// Rows of floats: 16-byte aligned, D and stride multiples of 4.
struct Matrix {
    const float* data;
    int64_t rows, stride;
};

// The tile of a thread block, kRows x kColumns products: 2 x 4 warps, each with MT x NT blocks of 16 x 8.
template <int MT, int NT>
struct Product {
    static constexpr int kRows = 2 * 16 * MT, kColumns = 4 * 8 * NT;
    static constexpr int kDepth = 32,
                         kStride = kDepth + 4;  // padded, so that a fragment is in 32 different banks
    static constexpr int kLoads = (kRows + kColumns) * kDepth / 4 / kThreads;
    struct alignas(16) Shared {  // for 16-byte stores
        float a[kRows][kStride], b[kColumns][kStride];
    };

    float sum[MT][NT][4];

    // Row and column in the tile of this thread's sum[m][n][i].
    __device__ static int row(int m, int i) {
        return threadIdx.x / kWarp / 4 * 16 * MT + m * 16 + threadIdx.x % kWarp / 4 + 8 * (i / 2);
    }
    __device__ static int column(int n, int i) {
        return threadIdx.x / kWarp % 4 * 8 * NT + n * 8 + 2 * (threadIdx.x % 4) + i % 2;
    }

    // Multiplies the rows of a from `top` on by those of b from `left` on; rows beyond the last are zero.
    __device__ void compute(const Matrix& a, int64_t top, const Matrix& b, int64_t left, int64_t D,
                            Shared& shared) {
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
        Pack<float, 4> next[kLoads];
        fetch(a, top, b, left, 0, D, next);
        for (int64_t depth = 0; depth < D; depth += kDepth) {
            __syncthreads();  // all threads have read the previous slice
#pragma unroll
            for (int u = 0; u < kLoads; ++u) {
                const int place = u * kThreads + threadIdx.x, line = place / (kDepth / 4),
                          d = place % (kDepth / 4);
                store(line < kRows ? &shared.a[line][4 * d] : &shared.b[line - kRows][4 * d], next[u]);
            }
            __syncthreads();
            if (depth + kDepth < D) fetch(a, top, b, left, depth + kDepth, D, next);
#pragma unroll 1  // unrolling would need more registers than there are
            for (int k = 0; k < kDepth; k += 8) step(shared, k);
        }
        __syncthreads();  // the caller may overwrite the shared memory
    }

  private:
    __device__ static void fetch(const Matrix& a, int64_t top, const Matrix& b, int64_t left, int64_t depth,
                                 int64_t D, Pack<float, 4> (&next)[kLoads]) {
#pragma unroll
        for (int u = 0; u < kLoads; ++u) {
            const int place = u * kThreads + threadIdx.x, line = place / (kDepth / 4);
            const bool first = line < kRows;  // selecting a struct would place it on the stack
            const float* data = first ? a.data : b.data;
            const int64_t row = first ? top + line : left + line - kRows, rows = first ? a.rows : b.rows;
            const int64_t d = depth + 4 * (place % (kDepth / 4));
            next[u] = {};
            if (row < rows && d < D) next[u] = load<4>(data + row * (first ? a.stride : b.stride) + d);
        }
    }

    __device__ static void split(float value, float& high, float& low) {
        high = to_tf32(value);
        low = to_tf32(value - high);
    }

    __device__ void step(const Shared& shared, int k) {
        const int t = threadIdx.x % 4;
        float a_high[MT][4], a_low[MT][4], b_high[2], b_low[2];
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                split(shared.a[row(m, 2 * (i % 2))][k + t + 4 * (i / 2)], a_high[m][i], a_low[m][i]);
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const int line = threadIdx.x / kWarp % 4 * 8 * NT + n * 8 + threadIdx.x % kWarp / 4;
#pragma unroll
            for (int i = 0; i < 2; ++i) split(shared.b[line][k + t + 4 * i], b_high[i], b_low[i]);
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                multiply_add(sum[m][n], a_low[m], b_high);
                multiply_add(sum[m][n], a_high[m], b_low);
                multiply_add(sum[m][n], a_high[m], b_high);
            }
        }
    }
};

}  // namespace
}  // namespace cuda
}  // namespace vreid
