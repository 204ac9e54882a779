// Searches tiles of a matrix product for the hardest pairs.
#pragma once

#include "common/mining.h"
#include "cpu/tile.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class A>
inline IntegerVec<A> load_ids(const Integer<A>* p) {
    IntegerVec<A> v;
    memcpy(&v, p, sizeof v);
    return v;
}

constexpr float kNothing = -__builtin_inff();

// The best score of each lane and its place; the first of equal scores is kept.
template <class A>
struct Best {
    Vec<A> score = Vec<A>{} + A(kNothing);
    IntegerVec<A> at = IntegerVec<A>{} - 1;

    void meet(Vec<A> candidate, IntegerVec<A> place) {
        const IntegerVec<A> better = candidate > score;
        score = better ? candidate : score;
        at = better ? place : at;
    }
};

// The results of one thread: the farthest positive of each anchor, then the nearest negative of each. Scores
// are squared distances minus the anchor's square, negated for negatives.
template <class A>
struct Found {
    A* score;        // (2, anchors)
    int64_t* index;  // (2, anchors)
    int64_t anchors;

    Found(const Scratch& memory, int thread, int64_t N)
        : score(memory.of<A>(thread)), index(reinterpret_cast<int64_t*>(score + 2 * N)), anchors(N) {}
    static int64_t bytes(int64_t N) { return 2 * N * int64_t(sizeof(A) + sizeof(int64_t)); }

    void clear() const {
        for (int64_t i = 0; i < 2 * anchors; ++i) {
            score[i] = A(kNothing);
            index[i] = -1;
        }
    }

    // Candidates are in ascending order, so the first of equal scores is kept.
    void keep(int64_t kind, int64_t anchor, A value, int64_t candidate) const {
        const int64_t i = kind * anchors + anchor;
        if (value > score[i]) {
            score[i] = value;
            index[i] = candidate;
        }
    }

    // Among equal scores the lane with the first candidate wins.
    void keep(int64_t kind, int64_t anchor, const Best<A>& best, int64_t first_candidate) const {
        if (!any(best.score > broadcast<A>(score[kind * anchors + anchor]))) return;
        int winner = 0;
        for (int i = 1; i < Lanes<A>::N; ++i) {
            if (best.score[i] > best.score[winner] ||
                (best.score[i] == best.score[winner] && best.at[i] < best.at[winner]))
                winner = i;
        }
        keep(kind, anchor, best.score[winner], first_candidate + best.at[winner]);
    }

    // The candidate of result i of all threads.
    static int64_t candidate(const Scratch& memory, int threads, int64_t N, int64_t i) {
        const Found own(memory, 0, N);
        A score = own.score[i];
        int64_t index = own.index[i];
        for (int thread = 1; thread < threads; ++thread) {
            const Found other(memory, thread, N);
            if (other.score[i] > score || (other.score[i] == score && other.index[i] < index)) {
                score = other.score[i];
                index = other.index[i];
            }
        }
        return index;
    }
};

// A tile of products, rows x columns from (first_row, first_column) on.
template <class A>
struct MineTile {
    const Mine& op;
    const A* products;
    int64_t stride, first_row, rows, first_column, columns;
    const Found<A>& found;

    const Integer<A>* row_id = static_cast<const Integer<A>*>(op.row_id) + first_row;
    const Integer<A>* column_id = static_cast<const Integer<A>*>(op.column_id) + first_column;
    const A* row_square = static_cast<const A*>(op.row_square) + first_row;
    const A* column_square = static_cast<const A*>(op.column_square) + first_column;

    // Searches the tile's columns for the anchor of row r.
    void row(int64_t r) const {
        constexpr int N = Lanes<A>::N;
        const A* line = products + r * stride;
        const int64_t anchor = first_row + r;
        const int64_t self = op.ref.data ? -1 : anchor - first_column;
        const Vec<A> none = Vec<A>{} + A(kNothing);
        const IntegerVec<A> id = IntegerVec<A>{} + row_id[r];
        IntegerVec<A> place;
        for (int i = 0; i < N; ++i) place[i] = Integer<A>(i);
        Best<A> positive, negative;
        int64_t c = 0;
        for (; c + N <= columns; c += N, place += N) {
            const Vec<A> d = load(column_square + c) - 2 * load(line + c);
            const IntegerVec<A> same = load_ids<A>(column_id + c) == id;
            positive.meet((same & (place != Integer<A>(self))) ? d : none, place);
            negative.meet(same ? none : -d, place);
        }
        found.keep(0, anchor, positive, first_column);
        found.keep(1, anchor, negative, first_column);
        for (; c < columns; ++c) {
            const A d = column_square[c] - 2 * line[c];
            const bool same = column_id[c] == row_id[r];
            if (!same || c != self) found.keep(!same, anchor, same ? d : -d, first_column + c);
        }
    }

    // Searches the tile's rows for the anchors of a vector of columns.
    void column_vector(int64_t c) const {
        const IntegerVec<A> id = load_ids<A>(column_id + c);
        const Vec<A> none = Vec<A>{} + A(kNothing);
        Best<A> positive, negative;
        positive.score = load(found.score + first_column + c);
        negative.score = load(found.score + found.anchors + first_column + c);
        for (int64_t r = 0; r < rows; ++r) {
            const Vec<A> d = row_square[r] - 2 * load(products + r * stride + c);
            const IntegerVec<A> same = id == row_id[r], place = IntegerVec<A>{} + Integer<A>(r);
            positive.meet(same ? d : none, place);
            negative.meet(same ? none : -d, place);
        }
        for (int i = 0; i < Lanes<A>::N; ++i) {
            const int64_t anchor = first_column + c + i;
            if (positive.at[i] >= 0) found.keep(0, anchor, positive.score[i], first_row + positive.at[i]);
            if (negative.at[i] >= 0) found.keep(1, anchor, negative.score[i], first_row + negative.at[i]);
        }
    }

    void column(int64_t c) const {
        for (int64_t r = 0; r < rows; ++r) {
            const A d = row_square[r] - 2 * products[r * stride + c];
            const bool same = row_id[r] == column_id[c];
            found.keep(!same, first_column + c, same ? d : -d, first_row + r);
        }
    }

    void search() const {
        for (int64_t r = 0; r < rows; ++r) row(r);
        if (op.ref.data) return;
        // The products of a set with itself are symmetric, so the columns after the tile's last row are
        // anchors, too.
        int64_t c = first_row + rows - first_column;
        c = c > 0 ? c : 0;
        for (; c + Lanes<A>::N <= columns; c += Lanes<A>::N) column_vector(c);
        for (; c < columns; ++c) column(c);
    }
};

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
