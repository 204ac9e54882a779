// Arguments of rankings: float64 distances, ranks by counting, and the k nearest.
#pragma once

#include "common/product.h"

namespace vreid {

// Rows (Q,D) and (G,D), f32 or f64, compared by the euclidean or the cosine distance. If `query` is null,
// there are no features, and the values of a tile are the distances. The squares are the squared norms of the
// rows, or both null; only the cosine distance needs them.
struct Features {
    DType dtype;
    Metric metric;
    int64_t D;
    const void *query, *gallery;
    const double *query_square, *gallery_square;
};

// Columns `offset` to `offset + G` of a matrix of Q rows, f32 or f64. With `scale` and `shift` (G) the key of
// a value is shift + scale * value, otherwise it is the value. Items with kept = false, and those in a row's
// list `left` (ascending, the rows' lists start at `left_start`), are left out. Each of these pointers may be
// null.
struct Tile {
    DType dtype;
    int64_t Q, G, offset;
    const void* values;  // rows start `stride` elements apart; null: the products of x and y, f32
    int64_t stride;
    Panels x;
    Rows y;
    const float *scale, *shift;
    const bool* kept;
    const int64_t *left_start, *left;
};

// Adds to `counts`, for each positive p of row i, start[i] <= p < start[i+1], the number of items of the tile
// that rank before it. With features, an item whose key is below `low` certainly does, an item whose key is
// above `high` certainly does not. Without features, `low` and `high` are not used.
struct RankCounts {
    Tile tile;
    Features features;  // gallery: the tile's rows
    const int64_t* start;
    const void *low, *high;  // (P), dtype of the tile
    const double* distance;  // (P); null without features: that of the item `index` of the tile
    const int64_t* index;    // (P)
    int64_t* counts;         // (P)
    bool* finite;            // (Q), result: whether all values of a row of distances are finite; may be null
    int threads;
};

// Squared norms of the rows x and, in the same pass over x, their products with packed queries.
struct SquaredNorms {
    DType dtype;  // f32 or f64; f32 with queries
    int64_t N, D;
    const void* x;
    double* squares;  // (N)
    Panels queries;   // at most one panel; null data: no products
    float* products;  // (queries,N)
    int threads;
};

struct PairDistances {
    Features features;
    int64_t P;
    const int64_t *row, *index;  // (P)
    double* distance;            // (P)
    int threads;
};

// Updates the candidates for the k nearest of each row with the items of a tile.
struct TopK {
    Tile tile;          // f32
    Features features;  // gallery: all rows, which `offset` and `index` refer to
    int64_t k, capacity;
    const float* error;  // (Q), of a key
    float* keys;         // (Q,capacity)
    int64_t* index;      // (Q,capacity)
    int64_t* size;       // (Q)
    float* limit;        // (Q)
    float* largest;      // (Q), the largest key so far
    int threads;
};

struct TopKResult {
    TopK lists;
    int64_t stride;    // of the rows below, at least k
    double* distance;  // (Q,stride); only the elements of found items are written
    int64_t* index;    // (Q,stride)
};

}  // namespace vreid
