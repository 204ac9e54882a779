#include "checks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace checks {
namespace {

// Inputs are of the order of one: of results that cancel to nothing, only roundings are left.
constexpr double kLeast = 0.25;

}  // namespace

void Context::fail(const std::string& message) {
    ++failures_;
    std::printf("FAILED %s %s: %s\n", isa_.c_str(), what_.c_str(), message.c_str());
}

void Context::expect(bool holds, const std::string& claim) {
    ++comparisons_;
    if (!holds) fail(claim);
}

void Context::near(const std::string& array, const Array& got, const std::vector<double>& wanted,
                   double roundings) {
    expect(got.margins_untouched(), array + ": nothing beside it is written");
    // A number of half precision is rounded once, when it is stored.
    const double tolerance = epsilon(got.dtype()) * (size_of(got.dtype()) == 2 ? 1 : roundings);
    if (got.size() > int64_t(wanted.size()) && !wanted.empty()) {
        const int64_t parts = got.size() / int64_t(wanted.size());
        expect(got.repeats(parts), array + ": equal clips have equal results");
        std::vector<double> first;
        for (int64_t i = 0; i < int64_t(wanted.size()); ++i) first.push_back(got[i]);
        near(array, first, wanted, tolerance);
    } else {
        near(array, got.values(), wanted, tolerance);
    }
}

void Context::near(const std::string& array, const std::vector<double>& got,
                   const std::vector<double>& wanted, double tolerance) {
    ++comparisons_;
    if (got.size() != wanted.size()) return fail(array + " has another size");
    double largest = kLeast;
    for (const double value : wanted) {
        if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
    }
    for (size_t i = 0; i < got.size(); ++i) {
        if (got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]))) continue;
        if (std::fabs(got[i] - wanted[i]) <= tolerance * largest) continue;
        char message[200];
        std::snprintf(message, sizeof message, "[%zu]: expected %.17g within %.2g of %.3g, got %.17g", i,
                      wanted[i], tolerance, largest, got[i]);
        return fail(array + message);
    }
}

std::string describe(std::initializer_list<std::pair<const char*, int64_t>> numbers) {
    std::string result;
    for (const auto& [what, number] : numbers)
        result += (result.empty() ? "" : ", ") + std::string(what) + " " + std::to_string(number);
    return result;
}

std::vector<double> random_values(Random& random, int64_t size) {
    std::vector<double> result;
    for (int64_t i = 0; i < size; ++i) result.push_back(random.uniform());
    return result;
}

std::vector<Var> leaves(const std::vector<double>& values) {
    std::vector<Var> result;
    for (const double value : values) result.push_back(Var::leaf(value));
    return result;
}

std::vector<double> values(const std::vector<Var>& numbers) {
    std::vector<double> result;
    for (const Var& number : numbers) result.push_back(number.value);
    return result;
}

Array upstream(Tape& tape, Random& random, const std::vector<Var>& outputs, DType dtype, int64_t repeats) {
    Array grad(dtype, int64_t(outputs.size()) * repeats);
    for (size_t i = 0; i < outputs.size(); ++i) {
        grad.set(int64_t(i), random.uniform());
        tape.seed(outputs[i], grad[int64_t(i)]);
    }
    grad.repeat(repeats);
    return grad;
}

Packed::Packed(Context& context, DType dtype, const std::vector<double>& rows, int64_t N, int64_t D)
    : N(N), D(D), numbers(accumulator(dtype), [&] {
          const int64_t step = context.kernels.panel_rows(accumulator(dtype));
          return (N + step - 1) / step * step * D;
      }()) {
    Array x(dtype, rows);
    const vreid::PackRows op{{x.data(), dtype, N, D, D}, nullptr, numbers.data(), nullptr, 2};
    context.run(&vreid::Table::pack_rows, op);
    context.expect(numbers.margins_untouched(), "panels: nothing beside them is written");
}

std::vector<char> some_frames(Random& random, int64_t B, int64_t T) {
    std::vector<char> valid;
    for (int64_t i = 0; i < B * T; ++i) valid.push_back(i >= T && random.below(3) > 0);
    return valid;
}

}  // namespace checks
