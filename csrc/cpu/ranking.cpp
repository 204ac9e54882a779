// Ranks by counting: the number of items of a tile that rank before each positive of its query. No row is
// sorted.
//
// Given distances are compared with that of the positive: by <= if the item has a smaller index, else by <.
// Keys of features have a rounding error, so they are compared with an interval around the positive's key.
// Outside of it the comparison is certain; for the few items inside, the distances in double decide, and the
// indices if these are equal.
#include <algorithm>

#include "cpu/double_distance.h"
#include "cpu/kernels.h"
#include "cpu/tile.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// 0, 1, 2, ...
template <class V, int... I>
inline V places(Pack<I...>) {
    return V{I...};
}

// Adds 1 to the lanes of `count` in which a comparison is true.
template <class V>
inline V increased(V count, V mask) {
#if defined(__AVX512F__)
    return mask ? count + 1 : count;  // one instruction
#else
    return count - mask;
#endif
}

// Appends the keys of a vector that are not above `highest`, and their columns, to the lists; `column` is
// that of the first lane. Returns the new size.
template <class K>
inline int append(const K* vector, int32_t column, K highest, K* keys, int32_t* columns, int size) {
    const auto within = load(vector) <= broadcast<K>(highest);
    if (!any(within)) return size;
    for (int j = 0; j < Lanes<K>::N; ++j) {
        keys[size] = vector[j];
        columns[size] = column + j;
        size -= int(within[j]);
    }
    return size;
}

#if defined(__AVX512F__)
inline int append(const float* vector, int32_t column, float highest, float* keys, int32_t* columns,
                  int size) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512 key = _mm512_loadu_ps(vector);
    const __mmask16 within = _mm512_cmp_ps_mask(key, _mm512_set1_ps(highest), _CMP_LE_OQ);
    const __m512i places = _mm512_add_epi32(lanes, _mm512_set1_epi32(column));
    _mm512_storeu_ps(keys + size, _mm512_maskz_compress_ps(within, key));
    _mm512_storeu_si512(columns + size, _mm512_maskz_compress_epi32(within, places));
    return size + __builtin_popcount(within);
}
#endif

// The items of a row that may rank before a positive, contiguous: the keys of some pieces, and their columns
// relative to `base`.
template <class K>
struct Near {
    alignas(64) K keys[4 * kPiece];
    int32_t columns[4 * kPiece];
    int64_t base = 0;
    int size = 0;

    void add(int64_t begin, const K* piece, int columns_of_piece, K highest) {
        if (size == 0) base = begin;
        for (int c = 0; c < columns_of_piece; c += Lanes<K>::N)
            size = append(piece + c, int32_t(begin - base) + c, highest, keys, columns, size);
    }
    // Whether the next piece may not fit.
    bool full(int64_t begin) const { return size > 3 * kPiece || begin - base > (1 << 30); }
    // The number of items before `column` of the tile. The columns are in ascending order.
    int before(int64_t column) const {
        return int(std::lower_bound(columns, columns + size, column - base) - columns);
    }
    // Whether the list has item `column` of the tile with a key from `low` to `high`.
    bool has(int64_t column, K low, K high) const {
        const int n = before(column);
        return n < size && columns[n] == column - base && keys[n] >= low && keys[n] <= high;
    }
    // Pads to whole vectors.
    void pad() {
        for (int n = size; n % Lanes<K>::N; ++n) keys[n] = kNone<K>;
    }
};

// The largest key that is not above a distance.
template <class K>
inline K rounded_down(double distance) {
    const K key = K(distance);
    return double(key) > distance ? K(__builtin_nextafterf(float(key), -__builtin_inff())) : key;
}

