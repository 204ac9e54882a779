// The kernels of k-reciprocal re-ranking (Zhong et al., CVPR 2017) on sparse rows, against sets and dense
// rows.
#include <algorithm>
#include <map>
#include <set>

#include "checks.h"

namespace checks {
namespace {

// Neighbours of N items: a ranking (N,K) of each, and its distances.
struct Ranking {
    int64_t N, K;
    std::vector<int64_t> rank;
    std::vector<double> distances;
};

Ranking ranking(Random& random, int64_t N, int64_t K) {
    std::vector<double> place = random_values(random, N);
    Ranking result{N, K, {}, {}};
    for (int64_t i = 0; i < N; ++i) {
        std::vector<std::pair<double, int64_t>> others;
        for (int64_t j = 0; j < N; ++j) others.push_back({std::abs(place[size_t(i)] - place[size_t(j)]), j});
        std::sort(others.begin(), others.end());
        for (int64_t n = 0; n < K; ++n) {
            result.distances.push_back(others[size_t(n)].first);
            result.rank.push_back(others[size_t(n)].second);
        }
    }
    return result;
}

// Those of the first k neighbours of an item that have it among their first k.
std::set<int64_t> mutual(const Ranking& r, int64_t item, int64_t k) {
    std::set<int64_t> result;
    for (int64_t n = 0; n < k; ++n) {
        const int64_t other = r.rank[size_t(item * r.K + n)];
        const auto first = r.rank.begin() + other * r.K;
        if (std::find(first, first + k, item) != first + k) result.insert(other);
    }
    return result;
}

// The item's set with those that share more than two thirds with it.
std::set<int64_t> expanded(const Ranking& r, int64_t item, int64_t half) {
    const std::set<int64_t> own = mutual(r, item, r.K);
    std::set<int64_t> result = own;
    for (const int64_t other : own) {
        const std::set<int64_t> smaller = mutual(r, other, half);
        size_t shared = 0;
        for (const int64_t each : smaller) shared += own.count(each);
        if (3 * shared > 2 * smaller.size()) result.insert(smaller.begin(), smaller.end());
    }
    return result;
}

void check_reciprocal(Context& context, const Ranking& r, int64_t half) {
    std::vector<int64_t> start(size_t(r.N + 1)), index;
    std::vector<double> distance;
    vreid::Reciprocal op{r.N,     r.K,     half, r.rank.data(), r.distances.data(), start.data(),
                         nullptr, nullptr, 2};
    context.run(&vreid::Table::reciprocal, op);
    for (size_t i = 0; i < size_t(r.N); ++i) start[i + 1] += start[i];
    index.resize(size_t(start.back()));
    distance.resize(index.size());
    op.index = index.data();
    op.distance = distance.data();
    context.run(&vreid::Table::reciprocal, op);
    for (int64_t i = 0; i < r.N; ++i) {
        std::map<int64_t, double> got, wanted;
        for (int64_t n = start[size_t(i)]; n < start[size_t(i + 1)]; ++n)
            got[index[size_t(n)]] = distance[size_t(n)];
        for (const int64_t other : expanded(r, i, half)) {
            wanted[other] = -1;
            for (int64_t n = 0; n < r.K; ++n) {
                if (r.rank[size_t(i * r.K + n)] == other) wanted[other] = r.distances[size_t(i * r.K + n)];
            }
        }
        context.expect(got == wanted && int64_t(got.size()) == start[size_t(i + 1)] - start[size_t(i)],
                       "neighbours as expected");
    }
}

// Sparse rows of N columns.
template <class T>
struct Sparse {
    static constexpr DType kDType = sizeof(T) == sizeof(double) ? DType::f64 : DType::f32;
    std::vector<int64_t> start{0}, index;
    std::vector<T> value;

    int64_t rows() const { return int64_t(start.size()) - 1; }
    vreid::SparseRows view(int64_t first = 0) const {
        return {start.data() + first, index.data(), value.data(), kDType};
    }
    std::vector<double> dense(int64_t columns) const {
        std::vector<double> result(size_t(rows() * columns));
        for (int64_t i = 0; i < rows(); ++i)
            for (int64_t n = start[size_t(i)]; n < start[size_t(i + 1)]; ++n)
                result[size_t(i * columns + index[size_t(n)])] += value[size_t(n)];
        return result;
    }
};

template <class T>
Sparse<T> sparse(Random& random, int64_t rows, int64_t columns) {
    Sparse<T> result;
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
            if (random.below(3)) continue;
            result.index.push_back(j);
            result.value.push_back(T(random.uniform() + 1.5));
        }
        result.start.push_back(int64_t(result.index.size()));
    }
    return result;
}

template <class T>
void check_mean(Context& context, const Ranking& r, const Sparse<T>& rows, int64_t k) {
    Sparse<T> mean;
    mean.start.assign(size_t(r.N + 1), 0);
    vreid::MeanRows op{r.N, r.K, k, r.rank.data(), rows.view(), mean.start.data(), nullptr, nullptr, 2};
    context.run(&vreid::Table::mean_rows, op);
    for (size_t i = 0; i < size_t(r.N); ++i) mean.start[i + 1] += mean.start[i];
    mean.index.resize(size_t(mean.start.back()));
    mean.value.resize(mean.index.size());
    op.index = mean.index.data();
    op.value = mean.value.data();
    context.run(&vreid::Table::mean_rows, op);
    const std::vector<double> dense = rows.dense(r.N);
    std::vector<double> wanted(size_t(r.N * r.N));
    for (int64_t i = 0; i < r.N; ++i)
        for (int64_t n = 0; n < k; ++n)
            for (int64_t j = 0; j < r.N; ++j)
                wanted[size_t(i * r.N + j)] +=
                    dense[size_t(r.rank[size_t(i * r.K + n)] * r.N + j)] / double(k);
    context.near("mean", mean.dense(r.N), wanted, 8 * epsilon(Sparse<T>::kDType));
}

