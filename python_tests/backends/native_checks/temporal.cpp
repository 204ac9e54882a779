// temporal_pool and its backward: a softmax of scores over the frames weighs their features.
#include "sta_formulas.h"

namespace checks {
namespace {

struct Sizes {
    int64_t B, T, K, D;
};

// Weights (B,T,K) from scores, zero for frames that do not count.
std::vector<Var> softmax(const std::vector<Var>& scores, const Sizes& s, const std::vector<char>& valid) {
    std::vector<Var> weights(scores.size());
    for (int64_t b = 0; b < s.B; ++b) {
        for (int64_t k = 0; k < s.K; ++k) {
            Var total = 0;
            for (int64_t t = b * s.T; t < (b + 1) * s.T; ++t) {
                if (counts(valid, t)) total += exp(scores[size_t(t * s.K + k)]);
            }
            for (int64_t t = b * s.T; t < (b + 1) * s.T; ++t) {
                if (counts(valid, t)) weights[size_t(t * s.K + k)] = exp(scores[size_t(t * s.K + k)]) / total;
            }
        }
    }
    return weights;
}

void check(Context& context, DType dtype, const Sizes& s, bool padded, Random& random) {
    const DType acc = accumulator(dtype);
    const std::vector<char> valid = padded ? some_frames(random, s.B, s.T) : std::vector<char>{};
    Tape tape;
    const std::vector<Var> scores = leaves(random_values(random, s.B * s.T * s.K));
    const std::vector<Var> shares = softmax(scores, s, valid);
    Array weights(acc, values(shares)), features(dtype, random_values(random, s.B * s.T * s.K * s.D));
    Array pooled(dtype, s.B * s.K * s.D), dscores(acc, weights.size()), dfeatures(dtype, features.size());
    vreid::TemporalPool op{dtype,          s.B,           s.T, s.K, s.D, weights.data(), features.data(),
                           pointer(valid), pooled.data(), 2};
    context.run(&vreid::Table::temporal_pool, op);

    const std::vector<Var> inputs = leaves(features.values());
    std::vector<Var> wanted;
    for (int64_t i = 0; i < s.B * s.K * s.D; ++i) {
        const int64_t b = i / (s.K * s.D), k = i / s.D % s.K, d = i % s.D;
        Var total = 0;
        for (int64_t t = b * s.T; t < (b + 1) * s.T; ++t)
            total += shares[size_t(t * s.K + k)] * inputs[size_t((t * s.K + k) * s.D + d)];
        wanted.push_back(total);
    }
    context.near("pooled", pooled, values(wanted));

    Array grad = upstream(tape, random, wanted, dtype);
    vreid::TemporalPoolBackward back{dtype,
                                     s.B,
                                     s.T,
                                     s.K,
                                     s.D,
                                     grad.data(),
                                     weights.data(),
                                     features.data(),
                                     pointer(valid),
                                     dscores.data(),
                                     dfeatures.data(),
                                     2};
    context.run(&vreid::Table::temporal_pool_backward, back);
    context.near("gradient of the scores", dscores, tape.gradient(scores));
    context.near("gradient of the features", dfeatures, tape.gradient(inputs));
}

}  // namespace

void temporal(Context& context) {
    Random random(4);
    for (const DType dtype : kDTypes) {
        for (const bool padded : {false, true}) {
            for (const Sizes& s :
                 {Sizes{0, 2, 3, 4}, Sizes{1, 1, 1, 1}, Sizes{2, 5, 3, 77}, Sizes{3, 2, 1, 64}}) {
                context.begin(std::string(name(dtype)) + (padded ? ", padded, " : ", ") +
                              describe({{"B", s.B}, {"T", s.T}, {"K", s.K}, {"D", s.D}}));
                check(context, dtype, s, padded, random);
            }
        }
    }
}

}  // namespace checks
