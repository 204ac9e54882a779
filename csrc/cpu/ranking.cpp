// Ranks by counting: how many items of a tile come before each positive of its query. No row is sorted.
//
// Keys are compared with an interval around each positive's key. Outside it the comparison is certain;
// the few items inside are settled by their distances in double and, where those are equal, by the index.
#include "cpu/kernels.h"
#include "cpu/pair.h"
#include "cpu/tile.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class K>
struct Mask;
template <>
struct Mask<float> {
    typedef int32_t V __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Mask<double> {
    typedef int64_t V __attribute__((vector_size(kVectorBytes)));
};

// What of a piece can come before a positive, side by side, filled up to whole vectors with kNone.
template <class K>
struct Near {
    alignas(64) K keys[kPiece];
    int32_t column[kPiece];
    int size;

    Near(const K* piece, K highest) : size(0) {
        for (int c = 0; c < kPiece; c += Lanes<K>::N) {
            const auto within = load(piece + c) <= broadcast<K>(highest);
            if (!any(within)) continue;
            for (int j = 0; j < Lanes<K>::N; ++j) {
                keys[size] = piece[c + j];
                column[size] = c + j;
                size -= int(within[j]);
            }
        }
        for (; size % Lanes<K>::N; ++size) keys[size] = kNone<K>;
    }
};

// The number of keys below `low`; `open` says whether others are not above `high`.
template <class K>
inline int64_t count_below(const Near<K>& near, Vec<K> low, Vec<K> high, bool& open) {
    typename Mask<K>::V below{}, between{};
    for (int n = 0; n < near.size; n += Lanes<K>::N) {
        const Vec<K> key = load(near.keys + n);
        below -= key < low;
        between |= (key >= low) & (key <= high);
    }
    open = any(between);
    return sum_lanes(below);
}

// The distance of a positive is known already.
inline bool find_positive(const RankCounts& op, int64_t row, int64_t item, double& distance) {
    for (int64_t p = op.start[row]; p < op.start[row + 1]; ++p) {
        if (op.index[p] == item) {
            distance = op.distance[p];
            return true;
        }
    }
    return false;
}

// How many of the keys between `low` and `high` come before positive p.
template <class K>
int64_t settle(const RankCounts& op, int64_t row, int64_t p, int64_t begin, const Near<K>& near, Vec<K> low,
               Vec<K> high) {
    int64_t before = 0;
    for (int n = 0; n < near.size; n += Lanes<K>::N) {
        const Vec<K> key = load(near.keys + n);
        const typename Mask<K>::V between = (key >= low) & (key <= high);
        if (!any(between)) continue;
        for (int j = 0; j < Lanes<K>::N; ++j) {
            if (!between[j]) continue;
            const int64_t column = begin + near.column[n + j], item = op.tile.offset + column;
            double exact = double(near.keys[n + j]);
            if (op.features.query && !find_positive(op, row, item, exact))
                exact = distance(op.features, row, column);
            before += exact < op.distance[p] || (exact == op.distance[p] && item < op.index[p]);
        }
    }
    return before;
}

template <class K>
void count_row(const RankCounts& op, int64_t row) {
    const int64_t start = op.start[row], end = op.start[row + 1];
    if (start == end) return;
    const K *low = static_cast<const K*>(op.low), *high = static_cast<const K*>(op.high);
    K highest = high[start];
    for (int64_t p = start; p < end; ++p) highest = high[p] > highest ? high[p] : highest;
    for_pieces<K>(op.tile, row, [&](int64_t begin, int, const K* keys) {
        const Near<K> near(keys, highest);
        if (near.size == 0) return;
        for (int64_t p = start; p < end; ++p) {
            const Vec<K> from = broadcast<K>(low[p]), to = broadcast<K>(high[p]);
            bool open;
            op.counts[p] += count_below(near, from, to, open);
            if (open) op.counts[p] += settle(op, row, p, begin, near, from, to);
        }
    });
}

template <class T>
Status norms(const SquaredNorms& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t n = 0; n < op.N; ++n)
        op.squares[n] = squared_norm(static_cast<const T*>(op.x) + n * op.D, op.D);
    return Status::ok;
}

}  // namespace

Status squared_norms(const SquaredNorms& op) {
    return op.dtype == DType::f64 ? norms<double>(op) : norms<float>(op);
}

Status pair_distances(const PairDistances& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t p = 0; p < op.P; ++p) op.distance[p] = distance(op.features, op.row[p], op.index[p]);
    return Status::ok;
}

Status rank_counts(const RankCounts& op) {
#pragma omp parallel for num_threads(op.threads) schedule(dynamic, 8)
    for (int64_t row = 0; row < op.tile.Q; ++row) {
        if (op.tile.dtype == DType::f64) {
            count_row<double>(op, row);
        } else {
            count_row<float>(op, row);
        }
    }
    return Status::ok;
}

}  // namespace VREID_ISA
}  // namespace vreid
