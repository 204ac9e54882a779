// probe: the passes over memory that benchmarks compare with.
#include "checks.h"

namespace checks {

void probe(Context& context) {
    Random random(7);
    for (const int64_t size : {0, 1, 77, 300001, 1 << 20}) {
        context.begin(describe({{"size", size}}));
        Array source(DType::f32, random_values(random, size)), target(DType::f32, size);
        vreid::Probe read{static_cast<const float*>(source.data()), nullptr, size, 0, 2};
        context.run(&vreid::Table::probe, read);
        double sum = 0;
        for (const double value : source.values()) sum += value;
        context.expect(std::fabs(read.sum - sum) <= 1e-5 * double(size), "sum");
        vreid::Probe copy{static_cast<const float*>(source.data()), static_cast<float*>(target.data()), size,
                          0, 2};
        if (size) context.run(&vreid::Table::probe, copy);
        context.near("copy", target, source.values(), 0);
    }
}

}  // namespace checks
