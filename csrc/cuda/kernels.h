// The ops on a GPU. They take device addresses and a stream and return a CUDA status; they neither allocate
// nor synchronize.
#pragma once

#include <cuda_runtime_api.h>

#include "common/mining.h"
#include "common/part_metric.h"
#include "common/ranking.h"
#include "common/region.h"
#include "common/sta.h"

namespace vreid {
namespace cuda {

// squares, sums: float scratch, see pieces() (frame.h) for the sizes; with one piece, sums may be
// StaPool::sums.
cudaError_t sta_pool(const StaPool& op, float* squares, float* sums, cudaStream_t stream);
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

// Hardest pairs of prepared rows: float, `D` a multiple of 4, 16-byte aligned. squares: the squared norms of
// the candidates, or zeros for unit rows.
struct Mine {
    int64_t N, M, D;  // anchors, candidates, dimensions
    const float *rows, *candidates, *squares;
    const int64_t *labels, *candidate_labels;
    bool one_set;  // the candidates are the rows, and an anchor is not its own positive
    int64_t splits;
    float* score;    // (splits,2,N) scratch
    int64_t* found;  // (splits,2,N) scratch
    int64_t* index;  // (2,N)
};
int64_t mine_splits(int64_t N, int64_t M);
cudaError_t batch_hard(const Mine& op, cudaStream_t stream);

// Features (Q,R,D) and (G,R,D): float, D a multiple of 4, 16-byte aligned. Squared norms and weights (Q,R),
// (G,R).
struct PartMetric {
    int64_t Q, G, R, D;
    const float *query, *gallery, *query_square, *gallery_square, *query_weight, *gallery_weight;
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
