// Tiles of a b^T on tensor cores. Rows of float are split once, before the product, into pairs of float16
// numbers (split_rows.cu): x = hi + lo, and hi hi + hi lo + lo hi omits 2^-22 of a product. Rows of bfloat16
// and float16 are multiplied as they are: a product of two such numbers is exact in float.
//
// A row is read in slices of 64 bytes: 16 pairs, as 16 high and 16 low parts, or 32 numbers.
#pragma once

#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/kernels.h"

#ifdef VREID_SIMT
#include "mma.h"
#endif

namespace vreid {
namespace cuda {
namespace {

constexpr int kSliceBytes = 64, kChunkBytes = 16;  // a chunk is copied at once

// Copies a chunk to shared memory in the background, or writes zeros.
__device__ inline void copy_chunk(char* target, const char* source, bool present) {
    const int size = present ? kChunkBytes : 0;
#ifdef VREID_SIMT
    simt::copy_async(target, source, kChunkBytes, size_t(size));
#else
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned(__cvta_generic_to_shared(target))),
        "l"(source), "r"(size)
        : "memory");
#endif
}

// Ends a group of copies.
__device__ inline void commit_copies() {
#ifdef VREID_SIMT
    simt::commit_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for this thread's copies, except for the last `pending` groups.
template <int pending>
__device__ void wait_for_copies() {
#ifdef VREID_SIMT
    simt::wait_for_copies(pending);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// Four matrices of 8 x 8 numbers of 16 bits, distributed over the lanes of a warp as `multiply_add` takes
// them. Lane i has the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(uint32_t (&result)[4], const char* row) {
#ifdef VREID_SIMT
    simt::load_matrices(result, row, __FILE__, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(unsigned(__cvta_generic_to_shared(row)))
                 : "memory");
#endif
}

// c (16 x 8) += a (16 x 16) b (16 x 8), distributed over the lanes of a warp as PTX specifies.
template <class T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b) {
#ifdef VREID_SIMT
    simt::mma_m16n8k16<T, to_float>(c, a, b, __FILE__, __LINE__);
#else
#define VREID_MMA(type)                                              \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type       \
        ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])             \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        VREID_MMA("bf16");
    else
        VREID_MMA("f16");
#undef VREID_MMA
#endif
}

// The tile of a thread block: 2 x 4 warps, each with MT x NT blocks of 16 x 8 products. T is the type of the
// rows; float stands for pairs.
template <class T, int MT, int NT>
struct Product {
    static constexpr int kRows = 2 * 16 * MT, kColumns = 4 * 8 * NT;
    static constexpr int kChunks = (kRows + kColumns) * kSliceBytes / kChunkBytes / kThreads;  // of a thread
    // As many slices as fit into the shared memory of a kernel that does not ask for more, up to eight.
    static constexpr int kFitting = 48 * 1024 / kSliceBytes / (kRows + kColumns),
                         kStages = kFitting < 8 ? kFitting : 8;
    // For a warp, the 16-byte chunks of eight rows are in different banks: see `swizzled`.
    struct alignas(128) Shared {
        char slice[kStages][(kRows + kColumns) * kSliceBytes];
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
    // While a slice is multiplied, the next ones are copied.
    __device__ void compute(const Operand& a, int64_t top, const Operand& b, int64_t left, Shared& shared) {
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
        const char* source[kChunks];
        bool exists[kChunks];
#pragma unroll
        for (int u = 0; u < kChunks; ++u) {
            const int line = line_of(u);
            const bool first = line < kRows;  // selecting a struct would place it on the stack
            const int64_t at = first ? top + line : left + line - kRows;
            exists[u] = at < (first ? a.rows : b.rows);
            source[u] = static_cast<const char*>(first ? a.data : b.data) +
                        (exists[u] ? at * (first ? a.stride : b.stride) : 0) + chunk() * kChunkBytes;
        }
        const int slices = int(ceil_div(a.width, kSliceBytes));
        int arriving = 0;
        const auto fetch = [&](int stage) {
            if (arriving < slices) {
                // Rows of halves may end within a slice.
                const bool inside = arriving * kSliceBytes + chunk() * kChunkBytes < int(a.width);
#pragma unroll
                for (int u = 0; u < kChunks; ++u) {
                    copy_chunk(shared.slice[stage] + swizzled(line_of(u), chunk()), source[u],
                               exists[u] && inside);
                    source[u] += inside ? kSliceBytes : 0;
                }
            }
            ++arriving;
            commit_copies();  // also without a copy, so that the number of groups stays the same
        };
        for (int stage = 0; stage < kStages - 1; ++stage) fetch(stage);
        int stage = 0;
#pragma unroll 1
        for (int slice = 0; slice < slices; ++slice) {
            wait_for_copies<kStages - 2>();
            // All copies of this slice have arrived, and all threads have read the slice before it, whose
            // place the next copies take.
            __syncthreads();
            fetch(stage == 0 ? kStages - 1 : stage - 1);
            multiply(shared.slice[stage]);
            stage = stage == kStages - 1 ? 0 : stage + 1;
        }
        __syncthreads();  // the next product writes to the same memory
    }

  private:
    // The rows of a slice and the chunk in each that this thread copies.
    __device__ static int line_of(int u) { return u * (kThreads / 4) + threadIdx.x / 4; }
    __device__ static int chunk() { return threadIdx.x % 4; }

    // Place of a chunk in a slice. A matrix of eight rows is read at once; their chunks with the same number
    // would be in two groups of banks, so their order is another one in every second row.
    __device__ static int swizzled(int line, int chunk) {
        return line * kSliceBytes + (chunk ^ (line / 2 % 4)) * kChunkBytes;
    }

    __device__ void multiply(const char* slice) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        uint32_t right[NT][4];  // of each block of eight columns all four chunks
#pragma unroll
        for (int n = 0; n < NT; ++n)
            load_matrices(right[n], slice + swizzled(kRows + warp % 4 * 8 * NT + n * 8 + lane % 8, lane / 8));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
            uint32_t first[4], second[4];  // chunks 0 and 1, 2 and 3 of 16 rows
            const int line = warp / 4 * 16 * MT + m * 16 + lane % 16;
            load_matrices(first, slice + swizzled(line, lane / 16));
            load_matrices(second, slice + swizzled(line, 2 + lane / 16));
            if constexpr (std::is_same_v<T, float>) {
#pragma unroll
                for (int n = 0; n < NT; ++n) multiply_add<__half>(sum[m][n], second, right[n]);
#pragma unroll
                for (int n = 0; n < NT; ++n) multiply_add<__half>(sum[m][n], first, right[n] + 2);
#pragma unroll
                for (int n = 0; n < NT; ++n) multiply_add<__half>(sum[m][n], first, right[n]);
            } else {
#pragma unroll
                for (int n = 0; n < NT; ++n) multiply_add<T>(sum[m][n], first, right[n]);
#pragma unroll
                for (int n = 0; n < NT; ++n) multiply_add<T>(sum[m][n], second, right[n] + 2);
            }
        }
    }
};

}  // namespace
}  // namespace cuda
}  // namespace vreid
