// Arguments of the part metric.
#pragma once

#include "common/tensors.h"

namespace vreid {

// The products give a squared distance as f.f + g.g - 2 f.g, which loses digits if f and g are close. If it
// is below this share of f.f + g.g, the kernels sum the squared differences instead. At this value the
// rounding of float32 leaves five digits, that of three products on tensor cores (22 bits) more than four,
// and equal features have the distance zero. The Triton kernels use the same value.
constexpr double kClosePair = 1e-2;

// `rows` x `cols` pairs in `parts` parts. "acc" is float or double. A feature row is D contiguous elements;
// the strides lead to the next row and to the next part. weights[i * weight_stride + part] is the weight of a
// part of row i.
struct PartSide {
    const void* features;  // acc
    int64_t row_stride, part_stride;
    const void* weights;  // acc
    int64_t weight_stride;
};

struct PartTile {
    DType dtype;
    int64_t parts, rows, cols, D;
    PartSide query, gallery;
    int threads;
};

struct PartDistance {
    PartTile tile;
    void* distance;   // (rows,cols) acc: sum_parts w_q w_g ||f - g||
    void* distances;  // (parts,rows,cols) acc: ||f - g||, negated for close pairs; may be null
};

// The gradients of the features, (rows,parts,D) and (cols,parts,D) acc, have the strides `row_stride` and
// `part_stride`; those of the weights, (rows,parts) and (cols,parts) acc, the stride `weight_stride`.
struct PartGradient {
    void *features, *weights;
    bool add;  // to the gradients of other pairs; otherwise the memory is overwritten
};
struct PartDistanceBackward {
    PartTile tile;
    const void* grad;  // (rows,cols) acc
    int64_t grad_stride;
    const void* distances;  // of PartDistance; computed again if null
    PartGradient query, gallery;
    int64_t row_stride, part_stride, weight_stride;
    void* scratch;  // part_distance_scratch(tile) elements of acc
};

}  // namespace vreid
