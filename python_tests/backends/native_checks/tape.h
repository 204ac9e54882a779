// Reverse-mode differentiation of the plain formulas that the kernels are compared with: a `Var` is a double
// that remembers how it was computed. One tape for the program; `Tape` empties it.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace checks {

class Var {
  public:
    Var(double value = 0) : value(value) {}  // a constant

    // A number whose gradient is wanted.
    static Var leaf(double value) { return {value, nothing, 0, nothing, 0}; }

    Var& operator+=(const Var& other) { return *this = *this + other; }

    friend Var operator+(const Var& a, const Var& b) { return {a.value + b.value, a, 1, b, 1}; }
    friend Var operator-(const Var& a, const Var& b) { return {a.value - b.value, a, 1, b, -1}; }
    friend Var operator*(const Var& a, const Var& b) { return {a.value * b.value, a, b.value, b, a.value}; }
    friend Var operator/(const Var& a, const Var& b) {
        return {a.value / b.value, a, 1 / b.value, b, -a.value / (b.value * b.value)};
    }
    friend Var exp(const Var& a) { return {std::exp(a.value), a, std::exp(a.value)}; }
    friend Var log(const Var& a) { return {std::log(a.value), a, 1 / a.value}; }
    // At zero the derivatives of both are zero, as in the kernels.
    friend Var sqrt(const Var& a) {
        const double root = std::sqrt(a.value);
        return {root, a, root == 0 ? 0 : 0.5 / root};
    }
    friend Var abs(const Var& a) {
        return {std::fabs(a.value), a, double(a.value > 0) - double(a.value < 0)};
    }

    double value;

  private:
    friend class Tape;
    struct Node {
        int64_t a, b;
        double da, db;
    };
    static const Var nothing;
    static std::vector<Node> nodes;

    Var(double value, const Var& a, double da, const Var& b = nothing, double db = 0)
        : value(value), node_(int64_t(nodes.size())) {
        nodes.push_back({a.node_, b.node_, da, db});
    }

    int64_t node_ = -1;
};

class Tape {
  public:
    Tape() { Var::nodes.clear(); }

    // Adds `weight * output` to the number to be differentiated.
    void seed(const Var& output, double weight) { seeds_.push_back({output.node_, weight}); }

    // Its derivative by each of the leaves.
    std::vector<double> gradient(const std::vector<Var>& leaves) const;

  private:
    std::vector<std::pair<int64_t, double>> seeds_;
};

}  // namespace checks
