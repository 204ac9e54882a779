// Hardest pairs from tiles of a matrix product: each tile is searched while it is in the cache, and only the
// best candidates are kept.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/panels.h"
#include "cpu/row_distance.h"
#include "cpu/tile.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// Sums a few hundred columns at a time, row by row: a single column would access one memory page per element.
template <class T>
void mean(const PrepareRows& op) {
    using A = Acc<T>;
    constexpr int64_t kColumns = 512;
    const int64_t D = op.x.D, blocks = (D + kColumns - 1) / kColumns;
    const Vec<T> share = broadcast<T>(A(1) / A(op.x.N));
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * kColumns, size = D - first < kColumns ? D - first : kColumns;
        A* offset = static_cast<A*>(op.offset) + first;
        memset(offset, 0, size_t(size) * sizeof(A));
        for (int64_t i = 0; i < op.x.N; ++i) {
            const T* x = row<T>(op.x, i) + first;
            for_vectors<T>(size, [&](int64_t d, auto part) {
                part.store(offset + d, part.load(offset + d) + part.load(x + d));
            });
        }
        for_vectors<T>(size,
                       [&](int64_t d, auto part) { part.store(offset + d, part.load(offset + d) * share); });
    }
}

// For kLanes rows: `square` is the squared norm; `special` is NaN if an element or its square is not finite,
// otherwise zero.
template <class A>
struct Prepared {
    Vec<A> square, special;
};

template <class T>
Prepared<Acc<T>> subtract(const Rows& x, int64_t first, const Acc<T>* offset, Acc<T>* out) {
    using A = Acc<T>;
    BlockSum<A> square;
    Vec<A> special{};
    pack_lanes<T>(x, first, out, Panel<A>::kRows, [&](int64_t d, Vec<A> v) {
        const Vec<A> own = v * v, centred = v - offset[d];
        special += own - own;
        square.add(d, centred * centred);
        return centred;
    });
    return {square.value(), special};
}

template <class T>
Prepared<Acc<T>> divide(const Rows& x, int64_t first, Acc<T>* out) {
    using A = Acc<T>;
    Vec<A> factor{}, special{};
    for (int i = 0; i < Lanes<A>::N && first + i < x.N; ++i) {
        const A square = squared_norm(row<T>(x, first + i), x.D);
        factor[i] = inverse_norm(square);
        special[i] = square - square;
    }
    pack_lanes<T>(x, first, out, Panel<A>::kRows, [&](int64_t, Vec<A> v) { return v * factor; });
    return {Vec<A>{}, special};
}

template <class T>
Status prepare(PrepareRows& op) {
    using A = Acc<T>;
    using P = Panel<A>;
    constexpr int N = P::kLanes;
    const int64_t D = op.x.D;
    int64_t special = op.x.N, large = op.x.N;
#pragma omp parallel num_threads(op.threads) reduction(min : special, large)
    {
        if (op.centre) mean<T>(op);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < op.x.N; first += N) {
            A* out = static_cast<A*>(op.panels) + P::offset(first, D);
            const Prepared<A> result = op.offset
                                           ? subtract<T>(op.x, first, static_cast<const A*>(op.offset), out)
                                           : divide<T>(op.x, first, out);
            for (int i = 0; i < N && first + i < op.x.N; ++i) {
                const A square = result.square[i];
                static_cast<A*>(op.square)[first + i] = square;
                if (result.special[i] != 0) special = smaller(special, first + i);  // NaN != 0
                if (square - square != 0) large = smaller(large, first + i);
            }
        }
    }
    // After centering, one non-finite row makes the squares of all rows NaN; report the row that was
    // non-finite.
    op.bad_row = special < op.x.N ? special : large < op.x.N ? large : -1;
    return Status::ok;
}

template <class A>
struct Ids;
template <>
struct Ids<float> {
    using Id = int32_t;
    typedef int32_t V __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Ids<double> {
    using Id = int64_t;
    typedef int64_t V __attribute__((vector_size(kVectorBytes)));
};
template <class A>
using Id = typename Ids<A>::Id;
template <class A>
using IdVec = typename Ids<A>::V;

template <class A>
inline IdVec<A> load_ids(const Id<A>* p) {
    IdVec<A> v;
    memcpy(&v, p, sizeof v);
    return v;
}

constexpr float kNothing = -__builtin_inff();

// The best score of each lane and its place; the first of equal scores is kept.
template <class A>
struct Best {
    Vec<A> score = Vec<A>{} + A(kNothing);
    IdVec<A> at = IdVec<A>{} - 1;

