// squared_norms, pair_distances, rank_counts and top_k, from distances and from products of features.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

using vreid::Metric;

// Queries and gallery with the distances between them in double, and keys that order the gallery as they do.
struct Input {
    Input(DType dtype, Metric metric, int64_t Q, int64_t G, int64_t D, Random& random)
        : Q(Q),
          G(G),
          metric(metric),
          query(dtype, random_values(random, Q * D)),
          gallery(dtype, random_values(random, G * D)),
          products(DType::f32, Q * G),
          scale(DType::f32, G),
          shift(DType::f32, G),
          features{dtype, metric, D, query.data(), gallery.data(), nullptr, nullptr} {
        for (int64_t j = 5; j < G; j += 5) {  // copies: ties that the index settles
            for (int64_t d = 0; d < D; ++d) gallery.set(j * D + d, gallery[(j - 5) * D + d]);
        }
        for (int64_t i = 0; i < Q; ++i) {
            query_squares.push_back(dot(query, i, query, i));
            lengths.push_back(metric == Metric::cosine ? std::sqrt(query_squares.back()) : 1);
        }
        for (int64_t j = 0; j < G; ++j) {
            squares.push_back(dot(gallery, j, gallery, j));
            shift.set(j, metric == Metric::cosine ? 1 : squares.back());
            scale.set(j, metric == Metric::cosine ? -1 / std::sqrt(squares.back()) : -2);
        }
        for (int64_t i = 0; i < Q * G; ++i) {
            const double product = dot(query, i / G, gallery, i % G);
            const double square = query_squares[size_t(i / G)] + squares[size_t(i % G)];
            products.set(i, product / lengths[size_t(i / G)]);
            plain.push_back(metric == Metric::cosine ? 1 - product / std::sqrt(query_squares[size_t(i / G)] *
                                                                               squares[size_t(i % G)])
                                                     : std::sqrt(std::max(0.0, square - 2 * product)));
        }
    }

    vreid::Tile tile() const {
        Input& self = const_cast<Input&>(*this);
        return {DType::f32,
                Q,
                G,
                0,
                self.products.data(),
                G,
                {},
                {},
                static_cast<const float*>(self.scale.data()),
                static_cast<const float*>(self.shift.data()),
                nullptr,
                nullptr,
                nullptr};
    }
    // The key of a distance, and how far the keys of a tile may be off.
    double key(int64_t i, double distance) const {
        return metric == Metric::cosine ? distance : distance * distance - query_squares[size_t(i)];
    }
    double error() const { return 1e-5 * (metric == Metric::cosine ? 1 : double(features.D)); }

    int64_t Q, G;
    Metric metric;
    Array query, gallery, products, scale, shift;
    vreid::Features features;
    std::vector<double> query_squares, squares, lengths, plain;

  private:
    double dot(const Array& a, int64_t i, const Array& b, int64_t j) const {
        const int64_t D = features.D;
        double total = 0;
        for (int64_t d = 0; d < D; ++d) total += a[i * D + d] * b[j * D + d];
        return total;
    }
};

// Two positives of each query.
struct Positives {
    explicit Positives(const Input& input, Random& random) {
        for (int64_t i = 0; i < input.Q; ++i) {
            start.push_back(int64_t(index.size()));
            index.push_back(random.below(input.G));
            if (input.G > 1) index.push_back((index.back() + 1) % input.G);
        }
        start.push_back(int64_t(index.size()));
    }
    std::vector<int64_t> start, index;
};

// How many items come before each positive.
std::vector<int64_t> counts(const Input& input, const Positives& positives,
                            const std::vector<double>& distances, const std::vector<char>& kept) {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < input.Q; ++i) {
        for (int64_t p = positives.start[size_t(i)]; p < positives.start[size_t(i + 1)]; ++p) {
            const int64_t own = positives.index[size_t(p)];
            const double at = distances[size_t(i * input.G + own)];
            result.push_back(0);
            for (int64_t j = 0; j < input.G; ++j) {
                const double d = distances[size_t(i * input.G + j)];
                result.back() += kept[size_t(j)] && (d < at || (d == at && j < own));
            }
        }
    }
    return result;
}

