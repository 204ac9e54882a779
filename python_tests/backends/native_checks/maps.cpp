#include "maps.h"

#include <cstring>

namespace checks {
namespace {

constexpr Layout kLayouts[] = {Layout::planes, Layout::planes_apart, Layout::last, Layout::last_apart};
constexpr int64_t kStreamed = 4 << 20;  // bytes, from which on results bypass the caches: csrc/cpu/memory.h

FeatureMap strides(DType dtype, const Shape& s, Layout layout) {
    const int64_t gap = layout == Layout::planes_apart || layout == Layout::last_apart ? 3 : 0;
    const bool planes = layout == Layout::planes || layout == Layout::planes_apart;
    const int64_t inner = (planes ? s.L : s.C) + gap, outer = planes ? s.C : s.L;
    const int64_t frame = inner * outer + gap, clip = frame * s.T + gap;
    return {nullptr, dtype, s.B, s.T, s.C, s.L, clip, frame, planes ? inner : 1, planes ? 1 : inner};
}

int64_t offset(Layout layout) {
    return layout == Layout::planes_apart || layout == Layout::last_apart ? 1 : 0;
}

}  // namespace

Map::Map(DType dtype, const Shape& shape, Layout layout)
    : array(dtype, shape.B * strides(dtype, shape, layout).stride_b, offset(layout)),
      view(strides(dtype, shape, layout)),
      shape_(shape),
      layout_(layout) {
    view.data = array.data();
}

template <class F>
void Map::for_each(F f) const {
    int64_t i = 0;
    for (int64_t b = 0; b < shape_.clips(); ++b)
        for (int64_t t = 0; t < shape_.T; ++t)
            for (int64_t c = 0; c < shape_.C; ++c)
                for (int64_t l = 0; l < shape_.L; ++l) f(i++, index(b, t, c, l));
}

void Map::fill(const std::vector<double>& values) {
    for_each([&](int64_t i, int64_t at) { array.set(at, values[size_t(i)]); });
    array.repeat(shape_.repeats);
}

std::vector<double> Map::values() const {
    std::vector<double> result;
    for_each([&](int64_t, int64_t at) { result.push_back(array[at]); });
    return result;
}

void Map::check(Context& context, const std::string& what, const std::vector<double>& wanted) const {
    std::vector<bool> inside(size_t(array.size() / shape_.repeats));
    for_each([&](int64_t, int64_t at) { inside[size_t(at)] = true; });
    bool beside = true;
    for (size_t i = 0; i < inside.size(); ++i) beside &= inside[i] || array.untouched(int64_t(i));
    context.expect(beside && array.margins_untouched(), what + ": nothing beside it is written");
    context.expect(array.repeats(shape_.repeats), what + ": equal clips have equal results");
    Array inner(array.dtype(), values());
    context.near(what, inner, wanted);
}

std::string MapCase::describe() const {
    const char* layouts[] = {"planes", "planes apart", "channels last", "channels last apart"};
    return std::string(name(dtype)) + ", " + layouts[int(layout)] + (padded ? ", padded, " : ", ") +
           checks::describe({{"B", shape.B},
                             {"T", shape.T},
                             {"C", shape.C},
                             {"L", shape.L},
                             {"K", shape.K},
                             {"threads", threads}});
}

void for_maps(Context& context, bool padding, const std::function<void(const MapCase&, Random&)>& check) {
    const Shape small[] = {{0, 2, 3, 4, 2},   {1, 1, 1, 1, 1},   {2, 3, 37, 42, 3},
                           {3, 2, 16, 32, 4}, {1, 2, 70, 33, 1}, {2, 1, 5, 130, 2}};
    uint64_t seed = 0;
    const auto run = [&](const MapCase& input) {
        context.begin(input.describe());
        Random random(++seed);
        check(input, random);
    };
    for (const DType dtype : kDTypes) {
        for (const Layout layout : kLayouts) {
            for (const Shape& shape : small) {
                run({dtype, shape, layout, int(seed % 3) + 1, false});
                if (padding) run({dtype, shape, layout, int(seed % 3) + 1, true});
            }
            Shape large{0, 2, 64, 64, 2};
            large.B = large.repeats = kStreamed / (large.T * large.C * large.L * size_of(dtype)) + 1;
            run({dtype, large, layout, 2, false});
        }
    }
}

}  // namespace checks
