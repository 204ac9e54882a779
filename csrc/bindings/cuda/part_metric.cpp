// The part metric in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

VREID_TUPLE(PartMetric, dtype, Q, G, R, D);
VREID_TUPLE(PartRows, data, stride, width, factor, features, square, weight);

cuda::PartRows part_rows(const char* name, const PartRowsTuple& t, int64_t rows, int64_t D) {
    return {operand(name, t.data, rows, t.stride, t.width), nullable<const float>(t.factor),
            pointer(name, t.features, rows * D), pointer<const float>("square", t.square, rows),
            pointer<const float>("weight", t.weight, rows)};
}

cuda::PartMetric part_metric(const PartMetricTuple& t, const PartRowsTuple& query,
                             const PartRowsTuple& gallery) {
    check_sizes("sizes", {t.Q, t.G, t.R, t.D});
    const cuda::PartMetric op{dtype(t.dtype),
                              t.Q,
                              t.G,
                              t.R,
                              t.D,
                              part_rows("query", query, t.Q * t.R, t.D),
                              part_rows("gallery", gallery, t.G * t.R, t.D)};
    check_narrow(op.dtype);
    if (query.width != gallery.width || !query.factor != !gallery.factor)
        fail("gallery", "rows of ", query.width, " bytes like query, and factors if query has them, got ",
             gallery.width, " bytes");
    return op;
}

void part_distance(const PartMetricTuple& sizes, const PartRowsTuple& query, const PartRowsTuple& gallery,
                   int64_t distance, int device, int64_t stream) {
    const cuda::PartMetric op = part_metric(sizes, query, gallery);
    float* const result = pointer<float>("distance", distance, op.Q * op.G);
    run("part_distance", device, stream,
        [&](cudaStream_t queue) { return cuda::part_distance(op, result, queue); });
}

void part_slopes(const PartMetricTuple& sizes, const PartRowsTuple& query, const PartRowsTuple& gallery,
                 int64_t r, int64_t grad, int64_t slope, int64_t length, int device, int64_t stream) {
    const cuda::PartMetric op = part_metric(sizes, query, gallery);
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
    export_tuples<PartMetricTuple, PartRowsTuple>(m);
    VREID_DEFINE(m, part_distance, part_slopes);
}

}  // namespace vreid
