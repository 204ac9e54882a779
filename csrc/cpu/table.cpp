#include "cpu/table.h"

#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {

extern const Table table = {
    sta_pool,
    sta_pool_backward,
    attention_map,
    attention_map_backward,
    block_scores,
    block_scores_backward,
    fuse,
    fuse_backward,
    inter_frame_distance,
    inter_frame_distance_backward,
    panel_rows,
    pack_rows,
    products,
    part_distance,
    part_distance_scratch,
    part_distance_backward,
    squared_norms,
    pair_distances,
    rank_counts,
    top_k,
    top_k_result,
    prepare_rows,
    mine,
    mined_distance,
    mined_distance_backward,
    triplet,
    identity_hard,
    reciprocal,
    mean_rows,
    transpose,
    overlap,
    region_pool,
    region_pool_backward,
    hellinger_overlap,
    hellinger_overlap_backward,
    temporal_pool,
    temporal_pool_backward,
    probe,
};

}  // namespace VREID_ISA
}  // namespace vreid
