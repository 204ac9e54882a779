// The ranking ops of vreid_ext._native. Tuples stand for the structures of csrc/common/types.h.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <utility>

#include "bindings.h"

namespace py = pybind11;

namespace vreid {
namespace {

// (dtype code, Q, G, offset, values, scale, shift, kept, left_start, left)
using TileTuple = std::array<int64_t, 10>;
// Packed queries and rows of the gallery, whose products stand for the values; null addresses: none.
using SidesTuple = std::pair<PanelsTuple, RowsTuple>;
// (dtype code, metric code, D, query, gallery)
using FeatureTuple = std::array<int64_t, 5>;

DType number(int64_t code) {
    const DType type = dtype(code);
    if (type != DType::f32 && type != DType::f64)
        throw std::invalid_argument("dtype: got code " + std::to_string(code) + ", wanted 0 or 1");
    return type;
}

Tile tile(const TileTuple& t, const SidesTuple& sides) {
    const auto [code, Q, G, offset, values, scale, shift, kept, left_start, left] = t;
    const Panels x = panels("queries", sides.first);
    const Rows y = rows("items", sides.second);
    if (x.data && (x.N < Q || y.N < G || x.D != y.D || y.dtype != DType::f32))
        throw std::invalid_argument("items: expected " + std::to_string(G) + " float32 rows, and panels of " +
                                    std::to_string(Q) + " rows of their length");
    if ((scale == 0) != (shift == 0)) throw std::invalid_argument("shift: wanted with scale, or neither");
    return {number(code),
            Q,
            G,
            offset,
            address("tile", values, x.data ? 0 : Q * G),
            G,
            x,
            y,
            address<const float>("scale", scale, 0),
            address<const float>("shift", shift, 0),
            address<const bool>("kept", kept, 0),
            address<const int64_t>("left_start", left_start, 0),
            address<const int64_t>("left", left, 0)};
}

Features features(const FeatureTuple& f) {
    const auto [code, metric, D, query, gallery] = f;
    if (metric < 0 || metric > 1)
        throw std::invalid_argument("metric: got code " + std::to_string(metric) + ", wanted 0 or 1");
    if ((query == 0) != (gallery == 0)) throw std::invalid_argument("gallery: wanted with query, or neither");
    return {number(code), static_cast<Metric>(metric), D, address("query", query, 0),
            address("gallery", gallery, 0)};
}

Features need(const Features& f) {
    if (!f.query) throw std::invalid_argument("query: got a null address");
    return f;
}

void squared_norms(int64_t code, int64_t N, int64_t D, int64_t x, int64_t squares, int threads) {
    const SquaredNorms op{
        number(code),          N, D, address("x", x, N * D), address<double>("squares", squares, N),
        check_threads(threads)};
    run(&Table::squared_norms, op);
}

// Indices that would be read outside of what they point into.
const int64_t* indices(const char* name, int64_t value, int64_t size, int64_t end) {
    const int64_t* index = address<const int64_t>(name, value, size);
    for (int64_t n = 0; n < size; ++n) {
        if (index[n] < 0 || index[n] >= end)
            throw std::invalid_argument(std::string(name) + ": got " + std::to_string(index[n]) +
                                        ", wanted 0 to " + std::to_string(end - 1));
    }
    return index;
}

const int64_t* groups(const char* name, int64_t value, int64_t rows, int64_t size) {
    const int64_t* start = address<const int64_t>(name, value, rows + 1);
    for (int64_t n = 0; n <= rows; ++n) {
        if (start[n] < 0 || start[n] > size || (n > 0 && start[n] < start[n - 1]))
            throw std::invalid_argument(std::string(name) + ": got " + std::to_string(start[n]) + " at " +
                                        std::to_string(n) + ", wanted ascending numbers from 0 to " +
                                        std::to_string(size));
    }
    return start;
}

void check_left(const Tile& tile, int64_t size) {
    if (!tile.left_start) return;
    groups("left_out[0]", reinterpret_cast<int64_t>(tile.left_start), tile.Q, size);
    if (size > 0 && !tile.left) throw std::invalid_argument("left_out[1]: got a null address");
    for (int64_t row = 0; row < tile.Q; ++row) {
        for (int64_t n = tile.left_start[row] + 1; n < tile.left_start[row + 1]; ++n) {
            if (tile.left[n] < tile.left[n - 1])
                throw std::invalid_argument("left_out[1]: wanted ascending indices for query " +
                                            std::to_string(row));
        }
    }
}

void pair_distances(const FeatureTuple& rows, int64_t Q, int64_t G, int64_t P, int64_t row, int64_t index,
                    int64_t distance, int threads) {
    const PairDistances op{need(features(rows)),
                           P,
                           indices("row", row, P, Q),
                           indices("index", index, P, G),
                           address<double>("distance", distance, P),
                           check_threads(threads)};
    run(&Table::pair_distances, op);
}

void rank_counts(const TileTuple& values, const SidesTuple& sides, const FeatureTuple& rows, int64_t P,
                 int64_t left, int64_t start, int64_t low, int64_t high, int64_t distance, int64_t index,
                 int64_t counts, int threads) {
    const Tile columns = tile(values, sides);
    check_left(columns, left);
    const RankCounts op{columns,
                        features(rows),
                        groups("start", start, columns.Q, P),
                        address("low", low, P),
                        address("high", high, P),
                        address<const double>("distance", distance, P),
                        address<const int64_t>("index", index, P),
                        address<int64_t>("counts", counts, P),
                        check_threads(threads)};
    run(&Table::rank_counts, op);
}

// `capacity` numbers for each row; keys, candidates, size, limit, largest
struct Lists {
    int64_t k, capacity, error, keys, index, size, limit, largest;
};

TopK candidates(const TileTuple& values, const SidesTuple& sides, const FeatureTuple& rows, int64_t left,
                const Lists& lists, int threads) {
    const Tile columns = tile(values, sides);
    if (columns.dtype != DType::f32) throw std::invalid_argument("tile: wanted float32");
    check_left(columns, left);
    if (lists.k < 1 || lists.capacity < 2 * lists.k)
        throw std::invalid_argument("capacity: got " + std::to_string(lists.capacity) +
                                    " for k = " + std::to_string(lists.k));
    return {columns,
            need(features(rows)),
            lists.k,
            lists.capacity,
            address<const float>("error", lists.error, columns.Q),
            address<float>("keys", lists.keys, columns.Q * lists.capacity),
            address<int64_t>("index", lists.index, columns.Q * lists.capacity),
            address<int64_t>("size", lists.size, columns.Q),
            address<float>("limit", lists.limit, columns.Q),
            address<float>("largest", lists.largest, columns.Q),
            check_threads(threads)};
}

void top_k(const TileTuple& values, const SidesTuple& sides, const FeatureTuple& rows, int64_t left,
           int64_t k, int64_t capacity, int64_t error, int64_t keys, int64_t index, int64_t size,
           int64_t limit, int64_t largest, int threads) {
    const TopK op = candidates(values, sides, rows, left,
                               {k, capacity, error, keys, index, size, limit, largest}, threads);
    run(&Table::top_k, op);
}

void top_k_result(const TileTuple& values, const FeatureTuple& rows, int64_t left, int64_t k,
                  int64_t capacity, int64_t error, int64_t keys, int64_t index, int64_t size, int64_t limit,
                  int64_t largest, int64_t stride, int64_t distance, int64_t nearest, int threads) {
    const TopK lists =
        candidates(values, {}, rows, left, {k, capacity, error, keys, index, size, limit, largest}, threads);
    if (stride < k) throw std::invalid_argument("stride: got " + std::to_string(stride));
    const TopKResult op{lists, stride, address<double>("distance", distance, lists.tile.Q * stride),
                        address<int64_t>("nearest", nearest, lists.tile.Q * stride)};
    run(&Table::top_k_result, op);
}

// (start, index, value, entries)
using SparseTuple = std::array<int64_t, 4>;

SparseRows sparse(const SparseTuple& s, int64_t rows, int64_t columns) {
    const auto [start, index, value, entries] = s;
    return {groups("start", start, rows, entries), indices("index", index, entries, columns),
            address<const float>("value", value, entries)};
}

void reciprocal(int64_t N, int64_t K, int64_t half, int64_t rank, int64_t distances, int64_t start,
                int64_t index, int64_t distance, int threads) {
    if (half < 1 || half > K) throw std::invalid_argument("half: got " + std::to_string(half));
    const Reciprocal op{N,
                        K,
                        half,
                        indices("rank", rank, N * K, N),
                        address<const double>("distances", distances, N * K),
                        address<int64_t>("start", start, N + 1),
                        address<int64_t>("index", index, 0),
                        address<double>("distance", distance, 0),
                        check_threads(threads)};
    run(&Table::reciprocal, op);
}

void mean_rows(int64_t N, int64_t K, int64_t k, int64_t rank, const SparseTuple& rows, int64_t start,
               int64_t index, int64_t value, int threads) {
    if (k < 1 || k > K) throw std::invalid_argument("k: got " + std::to_string(k));
    const MeanRows op{N,
                      K,
                      k,
                      indices("rank", rank, N * K, N),
                      sparse(rows, N, N),
                      address<int64_t>("start", start, N + 1),
                      address<int64_t>("index", index, 0),
                      address<float>("value", value, 0),
                      check_threads(threads)};
    run(&Table::mean_rows, op);
}

void transpose(int64_t N, int64_t first, const SparseTuple& rows, int64_t start, int64_t index,
               int64_t value) {
    if (first < 0 || first > N) throw std::invalid_argument("first: got " + std::to_string(first));
    const Transpose op{N,
                       first,
                       sparse(rows, N, N),
                       address<int64_t>("start", start, N + 1),
                       address<int64_t>("index", index, 0),
                       address<float>("value", value, 0)};
    run(&Table::transpose, op);
}

void overlap(int64_t Q, int64_t G, int64_t N, float lambda, const SparseTuple& query,
             const SparseTuple& columns, int64_t query_squares, int64_t gallery_squares, int64_t farthest,
             int64_t out, int threads) {
    const Overlap op{Q,
                     G,
                     lambda,
                     sparse(query, Q, N),
                     sparse(columns, N, G),
                     address<const float>("query_squares", query_squares, 0),
                     address<const float>("gallery_squares", gallery_squares, 0),
                     address<const float>("farthest", farthest, Q),
                     address<float>("out", out, Q * G),
                     check_threads(threads)};
    run(&Table::overlap, op);
}

}  // namespace

void define_ranking(py::module_& m) {
    m.def("squared_norms", &squared_norms);
    m.def("pair_distances", &pair_distances);
    m.def("rank_counts", &rank_counts);
    m.def("top_k", &top_k);
    m.def("top_k_result", &top_k_result);
    m.def("reciprocal", &reciprocal);
    m.def("mean_rows", &mean_rows);
    m.def("transpose", &transpose);
    m.def("overlap", &overlap);
}

}  // namespace vreid
