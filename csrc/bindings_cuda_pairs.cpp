// Mining, the part metric and ranks in vreid_ext._cuda.
#include "bindings_cuda.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

Rows float_rows(const char* name, const RowsTuple& tuple) {
    const Rows x = rows(name, tuple);
    if (x.dtype == DType::f64) throw std::invalid_argument("dtype: got code 1, wanted 0, 2 or 3");
    return x;
}

void mined_distance(const RowsTuple& x_rows, const RowsTuple& ref_rows, int64_t index, int64_t M,
                    int64_t metric, int64_t scale, int64_t ref_scale, int64_t distance, int device,
                    int64_t stream) {
    const Rows x = float_rows("x", x_rows), ref = float_rows("ref", ref_rows);
    const MinedDistance op{x,
                           ref,
                           address<const int64_t>("index", index, M * x.N),
                           M,
                           mining_metric(metric),
                           address("distance", distance, M * x.N),
                           /*threads=*/0};
    run("mined_distance", device, stream, [&](cudaStream_t queue) {
        return cuda::mined_distance(op, address<const float>("scale", scale, 0),
                                    address<const float>("ref_scale", ref_scale, 0), queue);
    });
}

void mined_distance_backward(const RowsTuple& x_rows, const RowsTuple& ref_rows, int64_t index, int64_t M,
                             int64_t metric, int64_t grad, int64_t distance, int64_t scale, int64_t ref_scale,
                             int64_t order, int64_t begin, bool of_ref, int64_t result, int device,
                             int64_t stream) {
    const Rows x = float_rows("x", x_rows), ref = float_rows("ref", ref_rows);
    const Rows& target = of_ref ? ref : x;
    const bool chosen = of_ref || !ref.data;
    void* const gradient = address("result", result, target.N * target.D);
    const cuda::PairGradient op{
        {x, ref, address<const int64_t>("index", index, M * x.N), M, mining_metric(metric),
         address("grad", grad, M * x.N), address("distance", distance, M * x.N), of_ref ? nullptr : gradient,
         of_ref ? gradient : nullptr,
         /*threads=*/0},
        address<const float>("scale", scale, 0),
        address<const float>("ref_scale", ref_scale, 0),
        address<const int64_t>("order", order, chosen),
        address<const int64_t>("begin", begin, chosen),
        of_ref};
    run("mined_distance_backward", device, stream,
        [&](cudaStream_t queue) { return cuda::mined_distance_backward(op, queue); });
}

void triplet(int64_t N, int64_t distance, int64_t index, double margin, bool soft, int64_t loss,
             int64_t slope, int device, int64_t stream) {
    const Triplet op{DType::f32,
                     N,
                     address("distance", distance, 2 * N),
                     address<const int64_t>("index", index, 2 * N),
                     margin,
                     soft,
                     address("loss", loss, 1),
                     address("slope", slope, 2 * N)};
    run("triplet", device, stream, [&](cudaStream_t queue) { return cuda::triplet(op, queue); });
}

void identity_hard(const RowsTuple& x_rows, int64_t scale, int64_t order, int64_t begin, int64_t end,
                   int64_t metric, bool include_self, int64_t index, int device, int64_t stream) {
    const Rows x = float_rows("x", x_rows);
    const IdentityHard op{x,
                          /*labels=*/nullptr,
                          address<const int64_t>("order", order, x.N),
                          mining_metric(metric),
                          include_self,
                          address<int64_t>("index", index, 2 * x.N),
                          /*threads=*/0};
    run("identity_hard", device, stream, [&](cudaStream_t queue) {
        return cuda::identity_hard(op, address<const float>("scale", scale, 0),
                                   address<const int64_t>("begin", begin, x.N),
                                   address<const int64_t>("end", end, x.N), queue);
    });
}

template <class T>
T* aligned(const char* name, int64_t value, int64_t size, int64_t D) {
    if (value % 16 != 0 || D % 4 != 0)
        throw std::invalid_argument(std::string(name) + ": got address " + std::to_string(value) +
                                    " and rows of " + std::to_string(D) +
                                    " numbers, wanted multiples of 16 and 4");
    return address<T>(name, value, size);
}

