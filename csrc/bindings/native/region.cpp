// Region pooling, the Hellinger overlap and temporal pooling in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

void region_pool(const FeatureMapTuple& map, int64_t K, int64_t logits, int64_t weights, int64_t features,
                 int64_t overlap, int threads) {
    const FeatureMap x = feature_map("x", map);
    check_least("regions", K, 1);
    RegionPool op{x,
                  K,
                  pointer("logits", logits, x.B * x.T * K * x.L),
                  pointer("weights", weights, x.B * x.T * K * x.L),
                  pointer("features", features, x.B * x.T * K * x.C),
                  pointer("overlap", overlap, x.B * x.T),
                  check_threads(threads)};
    run(&Table::region_pool, op);
}

void region_pool_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, int64_t K,
                          int64_t grad_features, int64_t grad_weights, int64_t grad_overlap, int64_t weights,
                          int64_t dlogits, int threads) {
    const FeatureMap x = feature_map("x", map), dx = feature_map("dx", gradient);
    check_same_layout(x, dx);
    check_least("regions", K, 1);
    RegionPoolBackward op{x,
                          dx,
                          K,
                          nullable(grad_features),
                          nullable(grad_weights),
                          nullable(grad_overlap),
                          pointer("weights", weights, x.B * x.T * K * x.L),
                          pointer("dlogits", dlogits, x.B * x.T * K * x.L),
                          check_threads(threads)};
    run(&Table::region_pool_backward, op);
}

void hellinger_overlap(int64_t code, int64_t frames, int64_t K, int64_t L, bool root, int64_t weights,
                       int64_t overlap, int threads) {
    check_least("regions", K, 1);
    HellingerOverlap op{dtype(code),
                        frames,
                        K,
                        L,
                        root,
                        pointer("weights", weights, frames * K * L),
                        pointer("overlap", overlap, frames),
                        check_threads(threads)};
    run(&Table::hellinger_overlap, op);
}

void hellinger_overlap_backward(int64_t code, int64_t frames, int64_t K, int64_t L, bool root, int64_t grad,
                                int64_t weights, int64_t dweights, int threads) {
    check_least("regions", K, 1);
    HellingerOverlapBackward op{dtype(code),
                                frames,
                                K,
                                L,
                                root,
                                pointer("grad", grad, frames),
                                pointer("weights", weights, frames * K * L),
                                pointer("dweights", dweights, frames * K * L),
                                check_threads(threads)};
    run(&Table::hellinger_overlap_backward, op);
}

void temporal_pool(int64_t code, int64_t B, int64_t T, int64_t K, int64_t D, int64_t weights,
                   int64_t features, int64_t valid, int64_t pooled, int threads) {
    TemporalPool op{dtype(code),
                    B,
                    T,
                    K,
                    D,
                    pointer("weights", weights, B * T * K),
                    pointer("features", features, B * T * K * D),
                    nullable<const bool>(valid),
                    pointer("pooled", pooled, B * K * D),
                    check_threads(threads)};
    run(&Table::temporal_pool, op);
}

void temporal_pool_backward(int64_t code, int64_t B, int64_t T, int64_t K, int64_t D, int64_t grad,
                            int64_t weights, int64_t features, int64_t valid, int64_t dscores,
                            int64_t dfeatures, int threads) {
    TemporalPoolBackward op{dtype(code),
                            B,
                            T,
                            K,
                            D,
                            pointer("grad", grad, B * K * D),
                            pointer("weights", weights, B * T * K),
                            pointer("features", features, B * T * K * D),
                            nullable<const bool>(valid),
                            pointer("dscores", dscores, B * T * K),
                            pointer("dfeatures", dfeatures, B * T * K * D),
                            check_threads(threads)};
    run(&Table::temporal_pool_backward, op);
}

}  // namespace

void bind_region(pybind11::module_& m) {
    VREID_DEFINE(m, region_pool, region_pool_backward, hellinger_overlap, hellinger_overlap_backward,
                 temporal_pool, temporal_pool_backward);
}

}  // namespace vreid
