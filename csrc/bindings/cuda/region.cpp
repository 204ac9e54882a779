// Region pooling in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

int64_t region_pieces(const FeatureMapTuple& map) {
    return cuda::region_pieces(float_map("x", map));
}

int64_t region_gradient_pieces(const FeatureMapTuple& map, const FeatureMapTuple& gradient) {
    return cuda::region_gradient_pieces(float_map("x", map), float_map("dx", gradient));
}

void region_pool(const FeatureMapTuple& map, int64_t K, int64_t weights, int64_t features, int64_t overlap,
                 int64_t parts, int64_t residual, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    const RegionPool op{x,
                        K,
                        /*logits=*/nullptr,
                        pointer("weights", weights, x.B * x.T * K * x.L),
                        pointer("features", features, x.B * x.T * K * x.C),
                        pointer("overlap", overlap, x.B * x.T),
                        /*threads=*/0};
    float* const sums = pointer<float>("parts", parts, cuda::region_pieces(x) > 1);
    float* const scratch = pointer<float>("residual", residual, x.B * x.T * K * K);
    run("region_pool", device, stream,
        [&](cudaStream_t queue) { return cuda::region_pool(op, sums, scratch, queue); });
}

void region_pool_backward(const FeatureMapTuple& map, const FeatureMapTuple& gradient, int64_t K,
                          int64_t grad_features, int64_t grad_weights, int64_t grad_overlap, int64_t weights,
                          int64_t dlogits, int64_t parts, int64_t residual, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    check_same_layout(x, dx);
    const RegionPoolBackward op{x,
                                dx,
                                K,
                                nullable(grad_features),
                                nullable(grad_weights),
                                nullable(grad_overlap),
                                pointer("weights", weights, x.B * x.T * K * x.L),
                                pointer("dlogits", dlogits, x.B * x.T * K * x.L),
                                /*threads=*/0};
    float* const sums = pointer<float>("parts", parts, grad_features != 0);
    float* const scratch = pointer<float>("residual", residual, grad_overlap != 0);
    run("region_pool_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::region_pool_backward(op, sums, scratch, queue); });
}

}  // namespace

void bind_region(pybind11::module_& m) {
    VREID_DEFINE(m, region_pieces, region_gradient_pieces, region_pool, region_pool_backward);
}

}  // namespace vreid
