// STA pooling, attention maps, block scores and fusion in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/frame.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

// The numbers of pieces that the scratch memory of a map with K blocks needs.
std::pair<int64_t, int64_t> pieces(const FeatureMapTuple& map, int64_t K) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const cuda::Pieces pieces = cuda::pieces(x, K);
    return {pieces.squares, pieces.sums};
}

int64_t fuse_pieces(const FeatureMapTuple& map, int64_t K) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    return cuda::fuse_pieces(x, K);
}

void sta_pool(const FeatureMapTuple& map, int64_t valid, int64_t K, int64_t squares, int64_t parts,
              int64_t pooled, int64_t scores, int64_t attention, int64_t sums, int64_t energy, int64_t total,
              int64_t choice, std::optional<bool> clusters, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const StaPool op{x,
                     nullable<const bool>(valid),
                     K,
                     pointer("pooled", pooled, x.B * 2 * x.C),
                     pointer("scores", scores, x.B * x.T * K),
                     pointer("attention", attention, x.B * x.T * x.L),
                     pointer("sums", sums, x.B * x.T * K * x.C),
                     pointer("energy", energy, x.B * x.T),
                     pointer("total", total, x.B * K),
                     pointer<int64_t>("choice", choice, x.B * K),
                     /*threads=*/0};
    float* const squares_scratch = pointer<float>("squares", squares, x.B * x.T * x.L);
    float* const sums_scratch = pointer<float>("parts", parts, x.B * x.T * K * x.C);
    run("sta_pool", device, stream, [&](cudaStream_t queue) {
        return cuda::sta_pool(op, squares_scratch, sums_scratch, clusters, queue);
    });
}

void sta_pool_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, int64_t valid, int64_t K,
                       int64_t grad_pooled, int64_t grad_scores, int64_t grad_attention, int64_t scores,
                       int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
                       int64_t slope, int64_t weight, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    const StaPoolBackward op{x,
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
                             /*threads=*/0};
    float* const slope_scratch = pointer<float>("slope", slope, 2 * x.B * x.T * K);
    float* const weight_scratch = pointer<float>("weight", weight, x.B * x.T * x.L);
    run("sta_pool_backward", device, stream, [&](cudaStream_t queue) {
        return cuda::sta_pool_backward(op, slope_scratch, weight_scratch, queue);
    });
}

void attention_map(const FeatureMapTuple& map, bool root_energy, bool l2_norm, int64_t squares,
                   int64_t attention, int64_t norm, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    const AttentionMap op{x,
                          root_energy,
                          l2_norm,
                          pointer("attention", attention, x.B * x.T * x.L),
                          pointer("norm", norm, x.B * x.T),
                          /*threads=*/0};
    float* const scratch = pointer<float>("squares", squares, x.B * x.T * x.L);
    run("attention_map", device, stream,
        [&](cudaStream_t queue) { return cuda::attention_map(op, scratch, queue); });
}

void attention_map_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, bool root_energy,
                            bool l2_norm, int64_t grad, int64_t attention, int64_t norm, int64_t weight,
                            int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    const int64_t size = x.B * x.T * x.L;
    const AttentionMapBackward op{x,
                                  dx,
                                  root_energy,
                                  l2_norm,
                                  pointer("grad", grad, size),
                                  pointer("attention", attention, size),
                                  pointer("norm", norm, x.B * x.T),
                                  /*threads=*/0};
    float* const scratch = pointer<float>("weight", weight, size);
    run("attention_map_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::attention_map_backward(op, scratch, queue); });
}

void block_scores(int64_t B, int64_t T, int64_t L, int64_t K, int64_t attention, int64_t valid,
                  int64_t scores, int64_t total, int device, int64_t stream) {
    check_blocks(K, L);
    const BlockScores op{DType::f32,
                         B,
                         T,
                         L,
                         K,
                         pointer("attention", attention, B * T * L),
                         nullable<const bool>(valid),
                         pointer("scores", scores, B * T * K),
                         pointer("total", total, B * K),
                         /*threads=*/0};
    run("block_scores", device, stream, [&](cudaStream_t queue) { return cuda::block_scores(op, queue); });
}

void block_scores_backward(int64_t B, int64_t T, int64_t L, int64_t K, int64_t grad, int64_t attention,
                           int64_t valid, int64_t scores, int64_t total, int64_t dattention, int device,
                           int64_t stream) {
    check_blocks(K, L);
    const BlockScoresBackward op{DType::f32,
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
                                 /*threads=*/0};
    run("block_scores_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::block_scores_backward(op, queue); });
}

// A map (B,1,2C,L) in the memory layout of x.
FeatureMap fused_map(const char* name, const FeatureMapTuple& map, const FeatureMap& x) {
    const FeatureMap fused = float_map(name, map);
    check_same_layout(x, fused);
    if (fused.B != x.B || fused.T != 1 || fused.C != 2 * x.C || fused.L != x.L || fused.dtype != x.dtype)
        fail(name, "a map (B,1,2C,L) of the dtype of x (B,T,C,L), got another");
    return fused;
}

void fuse(const FeatureMapTuple& map, const FeatureMapTuple& fused, int64_t K, int64_t scores, int64_t valid,
          int64_t choice, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), result = fused_map("fused", fused, x);
    check_blocks(K, x.L);
    const Fuse op{x,
                  K,
                  pointer("scores", scores, x.B * x.T * K),
                  nullable<const bool>(valid),
                  result.data,
                  pointer<int64_t>("choice", choice, x.B * K),
                  /*threads=*/0};
    run("fuse", device, stream, [&](cudaStream_t queue) { return cuda::fuse(op, result, queue); });
}

void fuse_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, const FeatureMapTuple& grad,
                   int64_t K, int64_t scores, int64_t choice, int64_t valid, int64_t dscores, int64_t parts,
                   int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient),
                     upstream = fused_map("grad", grad, x);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    const FuseBackward op{x,
                          dx,
                          K,
                          upstream.data,
                          pointer("scores", scores, x.B * x.T * K),
                          pointer<const int64_t>("choice", choice, x.B * K),
                          nullable<const bool>(valid),
                          pointer("dscores", dscores, x.B * x.T * K),
                          /*threads=*/0};
    float* const scratch = pointer<float>("parts", parts, x.B * x.T * K);
    run("fuse_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::fuse_backward(op, upstream, scratch, queue); });
}

}  // namespace

void bind_sta(pybind11::module_& m) {
    VREID_DEFINE(m, pieces, fuse_pieces, sta_pool, sta_pool_backward, attention_map, attention_map_backward,
                 block_scores, block_scores_backward, fuse, fuse_backward);
}

}  // namespace vreid