// The number of distances that are not above `at` among the first `split`, and below `at` among the others.
template <class K>
inline int64_t count_before(const Near<K>& near, int split, double at) {
    constexpr int N = Lanes<K>::N;
    using Element = Integer<K>;
    using V = IntegerVec<K>;
    const Vec<K> most = broadcast<K>(rounded_down<K>(at)), under = broadcast<K>(-rounded_down<K>(-at));
    V count{};
    int n = 0;
    for (; n + N <= split; n += N) count = increased(count, V(load(near.keys + n) <= most));
    if (n < near.size) {
        const Vec<K> key = load(near.keys + n);
        const V first = places<V>(typename Count<N>::type{}) < V{} + Element(split - n);
        count -= ((key <= most) & first) | ((key < under) & ~first);
    }
    for (n += N; n < near.size; n += N) count = increased(count, V(load(near.keys + n) < under));
    return sum_lanes(count);
}

// The number of keys below `low`, and in `between` that of the keys from `low` to `high`.
template <class K>
inline int64_t count_below(const Near<K>& near, Vec<K> low, Vec<K> high, int64_t& between) {
    using V = IntegerVec<K>;
    V below{}, inside{};
    for (int n = 0; n < near.size; n += Lanes<K>::N) {
        const Vec<K> key = load(near.keys + n);
        below = increased(below, V(key < low));
        inside = increased(inside, V((key >= low) & (key <= high)));
    }
    between = sum_lanes(inside);
    return sum_lanes(below);
}

// If `item` is a positive, returns its given distance.
inline bool find_positive(const RankCounts& op, int64_t row, int64_t item, double& distance) {
    for (int64_t p = op.start[row]; p < op.start[row + 1]; ++p) {
        if (op.index[p] == item) {
            distance = op.distance[p];
            return true;
        }
    }
    return false;
}

// The number of items with keys from `low` to `high` that rank before positive p.
template <class K>
int64_t settle(const RankCounts& op, const Tile& tile, int64_t row, int64_t p, const Near<K>& near,
               Vec<K> low, Vec<K> high) {
    int64_t before = 0;
    for (int n = 0; n < near.size; n += Lanes<K>::N) {
        const Vec<K> key = load(near.keys + n);
        const IntegerVec<K> between = (key >= low) & (key <= high);
        if (!any(between)) continue;
        for (int j = 0; j < Lanes<K>::N; ++j) {
            if (!between[j]) continue;
            const int64_t item = tile.offset + near.base + near.columns[n + j];
            double exact;
            if (!find_positive(op, row, item, exact))
                exact = distance(op.features, row, item - op.tile.offset);
            before += exact < op.distance[p] || (exact == op.distance[p] && item < op.index[p]);
        }
    }
    return before;
}

// The distance of positive p; `values` is the row of distances if they are given.
template <class K>
inline double at(const RankCounts& op, const K* values, int64_t p) {
    return op.distance ? op.distance[p] : double(values[op.index[p] - op.tile.offset]);
}

template <class K>
void count_near(const RankCounts& op, const Tile& tile, int64_t row, const K* values, Near<K>& near) {
    if (near.size == 0) return;
    near.pad();
    for (int64_t p = op.start[row]; p < op.start[row + 1]; ++p) {
        if (!op.features.query) {
            op.counts[p] += count_before(near, near.before(op.index[p] - tile.offset), at(op, values, p));
            continue;
        }
        const K low = static_cast<const K*>(op.low)[p], high = static_cast<const K*>(op.high)[p];
        const Vec<K> from = broadcast<K>(low), to = broadcast<K>(high);
        int64_t between;
        op.counts[p] += count_below(near, from, to, between);
        // In most cases there is only the positive itself, which does not rank before itself.
        if (between > 1 || (between == 1 && !near.has(op.index[p] - tile.offset, low, high)))
            op.counts[p] += settle(op, tile, row, p, near, from, to);
    }
    near.size = 0;
}

