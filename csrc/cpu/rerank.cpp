// k-reciprocal re-ranking (Zhong et al., CVPR 2017) on sparse rows: neighbor sets, the mean of neighboring
// rows, and the overlap of rows by means of the transposed rows: added to dense distances, or as sparse
// distances.
//
// A kernel whose output rows have unknown lengths is called twice: with a null index it writes the lengths,
// then the rows.
#include <omp.h>

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// The position of `item` among the first k neighbors of `row`, or -1.
inline int64_t place(const Reciprocal& op, int64_t row, int64_t item, int64_t k) {
    const int64_t* list = op.rank + row * op.K;
    for (int64_t n = 0; n < k; ++n) {
        if (list[n] == item) return n;
    }
    return -1;
}

// Writes those of the first k neighbors of `row` that have `row` among their first k; returns their number.
inline int64_t mutual(const Reciprocal& op, int64_t row, int64_t k, int64_t* set) {
    int64_t size = 0;
    for (int64_t n = 0; n < k; ++n) {
        const int64_t item = op.rank[row * op.K + n];
        if (place(op, item, row, k) >= 0) set[size++] = item;
    }
    return size;
}

inline bool contains(const int64_t* set, int64_t size, int64_t item) {
    for (int64_t n = 0; n < size; ++n) {
        if (set[n] == item) return true;
    }
    return false;
}

void reciprocal_row(const Reciprocal& op, int64_t row, int64_t* set) {
    int64_t* const others = set + op.K * (op.half + 1);
    const int64_t own = mutual(op, row, op.K, set);
    int64_t size = own;
    for (int64_t n = 0; n < own; ++n) {
        const int64_t count = mutual(op, set[n], op.half, others);
        int64_t shared = 0;
        for (int64_t m = 0; m < count; ++m) shared += contains(set, own, others[m]);
        if (3 * shared <= 2 * count) continue;
        for (int64_t m = 0; m < count; ++m) {
            if (!contains(set, size, others[m])) set[size++] = others[m];
        }
    }
    if (!op.index) {
        op.start[row + 1] = size;
        return;
    }
    for (int64_t n = 0; n < size; ++n) {
        const int64_t out = op.start[row] + n, here = place(op, row, set[n], op.K);
        op.index[out] = set[n];
        op.distance[out] = here >= 0 ? op.distances[row * op.K + here] : -1;
    }
}

// A dense row of sums with a list of its non-zero elements.
template <class A>
struct Sums {
    A* value;  // zero if nothing was added
    int64_t* touched;
    int64_t size;

    void add(int64_t item, A x) {
        if (value[item] == 0) touched[size++] = item;
        value[item] += x;
    }
};

// Calls f(row, sums) for each row, with sums over `width` items. They are zero on entry, and f resets them.
template <class A, class F>
Status with_sums(int64_t rows, int64_t width, int threads, F f) {
    const Scratch values(threads, width * int64_t(sizeof(A)));
    const Scratch lists(threads, width * int64_t(sizeof(int64_t)));
    if (!values || !lists) return Status::out_of_memory;
    for (int n = 0; n < threads; ++n) memset(values.of<A>(n), 0, size_t(width) * sizeof(A));
#pragma omp parallel for num_threads(threads) schedule(dynamic, 16)
    for (int64_t row = 0; row < rows; ++row) {
        const int thread = omp_get_thread_num();
        Sums<A> sums{values.of<A>(thread), lists.of<int64_t>(thread), 0};
        f(row, sums);
    }
    return Status::ok;
}

template <class A>
void mean_row(const MeanRows& op, int64_t row, Sums<A>& sums) {
    const A* value = static_cast<const A*>(op.rows.value);
    for (int64_t n = 0; n < op.k; ++n) {
        const int64_t other = op.rank[row * op.K + n];
        for (int64_t m = op.rows.start[other]; m < op.rows.start[other + 1]; ++m)
            sums.add(op.rows.index[m], value[m]);
    }
    if (!op.index) op.start[row + 1] = sums.size;
    for (int64_t n = 0; n < sums.size; ++n) {
        const int64_t item = sums.touched[n];
        if (op.index) {
            op.index[op.start[row] + n] = item;
            static_cast<A*>(op.value)[op.start[row] + n] = sums.value[item] / A(op.k);
        }
        sums.value[item] = 0;
    }
}

// Adds, for each row j of the matrix with these columns, the sum of min(row[c], rows_j[c]) over the columns
// c.
template <class A>
void add_overlaps(const SparseRows& rows, int64_t row, const SparseRows& columns, Sums<A>& sums) {
    const A *values = static_cast<const A*>(rows.value), *others = static_cast<const A*>(columns.value);
    for (int64_t n = rows.start[row]; n < rows.start[row + 1]; ++n) {
        const int64_t column = rows.index[n];
        const A value = values[n];
        for (int64_t m = columns.start[column]; m < columns.start[column + 1]; ++m) {
            const A other = others[m];
            sums.add(columns.index[m], value < other ? value : other);
        }
    }
}

