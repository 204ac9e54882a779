// attention_map and block_scores, with their backward passes.
#include "sta_formulas.h"

namespace checks {
namespace {

void check_map(Context& context, const MapCase& input, Random& random) {
    const Shape& s = input.shape;
    const DType acc = accumulator(input.dtype);
    const bool root_energy = random.below(2), l2_norm = random.below(2);
    Map x(input.dtype, s, input.layout), dx(input.dtype, s, input.layout);
    std::vector<double> numbers = random_values(random, s.frames() * s.C * s.L);
    if (s.T > 2) std::fill_n(numbers.begin(), s.C * s.L, 0);  // a frame of zeros: uniform attention
    x.fill(numbers);
    Array attention(acc, s.B * s.T * s.L), norm(acc, s.B * s.T);
    vreid::AttentionMap op{x.view, root_energy, l2_norm, attention.data(), norm.data(), input.threads};
    context.run(&vreid::Table::attention_map, op);

    Tape tape;
    const std::vector<Var> values_of_x = leaves(x.values());
    const Attention wanted = attention_map(values_of_x, s, root_energy, l2_norm, {});
    context.near("attention", attention, values(wanted.map));
    context.near("norm", norm, values(wanted.norm));

    Array grad = upstream(tape, random, wanted.map, acc, s.repeats);
    vreid::AttentionMapBackward back{x.view,      dx.view,          root_energy, l2_norm,
                                     grad.data(), attention.data(), norm.data(), input.threads};
    context.run(&vreid::Table::attention_map_backward, back);
    dx.check(context, "gradient", tape.gradient(values_of_x));
}

void check_scores(Context& context, DType dtype, const Shape& s, bool padded, Random& random) {
    const std::vector<char> valid = padded ? some_frames(random, s.B, s.T) : std::vector<char>{};
    std::vector<double> numbers = random_values(random, s.B * s.T * s.L);
    // A block that is zero in all frames of a clip: the frames share it equally.
    for (int64_t i = 0; i < s.B * s.T * s.L; ++i) {
        if (i / (s.T * s.L) == s.B - 1 && i % s.L < s.cells()) numbers[size_t(i)] = 0;
    }
    Array attention(dtype, numbers), scores(dtype, s.B * s.T * s.K), total(dtype, s.B * s.K);
    Array gradient(dtype, s.B * s.T * s.L);
    vreid::BlockScores op{dtype,          s.B,           s.T,          s.L, s.K, attention.data(),
                          pointer(valid), scores.data(), total.data(), 2};
    context.run(&vreid::Table::block_scores, op);

    Tape tape;
    const std::vector<Var> inputs = leaves(attention.values());
    const Scores wanted = block_scores(inputs, s, valid);
    context.near("scores", scores, values(wanted.normalized));
    context.near("total", total, values(wanted.total));

    Array grad = upstream(tape, random, wanted.normalized, dtype);
    vreid::BlockScoresBackward back{dtype,
                                    s.B,
                                    s.T,
                                    s.L,
                                    s.K,
                                    grad.data(),
                                    attention.data(),
                                    pointer(valid),
                                    scores.data(),
                                    total.data(),
                                    gradient.data(),
                                    2};
    context.run(&vreid::Table::block_scores_backward, back);
    context.near("gradient", gradient, tape.gradient(inputs));
}

}  // namespace

void attention(Context& context) {
    for_maps(context, false,
             [&](const MapCase& input, Random& random) { check_map(context, input, random); });
    Random random(1);
    for (const DType dtype : kWide) {
        for (const bool padded : {false, true}) {
            for (const Shape& shape : {Shape{0, 2, 1, 4, 2}, Shape{1, 1, 1, 1, 1}, Shape{3, 5, 1, 42, 3}}) {
                context.begin(std::string("block_scores, ") + name(dtype) + (padded ? ", padded" : "") +
                              describe({{", B", shape.B}}));
                check_scores(context, dtype, shape, padded, random);
            }
        }
    }
}

}  // namespace checks
