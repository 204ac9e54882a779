// Arguments of hard-pair mining and of the triplet loss.
#pragma once

#include "common/product.h"

namespace vreid {

// Prepares rows for the product and packs them. Subtracts `offset` (D) acc from each row or, if it is null,
// divides each row by its norm (zero rows stay zero). The negative squared distance of two prepared rows is
// twice their product minus both squares.
struct PrepareRows {
    Rows x;
    void* offset;
    bool centre;      // write the mean of x to offset first
    void* panels;     // acc
    void* square;     // (N,) acc: squared norms; zeros for divided rows, whose norms are equal
    int64_t bad_row;  // result: the first row with NaN, infinity or squares that overflow; -1 for none
    int threads;
};

// Farthest positive and nearest negative of each prepared row x among the rows ref or, if it is null, among
// the other rows x. Ids are int32, or int64 for double.
struct Mine {
    DType dtype;  // f32 or f64
    Panels x, ref;
    const void *row_id, *column_id;
    const void *row_square, *column_square;
    int64_t* index;  // (2,N); -1 without a candidate
    int threads;
};

// Batches of at most this size are mined by `mine_batch`.
constexpr bool is_small_batch(int64_t N, int64_t D) {
    return N <= 128 && D >= 1 && D <= 4096;
}

// The same in one step for the unprepared rows of a small batch, with their distances. The results have the
// same bits.
struct MineBatch {
    Rows x;
    Metric metric;
    const void* id;   // (N) int32, or int64 for double
    int64_t* index;   // (2,N); -1 without a candidate
    void* distance;   // (2,N) acc; zero without a candidate
    int64_t bad_row;  // result, as in PrepareRows
    int threads;
};

// distance (M,N): from row n of x to row index[m,n] of ref, or of x if ref is null; zero if the index is -1.
struct MinedDistance {
    Rows x, ref;
    const int64_t* index;
    int64_t M;
    Metric metric;
    void* distance;
    int threads;
};

struct MinedDistanceBackward {
    Rows x, ref;
    const int64_t* index;
    int64_t M;
    Metric metric;
    const void *grad, *distance;
    void *dx, *dref;  // contiguous, dtype of x; each may be null
    int threads;
};

// Triplet loss of distances (2,N) to a positive and a negative each: the mean over the anchors that have both
// (index (2,N) not -1) of [margin + gap]_+, or of ln(1 + exp(gap)) if `soft`.
struct Triplet {
    DType dtype;  // f32 or f64
    int64_t N;
    const void* distance;
    const int64_t* index;
    double margin;
    bool soft;
    void* loss;
    void* slope;  // (2,N): derivative of the loss by each distance
};

// Farthest and nearest row of the same label. order (N): the rows sorted by label, ascending within a label.
struct IdentityHard {
    Rows x;
    const int64_t *labels, *order;
    Metric metric;
    bool include_self;
    int64_t* index;  // (2,N); -1 without a candidate
    int threads;
};

}  // namespace vreid
