// prepare_rows and mine: hardest pairs from products of prepared rows; mine_batch: both in one step.
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

using vreid::Metric;

void check_prepare(Context& context, DType dtype, int64_t N, int64_t D, bool centre, bool divide,
                   Random& random) {
    const DType acc = accumulator(dtype);
    const int64_t step = context.kernels.panel_rows(acc);
    Array x(dtype, random_values(random, N * D)), offset(acc, divide ? 0 : D),
        panels(acc, (N + step - 1) / step * step * D), square(acc, N);
    std::vector<double> start;
    for (int64_t d = 0; d < offset.size(); ++d) {
        if (!centre) offset.set(d, random.uniform());
        start.push_back(0);
        for (int64_t i = 0; i < N; ++i) start.back() += x[i * D + d] / double(N);
        if (!centre) start.back() = offset[d];
    }
    vreid::PrepareRows op{
        {x.data(), dtype, N, D, D}, offset.data(), centre, panels.data(), square.data(), -2, 2};
    context.run(&vreid::Table::prepare_rows, op);
    std::vector<double> wanted, squares;
    for (int64_t i = 0; i < N; ++i) {
        double norm = 0, total = 0;
        for (int64_t d = 0; d < D; ++d) norm += x[i * D + d] * x[i * D + d];
        for (int64_t d = 0; d < D; ++d) {
            wanted.push_back(divide ? x[i * D + d] / std::sqrt(norm) : x[i * D + d] - start[size_t(d)]);
            total += wanted.back() * wanted.back();
        }
        squares.push_back(divide ? 0 : total);
    }
    std::vector<double> prepared;
    for (int64_t i = 0; i < N * D; ++i) {
        const int64_t row = i / D, d = i % D;
        prepared.push_back(panels[row / step * step * D + d * step + row % step]);
    }
    context.near("prepared rows", prepared, wanted, 64 * epsilon(acc));
    context.near("square", square, squares);
    context.expect(op.bad_row == -1, "no row is bad");
    if (N < 2) return;
    x.set((N - 1) * D, NAN);
    context.run(&vreid::Table::prepare_rows, op);
    context.expect(op.bad_row == N - 1, "the row with NaN is the bad one");
}

// Ids in int32, or int64 for double, in memory that a kernel may read.
std::vector<int64_t> ids(const std::vector<int64_t>& labels, DType dtype) {
    if (dtype == DType::f64) return labels;
    std::vector<int64_t> result((labels.size() + 1) / 2);
    for (size_t i = 0; i < labels.size(); ++i)
        reinterpret_cast<int32_t*>(result.data())[i] = int32_t(labels[i]);
    return result;
}

// Of each anchor the farthest candidate of its label and the nearest of another, by square less twice the
// product.
std::vector<int64_t> hardest(const Array& products, const std::vector<int64_t>& rows,
                             const std::vector<int64_t>& columns, const Array& square, bool one_set) {
    const int64_t N = int64_t(rows.size()), M = int64_t(columns.size());
    std::vector<int64_t> index(size_t(2 * N), -1);
    for (int64_t i = 0; i < N; ++i) {
        double best[2] = {-INFINITY, -INFINITY};
        for (int64_t j = 0; j < M; ++j) {
            const bool same = rows[size_t(i)] == columns[size_t(j)];
            if (one_set && i == j) continue;
            const double score = (same ? 1 : -1) * (square[j] - 2 * products[i * M + j]);
            if (score > best[!same]) {
                best[!same] = score;
                index[size_t(!same * N + i)] = j;
            }
        }
    }
    return index;
}

void check_mine(Context& context, DType dtype, int64_t N, int64_t M, bool one_set, Random& random) {
    if (one_set) M = N;
    const int64_t D = 9;
    std::vector<int64_t> row_labels, column_labels;
    for (int64_t i = 0; i < N; ++i) row_labels.push_back(random.below(4));
    for (int64_t i = 0; i < M; ++i)
        column_labels.push_back(one_set ? row_labels[size_t(i)] : random.below(4));
    const Array x(dtype, random_values(random, N * D));
    const Array y(dtype, one_set ? x.values() : random_values(random, M * D));
    const auto product = [&](const Array& a, const Array& b, int64_t i, int64_t j) {
        double total = 0;
        for (int64_t d = 0; d < D; ++d) total += a[i * D + d] * b[j * D + d];
        return total;
    };
    Array products(dtype, N * M), row_square(dtype, N), column_square(dtype, M);
    for (int64_t i = 0; i < N; ++i) row_square.set(i, product(x, x, i, i));
    for (int64_t j = 0; j < M; ++j) column_square.set(j, product(y, y, j, j));
    for (int64_t i = 0; i < N * M; ++i) products.set(i, product(x, y, i / M, i % M));
    const std::vector<int64_t> row_id = ids(row_labels, dtype), column_id = ids(column_labels, dtype);
    std::vector<int64_t> index(size_t(2 * N), -2);
    Packed rows(context, dtype, x.values(), N, D), columns(context, dtype, y.values(), M, D);
    const vreid::Mine op{dtype,
                         rows.view(),
                         one_set ? vreid::Panels{} : columns.view(),
                         row_id.data(),
                         column_id.data(),
                         row_square.data(),
                         column_square.data(),
                         index.data(),
                         2};
    context.run(&vreid::Table::mine, op);
    context.equal("index", index, hardest(products, row_labels, column_labels, column_square, one_set));
}

