// The matrix product mma.sync.m16n8k8 of a warp for TF32 on the host. PTX specifies which lane holds which
// element (PTX ISA, "Matrix Fragments for mma.m16n8k8").
#pragma once

#include "simt.h"

namespace simt {

struct TensorOperands {
    float *c, a[4], b[2];
};

// c (16 x 8) += a (16 x 8) b (8 x 8). In lane 4 g + t: a[i] is (g + 8 (i % 2), t + 4 (i / 2)), b[i] is (t + 4
// i, g), c[i] is (g + 8 (i / 2), 2 t + i % 2).
inline void mma_m16n8k8(float (&c)[4], const float (&a)[4], const float (&b)[2], const char* file, int line) {
    TensorOperands own{c, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    // The other lanes wait while one computes, so their operands can be read in place.
    const Combine product = [](const uint64_t* sent, unsigned, int64_t lane) -> uint64_t {
        const auto operands = [&](int64_t of) { return unpacked<TensorOperands*>(sent[of]); };
        for (int i = 0; i < 4; ++i) {
            const int64_t row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            float& sum = operands(lane)->c[i];
            for (int64_t k = 0; k < 8; ++k)
                sum += operands(row % 8 * 4 + k % 4)->a[row / 8 + 2 * (k / 4)] *
                       operands(column * 4 + k % 4)->b[k / 4];
        }
        return 0;
    };
    warp(product, 0xffffffff, packed(&own), here().thread % kWarp, "mma", file, line);
}

// Rounds to ten bits of mantissa, ties away from zero.
inline float to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

}  // namespace simt
