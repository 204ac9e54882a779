// Hard-pair mining and the triplet loss in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

Rows float_rows(const char* name, const RowsTuple& tuple) {
    const Rows x = rows(name, tuple);
    check_narrow(x.dtype);
    return x;
}

void mined_distance(const RowsTuple& x_rows, const RowsTuple& ref_rows, int64_t index, int64_t M,
                    int64_t metric, int64_t scale, int64_t ref_scale, int64_t distance, int device,
                    int64_t stream) {
    const Rows x = float_rows("x", x_rows), ref = float_rows("ref", ref_rows);
    const MinedDistance op{x,
                           ref,
                           pointer<const int64_t>("index", index, M * x.N),
                           M,
                           vreid::metric(metric),
                           pointer("distance", distance, M * x.N),
                           /*threads=*/0};
    run("mined_distance", device, stream, [&](cudaStream_t queue) {
        return cuda::mined_distance(op, nullable<const float>(scale), nullable<const float>(ref_scale),
                                    queue);
    });
}

void mined_distance_backward(const RowsTuple& x_rows, const RowsTuple& ref_rows, int64_t index, int64_t M,
                             int64_t metric, int64_t grad, int64_t distance, int64_t scale, int64_t ref_scale,
                             int64_t order, int64_t begin, bool of_ref, int64_t result, int device,
                             int64_t stream) {
    const Rows x = float_rows("x", x_rows), ref = float_rows("ref", ref_rows);
    const Rows& target = of_ref ? ref : x;
    const bool chosen = of_ref || !ref.data;
    void* const gradient = pointer("result", result, target.N * target.D);
    const cuda::PairGradient op{
        {x, ref, pointer<const int64_t>("index", index, M * x.N), M, vreid::metric(metric),
         pointer("grad", grad, M * x.N), pointer("distance", distance, M * x.N), of_ref ? nullptr : gradient,
         of_ref ? gradient : nullptr,
         /*threads=*/0},
        nullable<const float>(scale),
        nullable<const float>(ref_scale),
        pointer<const int64_t>("order", order, chosen),
        pointer<const int64_t>("begin", begin, chosen),
        of_ref};
    run("mined_distance_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::mined_distance_backward(op, queue); });
}

void triplet(int64_t N, int64_t distance, int64_t index, double margin, bool soft, int64_t loss,
             int64_t slope, int device, int64_t stream) {
    const Triplet op{DType::f32,
                     N,
                     pointer("distance", distance, 2 * N),
                     pointer<const int64_t>("index", index, 2 * N),
                     margin,
                     soft,
                     pointer("loss", loss, 1),
                     pointer("slope", slope, 2 * N)};
    run("triplet", device, stream, [&](cudaStream_t queue) { return cuda::triplet(op, queue); });
}

void identity_hard(const RowsTuple& x_rows, int64_t scale, int64_t order, int64_t begin, int64_t end,
                   int64_t metric, bool include_self, int64_t index, int device, int64_t stream) {
    const Rows x = float_rows("x", x_rows);
    const IdentityHard op{x,
                          /*labels=*/nullptr,
                          pointer<const int64_t>("order", order, x.N),
                          vreid::metric(metric),
                          include_self,
                          pointer<int64_t>("index", index, 2 * x.N),
                          /*threads=*/0};
    run("identity_hard", device, stream, [&](cudaStream_t queue) {
        return cuda::identity_hard(op, nullable<const float>(scale),
                                   pointer<const int64_t>("begin", begin, x.N),
                                   pointer<const int64_t>("end", end, x.N), queue);
    });
}

void split_rows(const RowsTuple& x_rows, int64_t mean, int64_t scale, int64_t pairs, int64_t factor,
                int64_t square, int device, int64_t stream) {
    const Rows x = float_rows("x", x_rows);
    const cuda::SplitRows op{x,
                             nullable<const float>(mean),
                             nullable<const float>(scale),
                             nullable(pairs),
                             pointer<float>("factor", factor, pairs ? x.N : 0),
                             pointer<float>("square", square, x.N)};
    run("split_rows", device, stream, [&](cudaStream_t queue) { return cuda::split_rows(op, queue); });
}

VREID_TUPLE(MineSide, data, rows, stride, width, factor, square, labels);

cuda::MineSide mine_side(const char* name, const MineSideTuple& t) {
    return {
        operand(name, t.data, t.rows, t.stride, t.width), pointer<const float>("factor", t.factor, t.rows),
        pointer<const float>("square", t.square, t.rows), pointer<const int64_t>("labels", t.labels, t.rows)};
}

void batch_hard(int64_t code, const MineSideTuple& anchors, const MineSideTuple& candidates, bool one_set,
                int64_t key, int64_t index, int device, int64_t stream) {
    const cuda::Mine op{dtype(code),
                        mine_side("anchors", anchors),
                        mine_side("candidates", candidates),
                        one_set,
                        pointer<int64_t>("key", key, 2 * anchors.rows),
                        pointer<int64_t>("index", index, 2 * anchors.rows)};
    check_narrow(op.dtype);
    if (anchors.width != candidates.width)
        fail("candidates", "rows of ", anchors.width, " bytes like anchors, got ", candidates.width);
    run("batch_hard", device, stream, [&](cudaStream_t queue) { return cuda::batch_hard(op, queue); });
}

}  // namespace

void bind_mining(pybind11::module_& m) {
    export_tuples<MineSideTuple>(m);
    VREID_DEFINE(m, split_rows, mined_distance, mined_distance_backward, triplet, identity_hard, batch_hard);
}

}  // namespace vreid
