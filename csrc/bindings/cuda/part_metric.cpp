// The part metric in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

VREID_TUPLE(PartMetric, Q, G, R, D, query, query_square, query_weight, gallery, gallery_square,
            gallery_weight);

cuda::PartMetric part_metric(const PartMetricTuple& t) {
    const int64_t queries = t.Q * t.R, items = t.G * t.R;
    return {t.Q,
            t.G,
            t.R,
            t.D,
            aligned<const float>("query", t.query, queries * t.D, t.D),
            aligned<const float>("gallery", t.gallery, items * t.D, t.D),
            pointer<const float>("query_square", t.query_square, queries),
            pointer<const float>("gallery_square", t.gallery_square, items),
            pointer<const float>("query_weight", t.query_weight, queries),
            pointer<const float>("gallery_weight", t.gallery_weight, items)};
}

void part_distance(const PartMetricTuple& tuple, int64_t distance, int device, int64_t stream) {
    const cuda::PartMetric op = part_metric(tuple);
    float* const result = pointer<float>("distance", distance, op.Q * op.G);
    run("part_distance", device, stream,
        [&](cudaStream_t queue) { return cuda::part_distance(op, result, queue); });
}

void part_slopes(const PartMetricTuple& tuple, int64_t r, int64_t grad, int64_t slope, int64_t length,
                 int device, int64_t stream) {
    const cuda::PartMetric op = part_metric(tuple);
    const int64_t size = op.Q * op.G;
    check_range("r", r, 0, op.R - 1);
    run("part_distance_backward", device, stream, [&](cudaStream_t queue) {
        return cuda::part_slopes(op, r, pointer<const float>("grad", grad, size),
                                 pointer<float>("slope", slope, size), pointer<float>("length", length, size),
                                 queue);
    });
}

}  // namespace

void bind_part_metric(pybind11::module_& m) {
    export_tuples<PartMetricTuple>(m);
    VREID_DEFINE(m, part_distance, part_slopes);
}

}  // namespace vreid
