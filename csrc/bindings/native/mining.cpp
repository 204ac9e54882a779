// Hard-pair mining and the triplet loss in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

int64_t prepare_rows(const RowsTuple& x, int64_t offset, bool centre, int64_t panels, int64_t square,
                     int threads) {
    const Rows given = rows("x", x);
    PrepareRows op{given,
                   pointer("offset", offset, centre ? given.D : 0),
                   centre,
                   pointer("panels", panels, given.N * given.D),
                   pointer("square", square, given.N),
                   -1,
                   check_threads(threads)};
    run(&Table::prepare_rows, op);
    return op.bad_row;
}

void mine(int64_t code, const PanelsTuple& x, const PanelsTuple& ref, int64_t row_id, int64_t column_id,
          int64_t row_square, int64_t column_square, int64_t index, int threads) {
    const Panels anchors = panels("x", x), others = panels("ref", ref);
    if (others.data && others.D != anchors.D) fail("ref", "D = ", anchors.D, ", got ", others.D);
    const int64_t candidates = others.data ? others.N : anchors.N;
    const Mine op{dtype(code),
                  anchors,
                  others,
                  pointer("row_id", row_id, anchors.N),
                  pointer("column_id", column_id, candidates),
                  pointer("row_square", row_square, anchors.N),
                  pointer("column_square", column_square, candidates),
                  pointer<int64_t>("index", index, 2 * anchors.N),
                  check_threads(threads)};
    run(&Table::mine, op);
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
    VREID_DEFINE(m, prepare_rows, mine, mined_distance, mined_distance_backward, triplet, identity_hard);
}

}  // namespace vreid
