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

// Embeddings (N,D): the numbers of a row are contiguous, rows lie `stride` elements apart. Null data: none.
struct Rows {
    const void* data;
    DType dtype;
    int64_t N, D, stride;
};

// Rows packed for matrix products: panels of `panel_rows(dtype)` rows each, [panel][d][row]. What the last
// panel holds beyond row N has no meaning. Null data: none.
struct Panels {
    const void* data;
    int64_t N, D;
};

// Packs rows, each multiplied by its number of `scale`, which may be null.
struct PackRows {
    Rows x;
    const void* scale;  // (N) acc
    void* panels;       // acc
    void* square;       // (N) acc: squared norms of the packed rows; may be null
    int threads;
};

// out[i,j] = x_i . y_j. Rows of out lie `stride` numbers apart.
struct Products {
    DType dtype;  // f32 or f64
    Panels x, y;
    void* out;
    int64_t stride;
    int threads;
};

// One tile of `rows` x `cols` pairs in `parts` parts. "acc" is float or double. Feature rows hold D
// contiguous numbers; strides say how far the next row and the next part are. The rest has (parts,rows) or
// (parts,cols) contiguous numbers, or panels of that many rows for each part.
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
    void* distance;  // (rows,cols) acc; sum_parts w_q w_g ||f - g|| is added
    int64_t distance_stride;
};

// Added to: gradients of the features, (rows,parts,D) and (cols,parts,D) acc with strides of a row and a
// part, and of the weights, those of the parts `weight_stride` apart.
struct PartDistanceBackward {
    PartTile tile;
    const void* grad;  // (rows,cols) acc
    int64_t grad_stride;
    void *dquery, *dgallery;
    int64_t row_stride, part_stride;
    void *dquery_weights, *dgallery_weights;
    int64_t query_weight_stride, gallery_weight_stride;
    void* scratch;  // as many acc as part_distance_scratch(tile) says
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
    const void* values;  // rows lie `stride` numbers apart; null: the products of x with y, f32
    int64_t stride;
    Panels x;
    Rows y;
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

enum class MiningMetric : int32_t { euclidean = 0, squared = 1, cosine = 2 };

// Packs rows ready for the product: less `offset` (D) acc or, where that is null, divided by their norm (zero
// stays zero). Twice the product of two prepared rows less both squares is minus their squared distance.
struct PrepareRows {
    Rows x;
    void* offset;
    bool centre;      // put the mean of x into offset first
    void* panels;     // acc
    void* square;     // (N,) acc: squared norms; zeros for divided rows, whose norms are equal
    int64_t bad_row;  // result: the first row with NaN, infinity or squares that overflow; -1 for none
    int threads;
};

// Farthest positive and nearest negative of each prepared row x among the rows ref or, where that is null,
// among the other rows x. "id" is int32, or int64 for double.
struct Mine {
    DType dtype;  // f32 or f64
    Panels x, ref;
    const void *row_id, *column_id;
    const void *row_square, *column_square;
    int64_t* index;  // (2,N); -1 without a candidate
    int threads;
};

// distance (M,N) of each row of x to the rows index (M,N) of ref, or of x where ref is null. Index -1: zero.
struct MinedDistance {
    Rows x, ref;
    const int64_t* index;
    int64_t M;
    MiningMetric metric;
    void* distance;
    int threads;
};

struct MinedDistanceBackward {
    Rows x, ref;
    const int64_t* index;
    int64_t M;
    MiningMetric metric;
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

// Farthest and nearest row of the same label. order (N): the rows sorted by label, ascending within one.
struct IdentityHard {
    Rows x;
    const int64_t *labels, *order;
    MiningMetric metric;
    bool include_self;
    int64_t* index;  // (2,N); -1 without a candidate
    int threads;
};

// Sparse rows: row i has value[n] in column index[n], start[i] <= n < start[i+1].
struct SparseRows {
    const int64_t *start, *index;
    const float* value;
};

// k-reciprocal neighbours with their expansions. With a null index only start[row+1], the row's length.
struct Reciprocal {
    int64_t N, K, half;
    const int64_t* rank;      // (N,K), nearest first
    const double* distances;  // (N,K)
    int64_t* start;           // (N+1)
    int64_t* index;
    double* distance;  // of each neighbour; -1 where `distances` does not have it
    int threads;
};

// Row i becomes the mean of the rows rank[i,:k]. Null index: as above.
struct MeanRows {
    int64_t N, K, k;
    const int64_t* rank;  // (N,K)
    SparseRows rows;
    int64_t *start, *index;
    float* value;
    int threads;
};

// The columns of the rows first ... N-1, as sparse rows that count from `first`.
struct Transpose {
    int64_t N, first;
    SparseRows rows;
    int64_t *start, *index;  // start (N+1) zero at the call
    float* value;
};

// Turns a block of whole rows into re-ranked distances: of products of features, where there are squared
// norms, else of distances.
struct Overlap {
    int64_t Q, G;
    float lambda;
    SparseRows query, columns;
    const float *query_squares, *gallery_squares;  // (Q), (G), or both null
    const float* farthest;                         // (Q), squared
    float* out;                                    // (Q,G)
    int threads;
};

struct RegionPool {
    FeatureMap x;
    int64_t K;
    const void* logits;  // (B,T,K,L) acc; null where the weights are there already
    void* weights;       // (B,T,K,L) acc, each row a distribution
    void* features;      // (B,T,K,C), dtype of x
    void* overlap;       // (B,T) acc
    int threads;
};

struct RegionPoolBackward {
    FeatureMap x, dx;
    int64_t K;
    const void* grad_features;  // (B,T,K,C), dtype of x; each gradient may be null
    const void* grad_weights;   // (B,T,K,L) acc
    const void* grad_overlap;   // (B,T) acc
    const void* weights;
    void* dlogits;  // (B,T,K,L) acc
    int threads;
};

struct HellingerOverlap {
    DType dtype;  // f32 or f64
    int64_t frames, K, L;
    bool root;
    const void* weights;
    void* overlap;
    int threads;
};

struct HellingerOverlapBackward {
    DType dtype;
    int64_t frames, K, L;
    bool root;
    const void *grad, *weights;
    void* dweights;
    int threads;
};

struct TemporalPool {
    DType dtype;
    int64_t B, T, K, D;
    const void* weights;   // (B,T,K) acc
    const void* features;  // (B,T,K,D) of `dtype`
    const bool* valid;
    void* pooled;  // (B,K,D) of `dtype`
    int threads;
};

struct TemporalPoolBackward {
    DType dtype;
    int64_t B, T, K, D;
    const void *grad, *weights, *features;
    const bool* valid;
    void *dscores, *dfeatures;
    int threads;
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
