#include "numbers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace checks {
namespace {

constexpr int64_t kAlignment = 128, kMargin = 256;  // bytes
constexpr unsigned char kUntouched = 0xa5;

// Half precision by its definition: sign, exponent and mantissa, with plain arithmetic.
struct Half {
    int exponent_bits, mantissa_bits;

    int bias() const { return (1 << (exponent_bits - 1)) - 1; }
    uint16_t infinity() const { return uint16_t(((1 << exponent_bits) - 1) << mantissa_bits); }

    double decode(uint16_t bits) const {
        const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
        const int mantissa = bits & ((1 << mantissa_bits) - 1);
        double value;
        if (exponent == (1 << exponent_bits) - 1) {
            value = mantissa ? NAN : INFINITY;
        } else if (exponent == 0) {
            value = std::ldexp(mantissa, 1 - bias() - mantissa_bits);
        } else {
            value = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias() - mantissa_bits);
        }
        return bits >> 15 ? -value : value;
    }

    uint16_t encode(double value) const {
        const int sign = std::signbit(value) ? 0x8000 : 0;
        if (std::isnan(value)) return uint16_t(sign | infinity() | 1 << (mantissa_bits - 1));
        int bits = infinity();
        if (std::isfinite(value)) {
            const int least = 1 - bias();
            const int exponent = value == 0 ? least : std::max(std::ilogb(value), least);
            const int quanta = int(std::nearbyint(std::ldexp(std::fabs(value), mantissa_bits - exponent)));
            bits = std::min(bits, ((exponent - least) << mantissa_bits) + quanta);
        }
        return uint16_t(sign | bits);
    }
};

Half half(DType dtype) {
    return dtype == DType::bf16 ? Half{8, 7} : Half{5, 10};
}

}  // namespace

const char* name(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "float32";
        case DType::f64:
            return "float64";
        case DType::bf16:
            return "bfloat16";
        case DType::f16:
            return "float16";
    }
    throw std::invalid_argument("dtype");
}

int64_t size_of(DType dtype) {
    return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

DType accumulator(DType dtype) {
    return dtype == DType::f64 ? DType::f64 : DType::f32;
}

double epsilon(DType dtype) {
    const int mantissa = dtype == DType::f64 ? 52 : dtype == DType::f32 ? 23 : half(dtype).mantissa_bits;
    return std::ldexp(1, -mantissa);
}

double rounded(double value, DType dtype) {
    if (dtype == DType::f64) return value;
    if (dtype == DType::f32) return double(float(value));
    return half(dtype).decode(half(dtype).encode(value));
}

// splitmix64
uint64_t Random::bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

double Random::uniform() {
    return std::ldexp(double(bits() >> 11), -52) - 1;
}

int64_t Random::below(int64_t size) {
    return int64_t(bits() % uint64_t(size));
}

Array::Array(DType dtype, int64_t size, int64_t offset)
    : dtype_(dtype),
      size_(size),
      bytes_(size_t(size * size_of(dtype) + offset * size_of(dtype) + kAlignment + 2 * kMargin), kUntouched) {
    const int64_t start = int64_t(reinterpret_cast<uintptr_t>(bytes_.data())) + kMargin;
    first_ = kMargin + (kAlignment - start % kAlignment) % kAlignment + offset * size_of(dtype);
}

Array::Array(DType dtype, const std::vector<double>& values) : Array(dtype, int64_t(values.size())) {
    for (int64_t i = 0; i < size_; ++i) set(i, values[size_t(i)]);
}

double Array::operator[](int64_t i) const {
    const unsigned char* p = bytes_.data() + first_ + i * size_of(dtype_);
    if (dtype_ == DType::f64) {
        double value;
        std::memcpy(&value, p, sizeof value);
        return value;
    }
    if (dtype_ == DType::f32) {
        float value;
        std::memcpy(&value, p, sizeof value);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return half(dtype_).decode(bits);
}

void Array::set(int64_t i, double value) {
    unsigned char* p = bytes_.data() + first_ + i * size_of(dtype_);
    if (dtype_ == DType::f64) {
        std::memcpy(p, &value, sizeof value);
    } else if (dtype_ == DType::f32) {
        const float narrow = float(value);
        std::memcpy(p, &narrow, sizeof narrow);
    } else {
        const uint16_t bits = half(dtype_).encode(value);
        std::memcpy(p, &bits, sizeof bits);
    }
}

bool Array::untouched(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
        if (bytes_[size_t(i)] != kUntouched) return false;
    }
    return true;
}

bool Array::untouched(int64_t i) const {
    return untouched(first_ + i * size_of(dtype_), first_ + (i + 1) * size_of(dtype_));
}

bool Array::margins_untouched() const {
    return untouched(0, first_) && untouched(first_ + size_ * size_of(dtype_), int64_t(bytes_.size()));
}

void Array::repeat(int64_t parts) {
    const int64_t bytes = size_ / parts * size_of(dtype_);
    for (int64_t n = 1; n < parts; ++n)
        std::memcpy(bytes_.data() + first_ + n * bytes, bytes_.data() + first_, size_t(bytes));
}

bool Array::repeats(int64_t parts) const {
    const int64_t bytes = size_ / parts * size_of(dtype_);
    for (int64_t n = 1; n < parts; ++n) {
        if (std::memcmp(bytes_.data() + first_ + n * bytes, bytes_.data() + first_, size_t(bytes)) != 0)
            return false;
    }
    return true;
}

std::vector<double> Array::values() const {
    std::vector<double> result;
    for (int64_t i = 0; i < size_; ++i) result.push_back((*this)[i]);
    return result;
}

}  // namespace checks
