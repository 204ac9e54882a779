// mined_distance with its backward, triplet and identity_hard.
#include <cmath>
#include <optional>

#include "checks.h"

namespace checks {
namespace {

using vreid::Metric;

constexpr std::pair<const char*, Metric> kMetrics[] = {
    {"euclidean", Metric::euclidean}, {"squared", Metric::squared}, {"cosine", Metric::cosine}};

// Rows (N,D) that lie `D + gap` numbers apart.
struct Embeddings {
    Embeddings(DType dtype, int64_t N, int64_t D, int64_t gap, Random& random)
        : array(dtype, N * (D + gap), gap), rows{array.data(), dtype, N, D, D + gap} {
        for (int64_t i = 0; i < N * D; ++i) array.set(i / D * rows.stride + i % D, random.uniform());
    }
    std::vector<double> numbers() const {
        std::vector<double> result;
        for (int64_t i = 0; i < rows.N * rows.D; ++i)
            result.push_back(array[i / rows.D * rows.stride + i % rows.D]);
        return result;
    }

    Array array;
    vreid::Rows rows;
};

Var distance(const Var* x, const Var* y, int64_t D, Metric metric) {
    Var square = 0, product = 0, xx = 0, yy = 0;
    for (int64_t d = 0; d < D; ++d) {
        square += (x[d] - y[d]) * (x[d] - y[d]);
        product += x[d] * y[d];
        xx += x[d] * x[d];
        yy += y[d] * y[d];
    }
    if (metric == Metric::cosine) return 1 - product / (sqrt(xx) * sqrt(yy));
    return metric == Metric::squared ? square : sqrt(square);
}

void check_distances(Context& context, DType dtype, int64_t N, int64_t refs, int64_t D, int64_t gap,
                     Metric metric, Random& random) {
    const int64_t M = 2;
    const DType acc = accumulator(dtype);
    Embeddings x(dtype, N, D, gap, random);
    std::optional<Embeddings> ref;
    if (refs) ref.emplace(dtype, refs, D, gap, random);
    std::vector<int64_t> index;
    for (int64_t i = 0; i < M * N; ++i) {
        const int64_t anchor = i % N, rows = refs ? refs : N;
        const int64_t other = random.below(rows);  // not a row itself: roundings alone would be left
        index.push_back(!refs && other == anchor ? -1 : other);
    }
    Array distances(acc, M * N), dx(dtype, N * D), dref(dtype, refs * D);
    const vreid::Rows none{nullptr, dtype, 0, D, D}, others = refs ? ref->rows : none;
    vreid::MinedDistance op{x.rows, others, index.data(), M, metric, distances.data(), 2};
    context.run(&vreid::Table::mined_distance, op);

    Tape tape;
    const std::vector<Var> anchors = leaves(x.numbers());
    const std::vector<Var> candidates = refs ? leaves(ref->numbers()) : anchors;
    std::vector<Var> wanted;
    for (int64_t i = 0; i < M * N; ++i) {
        const int64_t j = index[size_t(i)];
        wanted.push_back(
            j < 0 ? Var(0) : distance(&anchors[size_t(i % N * D)], &candidates[size_t(j * D)], D, metric));
    }
    context.near("distance", distances, values(wanted));

    Array grad = upstream(tape, random, wanted, acc);
    vreid::MinedDistanceBackward back{x.rows,      others,           index.data(), M,           metric,
                                      grad.data(), distances.data(), dx.data(),    dref.data(), 2};
    context.run(&vreid::Table::mined_distance_backward, back);
    context.near("gradient of x", dx, tape.gradient(anchors));
    if (refs) context.near("gradient of ref", dref, tape.gradient(candidates));
}

void check_triplet(Context& context, DType dtype, int64_t N, bool soft, Random& random) {
    const double margin = 0.3;
    Array distances(dtype, random_values(random, 2 * N)), loss(dtype, 1), slope(dtype, 2 * N);
    std::vector<int64_t> index;
    for (int64_t i = 0; i < 2 * N; ++i) index.push_back(random.below(5) - 1);
    vreid::Triplet op{dtype, N, distances.data(), index.data(), margin, soft, loss.data(), slope.data()};
    context.run(&vreid::Table::triplet, op);

    Tape tape;
    const std::vector<Var> inputs = leaves(distances.values());
    Var total = 0;
    int64_t valid = 0;
    for (int64_t i = 0; i < N; ++i) {
        if (index[size_t(i)] < 0 || index[size_t(N + i)] < 0) continue;
        const Var gap = inputs[size_t(i)] - inputs[size_t(N + i)];
        ++valid;
        if (soft) {
            total += log(1 + exp(gap));
        } else if (margin + gap.value > 0) {
            total += margin + gap;
        }
    }
    total = total / double(valid ? valid : 1);
    tape.seed(total, 1);
    context.near("loss", loss, {total.value});
    context.near("slope", slope, tape.gradient(inputs));
}

void check_identity(Context& context, DType dtype, int64_t N, Metric metric, bool include_self,
                    Random& random) {
    const int64_t D = 21;
    Embeddings x(dtype, N, D, 0, random);
    std::vector<int64_t> labels, order, index(size_t(2 * N), -2), wanted(size_t(2 * N), -1);
    for (int64_t i = 0; i < N; ++i) labels.push_back(random.below(4));
    for (int64_t label = 0; label < 4; ++label)
        for (int64_t i = 0; i < N; ++i)
            if (labels[size_t(i)] == label) order.push_back(i);
    vreid::IdentityHard op{x.rows, labels.data(), order.data(), metric, include_self, index.data(), 2};
    context.run(&vreid::Table::identity_hard, op);

    Tape tape;
    const std::vector<Var> numbers = leaves(x.numbers());
    for (int64_t i = 0; i < N; ++i) {
        double far = 0, near = 0;
        for (int64_t j = 0; j < N; ++j) {
            if (labels[size_t(i)] != labels[size_t(j)] || (i == j && !include_self)) continue;
            const double d =
                i == j ? 0 : distance(&numbers[size_t(i * D)], &numbers[size_t(j * D)], D, metric).value;
            int64_t &farthest = wanted[size_t(i)], &nearest = wanted[size_t(N + i)];
            if (farthest < 0 || d > far) far = d, farthest = j;
            if (nearest < 0 || d < near) near = d, nearest = j;
        }
    }
    context.equal("index", index, wanted);
}

}  // namespace

void pairs(Context& context) {
    Random random(5);
    for (const DType dtype : kDTypes) {
        for (const auto& [metric_name, metric] : kMetrics) {
            for (const auto& [N, refs, D, gap] :
                 {std::array<int64_t, 4>{1, 0, 1, 0}, {1, 1, 1, 0}, {19, 0, 77, 0}, {19, 23, 128, 3}}) {
                context.begin(std::string("mined_distance, ") + name(dtype) + ", " + metric_name + ", " +
                              describe({{"N", N}, {"refs", refs}, {"D", D}, {"gap", gap}}));
                check_distances(context, dtype, N, refs, D, gap, metric, random);
            }
            for (const bool include_self : {false, true}) {
                context.begin(std::string("identity_hard, ") + name(dtype) + ", " + metric_name);
                for (const int64_t N : {0, 1, 30})
                    check_identity(context, dtype, N, metric, include_self, random);
            }
        }
    }
    for (const DType dtype : kWide) {
        for (const bool soft : {false, true}) {
            context.begin(std::string("triplet, ") + name(dtype) + (soft ? ", soft" : ""));
            for (const int64_t N : {0, 1, 50}) check_triplet(context, dtype, N, soft, random);
        }
    }
}

}  // namespace checks
