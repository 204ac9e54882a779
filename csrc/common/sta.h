// Arguments of STA pooling, attention maps, block scores, fusion and the inter-frame distance.
#pragma once

#include "common/tensors.h"

namespace vreid {

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

}  // namespace vreid