void check(Context& context, DType dtype, Metric metric, int64_t Q, int64_t G, int64_t D, Random& random) {
    Input input(dtype, metric, Q, G, D, random);
    std::vector<double> norms(size_t(Q), 0), distances(size_t(Q * G), 0);
    vreid::SquaredNorms squared{dtype, Q, D, input.query.data(), norms.data(), {}, nullptr, 2};
    context.run(&vreid::Table::squared_norms, squared);
    context.near("squared norms", norms, input.query_squares, 1e-13);

    std::vector<int64_t> row, column;
    for (int64_t i = 0; i < Q * G; ++i) {
        row.push_back(i / G);
        column.push_back(i % G);
    }
    vreid::PairDistances pairs{input.features, Q * G, row.data(), column.data(), distances.data(), 2};
    context.run(&vreid::Table::pair_distances, pairs);
    context.near("distances", distances, input.plain, 1e-12);

    const Positives positives(input, random);
    std::vector<char> kept;
    for (int64_t j = 0; j < G; ++j) kept.push_back(random.below(4) > 0);
    const std::vector<int64_t> wanted = counts(input, positives, distances, kept);
    std::vector<double> at;
    std::vector<float> low, high;
    for (int64_t i = 0; i < Q; ++i) {
        for (int64_t p = positives.start[size_t(i)]; p < positives.start[size_t(i + 1)]; ++p) {
            at.push_back(distances[size_t(i * G + positives.index[size_t(p)])]);
            low.push_back(float(input.key(i, at.back()) - input.error()));
            high.push_back(float(input.key(i, at.back()) + input.error()));
        }
    }
    std::vector<int64_t> before(at.size());
    vreid::Tile tile = input.tile();
    tile.kept = reinterpret_cast<const bool*>(kept.data());
    vreid::RankCounts op{tile,      input.features,         positives.start.data(), low.data(), high.data(),
                         at.data(), positives.index.data(), before.data(),          nullptr,    2};
    context.run(&vreid::Table::rank_counts, op);
    context.equal("counts from products", before, wanted);

    // From the features themselves: those of queries, which are packed, are divided by their norms for
    // cosine.
    std::vector<double> queries = input.query.values();
    for (int64_t i = 0; i < Q * D; ++i) queries[size_t(i)] /= input.lengths[size_t(i / D)];
    Packed packed_queries(context, DType::f32, queries, Q, D);
    Array rows(DType::f32, input.gallery.values());
    const int64_t few = std::min(Q, context.kernels.panel_rows(DType::f32));
    std::vector<double> with_queries(size_t(G), 0), squares, dots;
    Array products(DType::f32, few * G);
    squared = {DType::f32,
               G,
               D,
               rows.data(),
               with_queries.data(),
               {packed_queries.view().data, few, D},
               static_cast<float*>(products.data()),
               2};
    context.run(&vreid::Table::squared_norms, squared);
    for (int64_t n = 0; n < (few + 1) * G; ++n) {
        const int64_t q = n / G - 1, j = n % G;  // first the items with themselves
        double sum = 0;
        for (int64_t d = 0; d < D; ++d)
            sum += rows[j * D + d] * (q < 0 ? rows[j * D + d] : queries[size_t(q * D + d)]);
        (q < 0 ? squares : dots).push_back(sum);
    }
    context.near("squared norms beside products", with_queries, squares, 1e-13);
    context.near("products beside squared norms", products, dots);
    std::fill(before.begin(), before.end(), 0);
    op.tile.values = nullptr;
    op.tile.x = packed_queries.view();
    op.tile.y = {rows.data(), DType::f32, G, D, D};
    context.run(&vreid::Table::rank_counts, op);
    context.equal("counts from features", before, wanted);

    // From a matrix of distances: the same, and what a row leaves out is left out.
    std::fill(before.begin(), before.end(), 0);
    std::vector<int64_t> left_start{0}, left;
    for (int64_t i = 0; i < Q; ++i) {
        for (int64_t j = 0; j < G; ++j) {
            if (!kept[size_t(j)]) left.push_back(j);
        }
        left_start.push_back(int64_t(left.size()));
    }
    op.tile = {DType::f64, Q,       G,       0,       distances.data(),  G,          {},
               {},         nullptr, nullptr, nullptr, left_start.data(), left.data()};
    op.features = {dtype, metric, 0, nullptr, nullptr, nullptr, nullptr};
    op.low = op.high = nullptr;
    std::vector<char> finite(static_cast<size_t>(Q), 2);
    op.finite = reinterpret_cast<bool*>(finite.data());
    context.run(&vreid::Table::rank_counts, op);
    context.equal("counts from distances", before, wanted);
    context.equal("finite rows", finite, std::vector<char>(size_t(Q), 1));
    std::fill(before.begin(), before.end(), 0);
    op.distance = nullptr;
    context.run(&vreid::Table::rank_counts, op);
    context.equal("counts; the kernel reads the distances of the positives", before, wanted);
    // A row that is not finite in one place, also in the last one, which is no whole vector.
    for (const double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        for (const int64_t column : {int64_t(0), G / 2, G - 1}) {
            std::vector<double> changed = distances;
            changed[size_t((Q / 2) * G + column)] = bad;
            op.tile.values = changed.data();
            context.run(&vreid::Table::rank_counts, op);
            std::vector<char> expected(size_t(Q), 1);
            expected[size_t(Q / 2)] = 0;
            context.equal("rows with a number that is not finite", finite, expected);
        }
    }

    const int64_t k = std::min<int64_t>(G, 7), capacity = 2 * k + 64;
    std::vector<float> error(size_t(Q), float(input.error())), keys(size_t(Q * capacity)),
        limit(size_t(Q), FLT_MAX), largest(size_t(Q), -INFINITY);
    std::vector<int64_t> index(size_t(Q * capacity), -1), size(size_t(Q), 0), nearest(size_t(Q * k), -1),
        sorted;
    std::vector<double> nearest_distance(size_t(Q * k), -1), sorted_distance;
    vreid::TopK lists{
        input.tile(), input.features, k, capacity, error.data(), keys.data(), index.data(), size.data(),
        limit.data(), largest.data(), 2};
    context.run(&vreid::Table::top_k, lists);
    vreid::TopKResult result{lists, k, nearest_distance.data(), nearest.data()};
    context.run(&vreid::Table::top_k_result, result);
    for (int64_t i = 0; i < Q; ++i) {
        std::vector<std::pair<double, int64_t>> items;
        for (int64_t j = 0; j < G; ++j) items.push_back({distances[size_t(i * G + j)], j});
        std::sort(items.begin(), items.end());
        for (int64_t n = 0; n < k; ++n) {
            sorted.push_back(items[size_t(n)].second);
            sorted_distance.push_back(items[size_t(n)].first);
        }
    }
    context.equal("nearest items", nearest, sorted);
    context.equal("their distances", nearest_distance, sorted_distance);
}

}  // namespace

void ranking(Context& context) {
    Random random(10);
    for (const DType dtype : kWide) {
        for (const Metric metric : {Metric::cosine, Metric::euclidean}) {
            for (const auto& [Q, G, D] :
                 {std::array<int64_t, 3>{1, 1, 1}, {5, 77, 21}, {3, 5000, 8}, {140, 230, 40}}) {
                context.begin(std::string(name(dtype)) +
                              (metric == Metric::cosine ? ", cosine, " : ", euclidean, ") +
                              describe({{"Q", Q}, {"G", G}, {"D", D}}));
                check(context, dtype, metric, Q, G, D, random);
            }
        }
    }
}

}  // namespace checks
