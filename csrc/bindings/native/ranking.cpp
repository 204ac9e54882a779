// Rankings in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

VREID_TUPLE(Tile, dtype, Q, G, offset, values, scale, shift, kept, left_start, left);
VREID_TUPLE(Features, dtype, metric, D, query, gallery, query_square, gallery_square);

// A tile of distances, or, if `queries` has an address, of the products of packed queries and rows of items.
Tile tile(const TileTuple& t, const PanelsTuple& queries, const RowsTuple& items) {
    const Panels x = panels("queries", queries);
    const Rows y = rows("items", items);
    if (x.data && (x.N < t.Q || y.N < t.G || x.D != y.D || y.dtype != DType::f32))
        fail("items", "panels of ", t.Q, " queries and ", t.G, " float32 items with D = ", x.D, ", got ", x.N,
             " and ", y.N, " with D = ", y.D, " and dtype code ", int64_t(y.dtype));
    if ((t.scale == 0) != (t.shift == 0)) fail("shift", "scale and shift, or neither, got one of them");
    return {float_dtype(t.dtype),
            t.Q,
            t.G,
            t.offset,
            pointer("tile", t.values, x.data ? 0 : t.Q * t.G),
            t.G,
            x,
            y,
            nullable<const float>(t.scale),
            nullable<const float>(t.shift),
            nullable<const bool>(t.kept),
            nullable<const int64_t>(t.left_start),
            nullable<const int64_t>(t.left)};
}

// Features, or none.
Features optional_features(const FeaturesTuple& f) {
    const Metric kind = metric(f.metric);
    if (kind == Metric::squared) fail("metric", "the code of euclidean or cosine, got that of squared");
    if ((f.query == 0) != (f.gallery == 0)) fail("gallery", "query and gallery, or neither, got one of them");
    if ((f.query_square == 0) != (f.gallery_square == 0))
        fail("gallery_square", "the squares of query and gallery, or neither, got one of them");
    return {float_dtype(f.dtype),
            kind,
            f.D,
            nullable(f.query),
            nullable(f.gallery),
            nullable<const double>(f.query_square),
            nullable<const double>(f.gallery_square)};
}

Features features(const FeaturesTuple& f) {
    if (f.query == 0) fail("query", "an address, got null");
    return optional_features(f);
}

void squared_norms(int64_t code, int64_t N, int64_t D, int64_t x, int64_t squares, const PanelsTuple& queries,
                   int64_t products, int threads) {
    const Panels few = panels("queries", queries);
    const DType type = float_dtype(code);
    if (few.data && (few.D != D || type != DType::f32 || few.N > kernels().table->panel_rows(type)))
        fail("queries", "at most one panel of float32 rows with D = ", D, ", got ", few.N,
             " with D = ", few.D);
    const SquaredNorms op{type,
                          N,
                          D,
                          pointer("x", x, N * D),
                          pointer<double>("squares", squares, N),
                          few,
                          pointer<float>("products", products, few.data ? few.N * N : 0),
                          check_threads(threads)};
    run(&Table::squared_norms, op);
}

void check_left(const Tile& tile, int64_t size) {
    if (!tile.left_start) return;
    checked_starts("left_out[0]", reinterpret_cast<int64_t>(tile.left_start), tile.Q, size);
    pointer("left_out[1]", reinterpret_cast<int64_t>(tile.left), size);
    for (int64_t row = 0; row < tile.Q; ++row) {
        for (int64_t n = tile.left_start[row] + 1; n < tile.left_start[row + 1]; ++n) {
            if (tile.left[n] < tile.left[n - 1])
                fail("left_out[1]", "ascending indices, got ", tile.left[n - 1], " before ", tile.left[n],
                     " for query ", row);
        }
    }
}

