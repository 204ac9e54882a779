// Checks of the CPU kernels without Python: every kernel of csrc/cpu/kernels.def on small inputs against the
// plain formula in double, its gradient by `Var`. One file for each family of kernels.
#pragma once

#include <array>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "cpu/table.h"
#include "numbers.h"
#include "tape.h"

namespace checks {

using vreid::FeatureMap;
using vreid::Status;

// Runs kernels, compares and counts; a line of output for each failure.
class Context {
  public:
    Context(std::string isa, const vreid::Table& kernels) : kernels(kernels), isa_(std::move(isa)) {}

    // The inputs of the comparisons that follow, for the messages.
    void begin(std::string what) { what_ = std::move(what); }

    template <class Op, class Kernel>
    void run(Kernel vreid::Table::* kernel, Op& op) {
        expect((kernels.*kernel)(op) == Status::ok, "status");
    }

    void expect(bool holds, const std::string& claim);

    // All numbers of an array, each within so many roundings (of its dtype) of the largest number wanted. An
    // array may hold those wanted several times over.
    void near(const std::string& array, const Array& got, const std::vector<double>& wanted,
              double roundings = kRoundings);
    void near(const std::string& array, const std::vector<double>& got, const std::vector<double>& wanted,
              double tolerance);

    template <class T>
    void equal(const std::string& array, const std::vector<T>& got, const std::vector<T>& wanted) {
        expect(got == wanted, array + " as expected");
    }

    int64_t comparisons() const { return comparisons_; }
    int64_t failures() const { return failures_; }

    const vreid::Table& kernels;

  private:
    static constexpr double kRoundings = 64;

    void fail(const std::string& message);

    std::string isa_, what_;
    int64_t comparisons_ = 0, failures_ = 0;
};

// "K 3, threads 2"
std::string describe(std::initializer_list<std::pair<const char*, int64_t>> numbers);

std::vector<double> random_values(Random& random, int64_t size);
std::vector<Var> leaves(const std::vector<double>& values);
std::vector<double> values(const std::vector<Var>& numbers);

// Gradients from above for outputs of a dtype, `repeats` times over: random numbers, which the tape gets as
// seeds.
Array upstream(Tape& tape, Random& random, const std::vector<Var>& outputs, DType dtype, int64_t repeats = 1);

// Which frames of B clips of T count: all (null), or some, none of the first clip's among them.
std::vector<char> some_frames(Random& random, int64_t B, int64_t T);

// Rows (N,D) of a dtype, packed by the kernel, and the memory that holds them.
struct Packed {
    Packed(Context& context, DType dtype, const std::vector<double>& rows, int64_t N, int64_t D);

    vreid::Panels view() { return {numbers.data(), N, D}; }

    int64_t N, D;
    Array numbers;
};

void sta_pool(Context&);
void attention(Context&);
void fuse(Context&);
void inter_frame_distance(Context&);
void region(Context&);
void temporal(Context&);
void half_precision(Context&);
void product(Context&);
void pairs(Context&);
void mining(Context&);
void part_metric(Context&);
void ranking(Context&);
void protocol(Context&);
void rerank(Context&);
void probe(Context&);

}  // namespace checks
