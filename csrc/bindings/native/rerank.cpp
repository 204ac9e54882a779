// k-reciprocal re-ranking in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

VREID_TUPLE(SparseRows, start, column, value, entries, dtype);

SparseRows sparse_rows(const SparseRowsTuple& s, int64_t rows, int64_t columns) {
    return {checked_starts("start", s.start, rows, s.entries),
            checked_indices("index", s.column, s.entries, 0, columns - 1),
            pointer("value", s.value, s.entries), float_dtype(s.dtype)};
}

void reciprocal(int64_t N, int64_t K, int64_t half, int64_t rank, int64_t distances, int64_t start,
                int64_t index, int64_t distance, int threads) {
    check_range("half", half, 1, K);
    const Reciprocal op{N,
                        K,
                        half,
                        checked_indices("rank", rank, N * K, 0, N - 1),
                        pointer<const double>("distances", distances, N * K),
                        pointer<int64_t>("start", start, N + 1),
                        nullable<int64_t>(index),
                        nullable<double>(distance),
                        check_threads(threads)};
    run(&Table::reciprocal, op);
}

void mean_rows(int64_t N, int64_t K, int64_t k, int64_t rank, const SparseRowsTuple& rows, int64_t start,
               int64_t index, int64_t value, int threads) {
    check_range("k", k, 1, K);
    const MeanRows op{N,
                      K,
                      k,
                      checked_indices("rank", rank, N * K, 0, N - 1),
                      sparse_rows(rows, N, N),
                      pointer<int64_t>("start", start, N + 1),
                      nullable<int64_t>(index),
                      nullable(value),
                      check_threads(threads)};
    run(&Table::mean_rows, op);
}

void transpose(int64_t N, int64_t first, const SparseRowsTuple& rows, int64_t start, int64_t index,
               int64_t value) {
    check_range("first", first, 0, N);
    const Transpose op{N,
                       first,
                       sparse_rows(rows, N, N),
                       pointer<int64_t>("start", start, N + 1),
                       nullable<int64_t>(index),
                       nullable(value)};
    run(&Table::transpose, op);
}

void overlap(int64_t Q, int64_t G, int64_t N, double lambda, const SparseRowsTuple& query,
             const SparseRowsTuple& columns, int64_t query_squares, int64_t gallery_squares, int64_t farthest,
             int64_t out, int threads) {
    if (query.dtype != columns.dtype)
        fail("columns", "dtype code ", query.dtype, " as query, got ", columns.dtype);
    const Overlap op{Q,
                     G,
                     lambda,
                     sparse_rows(query, Q, N),
                     sparse_rows(columns, N, G),
                     nullable(query_squares),
                     nullable(gallery_squares),
                     pointer("farthest", farthest, Q),
                     pointer("out", out, Q * G),
                     check_threads(threads)};
    run(&Table::overlap, op);
}

void jaccard(int64_t N, double limit, const SparseRowsTuple& rows, const SparseRowsTuple& columns,
             int64_t start, int64_t index, int64_t distance, int threads) {
    if (rows.dtype != columns.dtype)
        fail("columns", "dtype code ", rows.dtype, " as rows, got ", columns.dtype);
    const Jaccard op{N,
                     limit,
                     sparse_rows(rows, N, N),
                     sparse_rows(columns, N, N),
                     pointer<int64_t>("start", start, N + 1),
                     nullable<int64_t>(index),
                     nullable(distance),
                     check_threads(threads)};
    run(&Table::jaccard, op);
}

}  // namespace

void bind_rerank(pybind11::module_& m) {
    export_tuples<SparseRowsTuple>(m);
    VREID_DEFINE(m, reciprocal, mean_rows, transpose, overlap, jaccard);
}

}  // namespace vreid
