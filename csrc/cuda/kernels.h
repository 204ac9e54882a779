// The ops on a GPU. They take device addresses and a stream and return a CUDA status; they neither allocate
// nor synchronize.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>

#include "common/mining.h"
#include "common/part_metric.h"
#include "common/ranking.h"
#include "common/region.h"
#include "common/sta.h"

namespace vreid {
namespace cuda {

// squares, sums: float scratch, see pieces() (frame.h) for the sizes; with one piece, sums may be
// StaPool::sums. clusters: one launch with a cluster of thread blocks for each clip, or one launch for each
// step, with the same bits; by default the one that is predicted to be faster (docs/gpu.md).
cudaError_t sta_pool(const StaPool& op, float* squares, float* sums, std::optional<bool> clusters,
                     cudaStream_t stream);
// slope (2,B,T,K) and weight (B,T,L): float scratch.
cudaError_t sta_pool_backward(const StaPoolBackward& op, float* slope, float* weight, cudaStream_t stream);

// squares as above, with one block; weight (B,T,L): float scratch.
cudaError_t attention_map(const AttentionMap& op, float* squares, cudaStream_t stream);
cudaError_t attention_map_backward(const AttentionMapBackward& op, float* weight, cudaStream_t stream);
cudaError_t block_scores(const BlockScores& op, cudaStream_t stream);
cudaError_t block_scores_backward(const BlockScoresBackward& op, cudaStream_t stream);

// Fused maps and their gradients (B,1,2C,L) have the memory layout of x. parts (B,T,K,pieces): float scratch.
cudaError_t fuse(const Fuse& op, const FeatureMap& fused, cudaStream_t stream);
int64_t fuse_pieces(const FeatureMap& x, int64_t K);
cudaError_t fuse_backward(const FuseBackward& op, const FeatureMap& grad, float* parts, cudaStream_t stream);

// parts (B,T,pieces,K,C), for the backward pass (B,T,pieces,K,L), and residual (B,T,K,K): float scratch.
// Without a gradient of the features, dx is not written.
int64_t region_pieces(const FeatureMap& x);
int64_t region_gradient_pieces(const FeatureMap& x, const FeatureMap& dx);
cudaError_t region_pool(const RegionPool& op, float* parts, float* residual, cudaStream_t stream);
cudaError_t region_pool_backward(const RegionPoolBackward& op, float* parts, float* residual,
                                 cudaStream_t stream);

// scale (N) and ref_scale: 1 / norm, 0 for zero rows; null unless the metric is cosine.
cudaError_t mined_distance(const MinedDistance& op, const float* scale, const float* ref_scale,
                           cudaStream_t stream);

// The gradient of ref (of_ref) or of x. order: the pairs (M N) sorted by their index, ascending within one;
// begin (rows + 1): where the pairs of each candidate begin. Both are read if the candidates have a gradient.
struct PairGradient {
    MinedDistanceBackward op;
    const float *scale, *ref_scale;
    const int64_t *order, *begin;
    bool of_ref;
};
cudaError_t mined_distance_backward(const PairGradient& gradient, cudaStream_t stream);
cudaError_t triplet(const Triplet& op, cudaStream_t stream);
// begin, end (N): the range in op.order of the anchor's identity.
cudaError_t identity_hard(const IdentityHard& op, const float* scale, const int64_t* begin,
                          const int64_t* end, cudaStream_t stream);

// Rows for a product on tensor cores (product.cuh): pairs of float16 numbers from `split_rows`, or rows of
// bfloat16 or float16. 16-byte aligned; `stride` and `width` count bytes, multiples of 16.
struct Operand {
    const void* data;
    int64_t rows, stride, width;
};

// pairs (N, 64 ceil(D / 16) bytes): the rows of x times `scale` minus `mean`, each times a power of two; null
// to compute squares only. factor (N): the inverse of these powers. square (N): squared norms, or zeros with
// `scale`. mean (D) and scale (N) may be null.
struct SplitRows {
    Rows x;
    const float *mean, *scale;
    void* pairs;
    float *factor, *square;
};
cudaError_t split_rows(const SplitRows& op, cudaStream_t stream);

// One side of `Mine`. A product of rows is multiplied by the factors of both, and is then that of the rows
// whose squared norms are `square`, or zeros for unit rows.
struct MineSide {
    Operand rows;
    const float *factor, *square;
    const int64_t* labels;
};

// Hardest pairs of anchors and candidates.
struct Mine {
    DType dtype;  // f32: pairs
    MineSide anchors, candidates;
    bool one_set;    // the candidates are the anchors, and an anchor is not its own positive
    int64_t* key;    // (2,N): scratch, INT64_MIN
    int64_t* index;  // (2,N)
};
cudaError_t batch_hard(const Mine& op, cudaStream_t stream);

// One side of the part metric, rows (N,R,...): operands of all parts (N R rows), factors of pairs (N,R) or
// null, and features (N,R,D), squared norms and weights (N,R).
struct PartRows {
    Operand rows;
    const float* factor;
    const void* features;
    const float *square, *weight;
};

// dtype: of the features; the operands of f32 are pairs.
struct PartMetric {
    DType dtype;
    int64_t Q, G, R, D;
    PartRows query, gallery;
};
cudaError_t part_distance(const PartMetric& op, float* distance, cudaStream_t stream);
// For part r: slope = grad w_q w_g / distance (0 if the distance is 0), length = grad distance; all (Q,G).
cudaError_t part_slopes(const PartMetric& op, int64_t r, const float* grad, float* slope, float* length,
                        cudaStream_t stream);

// Float tiles without scale and shift.
cudaError_t rank_counts(const RankCounts& op, cudaStream_t stream);

// Whether the current device can run the kernels: cudaErrorNoKernelImageForDevice if none was compiled for
// it.
cudaError_t usable();

}  // namespace cuda
}  // namespace vreid
