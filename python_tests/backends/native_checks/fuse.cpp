// fuse and its backward: per block the frame of the largest score, and the weighted sum of all frames.
#include "sta_formulas.h"

namespace checks {
namespace {

std::vector<Var> fused(const std::vector<Var>& x, const std::vector<Var>& scores,
                       const std::vector<int64_t>& chosen, const Shape& s, const std::vector<char>& valid) {
    std::vector<Var> result;
    for (int64_t b = 0; b < s.clips(); ++b) {
        for (const bool weighted : {false, true}) {
            for (int64_t i = 0; i < s.C * s.L; ++i) {
                const int64_t k = i % s.L / s.cells();
                Var total = 0;
                for (int64_t t = 0; t < s.T; ++t) {
                    const int64_t frame = b * s.T + t;
                    if (!counts(valid, frame)) continue;
                    const Var& value = x[size_t(frame * s.C * s.L + i)];
                    if (weighted) {
                        total += scores[size_t(frame * s.K + k)] * value;
                    } else if (chosen[size_t(b * s.K + k)] == t) {
                        total += value;
                    }
                }
                result.push_back(total);
            }
        }
    }
    return result;
}

void check(Context& context, const MapCase& input, Random& random) {
    const Shape& s = input.shape;
    const DType acc = accumulator(input.dtype);
    const std::vector<char> valid = valid_frames(input, random);
    Map x(input.dtype, s, input.layout), dx(input.dtype, s, input.layout);
    x.fill(random_values(random, s.frames() * s.C * s.L));
    Array scores(acc, s.B * s.T * s.K), maps(input.dtype, s.B * 2 * s.C * s.L), dscores(acc, s.B * s.T * s.K);
    for (int64_t i = 0; i < s.frames() * s.K; ++i) scores.set(i, random.uniform());
    scores.repeat(s.repeats);
    std::vector<int64_t> choice(size_t(s.B * s.K), -2);
    vreid::Fuse op{x.view, s.K, scores.data(), pointer(valid), maps.data(), choice.data(), input.threads};
    context.run(&vreid::Table::fuse, op);

    Tape tape;
    std::vector<double> numbers = scores.values();
    numbers.resize(size_t(s.frames() * s.K));
    const std::vector<Var> values_of_x = leaves(x.values()), weights = leaves(numbers);
    const std::vector<int64_t> chosen = best_frames(numbers, s, valid);
    const std::vector<Var> wanted = fused(values_of_x, weights, chosen, s, valid);
    context.near("fused", maps, values(wanted));
    context.equal("choice", {choice.begin(), choice.begin() + int64_t(chosen.size())}, chosen);

    Array grad = upstream(tape, random, wanted, input.dtype, s.repeats);
    vreid::FuseBackward back{x.view,         dx.view,        s.K,
                             grad.data(),    scores.data(),  choice.data(),
                             pointer(valid), dscores.data(), input.threads};
    context.run(&vreid::Table::fuse_backward, back);
    dx.check(context, "gradient of x", tape.gradient(values_of_x));
    context.near("gradient of the scores", dscores, tape.gradient(weights));
}

}  // namespace

void fuse(Context& context) {
    for_maps(context, true, [&](const MapCase& input, Random& random) { check(context, input, random); });
}

}  // namespace checks
