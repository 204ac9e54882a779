// Hardest pairs from tiles of a matrix product: each tile is looked through while it is in the cache, and
// only the winners are kept. The product itself is the caller's.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/rows.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// Row after row over a few hundred columns: one column of many rows would touch a page for each number.
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

template <class T>
struct Prepared {
    Acc<T> square;
    Acc<T> special;  // zero, or NaN if a number of the row or its square is not finite
};

template <class T>
Prepared<T> subtract(const T* x, const Acc<T>* offset, Acc<T>* y, int64_t D) {
    Vec<T> total{}, special{};
    for_vectors<T>(D, [&](int64_t d, auto part) {
        const Vec<T> v = part.load(x + d), centred = v - part.load(offset + d);
        total += centred * centred;
        const Vec<T> own = v * v;
        special += own - own;
        part.store(y + d, centred);
    });
    return {sum_lanes(total), sum_lanes(special)};
}

template <class T>
Prepared<T> divide(const T* x, Acc<T>* y, int64_t D) {
    const Acc<T> square = squared_norm(x, D);
    const Vec<T> factor = broadcast<T>(inverse_norm(square));
    for_vectors<T>(D, [&](int64_t d, auto part) { part.store(y + d, part.load(x + d) * factor); });
    return {square, 0};
}

template <class T>
Status prepare(PrepareRows& op) {
    using A = Acc<T>;
    const int64_t N = op.x.N, D = op.x.D;
    int64_t special = N, large = N;
#pragma omp parallel num_threads(op.threads) reduction(min : special, large)
    {
        if (op.centre) mean<T>(op);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; ++i) {
            const T* x = row<T>(op.x, i);
            A* y = static_cast<A*>(op.prepared) + i * D;
            const Prepared<T> result =
                op.offset ? subtract(x, static_cast<const A*>(op.offset), y, D) : divide(x, y, D);
            static_cast<A*>(op.square)[i] = op.offset ? result.square : 0;
            if (result.special != 0 && i < special) special = i;  // NaN differs from zero
            if (result.square - result.square != 0 && i < large) large = i;
        }
    }
    // Through the mean, one such row makes the squares of all NaN; it is named itself.
    op.bad_row = special < N ? special : large < N ? large : -1;
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

constexpr float kNone = -__builtin_inff();

// The best score of each lane and where it was met; the first of equals stays.
template <class A>
struct Best {
    Vec<A> score = Vec<A>{} + A(kNone);
    IdVec<A> at = IdVec<A>{} - 1;

    void meet(Vec<A> candidate, IdVec<A> place) {
        const IdVec<A> better = candidate > score;
        score = better ? candidate : score;
        at = better ? place : at;
    }
};

template <class A>
struct Tile {
    const MineTile& op;
    const A* products;
    const Id<A>*row_id, *column_id;
    const A *row_square, *column_square;
    A* score;

    explicit Tile(const MineTile& tile)
        : op(tile),
          products(static_cast<const A*>(tile.tile)),
          row_id(static_cast<const Id<A>*>(tile.row_id) + tile.first_row),
          column_id(static_cast<const Id<A>*>(tile.column_id) + tile.first_column),
          row_square(static_cast<const A*>(tile.row_square) + tile.first_row),
          column_square(static_cast<const A*>(tile.column_square) + tile.first_column),
          score(static_cast<A*>(tile.score)) {}

    void keep(int64_t kind, int64_t anchor, A value, int64_t candidate) const {
        A& best = score[kind * op.anchors + anchor];
        if (value > best) {
            best = value;
            op.index[kind * op.anchors + anchor] = candidate;
        }
    }

    // Lanes in the order of candidates, so that the first of equals is kept here, too.
    void keep(int64_t kind, int64_t anchor, const Best<A>& best) const {
        constexpr int N = Lanes<A>::N;
        int winner = -1;
        for (int i = 0; i < N; ++i) {
            if (best.at[i] < 0) continue;
            if (winner < 0 || best.score[i] > best.score[winner] ||
                (best.score[i] == best.score[winner] && best.at[i] < best.at[winner]))
                winner = i;
        }
        if (winner >= 0) keep(kind, anchor, best.score[winner], op.first_column + best.at[winner]);
    }

