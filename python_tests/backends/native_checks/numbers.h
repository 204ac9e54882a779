// Numbers as the kernels store them, and random ones that are the same on every machine.
#pragma once

#include <cstdint>
#include <vector>

#include "common/tensors.h"

namespace checks {

using vreid::DType;

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
constexpr DType kWide[] = {DType::f32, DType::f64};

const char* name(DType dtype);
int64_t size_of(DType dtype);

// What the kernels compute in: float, or double for f64.
DType accumulator(DType dtype);

// How far apart neighbouring numbers of a dtype are, as a share of the number.
double epsilon(DType dtype);

// `value` to nearest, ties to even, and back.
double rounded(double value, DType dtype);

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits();
    double uniform();             // in [-1,1)
    int64_t below(int64_t size);  // in [0,size)

  private:
    uint64_t state_;
};

// `size` numbers of a dtype. They start as bytes that no number has by chance, with a margin of such bytes on
// both sides: what a kernel does not write must still be there afterwards.
class Array {
  public:
    Array(DType dtype, int64_t size, int64_t offset = 0);  // first number `offset` numbers off its alignment
    Array(DType dtype, const std::vector<double>& values);
    Array(Array&&) = default;

    DType dtype() const { return dtype_; }
    int64_t size() const { return size_; }
    void* data() { return size_ ? bytes_.data() + first_ : nullptr; }
    double operator[](int64_t i) const;
    void set(int64_t i, double value);
    bool untouched(int64_t i) const;
    bool margins_untouched() const;

    // The first of `parts` equal parts over the others, and whether they have the same bits.
    void repeat(int64_t parts);
    bool repeats(int64_t parts) const;

    std::vector<double> values() const;

  private:
    bool untouched(int64_t begin, int64_t end) const;

    DType dtype_;
    int64_t size_, first_;
    std::vector<unsigned char> bytes_;
};

}  // namespace checks
