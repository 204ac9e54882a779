// inter_frame_distance and its backward: the mean distance of pairs of frames.
#include "checks.h"

namespace checks {
namespace {

void check(Context& context, DType dtype, int64_t B, int64_t T, int64_t L, int64_t M, Random& random) {
    Array attention(dtype, random_values(random, B * T * L)), distance(dtype, B), gradient(dtype, B * T * L);
    std::vector<int64_t> pairs;  // among them some of a frame with itself: no distance, no gradient
    for (int64_t i = 0; i < B * M * 2; ++i) pairs.push_back(random.below(T));
    vreid::InterFrameDistance op{dtype, B, T, L, M, attention.data(), pairs.data(), distance.data(), 2};
    context.run(&vreid::Table::inter_frame_distance, op);

    Tape tape;
    const std::vector<Var> inputs = leaves(attention.values());
    std::vector<Var> wanted;
    for (int64_t b = 0; b < B; ++b) {
        Var total = 0;
        for (int64_t m = 0; m < M; ++m) {
            Var square = 0;
            for (int64_t l = 0; l < L; ++l) {
                const int64_t i = pairs[size_t((b * M + m) * 2)], j = pairs[size_t((b * M + m) * 2 + 1)];
                const Var difference =
                    inputs[size_t((b * T + i) * L + l)] - inputs[size_t((b * T + j) * L + l)];
                square += difference * difference;
            }
            total += sqrt(square);
        }
        wanted.push_back(total / double(M));
    }
    context.near("distance", distance, values(wanted));

    Array grad = upstream(tape, random, wanted, dtype);
    vreid::InterFrameDistanceBackward back{
        dtype, B, T, L, M, grad.data(), attention.data(), pairs.data(), gradient.data(), 2};
    context.run(&vreid::Table::inter_frame_distance_backward, back);
    context.near("gradient", gradient, tape.gradient(inputs));
}

}  // namespace

void inter_frame_distance(Context& context) {
    Random random(2);
    for (const DType dtype : kWide) {
        for (const auto& [B, T, L, M] : {std::array<int64_t, 4>{0, 1, 1, 1}, {1, 1, 1, 1}, {3, 4, 77, 9}}) {
            context.begin(std::string(name(dtype)) + ", " +
                          describe({{"B", B}, {"T", T}, {"L", L}, {"M", M}}));
            check(context, dtype, B, T, L, M, random);
        }
    }
}

}  // namespace checks
