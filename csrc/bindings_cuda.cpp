// vreid_ext._cuda: the CUDA kernels behind addresses, sizes and strides. Knows Python, not torch.
//
// Arguments arrive checked by vreid_ext.ops; what is checked here is what would crash the process.
#include "bindings_cuda.h"

#include <optional>
#include <utility>

#include "cuda/frame.h"
#include "cuda/kernels.h"

namespace py = pybind11;

namespace vreid {
namespace {

// Sizes of scratch memory for a map with K blocks.
std::pair<int64_t, int64_t> pieces(const MapTuple& map, int64_t K) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const cuda::Pieces pieces = cuda::pieces(x, K);
    return {pieces.squares, pieces.sums};
}
int64_t fuse_pieces(const MapTuple& map, int64_t K) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    return cuda::fuse_pieces(x, K);
}
int64_t region_pieces(const MapTuple& map) {
    return cuda::region_pieces(float_map("x", map));
}
int64_t region_gradient_pieces(const MapTuple& map, const MapTuple& gradient) {
    return cuda::region_gradient_pieces(float_map("x", map), float_map("dx", gradient));
}

void sta_pool(const MapTuple& map, int64_t valid, int64_t K, int64_t squares, int64_t parts, int64_t pooled,
              int64_t scores, int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
              int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const StaPool op{x,
                     address<const bool>("valid", valid, 0),
                     K,
                     address("pooled", pooled, x.B * 2 * x.C),
                     address("scores", scores, x.B * x.T * K),
                     address("attention", attention, x.B * x.T * x.L),
                     address("sums", sums, x.B * x.T * K * x.C),
                     address("energy", energy, x.B * x.T),
                     address("total", total, x.B * K),
                     address<int64_t>("choice", choice, x.B * K),
                     /*threads=*/0};
    float* const squares_scratch = address<float>("squares", squares, x.B * x.T * x.L);
    float* const sums_scratch = address<float>("parts", parts, x.B * x.T * K * x.C);
    run("sta_pool", device, stream,
        [&](cudaStream_t queue) { return cuda::sta_pool(op, squares_scratch, sums_scratch, queue); });
}

void sta_pool_backward(const MapTuple& map, const MapTuple& gradient, int64_t valid, int64_t K,
                       int64_t grad_pooled, int64_t grad_scores, int64_t grad_attention, int64_t scores,
                       int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
                       int64_t slope, int64_t weight, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    const StaPoolBackward op{x,
                             dx,
                             address<const bool>("valid", valid, 0),
                             K,
                             address("grad_pooled", grad_pooled, 0),
                             address("grad_scores", grad_scores, 0),
                             address("grad_attention", grad_attention, 0),
                             address("scores", scores, x.B * x.T * K),
                             address("attention", attention, x.B * x.T * x.L),
                             address("sums", sums, x.B * x.T * K * x.C),
                             address("energy", energy, x.B * x.T),
                             address("total", total, x.B * K),
                             address<const int64_t>("choice", choice, x.B * K),
                             /*threads=*/0};
    float* const slope_scratch = address<float>("slope", slope, 2 * x.B * x.T * K);
    float* const weight_scratch = address<float>("weight", weight, x.B * x.T * x.L);
    run("sta_pool_backward", device, stream, [&](cudaStream_t queue) {
        return cuda::sta_pool_backward(op, slope_scratch, weight_scratch, queue);
    });
}

void attention_map(const MapTuple& map, bool root_energy, bool l2_norm, int64_t squares, int64_t attention,
                   int64_t norm, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    const AttentionMap op{x,
                          root_energy,
                          l2_norm,
                          address("attention", attention, x.B * x.T * x.L),
                          address("norm", norm, x.B * x.T),
                          /*threads=*/0};
    float* const scratch = address<float>("squares", squares, x.B * x.T * x.L);
    run("attention_map", device, stream,
        [&](cudaStream_t queue) { return cuda::attention_map(op, scratch, queue); });
}

void attention_map_backward(const MapTuple& map, const MapTuple& gradient, bool root_energy, bool l2_norm,
                            int64_t grad, int64_t attention, int64_t norm, int64_t weight, int device,
                            int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    const int64_t size = x.B * x.T * x.L;
    const AttentionMapBackward op{x,
                                  dx,
                                  root_energy,
                                  l2_norm,
                                  address("grad", grad, size),
                                  address("attention", attention, size),
                                  address("norm", norm, x.B * x.T),
                                  /*threads=*/0};
    float* const scratch = address<float>("weight", weight, size);
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
                         address("attention", attention, B * T * L),
                         address<const bool>("valid", valid, 0),
                         address("scores", scores, B * T * K),
                         address("total", total, B * K),
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
                                 address("grad", grad, B * T * K),
                                 address("attention", attention, B * T * L),
                                 address<const bool>("valid", valid, 0),
                                 address("scores", scores, B * T * K),
                                 address("total", total, B * K),
                                 address("dattention", dattention, B * T * L),
                                 /*threads=*/0};
    run("block_scores_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::block_scores_backward(op, queue); });
}

