// Arguments of the part metric.
#pragma once

#include "common/tensors.h"

namespace vreid {

// The products give a squared distance as f.f + g.g - 2 f.g, which loses digits if f and g are close. If it
// is below this share of f.f + g.g, the kernels sum the squared differences instead. At this value the
// rounding of float32 leaves five digits, that of three products on tensor cores (22 bits) more than four, and
// equal features have the distance zero. The Triton kernels use the same value.
constexpr double kClosePair = 1e-2;

// One tile of `rows` x `cols` pairs in `parts` parts. "acc" is float or double. A feature row is D contiguous
// elements; the strides lead to the next row and to the next part. The other tensors are (parts,rows) or
// (parts,cols) with contiguous rows, or panels of that many rows for each part.
struct PartSide {
    const void* features;  // acc
    int64_t row_stride, part_stride;
    const void *squares, *weights;  // acc: squared norms, weights
    int64_t stride;                 // between the parts of both
    const void* panels;             // the features, packed
};

struct PartTile {
    DType dtype;
    int64_t parts, rows, cols, D;
    PartSide query, gallery;
    int threads;
};

struct PartDistance {
    PartTile tile;
    void* distance;  // (rows,cols) acc; the op adds sum_parts w_q w_g ||f - g||
    int64_t distance_stride;
};

// Adds the gradients of the features, (rows,parts,D) and (cols,parts,D) acc with the strides of a row and of
// a part, and those of the weights, whose parts are `weight_stride` apart.
struct PartDistanceBackward {
    PartTile tile;
    const void* grad;  // (rows,cols) acc
    int64_t grad_stride;
    void *dquery, *dgallery;
    int64_t row_stride, part_stride;
    void *dquery_weights, *dgallery_weights;
    int64_t query_weight_stride, gallery_weight_stride;
    void* scratch;  // part_distance_scratch(tile) elements of acc
};

}  // namespace vreid
