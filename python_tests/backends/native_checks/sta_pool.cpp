// sta_pool and its backward: all of STA in one pass.
#include "sta_formulas.h"

namespace checks {
namespace {

std::vector<Var> pool(const std::vector<Var>& x, const Scores& scores, const std::vector<int64_t>& chosen,
                      const Shape& s, const std::vector<char>& valid) {
    std::vector<Var> pooled;
    for (int64_t b = 0; b < s.clips(); ++b) {
        for (const bool weighted : {false, true}) {
            for (int64_t c = 0; c < s.C; ++c) {
                Var total = 0;
                for (int64_t t = 0; t < s.T; ++t) {
                    const int64_t frame = b * s.T + t;
                    if (!counts(valid, frame)) continue;
                    for (int64_t l = 0; l < s.L; ++l) {
                        const int64_t k = l / s.cells();
                        const Var& value = x[size_t((frame * s.C + c) * s.L + l)];
                        if (weighted) {
                            total += scores.normalized[size_t(frame * s.K + k)] * value;
                        } else if (chosen[size_t(b * s.K + k)] == t) {
                            total += value;
                        }
                    }
                }
                pooled.push_back(total / double(s.L));
            }
        }
    }
    return pooled;
}

void check(Context& context, const MapCase& input, Random& random) {
    const Shape& s = input.shape;
    const DType acc = accumulator(input.dtype);
    const std::vector<char> valid = valid_frames(input, random);
    Map x(input.dtype, s, input.layout), dx(input.dtype, s, input.layout);
    std::vector<double> numbers = random_values(random, s.frames() * s.C * s.L);
    if (s.T > 2) std::fill_n(numbers.begin(), s.C * s.L, 0);  // a frame of zeros: uniform attention
    x.fill(numbers);

    const auto array = [&](int64_t each, DType dtype) { return Array(dtype, s.B * each); };
    Array pooled = array(2 * s.C, input.dtype), scores = array(s.T * s.K, acc),
          attention = array(s.T * s.L, acc);
    Array sums = array(s.T * s.K * s.C, acc), energy = array(s.T, acc), total = array(s.K, acc);
    std::vector<int64_t> choice(size_t(s.B * s.K), -2);
    vreid::StaPool op{x.view,        pointer(valid),   s.K,          pooled.data(),
                      scores.data(), attention.data(), sums.data(),  energy.data(),
                      total.data(),  choice.data(),    input.threads};
    context.run(&vreid::Table::sta_pool, op);

    Tape tape;
    const std::vector<Var> values_of_x = leaves(x.values());
    const Attention map = attention_map(values_of_x, s, false, false, valid);
    const Scores shares = block_scores(map.map, s, valid);
    // By the kernel's own scores: with one block, those of all frames are equal but for roundings.
    const std::vector<int64_t> chosen = best_frames(scores.values(), s, valid);
    const std::vector<Var> means = pool(values_of_x, shares, chosen, s, valid);
    context.near("attention", attention, values(map.map));
    context.near("scores", scores, values(shares.normalized));
    context.near("pooled", pooled, values(means));
    choice.resize(chosen.size());
    context.equal("choice", choice, chosen);

    Array grad_pooled = upstream(tape, random, means, input.dtype, s.repeats);
    Array grad_scores = upstream(tape, random, shares.normalized, acc, s.repeats);
    Array grad_attention = upstream(tape, random, map.map, acc, s.repeats);
    choice.resize(size_t(s.B * s.K));
    for (size_t i = chosen.size(); i < choice.size(); ++i) choice[i] = choice[i - chosen.size()];
    vreid::StaPoolBackward back{x.view,
                                dx.view,
                                pointer(valid),
                                s.K,
                                grad_pooled.data(),
                                grad_scores.data(),
                                grad_attention.data(),
                                scores.data(),
                                attention.data(),
                                sums.data(),
                                energy.data(),
                                total.data(),
                                choice.data(),
                                input.threads};
    context.run(&vreid::Table::sta_pool_backward, back);
    dx.check(context, "gradient", tape.gradient(values_of_x));
}

}  // namespace

void sta_pool(Context& context) {
    for_maps(context, true, [&](const MapCase& input, Random& random) { check(context, input, random); });
}

}  // namespace checks
