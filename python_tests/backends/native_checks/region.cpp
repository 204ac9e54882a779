// region_pool (softmax of logits, weighted sums of cells, overlap of the regions), hellinger_overlap,
// backward.
#include "maps.h"

namespace checks {
namespace {

// || W W^T - I ||^2 of each frame.
std::vector<Var> overlaps(const std::vector<Var>& W, int64_t frames, int64_t K, int64_t L) {
    std::vector<Var> result;
    for (int64_t frame = 0; frame < frames; ++frame) {
        Var total = 0;
        for (int64_t i = 0; i < K; ++i) {
            for (int64_t j = 0; j < K; ++j) {
                Var product = i == j ? -1 : 0;
                for (int64_t l = 0; l < L; ++l)
                    product += W[size_t((frame * K + i) * L + l)] * W[size_t((frame * K + j) * L + l)];
                total += product * product;
            }
        }
        result.push_back(total);
    }
    return result;
}

std::vector<Var> roots(const std::vector<Var>& numbers) {
    std::vector<Var> result;
    for (const Var& number : numbers) result.push_back(sqrt(number));
    return result;
}

std::vector<Var> softmax(const std::vector<Var>& logits, int64_t L) {
    std::vector<Var> result;
    for (size_t first = 0; first < logits.size(); first += size_t(L)) {
        Var total = 0;
        for (size_t i = first; i < first + size_t(L); ++i) total += exp(logits[i]);
        for (size_t i = first; i < first + size_t(L); ++i) result.push_back(exp(logits[i]) / total);
    }
    return result;
}

// features[k,c] = sum_l s[k,l] x[c,l]
std::vector<Var> gathered(const std::vector<Var>& s, const std::vector<Var>& x, const Shape& shape) {
    std::vector<Var> result;
    for (int64_t frame = 0; frame < shape.frames(); ++frame) {
        for (int64_t k = 0; k < shape.K; ++k) {
            for (int64_t c = 0; c < shape.C; ++c) {
                Var total = 0;
                for (int64_t l = 0; l < shape.L; ++l)
                    total += s[size_t((frame * shape.K + k) * shape.L + l)] *
                             x[size_t((frame * shape.C + c) * shape.L + l)];
                result.push_back(total);
            }
        }
    }
    return result;
}

void check_pool(Context& context, const MapCase& input, const Shape& s, Random& random) {
    const DType acc = accumulator(input.dtype);
    const int64_t frames = s.B * s.T;
    Map x(input.dtype, s, input.layout), dx(input.dtype, s, input.layout);
    x.fill(random_values(random, s.frames() * s.C * s.L));
    Array logits(acc, frames * s.K * s.L), weights(acc, frames * s.K * s.L), overlap(acc, frames);
    Array features(input.dtype, frames * s.K * s.C), dlogits(acc, frames * s.K * s.L);
    for (int64_t i = 0; i < s.frames() * s.K * s.L; ++i) logits.set(i, 5 * random.uniform());
    logits.repeat(s.repeats);
    vreid::RegionPool op{x.view,         s.K,          logits.data(), weights.data(), features.data(),
                         overlap.data(), input.threads};
    context.run(&vreid::Table::region_pool, op);

    Tape tape;
    std::vector<double> numbers = logits.values();
    numbers.resize(size_t(s.frames() * s.K * s.L));
    const std::vector<Var> values_of_x = leaves(x.values()), inputs = leaves(numbers);
    const std::vector<Var> shares = softmax(inputs, s.L), sums = gathered(shares, values_of_x, s);
    const std::vector<Var> likeness = overlaps(roots(shares), s.frames(), s.K, s.L);
    context.near("weights", weights, values(shares));
    context.near("features", features, values(sums));
    context.near("overlap", overlap, values(likeness));

    Array grad_features = upstream(tape, random, sums, input.dtype, s.repeats);
    Array grad_weights = upstream(tape, random, shares, acc, s.repeats);
    Array grad_overlap = upstream(tape, random, likeness, acc, s.repeats);
    vreid::RegionPoolBackward back{x.view,
                                   dx.view,
                                   s.K,
                                   grad_features.data(),
                                   grad_weights.data(),
                                   grad_overlap.data(),
                                   weights.data(),
                                   dlogits.data(),
                                   input.threads};
    context.run(&vreid::Table::region_pool_backward, back);
    dx.check(context, "gradient of x", tape.gradient(values_of_x));
    context.near("gradient of the logits", dlogits, tape.gradient(inputs));
}

// A row of logits with NaN or infinity makes its own weights NaN, and those of no other region.
void check_not_finite(Context& context, DType dtype, double value) {
    const Shape s{1, 1, 3, 21, 2};
    Map x(dtype, s, Layout::planes);
    x.fill(std::vector<double>(size_t(s.C * s.L), 1));
    const DType acc = accumulator(dtype);
    Array logits(acc, std::vector<double>(size_t(s.K * s.L), 1)), weights(acc, s.K * s.L), overlap(acc, 1);
    Array features(dtype, s.K * s.C);
    logits.set(s.L + 17, value);
    vreid::RegionPool op{x.view, s.K, logits.data(), weights.data(), features.data(), overlap.data(), 1};
    context.run(&vreid::Table::region_pool, op);
    std::vector<double> wanted(size_t(s.K * s.L), 1 / double(s.L));
    for (int64_t i = s.L; i < 2 * s.L; ++i) wanted[size_t(i)] = NAN;
    context.near("weights", weights, wanted);
}

void check_overlap(Context& context, DType dtype, int64_t frames, int64_t K, int64_t L, bool root,
                   Random& random) {
    std::vector<double> numbers;
    for (int64_t i = 0; i < frames * K * L; ++i)
        numbers.push_back(i % 7 ? (random.uniform() + 1) / double(L) : 0);
    Array weights(dtype, numbers), overlap(dtype, frames), gradient(dtype, frames * K * L);
    vreid::HellingerOverlap op{dtype, frames, K, L, root, weights.data(), overlap.data(), 2};
    context.run(&vreid::Table::hellinger_overlap, op);

    Tape tape;
    const std::vector<Var> inputs = leaves(weights.values());
    const std::vector<Var> wanted = overlaps(root ? roots(inputs) : inputs, frames, K, L);
    context.near("overlap", overlap, values(wanted));

    Array grad = upstream(tape, random, wanted, dtype);
    vreid::HellingerOverlapBackward back{dtype,          frames,          K, L, root, grad.data(),
                                         weights.data(), gradient.data(), 2};
    context.run(&vreid::Table::hellinger_overlap_backward, back);
    context.near("gradient", gradient, tape.gradient(inputs));
}

}  // namespace

void region(Context& context) {
    for_maps(context, false, [&](const MapCase& input, Random& random) {
        // Every number of regions that the kernels keep in registers, and more.
        for (const int64_t K : {1, 2, 5, 7, 8, 11}) {
            if (input.shape.repeats > 1 && K != 2) continue;
            Shape shape = input.shape;
            shape.K = K;
            check_pool(context, input, shape, random);
        }
    });
    Random random(3);
    for (const DType dtype : kDTypes) {
        for (const double value : {double(NAN), double(INFINITY)}) {
            context.begin(std::string(name(dtype)) + ", a logit that is not finite");
            check_not_finite(context, dtype, value);
        }
    }
    for (const DType dtype : kWide) {
        for (const bool root : {false, true}) {
            context.begin(std::string("hellinger_overlap, ") + name(dtype) + (root ? ", root" : ""));
            check_overlap(context, dtype, 0, 2, 3, root, random);
            check_overlap(context, dtype, 1, 1, 1, root, random);
            check_overlap(context, dtype, 3, 5, 45, root, random);
        }
    }
}

}  // namespace checks
