// Arguments of k-reciprocal re-ranking.
#pragma once

#include "common/tensors.h"

namespace vreid {

// Sparse rows: row i has value[n] in column index[n], start[i] <= n < start[i+1].
struct SparseRows {
    const int64_t *start, *index;
    const void* value;
    DType dtype;  // f32 or f64
};

// k-reciprocal neighbors with their expansions. With a null index, only start[row+1], the row's length, is
// written.
struct Reciprocal {
    int64_t N, K, half;
    const int64_t* rank;      // (N,K), nearest first
    const double* distances;  // (N,K)
    int64_t* start;           // (N+1)
    int64_t* index;
    double* distance;  // of each neighbor; -1 if it is not among `distances`
    int threads;
};

// Row i becomes the mean of the rows rank[i,:k]. Null index: only the lengths, as above.
struct MeanRows {
    int64_t N, K, k;
    const int64_t* rank;  // (N,K)
    SparseRows rows;
    int64_t *start, *index;
    void* value;  // dtype of rows
    int threads;
};

// The columns of the rows first ... N-1, as sparse rows; row `first` becomes column 0.
struct Transpose {
    int64_t N, first;
    SparseRows rows;
    int64_t *start, *index;  // start (N+1) is zero on entry
    void* value;             // dtype of rows
};

// Replaces a block of complete rows by re-ranked distances. The block holds products of features if there are
// squared norms, otherwise distances.
struct Overlap {
    int64_t Q, G;
    double lambda;
    SparseRows query, columns;                    // of the same dtype as all values below
    const void *query_squares, *gallery_squares;  // (Q), (G), or both null
    const void* farthest;                         // (Q), squared
    void* out;                                    // (Q,G)
    int threads;
};

// The Jaccard distances of the rows to each other, up to `limit`; a row's distance to itself is 0. Row i of
// the result has index and distance n, start[i] <= n < start[i+1], in ascending order of index. Null index:
// only the lengths, as above.
struct Jaccard {
    int64_t N;
    double limit;
    SparseRows rows, columns;  // of the same dtype, each in ascending order
    int64_t *start, *index;
    void* distance;  // dtype of rows
    int threads;
};

}  // namespace vreid
