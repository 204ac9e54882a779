// Arguments of matrix products of packed rows.
#pragma once

#include "common/tensors.h"

namespace vreid {

// Terms in a block of a sum on a CPU (cpu/product.h): the slices of two panels of this depth fit into the L1
// cache. The error bound of the rankings depends on it.
constexpr int64_t kDepth = 128;

// Rows packed for matrix products: panels of `panel_rows(dtype)` rows each, [panel][d][row]. Rows of the last
// panel beyond N are padding. Null data means that there are no rows.
struct Panels {
    const void* data;
    int64_t N, D;
};

// Packs rows, each multiplied by its element of `scale`, which may be null.
struct PackRows {
    Rows x;
    const void* scale;  // (N) acc
    void* panels;       // acc
    void* square;       // (N) acc: squared norms of the packed rows; may be null
    int threads;
};

// out[i,j] = x_i . y_j. Rows of out start `stride` elements apart.
struct Products {
    DType dtype;  // f32 or f64
    Panels x, y;
    void* out;
    int64_t stride;
    int threads;
};

}  // namespace vreid