// mine_batch gives the bits of prepare_rows, mine and mined_distance, for any number of threads.
void check_mine_batch(Context& context, DType dtype, Metric metric, int64_t N, int64_t D, Random& random) {
    const DType acc = accumulator(dtype);
    const int64_t step = context.kernels.panel_rows(acc);
    Array x(dtype, random_values(random, N * D)), panels(acc, (N + step - 1) / step * step * D);
    Array offset(acc, metric == Metric::cosine ? 0 : D), square(acc, N), wanted(acc, 2 * N);
    const vreid::Rows rows{x.data(), dtype, N, D, D};
    std::vector<int64_t> labels, hard(size_t(2 * N), -2);
    for (int64_t i = 0; i < N; ++i) labels.push_back(random.below(1 + N / 3));
    const std::vector<int64_t> id = ids(labels, acc);
    vreid::PrepareRows prepare{
        rows, offset.data(), metric != Metric::cosine, panels.data(), square.data(), -2, 2};
    context.run(&vreid::Table::prepare_rows, prepare);
    const vreid::Mine mine{acc,           {panels.data(), N, D}, {},          id.data(), id.data(),
                           square.data(), square.data(),         hard.data(), 2};
    context.run(&vreid::Table::mine, mine);
    const vreid::MinedDistance pairs{rows, {}, hard.data(), 2, metric, wanted.data(), 2};
    context.run(&vreid::Table::mined_distance, pairs);
    for (const int threads : {1, 2, 3}) {
        std::vector<int64_t> index(size_t(2 * N), -2);
        Array distance(acc, 2 * N);
        vreid::MineBatch op{rows, metric, id.data(), index.data(), distance.data(), -2, threads};
        context.run(&vreid::Table::mine_batch, op);
        context.expect(op.bad_row == -1, "no row is bad");
        context.equal("index", index, hard);
        context.equal("distance", distance.values(), wanted.values());
    }
    if (N < 2) return;
    for (const double value : {double(NAN), acc == DType::f64 ? 1e300 : 1e30}) {
        if (dtype == DType::f16 && value > 0) continue;  // the square of any number is finite
        x.set((N - 1) * D + D / 2, value);
        vreid::MineBatch op{rows, metric, id.data(), hard.data(), wanted.data(), -2, 2};
        context.run(&vreid::Table::mine_batch, op);
        context.expect(op.bad_row == N - 1, "the row that is not finite is the bad one");
    }
}

}  // namespace

void mining(Context& context) {
    Random random(8);
    for (const DType dtype : kDTypes) {
        for (const auto& [N, D] : {std::array<int64_t, 2>{1, 1}, {9, 77}, {23, 515}}) {
            context.begin(std::string("prepare_rows, ") + name(dtype) + ", " +
                          describe({{"N", N}, {"D", D}}));
            check_prepare(context, dtype, N, D, true, false, random);
            check_prepare(context, dtype, N, D, false, false, random);
            check_prepare(context, dtype, N, D, false, true, random);
        }
    }
    for (const DType dtype : kWide) {
        for (const auto& [N, M] : {std::array<int64_t, 2>{1, 1}, {9, 20}, {161, 283}}) {
            context.begin(std::string("mine, ") + name(dtype) + ", " + describe({{"N", N}, {"M", M}}));
            check_mine(context, dtype, N, M, false, random);
            check_mine(context, dtype, N, M, true, random);
        }
    }
    for (const DType dtype : kDTypes) {
        for (const auto& [N, D] : {std::array<int64_t, 2>{1, 1}, {9, 128}, {64, 515}, {128, 300}}) {
            context.begin(std::string("mine_batch, ") + name(dtype) + ", " + describe({{"N", N}, {"D", D}}));
            for (const Metric metric : {Metric::euclidean, Metric::squared, Metric::cosine})
                check_mine_batch(context, dtype, metric, N, D, random);
        }
    }
}

}  // namespace checks