    void meet(Vec<A> candidate, IdVec<A> place) {
        const IdVec<A> better = candidate > score;
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

    void merge(const Found& other) const {
        for (int64_t i = 0; i < 2 * anchors; ++i) {
            if (other.score[i] > score[i] || (other.score[i] == score[i] && other.index[i] < index[i])) {
                score[i] = other.score[i];
                index[i] = other.index[i];
            }
        }
    }
};

// A tile of products, rows x columns from (first_row, first_column) on.
template <class A>
struct MineTile {
    const Mine& op;
    const A* products;
    int64_t stride, first_row, rows, first_column, columns;
    const Found<A>& found;

    const Id<A>* row_id = static_cast<const Id<A>*>(op.row_id) + first_row;
    const Id<A>* column_id = static_cast<const Id<A>*>(op.column_id) + first_column;
    const A* row_square = static_cast<const A*>(op.row_square) + first_row;
    const A* column_square = static_cast<const A*>(op.column_square) + first_column;

    // Searches the tile's columns for the anchor of row r.
    void row(int64_t r) const {
        constexpr int N = Lanes<A>::N;
        const A* line = products + r * stride;
        const int64_t anchor = first_row + r;
        const int64_t self = op.ref.data ? -1 : anchor - first_column;
        const Vec<A> none = Vec<A>{} + A(kNothing);
        const IdVec<A> id = IdVec<A>{} + row_id[r];
        IdVec<A> place;
        for (int i = 0; i < N; ++i) place[i] = Id<A>(i);
        Best<A> positive, negative;
        int64_t c = 0;
        for (; c + N <= columns; c += N, place += N) {
            const Vec<A> d = load(column_square + c) - 2 * load(line + c);
            const IdVec<A> same = load_ids<A>(column_id + c) == id;
            positive.meet((same & (place != Id<A>(self))) ? d : none, place);
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
        const IdVec<A> id = load_ids<A>(column_id + c);
        const Vec<A> none = Vec<A>{} + A(kNothing);
        Best<A> positive, negative;
        positive.score = load(found.score + first_column + c);
        negative.score = load(found.score + found.anchors + first_column + c);
        for (int64_t r = 0; r < rows; ++r) {
            const Vec<A> d = row_square[r] - 2 * load(products + r * stride + c);
            const IdVec<A> same = id == row_id[r], place = IdVec<A>{} + Id<A>(r);
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

template <class A>
Status mine_all(const Mine& op) {
    const Panels& ref = op.ref.data ? op.ref : op.x;
    const int64_t N = op.x.N, D = op.x.D;
    const Tiling<A> tiles(N, ref.N, op.threads);
    const Scratch memory(op.threads, Found<A>::bytes(N));
    const Scratch products(op.threads, tiles.kNumbers * int64_t(sizeof(A)));
    if (!memory || !products) return Status::out_of_memory;
    for (int thread = 0; thread < op.threads; ++thread) Found<A>(memory, thread, N).clear();
#pragma omp parallel num_threads(op.threads)
    {
        const Found<A> found(memory, omp_get_thread_num(), N);
        A* tile = products.of<A>(omp_get_thread_num());
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tiles.size(); ++t) {
            const Cut cut = tiles.cut(t);
            const int64_t bottom = cut.top + cut.rows, right = cut.left + cut.columns;
            // The upper triangle of a symmetric product is enough. A tile on the diagonal is computed in
            // strips, each from the column of its first row on.
            const bool crossed = !op.ref.data && cut.left < bottom;
            const int64_t height = crossed ? tiles.kUnit : cut.rows;
            for (int64_t top = cut.top; top < bottom; top += height) {
                const int64_t rows = smaller(height, bottom - top);
                const int64_t left = crossed && cut.left < top ? top : cut.left, columns = right - left;
                if (columns <= 0) break;
                multiply(PackedRows<A>{static_cast<const A*>(op.x.data), top, D}, rows,
                         static_cast<const A*>(ref.data), left, columns, D, tile, tiles.width);
                MineTile<A>{op, tile, tiles.width, top, rows, left, columns, found}.search();
            }
        }
    }
    const Found<A> found(memory, 0, N);
    for (int thread = 1; thread < op.threads; ++thread) found.merge(Found<A>(memory, thread, N));
    memcpy(op.index, found.index, size_t(2 * N) * sizeof(int64_t));
    return Status::ok;
}

}  // namespace

Status prepare_rows(PrepareRows& op) {
    return dispatch(op.x.dtype, [&](auto element) { return prepare<decltype(element)>(op); });
}

Status mine(const Mine& op) {
    return op.dtype == DType::f64 ? mine_all<double>(op) : mine_all<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
