// Numbers of half precision through the loads and stores of the kernels, in whole vectors and in their
// remainders.
#include <cmath>
#include <cstring>

#include "checks.h"

namespace checks {
namespace {

constexpr int64_t kWidth = 33;  // a remainder for every width of vectors

double decoded(int bits, DType dtype) {
    Array number(dtype, 1);
    const uint16_t half = uint16_t(bits);
    std::memcpy(number.data(), &half, sizeof half);
    return number[0];
}

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
        // A seventh of all numbers, and for the stores what lies halfway to the next number or a little
        // beside that.
        std::vector<double> numbers, between, wanted;
        for (int bits = 0; bits < 0xffff; bits += 7) {
            const double number = decoded(bits, dtype), middle = (number + decoded(bits + 1, dtype)) / 2;
            numbers.push_back(number);
            for (const double step : {0.0, 0x1p-20, -0x1p-20}) between.push_back(float(middle * (1 + step)));
        }
        const double infinity = INFINITY, nan = NAN;
        for (const double value : {infinity, -infinity, nan}) numbers.push_back(value);
        for (const double value : {65519.0, 65520.0, 3.39e38, 3.4e38, infinity, -infinity, nan})
            between.push_back(float(value));
        context.begin(std::string(name(dtype)) + ", loads");
        check(context, dtype, std::vector<double>(numbers.size(), 1), numbers, numbers);
        for (const double value : between) wanted.push_back(rounded(value, dtype));
        context.begin(std::string(name(dtype)) + ", stores");
        check(context, dtype, between, std::vector<double>(between.size(), 1), wanted);
    }
}

}  // namespace checks