template <class T>
Sparse<T> check_transpose(Context& context, const Sparse<T>& rows, int64_t first) {
    const int64_t N = rows.rows();
    Sparse<T> columns;
    columns.start.assign(size_t(N + 1), 0);
    columns.index.resize(rows.index.size() - size_t(rows.start[size_t(first)]));
    columns.value.resize(columns.index.size());
    vreid::Transpose op{
        N, first, rows.view(), columns.start.data(), columns.index.data(), columns.value.data()};
    context.run(&vreid::Table::transpose, op);
    const std::vector<double> dense = rows.dense(N), got = columns.dense(N);
    std::vector<double> wanted(size_t(N * N));
    for (int64_t i = first; i < N; ++i)
        for (int64_t j = 0; j < N; ++j) wanted[size_t(j * N + i - first)] = dense[size_t(i * N + j)];
    context.near("transpose", got, wanted, 0);
    return columns;
}

template <class T>
void check_overlap(Context& context, const Sparse<T>& rows, const Sparse<T>& columns, int64_t Q,
                   bool products, Random& random) {
    const int64_t N = rows.rows(), G = N - Q;
    const double lambda = 0.3;
    const auto positive = [&](int64_t size) {
        Array result(Sparse<T>::kDType, size);
        for (int64_t i = 0; i < size; ++i) result.set(i, random.uniform() + 2);
        return result;
    };
    Array query_squares = positive(Q), gallery_squares = positive(G), farthest = positive(Q),
          out = positive(Q * G);
    const std::vector<double> dense = rows.dense(N), given = out.values();
    vreid::Overlap op{Q,
                      G,
                      lambda,
                      rows.view(),
                      columns.view(),
                      products ? query_squares.data() : nullptr,
                      products ? gallery_squares.data() : nullptr,
                      farthest.data(),
                      out.data(),
                      2};
    context.run(&vreid::Table::overlap, op);
    std::vector<double> wanted;
    for (int64_t i = 0; i < Q; ++i) {
        for (int64_t j = 0; j < G; ++j) {
            const double value = given[size_t(i * G + j)];
            const double square =
                products ? std::max(0.0, query_squares[i] + gallery_squares[j] - 2 * value) : value * value;
            double shared = 0;
            for (int64_t c = 0; c < N; ++c)
                shared += std::min(dense[size_t(i * N + c)], dense[size_t((Q + j) * N + c)]);
            wanted.push_back(lambda * square / farthest[i] + (1 - lambda) * (1 - shared / (2 - shared)));
        }
    }
    context.near("distance", out, wanted);
}

template <class T>
void check_jaccard(Context& context, const Sparse<T>& rows, const Sparse<T>& columns, double limit) {
    const int64_t N = rows.rows();
    Sparse<T> got;
    got.start.assign(size_t(N + 1), 0);
    vreid::Jaccard op{N, limit, rows.view(), columns.view(), got.start.data(), nullptr, nullptr, 2};
    context.run(&vreid::Table::jaccard, op);
    for (size_t i = 0; i < size_t(N); ++i) got.start[i + 1] += got.start[i];
    got.index.resize(size_t(got.start.back()));
    got.value.resize(got.index.size());
    op.index = got.index.data();
    op.distance = got.value.data();
    context.run(&vreid::Table::jaccard, op);
    const std::vector<double> dense = rows.dense(N);
    const double slack = 64 * epsilon(Sparse<T>::kDType);
    for (int64_t i = 0; i < N; ++i) {
        int64_t n = got.start[size_t(i)];
        for (int64_t j = 0; j < N; ++j) {
            double shared = 0;
            for (int64_t c = 0; c < N; ++c)
                shared += std::min(dense[size_t(i * N + c)], dense[size_t(j * N + c)]);
            const double wanted = i == j ? 0 : std::max(0.0, 1 - shared / (2 - shared));
            const bool there = n < got.start[size_t(i + 1)] && got.index[size_t(n)] == j;
            if (there)
                context.expect(std::abs(double(got.value[size_t(n)]) - wanted) <= slack, "distance");
            else
                context.expect(i != j && (shared == 0 || wanted > limit - slack), "pair left out");
            n += there;
        }
        context.expect(n == got.start[size_t(i + 1)], "pairs in ascending order");
    }
}

template <class T>
void check_rows(Context& context, const Ranking& r, int64_t queries, Random& random) {
    Sparse<T> rows = sparse<T>(random, r.N, r.N);
    check_mean(context, r, rows, (r.K + 1) / 2);
    for (T& value : rows.value) value /= T(r.N);  // rows that sum to less than one
    const Sparse<T> columns = check_transpose(context, rows, queries);
    for (const bool products : {false, true})
        check_overlap(context, rows, columns, queries, products, random);
    const Sparse<T> all = check_transpose(context, rows, 0);
    for (const double limit : {1.0, 0.7, 0.0}) check_jaccard(context, rows, all, limit);
}

}  // namespace

void rerank(Context& context) {
    Random random(6);
    for (const auto& [N, K, half, queries] :
         {std::array<int64_t, 4>{1, 1, 1, 0}, {5, 3, 2, 1}, {83, 21, 11, 17}}) {
        context.begin(describe({{"N", N}, {"K", K}, {"half", half}, {"queries", queries}}));
        const Ranking r = ranking(random, N, K);
        check_reciprocal(context, r, half);
        check_rows<float>(context, r, queries, random);
        check_rows<double>(context, r, queries, random);
    }
}

}  // namespace checks
