// Ranks by counting in vreid_ext._cuda.
#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

void rank_counts(int64_t Q, int64_t G, int64_t offset, int64_t values, int64_t kept, int64_t left_start,
                 int64_t left, int64_t start, int64_t distance, int64_t index, int64_t counts, int device,
                 int64_t stream) {
    RankCounts op{};
    op.tile.dtype = DType::f32;
    op.tile.Q = Q;
    op.tile.G = G;
    op.tile.offset = offset;
    op.tile.values = pointer("values", values, Q * G);
    op.tile.kept = nullable<const bool>(kept);
    op.tile.left_start = pointer<const int64_t>("left_start", left_start, left != 0);
    op.tile.left = nullable<const int64_t>(left);
    op.start = pointer<const int64_t>("start", start, Q + 1);
    op.distance = nullable<const double>(distance);
    op.index = nullable<const int64_t>(index);
    op.counts = nullable<int64_t>(counts);
    run("rank_counts", device, stream, [&](cudaStream_t queue) { return cuda::rank_counts(op, queue); });
}

}  // namespace

void bind_ranking(pybind11::module_& m) {
    VREID_DEFINE(m, rank_counts);
}

}  // namespace vreid
