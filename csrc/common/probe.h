// Arguments of the bandwidth probes.
#pragma once

#include <cstdint>

namespace vreid {

// A read, or a read and write, of contiguous float memory: the bandwidth baseline of the benchmarks.
struct Probe {
    const float* source;
    float* target;  // null: read only
    int64_t size;
    float sum;
    int threads;
};

}  // namespace vreid