void batch_hard(int64_t N, int64_t M, int64_t D, int64_t rows, int64_t candidates, int64_t squares,
                int64_t labels, int64_t candidate_labels, bool mirrored, int64_t splits, int64_t score,
                int64_t found, int64_t index, int device, int64_t stream) {
    const cuda::Mine op{N,
                        M,
                        D,
                        aligned<const float>("rows", rows, N * D, D),
                        aligned<const float>("candidates", candidates, M * D, D),
                        address<const float>("squares", squares, M),
                        address<const int64_t>("labels", labels, N),
                        address<const int64_t>("candidate_labels", candidate_labels, M),
                        mirrored,
                        splits,
                        address<float>("score", score, splits * 2 * N),
                        address<int64_t>("found", found, splits * 2 * N),
                        address<int64_t>("index", index, 2 * N)};
    if (splits < 1)
        throw std::invalid_argument("splits: got " + std::to_string(splits) + ", wanted at least 1");
    run("batch_hard", device, stream, [&](cudaStream_t queue) { return cuda::batch_hard(op, queue); });
}

// (Q, G, R, D, then addresses: features, squared norms and weights of the queries, then of the gallery)
using PartTuple = std::array<int64_t, 10>;

cuda::PartMetric part_metric(const PartTuple& tuple) {
    const auto [Q, G, R, D, query, query_square, query_weight, gallery, gallery_square, gallery_weight] =
        tuple;
    return {Q,
            G,
            R,
            D,
            aligned<const float>("query", query, Q * R * D, D),
            aligned<const float>("gallery", gallery, G * R * D, D),
            address<const float>("query_square", query_square, Q * R),
            address<const float>("gallery_square", gallery_square, G * R),
            address<const float>("query_weight", query_weight, Q * R),
            address<const float>("gallery_weight", gallery_weight, G * R)};
}

void part_distance(const PartTuple& tuple, int64_t distance, int device, int64_t stream) {
    const cuda::PartMetric op = part_metric(tuple);
    float* const result = address<float>("distance", distance, op.Q * op.G);
    run("part_distance", device, stream,
        [&](cudaStream_t queue) { return cuda::part_distance(op, result, queue); });
}

void part_slopes(const PartTuple& tuple, int64_t r, int64_t grad, int64_t slope, int64_t length, int device,
                 int64_t stream) {
    const cuda::PartMetric op = part_metric(tuple);
    const int64_t size = op.Q * op.G;
    if (r < 0 || r >= op.R)
        throw std::invalid_argument("r: got " + std::to_string(r) + " of " + std::to_string(op.R) + " parts");
    run("part_distance_backward", device, stream, [&](cudaStream_t queue) {
        return cuda::part_slopes(op, r, address<const float>("grad", grad, size),
                                 address<float>("slope", slope, size), address<float>("length", length, size),
                                 queue);
    });
}

void rank_counts(int64_t Q, int64_t G, int64_t offset, int64_t values, int64_t kept, int64_t left_start,
                 int64_t left, int64_t start, int64_t distance, int64_t index, int64_t counts, int device,
                 int64_t stream) {
    RankCounts op{};
    op.tile.dtype = DType::f32;
    op.tile.Q = Q;
    op.tile.G = G;
    op.tile.offset = offset;
    op.tile.values = address("values", values, Q * G);
    op.tile.kept = address<const bool>("kept", kept, 0);
    op.tile.left_start = address<const int64_t>("left_start", left_start, left != 0);
    op.tile.left = address<const int64_t>("left", left, 0);
    op.start = address<const int64_t>("start", start, Q + 1);
    op.distance = address<const double>("distance", distance, 0);
    op.index = address<const int64_t>("index", index, 0);
    op.counts = address<int64_t>("counts", counts, 0);
    run("rank_counts", device, stream, [&](cudaStream_t queue) { return cuda::rank_counts(op, queue); });
}

}  // namespace

void bind_cuda_pairs(pybind11::module_& m) {
    m.def("mined_distance", &mined_distance);
    m.def("mined_distance_backward", &mined_distance_backward);
    m.def("triplet", &triplet);
    m.def("identity_hard", &identity_hard);
    m.def("mine_splits", &cuda::mine_splits, "Pieces of the candidates that batch_hard wants.");
    m.def("batch_hard", &batch_hard);
    m.def("part_distance", &part_distance);
    m.def("part_slopes", &part_slopes);
    m.def("rank_counts", &rank_counts);
}

}  // namespace vreid
