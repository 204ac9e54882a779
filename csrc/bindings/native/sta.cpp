// STA pooling, attention maps, block scores, fusion and the inter-frame distance in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

void sta_pool(const FeatureMapTuple& map, int64_t valid, int64_t K, int64_t pooled, int64_t scores,
              int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice, int threads) {
    const FeatureMap x = feature_map("x", map);
    check_blocks(K, x.L);
    StaPool op{x,
               nullable<const bool>(valid),
               K,
               pointer("pooled", pooled, x.B * 2 * x.C),
               pointer("scores", scores, x.B * x.T * K),
               pointer("attention", attention, x.B * x.T * x.L),
               pointer("sums", sums, x.B * x.T * K * x.C),
               pointer("energy", energy, x.B * x.T),
               pointer("total", total, x.B * K),
               pointer<int64_t>("choice", choice, x.B * K),
               check_threads(threads)};
    run(&Table::sta_pool, op);
}

void sta_pool_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, int64_t valid, int64_t K,
                       int64_t grad_pooled, int64_t grad_scores, int64_t grad_attention, int64_t scores,
                       int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
                       int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    StaPoolBackward op{x,
                       dx,
                       nullable<const bool>(valid),
                       K,
                       nullable(grad_pooled),
                       nullable(grad_scores),
                       nullable(grad_attention),
                       pointer("scores", scores, x.B * x.T * K),
                       pointer("attention", attention, x.B * x.T * x.L),
                       pointer("sums", sums, x.B * x.T * K * x.C),
                       pointer("energy", energy, x.B * x.T),
                       pointer("total", total, x.B * K),
                       pointer<const int64_t>("choice", choice, x.B * K),
                       check_threads(threads)};
    run(&Table::sta_pool_backward, op);
}

void attention_map(const FeatureMapTuple& map, bool root_energy, bool l2_norm, int64_t attention,
                   int64_t norm, int threads) {
    const FeatureMap x = feature_map("x", map);
    AttentionMap op{x,
                    root_energy,
                    l2_norm,
                    pointer("attention", attention, x.B * x.T * x.L),
                    pointer("norm", norm, x.B * x.T),
                    check_threads(threads)};
    run(&Table::attention_map, op);
}

void attention_map_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, bool root_energy,
                            bool l2_norm, int64_t grad, int64_t attention, int64_t norm, int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    AttentionMapBackward op{x,
                            dx,
                            root_energy,
                            l2_norm,
                            pointer("grad", grad, x.B * x.T * x.L),
                            pointer("attention", attention, x.B * x.T * x.L),
                            pointer("norm", norm, x.B * x.T),
                            check_threads(threads)};
    run(&Table::attention_map_backward, op);
}

void block_scores(int64_t code, int64_t B, int64_t T, int64_t L, int64_t K, int64_t attention, int64_t valid,
                  int64_t scores, int64_t total, int threads) {
    check_blocks(K, L);
    BlockScores op{dtype(code),
                   B,
                   T,
                   L,
                   K,
                   pointer("attention", attention, B * T * L),
                   nullable<const bool>(valid),
                   pointer("scores", scores, B * T * K),
                   pointer("total", total, B * K),
                   check_threads(threads)};
    run(&Table::block_scores, op);
}

void block_scores_backward(int64_t code, int64_t B, int64_t T, int64_t L, int64_t K, int64_t grad,
                           int64_t attention, int64_t valid, int64_t scores, int64_t total,
                           int64_t dattention, int threads) {
    check_blocks(K, L);
    BlockScoresBackward op{dtype(code),
                           B,
                           T,
                           L,
                           K,
                           pointer("grad", grad, B * T * K),
                           pointer("attention", attention, B * T * L),
                           nullable<const bool>(valid),
                           pointer("scores", scores, B * T * K),
                           pointer("total", total, B * K),
                           pointer("dattention", dattention, B * T * L),
                           check_threads(threads)};
    run(&Table::block_scores_backward, op);
}

void fuse(const FeatureMapTuple& map, int64_t K, int64_t scores, int64_t valid, int64_t fused, int64_t choice,
          int threads) {
    const FeatureMap x = feature_map("x", map);
    check_blocks(K, x.L);
    Fuse op{x,
            K,
            pointer("scores", scores, x.B * x.T * K),
            nullable<const bool>(valid),
            pointer("fused", fused, x.B * 2 * x.C * x.L),
            pointer<int64_t>("choice", choice, x.B * K),
            check_threads(threads)};
    run(&Table::fuse, op);
}

void fuse_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, int64_t K, int64_t grad,
                   int64_t scores, int64_t choice, int64_t valid, int64_t dscores, int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    FuseBackward op{x,
                    dx,
                    K,
                    pointer("grad", grad, x.B * 2 * x.C * x.L),
                    pointer("scores", scores, x.B * x.T * K),
                    pointer<const int64_t>("choice", choice, x.B * K),
                    nullable<const bool>(valid),
                    pointer("dscores", dscores, x.B * x.T * K),
                    check_threads(threads)};
    run(&Table::fuse_backward, op);
}

const int64_t* frame_pairs(int64_t pairs, int64_t B, int64_t T, int64_t M) {
    const int64_t* index = pointer<const int64_t>("pairs", pairs, B * M * 2);
    for (int64_t i = 0; i < B * M * 2; ++i) {
        if (index[i] < 0 || index[i] >= T)
            throw pybind11::index_error("pairs: expected frames from 0 to " + std::to_string(T - 1) +
                                        ", got " + std::to_string(index[i]));
    }
    return index;
}

void inter_frame_distance(int64_t code, int64_t B, int64_t T, int64_t L, int64_t M, int64_t attention,
                          int64_t pairs, int64_t distance, int threads) {
    InterFrameDistance op{dtype(code),
                          B,
                          T,
                          L,
                          M,
                          pointer("attention", attention, B * T * L),
                          frame_pairs(pairs, B, T, M),
                          pointer("distance", distance, B),
                          check_threads(threads)};
    run(&Table::inter_frame_distance, op);
}

void inter_frame_distance_backward(int64_t code, int64_t B, int64_t T, int64_t L, int64_t M, int64_t grad,
                                   int64_t attention, int64_t pairs, int64_t dattention, int threads) {
    InterFrameDistanceBackward op{dtype(code),
                                  B,
                                  T,
                                  L,
                                  M,
                                  pointer("grad", grad, B),
                                  pointer("attention", attention, B * T * L),
                                  frame_pairs(pairs, B, T, M),
                                  pointer("dattention", dattention, B * T * L),
                                  check_threads(threads)};
    run(&Table::inter_frame_distance_backward, op);
}

}  // namespace

void bind_sta(pybind11::module_& m) {
    VREID_DEFINE(m, sta_pool, sta_pool_backward, attention_map, attention_map_backward, block_scores,
                 block_scores_backward, fuse, fuse_backward, inter_frame_distance,
                 inter_frame_distance_backward);
}

}  // namespace vreid
