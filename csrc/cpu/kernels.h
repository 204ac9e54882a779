// The kernels of one instruction set, each in the file of its op.
#pragma once

#include "common/types.h"

namespace vreid {
namespace VREID_ISA {

Status sta_pool(const StaPool&);
Status sta_pool_backward(const StaPoolBackward&);
Status attention_map(const AttentionMap&);
Status attention_map_backward(const AttentionMapBackward&);
Status block_scores(const BlockScores&);
Status block_scores_backward(const BlockScoresBackward&);
Status fuse(const Fuse&);
Status fuse_backward(const FuseBackward&);
Status inter_frame_distance(const InterFrameDistance&);
Status inter_frame_distance_backward(const InterFrameDistanceBackward&);
int64_t panel_rows(DType);
Status pack_rows(const PackRows&);
Status products(const Products&);
Status part_distance(const PartDistance&);
int64_t part_distance_scratch(const PartTile&);
Status part_distance_backward(const PartDistanceBackward&);
Status squared_norms(const SquaredNorms&);
Status pair_distances(const PairDistances&);
Status rank_counts(const RankCounts&);
Status top_k(const TopK&);
Status top_k_result(const TopKResult&);
Status prepare_rows(PrepareRows&);
Status mine(const Mine&);
Status mined_distance(const MinedDistance&);
Status mined_distance_backward(const MinedDistanceBackward&);
Status triplet(const Triplet&);
Status identity_hard(const IdentityHard&);
Status reciprocal(const Reciprocal&);
Status mean_rows(const MeanRows&);
Status transpose(const Transpose&);
Status overlap(const Overlap&);
Status region_pool(const RegionPool&);
Status region_pool_backward(const RegionPoolBackward&);
Status hellinger_overlap(const HellingerOverlap&);
Status hellinger_overlap_backward(const HellingerOverlapBackward&);
Status temporal_pool(const TemporalPool&);
Status temporal_pool_backward(const TemporalPoolBackward&);
Status probe(Probe&);

}  // namespace VREID_ISA
}  // namespace vreid
