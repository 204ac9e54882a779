// Arguments of region pooling, the Hellinger overlap and temporal pooling.
#pragma once

#include "common/tensors.h"

namespace vreid {

struct RegionPool {
    FeatureMap x;
    int64_t K;
    const void* logits;  // (B,T,K,L) acc; null if `weights` is an input
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

}  // namespace vreid