// Maps (B,1,2C,L) that lie in memory as x does.
FeatureMap fused_map(const char* name, const MapTuple& map, const FeatureMap& x) {
    const FeatureMap fused = float_map(name, map);
    check_same_layout(x, fused);
    if (fused.B != x.B || fused.T != 1 || fused.C != 2 * x.C || fused.L != x.L || fused.dtype != x.dtype)
        throw std::invalid_argument(std::string(name) + ": wanted a map (B,1,2C,L) for x (B,T,C,L)");
    return fused;
}

void fuse(const MapTuple& map, const MapTuple& fused, int64_t K, int64_t scores, int64_t valid,
          int64_t choice, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), result = fused_map("fused", fused, x);
    check_blocks(K, x.L);
    const Fuse op{x,
                  K,
                  address("scores", scores, x.B * x.T * K),
                  address<const bool>("valid", valid, 0),
                  result.data,
                  address<int64_t>("choice", choice, x.B * K),
                  /*threads=*/0};
    run("fuse", device, stream, [&](cudaStream_t queue) { return cuda::fuse(op, result, queue); });
}

void fuse_backward(const MapTuple& map, const MapTuple& gradient, const MapTuple& grad, int64_t K,
                   int64_t scores, int64_t choice, int64_t valid, int64_t dscores, int64_t parts, int device,
                   int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient),
                     upstream = fused_map("grad", grad, x);
    check_same_layout(x, dx);
    check_blocks(K, x.L);
    const FuseBackward op{x,
                          dx,
                          K,
                          upstream.data,
                          address("scores", scores, x.B * x.T * K),
                          address<const int64_t>("choice", choice, x.B * K),
                          address<const bool>("valid", valid, 0),
                          address("dscores", dscores, x.B * x.T * K),
                          /*threads=*/0};
    float* const scratch = address<float>("parts", parts, x.B * x.T * K);
    run("fuse_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::fuse_backward(op, upstream, scratch, queue); });
}

void region_pool(const MapTuple& map, int64_t K, int64_t weights, int64_t features, int64_t overlap,
                 int64_t parts, int64_t residual, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    const RegionPool op{x,
                        K,
                        /*logits=*/nullptr,
                        address("weights", weights, x.B * x.T * K * x.L),
                        address("features", features, x.B * x.T * K * x.C),
                        address("overlap", overlap, x.B * x.T),
                        /*threads=*/0};
    float* const sums = address<float>("parts", parts, cuda::region_pieces(x) > 1);
    float* const scratch = address<float>("residual", residual, x.B * x.T * K * K);
    run("region_pool", device, stream,
        [&](cudaStream_t queue) { return cuda::region_pool(op, sums, scratch, queue); });
}

void region_pool_backward(const MapTuple& map, const MapTuple& gradient, int64_t K, int64_t grad_features,
                          int64_t grad_weights, int64_t grad_overlap, int64_t weights, int64_t dlogits,
                          int64_t parts, int64_t residual, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    const RegionPoolBackward op{x,
                                dx,
                                K,
                                address("grad_features", grad_features, 0),
                                address("grad_weights", grad_weights, 0),
                                address("grad_overlap", grad_overlap, 0),
                                address("weights", weights, x.B * x.T * K * x.L),
                                address("dlogits", dlogits, x.B * x.T * K * x.L),
                                /*threads=*/0};
    float* const sums = address<float>("parts", parts, grad_features != 0);
    float* const scratch = address<float>("residual", residual, grad_overlap != 0);
    run("region_pool_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::region_pool_backward(op, sums, scratch, queue); });
}

std::optional<std::pair<std::string, std::string>> unusable(int device) {
    const cudaError_t status = on_device(device, cuda::usable);
    if (status == cudaSuccess) return std::nullopt;
    cudaGetLastError();  // told, so not to be found again by the next launch
    return {{cudaGetErrorName(status), cudaGetErrorString(status)}};
}

py::dict build_info() {
    py::dict info;
    info["compiler"] = VREID_CUDA_COMPILER;
    info["architectures"] = VREID_CUDA_ARCHITECTURES;
    info["runtime"] =
        std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
    return info;
}

}  // namespace
}  // namespace vreid

PYBIND11_MODULE(_cuda, m) {
    using namespace vreid;
    m.doc() = "CUDA kernels of vreid_ext; use them through vreid_ext.ops.";
    m.def("pieces", &pieces, "Pieces of the sums of squares and of the block sums of a map.");
    m.def("fuse_pieces", &fuse_pieces);
    m.def("region_pieces", &region_pieces);
    m.def("region_gradient_pieces", &region_gradient_pieces);
    m.def("sta_pool", &sta_pool);
    m.def("sta_pool_backward", &sta_pool_backward);
    m.def("attention_map", &attention_map);
    m.def("attention_map_backward", &attention_map_backward);
    m.def("block_scores", &block_scores);
    m.def("block_scores_backward", &block_scores_backward);
    m.def("fuse", &fuse);
    m.def("fuse_backward", &fuse_backward);
    m.def("region_pool", &region_pool);
    m.def("region_pool_backward", &region_pool_backward);
    bind_cuda_pairs(m);
    m.def("unusable", &unusable,
          "Name and text of the error that keeps a device from running the kernels, or None.");
    m.def("build_info", &build_info);
}