    // The anchor of row r against the tile's columns.
    void row(int64_t r) const {
        constexpr int N = Lanes<A>::N;
        const A* line = products + r * op.columns;
        const int64_t anchor = op.first_row + r;
        const int64_t self = op.mirrored ? anchor - op.first_column : -1;
        const Vec<A> none = Vec<A>{} + A(kNone);
        const IdVec<A> id = IdVec<A>{} + row_id[r];
        IdVec<A> place;
        for (int i = 0; i < N; ++i) place[i] = Id<A>(i);
        Best<A> positive, negative;
        int64_t c = 0;
        for (; c + N <= op.columns; c += N, place += N) {
            const Vec<A> d = load(column_square + c) - 2 * load(line + c);
            const IdVec<A> same = load_ids<A>(column_id + c) == id;
            positive.meet((same & (place != Id<A>(self))) ? d : none, place);
            negative.meet(same ? none : -d, place);
        }
        keep(0, anchor, positive);
        keep(1, anchor, negative);
        for (; c < op.columns; ++c) {
            const A d = column_square[c] - 2 * line[c];
            const bool same = column_id[c] == row_id[r];
            if (!same || c != self) keep(!same, anchor, same ? d : -d, op.first_column + c);
        }
    }

    // The anchors of a vector of columns against the tile's rows.
    void columns(int64_t c) const {
        const IdVec<A> id = load_ids<A>(column_id + c);
        const Vec<A> none = Vec<A>{} + A(kNone);
        Best<A> positive, negative;
        positive.score = load(score + op.first_column + c);
        negative.score = load(score + op.anchors + op.first_column + c);
        for (int64_t r = 0; r < op.rows; ++r) {
            const Vec<A> d = row_square[r] - 2 * load(products + r * op.columns + c);
            const IdVec<A> same = id == row_id[r], place = IdVec<A>{} + Id<A>(r);
            positive.meet(same ? d : none, place);
            negative.meet(same ? none : -d, place);
        }
        for (int i = 0; i < Lanes<A>::N; ++i) {
            const int64_t anchor = op.first_column + c + i;
            if (positive.at[i] >= 0) keep(0, anchor, positive.score[i], op.first_row + positive.at[i]);
            if (negative.at[i] >= 0) keep(1, anchor, negative.score[i], op.first_row + negative.at[i]);
        }
    }

    void column(int64_t c) const {
        for (int64_t r = 0; r < op.rows; ++r) {
            const A d = row_square[r] - 2 * products[r * op.columns + c];
            const bool same = row_id[r] == column_id[c];
            keep(!same, op.first_column + c, same ? d : -d, op.first_row + r);
        }
    }
};

template <class A>
Status mine(const MineTile& op) {
    const Tile<A> tile(op);
    constexpr int64_t N = Lanes<A>::N;
    const int64_t from = op.mirrored ? op.first_row + op.rows - op.first_column : op.columns;
    const int64_t vectors = (op.columns - from) / N;
    // Waking a thread takes longer than looking through a small tile.
#pragma omp parallel num_threads(op.threads) if (op.rows * op.columns > 1 << 14)
    {
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < op.rows; ++r) tile.row(r);
#pragma omp for schedule(static) nowait
        for (int64_t v = 0; v < vectors; ++v) tile.columns(from + v * N);
#pragma omp for schedule(static)
        for (int64_t c = from + vectors * N; c < op.columns; ++c) tile.column(c);
    }
    return Status::ok;
}

template <class A>
Status gram(MineGram& op) {
    const int64_t N = op.N;
    const Scratch memory(1, N * int64_t(3 * sizeof(A) + sizeof(Id<A>)));
    if (!memory) return Status::out_of_memory;
    A *square = memory.of<A>(0), *score = square + N;
    Id<A>* id = reinterpret_cast<Id<A>*>(score + 2 * N);
    const A* products = static_cast<const A*>(op.products);
    double squares = 0, all = 0;
    bool fits = true;
    for (int64_t i = 0; i < N; ++i) {
        square[i] = products[i * N + i];
        squares += square[i];
        all += sum(products + i * N, N);
        id[i] = Id<A>(op.labels[i]);
        fits = fits && id[i] == op.labels[i];
    }
    op.done = fits && op.off_centre * (squares - all / double(N)) >= squares;  // NaN is not
    if (!op.done) return Status::ok;
    for (int64_t i = 0; i < 2 * N; ++i) {
        score[i] = A(kNone);
        op.index[i] = -1;
    }
    return mine<A>(MineTile{op.dtype, products, N, 0, N, 0, N, id, id, square, square, true, score, op.index,
                            op.threads});
}

}  // namespace

Status mine_gram(MineGram& op) {
    return op.dtype == DType::f64 ? gram<double>(op) : gram<float>(op);
}

Status prepare_rows(PrepareRows& op) {
    return dispatch(op.x.dtype, [&](auto element) { return prepare<decltype(element)>(op); });
}

Status mine_tile(const MineTile& op) {
    return op.dtype == DType::f64 ? mine<double>(op) : mine<float>(op);
}

}  // namespace VREID_ISA
}  // namespace vreid
