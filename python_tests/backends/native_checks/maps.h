// Feature maps in every memory layout that the kernels take.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "checks.h"

namespace checks {

// `repeats` clips after each other are equal to the first: maps larger than a cache, for the price of one in
// double.
struct Shape {
    int64_t B, T, C, L, K;
    int64_t repeats = 1;

    int64_t clips() const { return B / repeats; }  // that differ
    int64_t frames() const { return clips() * T; }
    int64_t cells() const { return L / K; }  // of a block
};

enum class Layout { planes, planes_apart, last, last_apart };

class Map {
  public:
    Map(DType dtype, const Shape& shape, Layout layout);

    int64_t index(int64_t b, int64_t t, int64_t c, int64_t l) const {
        return b * view.stride_b + t * view.stride_t + c * view.stride_c + l * view.stride_l;
    }
    // Values of the clips that differ, (clips,T,C,L).
    void fill(const std::vector<double>& values);
    std::vector<double> values() const;
    // The values, their repetitions, and that nothing beside the map was written.
    void check(Context& context, const std::string& what, const std::vector<double>& wanted) const;

    Array array;
    FeatureMap view;

  private:
    // f(i, index) for every element of the clips that differ; i counts in the order (clips,T,C,L).
    template <class F>
    void for_each(F f) const;

    Shape shape_;
    Layout layout_;
};

struct MapCase {
    DType dtype;
    Shape shape;
    Layout layout;
    int threads;
    bool padded;  // some frames are not valid

    std::string describe() const;
};

// Small and odd shapes in all dtypes and layouts, and large ones; with and without padding frames if wanted.
void for_maps(Context& context, bool padding, const std::function<void(const MapCase&, Random&)>& check);

}  // namespace checks
