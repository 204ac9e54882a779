// Yardsticks: a plain read, and a plain read and write, of contiguous memory with the same vectors and
// threads as the kernels.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int64_t kChunk = 1 << 18;  // floats: one frame of the flagship shape

float read(const float* p, int64_t size) {
    FloatVector total[8] = {};
    int64_t i = 0;
    for (; i + 8 * Lanes<float>::N <= size; i += 8 * Lanes<float>::N) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) total[j] += load(p + i + j * Lanes<float>::N);
    }
    for (int j = 1; j < 8; ++j) total[0] += total[j];
    return sum_lanes(total[0]) + sum(p + i, size - i);
}

void copy(const float* p, float* target, int64_t size) {
    for_vectors<float>(size, [&](int64_t i, auto part) { part.store(target + i, part.load(p + i)); });
}

}  // namespace

Status probe(Probe& op) {
    const int64_t chunks = (op.size + kChunk - 1) / kChunk;
    float total = 0;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic) reduction(+ : total)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t begin = chunk * kChunk, left = op.size - begin, size = left < kChunk ? left : kChunk;
        if (op.target) {
            copy(op.source + begin, op.target + begin, size);
        } else {
            total += read(op.source + begin, size);
        }
    }
    op.sum = total;
    return Status::ok;
}

}  // namespace VREID_ISA
}  // namespace vreid