template <class K>
bool all_finite(const K* values, int64_t n) {
    Vec<K> difference{}, others{};  // zero or NaN
    int64_t i = 0;
    for (; i + 2 * Lanes<K>::N <= n; i += 2 * Lanes<K>::N) {
        const Vec<K> a = load(values + i), b = load(values + i + Lanes<K>::N);
        difference += a - a;
        others += b - b;
    }
    for (; i < n; i += Lanes<K>::N) {
        const Vec<K> a = load(values + i, int(smaller(Lanes<K>::N, n - i)));
        difference += a - a;
    }
    return sum_lanes(difference + others) == 0;
}

// Counts row `row` of the op, which is row `line` of the part.
template <class K>
void count_row(const RankCounts& op, const Tile& part, int64_t line, int64_t row) {
    constexpr int64_t kAhead = 16384 / sizeof(K);  // enough to hide the latency of memory
    const K* values = static_cast<const K*>(part.values) + line * part.stride;
    const int64_t start = op.start[row], end = op.start[row + 1];
    K highest = -K(__builtin_inf());
    for (int64_t p = start; p < end; ++p) {
        const K high =
            op.features.query ? static_cast<const K*>(op.high)[p] : rounded_down<K>(at(op, values, p));
        highest = high > highest ? high : highest;
    }
    bool finite = true;
    Near<K> near;
    for_pieces<K>(part, line, [&](int64_t begin, int size, const K* keys) {
        for (int c = 0; c < size; c += 64 / int(sizeof(K))) __builtin_prefetch(values + begin + c + kAhead);
        if (op.finite) finite &= all_finite(values + begin, size);
        if (start == end) return;
        if (near.full(begin)) count_near(op, part, row, values, near);
        near.add(begin, keys, size, highest);
    });
    count_near(op, part, row, values, near);
    if (op.finite) op.finite[row] = finite;
}

template <class T>
Status norms(const SquaredNorms& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t n = 0; n < op.N; ++n)
        op.squares[n] = squared_norm(static_cast<const T*>(op.x) + n * op.D, op.D);
    return Status::ok;
}

Status norms_and_products(const SquaredNorms& op) {
    constexpr int64_t kItems = Lanes<float>::N;  // whose rows stay in the L2 cache
    constexpr int64_t kNumbers = kItems * Panel<float>::kRows;
    const float* x = static_cast<const float*>(op.x);
    Tile tile{};
    tile.x = op.queries;
    tile.y = {x, DType::f32, op.N, op.D, op.D};
    const Scratch memory(op.threads, 2 * kNumbers * int64_t(sizeof(float)));
    if (!memory) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t first = 0; first < op.N; first += kItems) {
        const int64_t items = smaller(kItems, op.N - first);
        float *own = memory.of<float>(omp_get_thread_num()), *values = own + kNumbers;
        item_products(tile, {0, first, op.queries.N, items}, own, values, kItems);
        for (int64_t q = 0; q < op.queries.N; ++q)
            memcpy(op.products + q * op.N + first, values + q * kItems, size_t(items) * sizeof(float));
        for (int64_t i = first; i < first + items; ++i) op.squares[i] = squared_norm(x + i * op.D, op.D);
    }
    return Status::ok;
}

}  // namespace

Status squared_norms(const SquaredNorms& op) {
    if (op.queries.data) return norms_and_products(op);
    return op.dtype == DType::f64 ? norms<double>(op) : norms<float>(op);
}

Status pair_distances(const PairDistances& op) {
#pragma omp parallel for num_threads(op.threads) schedule(static)
    for (int64_t p = 0; p < op.P; ++p) op.distance[p] = distance(op.features, op.row[p], op.index[p]);
    return Status::ok;
}

Status rank_counts(const RankCounts& op) {
    return for_parts(op.tile, op.threads, 0, [&](const Tile& part, int64_t top, char*) {
        for (int64_t line = 0; line < part.Q; ++line) {
            if (part.dtype == DType::f64) {
                count_row<double>(op, part, line, top + line);
            } else {
                count_row<float>(op, part, line, top + line);
            }
        }
    });
}

}  // namespace VREID_ISA
}  // namespace vreid