void pair_distances(const FeaturesTuple& rows, int64_t Q, int64_t G, int64_t P, int64_t row, int64_t index,
                    int64_t distance, int threads) {
    const PairDistances op{features(rows),
                           P,
                           checked_indices("row", row, P, 0, Q - 1),
                           checked_indices("index", index, P, 0, G - 1),
                           pointer<double>("distance", distance, P),
                           check_threads(threads)};
    run(&Table::pair_distances, op);
}

void rank_counts(const TileTuple& values, const PanelsTuple& queries, const RowsTuple& items,
                 const FeaturesTuple& rows, int64_t P, int64_t left, int64_t start, int64_t low, int64_t high,
                 int64_t distance, int64_t index, int64_t counts, int64_t finite, int threads) {
    const Tile columns = tile(values, queries, items);
    if (finite && !columns.values) fail("finite", "null without a matrix of distances, got an address");
    check_left(columns, left);
    const Features compared = optional_features(rows);
    const int64_t keys = compared.query ? P : 0, last = columns.offset + columns.G - 1;
    if (!distance && compared.query) fail("distance", "an address with features, got null");
    const RankCounts op{columns,
                        compared,
                        checked_starts("start", start, columns.Q, P),
                        pointer("low", low, keys),
                        pointer("high", high, keys),
                        nullable<const double>(distance),
                        distance ? pointer<const int64_t>("index", index, P)
                                 : checked_indices("index", index, P, columns.offset, last),
                        pointer<int64_t>("counts", counts, P),
                        nullable<bool>(finite),
                        check_threads(threads)};
    run(&Table::rank_counts, op);
}

// The lists of candidates: `capacity` elements for each row.
struct Lists {
    int64_t k, capacity, error, keys, index, size, limit, largest;
};

TopK candidates(const TileTuple& values, const PanelsTuple& queries, const RowsTuple& items,
                const FeaturesTuple& rows, int64_t left, const Lists& lists, int threads) {
    const Tile columns = tile(values, queries, items);
    if (columns.dtype != DType::f32) fail("tile", "float32, got float64");
    check_left(columns, left);
    check_least("k", lists.k, 1);
    check_least("capacity", lists.capacity, 2 * lists.k);
    return {columns,
            features(rows),
            lists.k,
            lists.capacity,
            pointer<const float>("error", lists.error, columns.Q),
            pointer<float>("keys", lists.keys, columns.Q * lists.capacity),
            pointer<int64_t>("index", lists.index, columns.Q * lists.capacity),
            pointer<int64_t>("size", lists.size, columns.Q),
            pointer<float>("limit", lists.limit, columns.Q),
            pointer<float>("largest", lists.largest, columns.Q),
            check_threads(threads)};
}

void top_k(const TileTuple& values, const PanelsTuple& queries, const RowsTuple& items,
           const FeaturesTuple& rows, int64_t left, int64_t k, int64_t capacity, int64_t error, int64_t keys,
           int64_t index, int64_t size, int64_t limit, int64_t largest, int threads) {
    const TopK op = candidates(values, queries, items, rows, left,
                               {k, capacity, error, keys, index, size, limit, largest}, threads);
    run(&Table::top_k, op);
}

void top_k_result(const TileTuple& values, const FeaturesTuple& rows, int64_t left, int64_t k,
                  int64_t capacity, int64_t error, int64_t keys, int64_t index, int64_t size, int64_t limit,
                  int64_t largest, int64_t stride, int64_t distance, int64_t nearest, int threads) {
    const TopK lists = candidates(values, {}, {}, rows, left,
                                  {k, capacity, error, keys, index, size, limit, largest}, threads);
    check_least("stride", stride, k);
    const TopKResult op{lists, stride, pointer<double>("distance", distance, lists.tile.Q * stride),
                        pointer<int64_t>("nearest", nearest, lists.tile.Q * stride)};
    run(&Table::top_k_result, op);
}

}  // namespace

void bind_ranking(pybind11::module_& m) {
    export_tuples<TileTuple, FeaturesTuple>(m);
    VREID_DEFINE(m, squared_norms, pair_distances, rank_counts, top_k, top_k_result);
}

}  // namespace vreid
