// What crosses the border between Python and the kernels: addresses, sizes and strides, no tensor library.
#pragma once

#include <cstdint>

namespace vreid {

enum class DType : int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

enum class Status : int32_t { ok = 0, out_of_memory = 1 };

// Feature maps (B,T,C,L), L = H*W cells, in elements of `dtype`. Either the cells of a plane are adjacent
// (cell stride 1, "planes") or the channels of a cell are (channel stride 1, "channels last").
struct FeatureMap {
    void* data;
    DType dtype;
    int64_t B, T, C, L;
    int64_t stride_b, stride_t, stride_c, stride_l;

    bool planes() const { return stride_l == 1; }
};

// Everything below is contiguous. "acc" is float, or double for f64 maps. `valid` (B,T) may be null.
struct StaPool {
    FeatureMap x;
    const bool* valid;
    int64_t K;
    void* pooled;     // (B,2C), dtype of x
    void* scores;     // (B,T,K) acc
    void* attention;  // (B,T,L) acc
    void* sums;       // (B,T,K,C) acc
    void* energy;     // (B,T) acc
    void* total;      // (B,K) acc
    int64_t* choice;  // (B,K)
    int threads;
};

struct StaPoolBackward {
    FeatureMap x, dx;
    const bool* valid;
    int64_t K;
    const void* grad_pooled;     // (B,2C), dtype of x; each gradient may be null
    const void* grad_scores;     // (B,T,K) acc
    const void* grad_attention;  // (B,T,L) acc
    const void *scores, *attention, *sums, *energy, *total;
    const int64_t* choice;
    int threads;
};

struct AttentionMap {
    FeatureMap x;
    bool root_energy,
        l2_norm;      // q = ||x||_2 rather than its square; divide by ||q||_2 rather than by the sum
    void* attention;  // (B,T,L) acc
    void* norm;       // (B,T) acc
    int threads;
};

struct AttentionMapBackward {
    FeatureMap x, dx;
    bool root_energy, l2_norm;
    const void *grad, *attention, *norm;
    int threads;
};

struct BlockScores {
    DType dtype;  // f32 or f64
    int64_t B, T, L, K;
    const void* attention;
    const bool* valid;
    void *scores, *total;
    int threads;
};

struct BlockScoresBackward {
    DType dtype;
    int64_t B, T, L, K;
    const void *grad, *attention;
    const bool* valid;
    const void *scores, *total;
    void* dattention;
    int threads;
};

struct Fuse {
    FeatureMap x;
    int64_t K;
    const void* scores;
    const bool* valid;
    void* fused;  // (B,2C,L), dtype of x
    int64_t* choice;
    int threads;
};

struct FuseBackward {
    FeatureMap x, dx;
    int64_t K;
    const void* grad;  // (B,2C,L), dtype of x
    const void* scores;
    const int64_t* choice;
    const bool* valid;
    void* dscores;
    int threads;
};

struct InterFrameDistance {
    DType dtype;
    int64_t B, T, L, M;
    const void* attention;
    const int64_t* pairs;  // (B,M,2)
    void* distance;        // (B,)
    int threads;
};

struct InterFrameDistanceBackward {
    DType dtype;
    int64_t B, T, L, M;
    const void *grad, *attention;
    const int64_t* pairs;
    void* dattention;
    int threads;
};

// One tile of one part: the products f . g of `rows` x `cols` pairs are there, from a matrix product. "acc"
// is float or double. Feature rows hold D adjacent numbers; everything else is contiguous unless it has a
// stride.
struct PartTile {
    DType dtype;
    int64_t rows, cols, D;
    const void *query, *gallery;  // features, acc
    int64_t query_stride, gallery_stride;
    const void *query_square, *gallery_square;  // (rows,), (cols,) acc: squared norms
    const void *query_weight, *gallery_weight;  // (rows,), (cols,) acc
    int threads;
};

struct PartDistance {
    PartTile tile;
    void* products;  // (rows,cols) acc; becomes the distances of this part
    void* distance;  // (rows,cols) acc; w_q w_g times those are added
    int64_t distance_stride;
};

struct PartDistanceBackward {
    PartTile tile;
    const void* grad;  // (rows,cols) acc
    int64_t grad_stride;
    void* products;  // (rows,cols) acc; becomes grad w_q w_g / distance, 0 for distance 0
    void* lengths;   // (rows,cols) acc: grad * distance
};

enum class Metric : int32_t { cosine = 0, euclidean = 1 };

// Rows (Q,D) and (G,D), f32 or f64. A null query: there are none, the values of a tile are the distances.
struct Features {
    DType dtype;
    Metric metric;
    int64_t D;
    const void *query, *gallery;
};

// Columns `offset` to `offset + G` of a matrix of Q rows, f32 or f64. With `scale` and `shift` (G) the key of
// a value is shift + scale * value, else the value. Items with kept = false, and those that a row lists in
// `left` (ascending, grouped by `left_start`), are left out; each of these pointers may be null.
struct Tile {
    DType dtype;
    int64_t Q, G, offset;
    const void* values;
    const float *scale, *shift;
    const bool* kept;
    const int64_t *left_start, *left;
};

// Adds to `counts`, for each positive p of row i, start[i] <= p < start[i+1], the items of the tile before
// it. A key below `low` is certainly before it and one above `high` certainly not.
struct RankCounts {
    Tile tile;
    Features features;  // gallery: the tile's rows
    const int64_t* start;
    const void *low, *high;  // (P), dtype of the tile
    const double* distance;  // (P)
    const int64_t* index;    // (P)
    int64_t* counts;         // (P)
    int threads;
};

struct SquaredNorms {
    DType dtype;
    int64_t N, D;
    const void* x;
    double* squares;  // (N)
    int threads;
};

struct PairDistances {
    Features features;
    int64_t P;
    const int64_t *row, *index;  // (P)
    double* distance;            // (P)
    int threads;
};

// Candidates for the k nearest of each row, brought up to date by a tile.
struct TopK {
    Tile tile;          // f32
    Features features;  // gallery: all rows, which `offset` and `index` count from
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
    double* distance;  // (Q,stride), written where there are items
    int64_t* index;    // (Q,stride)
};

// Plain passes over contiguous float memory, the yardsticks of the benchmarks.
struct Probe {
    const float* source;
    float* target;  // null: read only
    int64_t size;
    float sum;
    int threads;
};

}  // namespace vreid
