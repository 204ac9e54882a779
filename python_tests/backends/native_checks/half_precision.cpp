// Numbers of half precision through the loads and stores of the kernels, in whole vectors and in their
// remainders.
#include <cmath>
#include <cstring>

#include "checks.h"

namespace checks {
namespace {

constexpr int64_t kWidth = 33;  // a remainder for every width of vectors

// weight[i] * feature[i,:], stored as `dtype`: temporal_pool of one frame.
std::vector<double> products(Context& context, DType dtype, const std::vector<double>& weight,
                             const std::vector<double>& feature) {
    const int64_t size = int64_t(weight.size());
    Array weights(DType::f32, weight), features(dtype, size * kWidth), pooled(dtype, size * kWidth);
    for (int64_t i = 0; i < size * kWidth; ++i) features.set(i, feature[size_t(i / kWidth)]);
    vreid::TemporalPool op{dtype,         1, 1, size, kWidth, weights.data(), features.data(), nullptr,
                           pooled.data(), 2};
    context.run(&vreid::Table::temporal_pool, op);
    return pooled.values();
}

void check(Context& context, DType dtype, const std::vector<double>& weight,
           const std::vector<double>& feature, const std::vector<double>& wanted) {
    std::vector<double> repeated;
    for (const double value : wanted) repeated.insert(repeated.end(), size_t(kWidth), value);
    context.near("products", products(context, dtype, weight, feature), repeated, 0);
}

}  // namespace

void half_precision(Context& context) {
    for (const DType dtype : {DType::bf16, DType::f16}) {
        std::vector<double> numbers;  // all there are; a sum that starts at +0 makes -0 that
        for (int bits = 0; bits < 1 << 16; bits += bits < 0x400 || bits >= 0x7c00 ? 1 : 7) {
            Array number(dtype, 1);
            const uint16_t half = uint16_t(bits);
            std::memcpy(number.data(), &half, sizeof half);
            numbers.push_back(number[0]);
        }
        const std::vector<double> ones(numbers.size(), 1);
        context.begin(std::string(name(dtype)) + ", loads");
        check(context, dtype, ones, numbers, numbers);

        // Halfway between two neighbours, and a little to both sides of it.
        std::vector<double> between, rounds;
        for (size_t i = 0; i + 1 < numbers.size(); ++i) {
            const double middle = (numbers[i] + numbers[i + 1]) / 2;
            if (!std::isfinite(middle)) continue;
            for (const double step : {0.0, 0x1p-20, -0x1p-20}) {
                const double value = float(middle * (1 + step));
                between.push_back(value);
                rounds.push_back(rounded(value, dtype));
            }
        }
        for (const double value :
             {65519.0, 65520.0, 3.39e38, 3.4e38, double(INFINITY), -double(INFINITY), double(NAN)}) {
            between.push_back(float(value));
            rounds.push_back(rounded(float(value), dtype));
        }
        context.begin(std::string(name(dtype)) + ", stores");
        check(context, dtype, between, std::vector<double>(between.size(), 1), rounds);
    }
}

}  // namespace checks
