// Views of the memory of tensors, as Python passes it to the kernels: addresses, sizes, strides and codes. No
// tensor library is involved.
#pragma once

#include <cstdint>

namespace vreid {

// An enumeration that Python passes as a code: 0 for the first name, 1 for the second, ...; `names_of`
// returns the names. The modules export them as `codes`, and a test compares those with the codes in Python.
#define VREID_CODES(name, ...)                 \
    enum class name : int32_t { __VA_ARGS__ }; \
    constexpr const char* names_of(name) {     \
        return #__VA_ARGS__;                   \
    }

VREID_CODES(DType, f32, f64, bf16, f16)
VREID_CODES(Metric, euclidean, squared, cosine)

enum class Status : int32_t { ok, out_of_memory };

// Comments on the structs of the ops: "acc" is the type of sums, float, or double for f64 inputs. Memory is
// contiguous unless there is a stride; strides count elements. (B,T) masks `valid` may be null.

// Feature maps (B,T,C,L), L = H*W cells. Either the cells of a plane are contiguous (cell stride 1, "planes")
// or the channels of a cell are (channel stride 1, "channels last").
struct FeatureMap {
    void* data;
    DType dtype;
    int64_t B, T, C, L;
    int64_t stride_b, stride_t, stride_c, stride_l;

    bool planes() const { return stride_l == 1; }
};

// Embeddings (N,D) with contiguous rows that start `stride` elements apart. Null data means that there are no
// rows.
struct Rows {
    const void* data;
    DType dtype;
    int64_t N, D, stride;
};

}  // namespace vreid
