// The matrix instructions of a warp on the host. PTX specifies which lane holds which element (PTX ISA,
// "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix").
#pragma once

#include "simt.h"

namespace simt {

struct TensorOperands {
    float* c;
    const uint32_t *a, *b;
};

// mma.m16n8k16: c (16 x 8) += a (16 x 16) b (16 x 8) of numbers T of 16 bits. In lane 4 g + t: a[i] is (g + 8
// (i % 2), 2 t + 8 (i / 2)) and the next column, b[i] is (2 t + 8 i, g) and the next row, c[i] is (g + 8 (i /
// 2), 2 t + i % 2). `widened` converts a number to float.
template <class T, float (*widened)(T)>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, const char* file, int line) {
    TensorOperands own{c, a, b};
    // The other lanes wait while one computes, so their operands can be read in place.
    const Combine product = [](const uint64_t* sent, unsigned, int64_t lane) -> uint64_t {
        const auto operands = [&](int64_t of) { return unpacked<TensorOperands*>(sent[of]); };
        const auto half = [](uint32_t pair, int64_t which) {
            return widened(unpacked<T>(pair >> (16 * which) & 0xffff));
        };
        for (int i = 0; i < 4; ++i) {
            const int64_t row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            float& sum = operands(lane)->c[i];
            for (int64_t k = 0; k < 16; ++k)
                sum += half(operands(row % 8 * 4 + k % 8 / 2)->a[row / 8 + 2 * (k / 8)], k % 2) *
                       half(operands(column * 4 + k % 8 / 2)->b[k / 8], k % 2);
        }
        return 0;
    };
    warp(product, 0xffffffff, packed(&own), here().thread % kWarp, "mma", file, line);
}

// ldmatrix.x4: four matrices of 8 x 8 numbers of 16 bits. Lane i has the address of row i % 8 of matrix i / 8
// (16 bytes). In lane 4 g + t, result[m] is (g, 2 t) of matrix m and the next column.
inline void load_matrices(uint32_t (&result)[4], const void* row, const char* file, int line) {
    check_alignment(row, 16);
    struct Exchange {
        const char *own, *rows[4];
    } exchange{static_cast<const char*>(row), {}};
    const Combine collect = [](const uint64_t* sent, unsigned, int64_t lane) -> uint64_t {
        for (int64_t m = 0; m < 4; ++m)
            unpacked<Exchange*>(sent[lane])->rows[m] = unpacked<Exchange*>(sent[8 * m + lane / 4])->own;
        return 0;
    };
    const unsigned lane = here().thread % kWarp;
    warp(collect, 0xffffffff, packed(&exchange), lane, "ldmatrix", file, line);
    for (int m = 0; m < 4; ++m)
        result[m] = *reinterpret_cast<const uint32_t*>(exchange.rows[m] + 4 * (lane % 4));
}

}  // namespace simt
