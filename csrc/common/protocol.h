// Arguments of the evaluation protocol: which gallery items match a query, and the scores of its ranks.
#pragma once

#include "common/tensors.h"

namespace vreid {

// The pairs of a query and a gallery item of the same person, in the order of the queries and then of the
// items. Rule r removes the pairs whose labels are equal (`same`) or different. The pairs that no rule
// removes are the positives; the others, and `itself`, are left out. The person -1 has no pairs.
//
// `count_matches` writes `order`, `first`, `last` and the starts. `matches` reads them and writes the lists,
// which are allocated in between.
struct Matches {
    int64_t Q, G, rules;
    const int64_t *query, *gallery;              // (Q), (G): the person
    const int64_t *query_label, *gallery_label;  // (rules,Q), (rules,G)
    const bool* same;                            // (rules)
    const int64_t* itself;                       // (Q): an item to remove, -1: none; may be null
    int64_t* order;                              // (G): the items sorted by person
    int64_t *first, *last;                       // (Q): the places in `order` of the query's person
    int64_t *start, *left_start;                 // (Q+1): the positives and the items left out of a query
    int64_t *row, *index;                        // (start[Q])
    int64_t* left;                               // (left_start[Q])
};

// AP, INP and the rank of the first positive of each query from the number of items before each positive.
struct RankScores {
    int64_t Q;
    const int64_t *start, *counts;  // (Q+1), (P)
    bool trapezoid;
    double *ap, *inp;  // (Q); NaN without a positive
    int64_t* first;    // (Q); 0 without a positive
};

}  // namespace vreid