template <class A>
void overlap_row(const Overlap& op, int64_t row, Sums<A>& sums) {
    const A *query_squares = static_cast<const A*>(op.query_squares),
            *gallery_squares = static_cast<const A*>(op.gallery_squares);
    A* out = static_cast<A*>(op.out) + row * op.G;
    const A squares = query_squares ? query_squares[row] : A(0);
    const A lambda = A(op.lambda), rest = 1 - lambda,
            factor = lambda / static_cast<const A*>(op.farthest)[row];
    for (int64_t j = 0; j < op.G; ++j) {
        A d;
        if (query_squares) {
            d = gallery_squares[j] + squares - 2 * out[j];
            d = d > 0 ? d : 0;
        } else {
            d = out[j] * out[j];
        }
        out[j] = factor * d + rest;
    }
    add_overlaps(op.query, row, op.columns, sums);
    for (int64_t n = 0; n < sums.size; ++n) {
        const int64_t j = sums.touched[n];
        out[j] -= rest * sums.value[j] / (2 - sums.value[j]);
        sums.value[j] = 0;
    }
}

template <class A>
void jaccard_row(const Jaccard& op, int64_t row, Sums<A>& sums) {
    add_overlaps(op.rows, row, op.columns, sums);
    if (sums.value[row] == 0) sums.touched[sums.size++] = row;  // an empty row
    if (op.index) std::sort(sums.touched, sums.touched + sums.size);
    int64_t size = 0;
    for (int64_t n = 0; n < sums.size; ++n) {
        const int64_t item = sums.touched[n];
        const A shared = sums.value[item];
        sums.value[item] = 0;
        const A apart = 1 - shared / (2 - shared);
        const A distance = item == row || apart < 0 ? A(0) : apart;  // below 0 by rounding
        if (distance > A(op.limit)) continue;
        if (op.index) {
            op.index[op.start[row] + size] = item;
            static_cast<A*>(op.distance)[op.start[row] + size] = distance;
        }
        ++size;
    }
    if (!op.index) op.start[row + 1] = size;
}

// Counts the entries per column, then writes them; within a column, rows are in ascending order.
template <class A>
Status transposed(const Transpose& op) {
    const A* values = static_cast<const A*>(op.rows.value);
    A* value = static_cast<A*>(op.value);
    for (int64_t n = op.rows.start[op.first]; n < op.rows.start[op.N]; ++n) ++op.start[op.rows.index[n] + 1];
    for (int64_t n = 0; n < op.N; ++n) op.start[n + 1] += op.start[n];
    for (int64_t row = op.first; row < op.N; ++row) {
        for (int64_t n = op.rows.start[row]; n < op.rows.start[row + 1]; ++n) {
            const int64_t out = op.start[op.rows.index[n]]++;
            op.index[out] = row - op.first;
            value[out] = values[n];
        }
    }
    for (int64_t n = op.N; n > 0; --n) op.start[n] = op.start[n - 1];
    op.start[0] = 0;
    return Status::ok;
}

// Calls f(T{}) with the dtype T of the values.
template <class F>
Status of_values(const SparseRows& rows, F f) {
    return rows.dtype == DType::f64 ? f(double()) : f(float());
}

}  // namespace

Status reciprocal(const Reciprocal& op) {
    const Scratch sets(op.threads, (op.K * (op.half + 1) + op.half) * int64_t(sizeof(int64_t)));
    if (!sets) return Status::out_of_memory;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic, 16)
    for (int64_t row = 0; row < op.N; ++row) reciprocal_row(op, row, sets.of<int64_t>(omp_get_thread_num()));
    return Status::ok;
}

Status mean_rows(const MeanRows& op) {
    return of_values(op.rows, [&](auto number) {
        using A = decltype(number);
        return with_sums<A>(op.N, op.N, op.threads,
                            [&](int64_t row, Sums<A>& sums) { mean_row(op, row, sums); });
    });
}

Status transpose(const Transpose& op) {
    return of_values(op.rows, [&](auto number) { return transposed<decltype(number)>(op); });
}

Status overlap(const Overlap& op) {
    return of_values(op.query, [&](auto number) {
        using A = decltype(number);
        return with_sums<A>(op.Q, op.G, op.threads,
                            [&](int64_t row, Sums<A>& sums) { overlap_row(op, row, sums); });
    });
}

Status jaccard(const Jaccard& op) {
    return of_values(op.rows, [&](auto number) {
        using A = decltype(number);
        return with_sums<A>(op.N, op.N, op.threads,
                            [&](int64_t row, Sums<A>& sums) { jaccard_row(op, row, sums); });
    });
}

}  // namespace VREID_ISA
}  // namespace vreid
