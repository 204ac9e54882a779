// The evaluation protocol in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

VREID_TUPLE(LabelledItems, Q, G, rules, query, gallery, query_label, gallery_label, same, itself);
VREID_TUPLE(Sorted, order, first, last, start, left_start);

Matches pairs(const LabelledItemsTuple& items, const SortedTuple& sorted) {
    check_sizes("items", {items.Q, items.G, items.rules});
    return {items.Q,
            items.G,
            items.rules,
            pointer<const int64_t>("query", items.query, items.Q),
            pointer<const int64_t>("gallery", items.gallery, items.G),
            pointer<const int64_t>("query_label", items.query_label, items.rules * items.Q),
            pointer<const int64_t>("gallery_label", items.gallery_label, items.rules * items.G),
            pointer<const bool>("same", items.same, items.rules),
            items.itself ? checked_indices("itself", items.itself, items.Q, -1, items.G - 1) : nullptr,
            pointer<int64_t>("order", sorted.order, items.G),
            pointer<int64_t>("first", sorted.first, items.Q),
            pointer<int64_t>("last", sorted.last, items.Q),
            pointer<int64_t>("start", sorted.start, items.Q + 1),
            pointer<int64_t>("left_start", sorted.left_start, items.Q + 1),
            nullptr,
            nullptr,
            nullptr};
}

void count_matches(const LabelledItemsTuple& items, const SortedTuple& sorted) {
    const Matches op = pairs(items, sorted);
    run(&Table::count_matches, op);
}

void matches(const LabelledItemsTuple& items, const SortedTuple& sorted, int64_t row, int64_t index,
             int64_t left) {
    Matches op = pairs(items, sorted);
    checked_indices("order", sorted.order, op.G, 0, op.G - 1);
    checked_indices("first", sorted.first, op.Q, 0, op.G);
    checked_indices("last", sorted.last, op.Q, 0, op.G);
    op.row = pointer<int64_t>("row", row, op.start[op.Q]);
    op.index = pointer<int64_t>("index", index, op.start[op.Q]);
    op.left = pointer<int64_t>("left", left, op.left_start[op.Q]);
    run(&Table::matches, op);
}

void rank_scores(int64_t Q, int64_t P, int64_t start, int64_t counts, bool trapezoid, int64_t ap, int64_t inp,
                 int64_t first) {
    const RankScores op{Q,
                        checked_starts("start", start, Q, P),
                        pointer<const int64_t>("counts", counts, P),
                        trapezoid,
                        pointer<double>("ap", ap, Q),
                        pointer<double>("inp", inp, Q),
                        pointer<int64_t>("first", first, Q)};
    run(&Table::rank_scores, op);
}

}  // namespace

void bind_protocol(pybind11::module_& m) {
    export_tuples<LabelledItemsTuple, SortedTuple>(m);
    VREID_DEFINE(m, count_matches, matches, rank_scores);
}

}  // namespace vreid
