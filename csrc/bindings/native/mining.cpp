// Hard-pair mining and the triplet loss in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

// The labels as ids of the type that `mine` compares: int64 for double, otherwise int32, written to `ids`.
// Null if some label does not fit.
const void* ids_of(const int64_t* labels, int64_t N, DType sums, void* ids) {
    if (sums == DType::f64) return labels;
    int32_t* narrow = static_cast<int32_t*>(ids);
    for (int64_t i = 0; i < N; ++i) {
        narrow[i] = int32_t(labels[i]);
        if (narrow[i] != labels[i]) return nullptr;
    }
    return ids;
}

DType sums_of(const Rows& rows) {
    return rows.dtype == DType::f64 ? DType::f64 : DType::f32;
}

// Elements of packed rows, with the padding of the last panel.
int64_t packed_size(const Rows& rows) {
    const int64_t step = kernels().table->panel_rows(sums_of(rows));
    return rows.data ? (rows.N + step - 1) / step * step * rows.D : 0;
}

constexpr int64_t kFinite = -1, kWideLabels = -2;

// The memory that batch_hard needs for packed rows of x and ref: elements in the dtype of the sums.
int64_t batch_hard_packed(const RowsTuple& x, const RowsTuple& ref) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    if (!others.data && is_small_batch(anchors.N, anchors.D)) return 0;
    return packed_size(anchors) + packed_size(others);
}

// Finds the hardest pairs and their distances. Returns kFinite, kWideLabels if a label does not fit into the
// ids, or the first row that is not finite; rows of ref are counted after those of x.
int64_t batch_hard(const RowsTuple& x, const RowsTuple& ref, int64_t labels, int64_t ref_labels,
                   int64_t metric, int64_t packed, int64_t index, int64_t distance, int threads) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    if (others.data && (others.D != anchors.D || others.dtype != anchors.dtype))
        fail("ref", "the dtype of x and D = ", anchors.D, ", got D = ", others.D);
    const Metric kind = vreid::metric(metric);
    const DType sums = sums_of(anchors);
    const int64_t N = anchors.N, M = others.data ? others.N : 0, D = anchors.D;
    const int64_t size = sums == DType::f64 ? 8 : 4;
    char* panels = pointer<char>("packed", packed, batch_hard_packed(x, ref));
    const int64_t* label = pointer<const int64_t>("labels", labels, N);
    const int64_t* ref_label = pointer<const int64_t>("ref_labels", ref_labels, M);
    int64_t* indices = pointer<int64_t>("index", index, 2 * N);
    void* distances = pointer("distance", distance, 2 * N);
    check_threads(threads);
    std::vector<char> numbers(size_t((D + 2 * (N + M)) * size));
    char* next = numbers.data();
    const auto take = [&](int64_t count) {
        char* taken = next;
        next += count * size;
        return static_cast<void*>(taken);
    };
    const void* row_id = ids_of(label, N, sums, take(N));
    const void* column_id = M > 0 ? ids_of(ref_label, M, sums, take(M)) : row_id;
    if (!row_id || !column_id) return kWideLabels;
    if (!others.data && is_small_batch(N, D)) {
        MineBatch op{anchors, kind, row_id, indices, distances, -1, threads};
        run(&Table::mine_batch, op);
        return op.bad_row;
    }
    PrepareRows prepared{anchors, nullptr, false, panels, nullptr, -1, threads};
    PrepareRows other{others, nullptr, false, panels + packed_size(anchors) * size, nullptr, -1, threads};
    if (kind != Metric::cosine) prepared.offset = other.offset = take(D);
    prepared.centre = prepared.offset != nullptr;
    prepared.square = take(N);
    other.square = take(M);
    run(&Table::prepare_rows, prepared);
    if (prepared.bad_row >= 0) return prepared.bad_row;
    if (M > 0) run(&Table::prepare_rows, other);
    if (other.bad_row >= 0) return N + other.bad_row;
    const Mine op{sums,      {prepared.panels, N, D}, {M > 0 ? other.panels : nullptr, M, D}, row_id,
                  column_id, prepared.square,         M > 0 ? other.square : prepared.square, indices,
                  threads};
    run(&Table::mine, op);
    const MinedDistance selected{anchors, others, indices, 2, kind, distances, threads};
    run(&Table::mined_distance, selected);
    return kFinite;
}

// index (M,N) of rows of `others` or, if there are none, of `anchors`; -1 for no row.
const int64_t* chosen_rows(int64_t index, int64_t M, const Rows& anchors, const Rows& others) {
    const int64_t rows = others.data ? others.N : anchors.N;
    return checked_indices("index", index, M * anchors.N, -1, rows - 1);
}

void mined_distance(const RowsTuple& x, const RowsTuple& ref, int64_t index, int64_t M, int64_t metric,
                    int64_t distance, int threads) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    MinedDistance op{anchors,
                     others,
                     chosen_rows(index, M, anchors, others),
                     M,
                     vreid::metric(metric),
                     pointer("distance", distance, M * anchors.N),
                     check_threads(threads)};
    run(&Table::mined_distance, op);
}

void mined_distance_backward(const RowsTuple& x, const RowsTuple& ref, int64_t index, int64_t M,
                             int64_t metric, int64_t grad, int64_t distance, int64_t dx, int64_t dref,
                             int threads) {
    const Rows anchors = rows("x", x), others = rows("ref", ref);
    MinedDistanceBackward op{anchors,
                             others,
                             chosen_rows(index, M, anchors, others),
                             M,
                             vreid::metric(metric),
                             pointer("grad", grad, M * anchors.N),
                             pointer("distance", distance, M * anchors.N),
                             nullable(dx),
                             nullable(dref),
                             check_threads(threads)};
    run(&Table::mined_distance_backward, op);
}

void triplet(int64_t code, int64_t N, int64_t distance, int64_t index, double margin, bool soft, int64_t loss,
             int64_t slope) {
    Triplet op{dtype(code),
               N,
               pointer("distance", distance, 2 * N),
               pointer<const int64_t>("index", index, 2 * N),
               margin,
               soft,
               pointer("loss", loss, 1),
               pointer("slope", slope, 2 * N)};
    run(&Table::triplet, op);
}

void identity_hard(const RowsTuple& x, int64_t labels, int64_t order, int64_t metric, bool include_self,
                   int64_t index, int threads) {
    const Rows given = rows("x", x);
    IdentityHard op{given,
                    pointer<const int64_t>("labels", labels, given.N),
                    checked_indices("order", order, given.N, 0, given.N - 1),
                    vreid::metric(metric),
                    include_self,
                    pointer<int64_t>("index", index, 2 * given.N),
                    check_threads(threads)};
    run(&Table::identity_hard, op);
}

}  // namespace

void bind_mining(pybind11::module_& m) {
    m.attr("WIDE_LABELS") = kWideLabels;
    VREID_DEFINE(m, batch_hard, batch_hard_packed, mined_distance, mined_distance_backward, triplet,
                 identity_hard);
}

}  // namespace vreid
