// Bandwidth probes: a read, and a read and write, of contiguous memory with the threads of the kernels.
#include <omp.h>

#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int64_t kChunk = 1 << 18;  // floats: one frame of the benchmarks' main shape

// One core reads fastest from a few streams with software prefetches, because hardware prefetchers stop at
// page boundaries. Calls f(offset, chain) for the vectors of kStreams equal parts, alternately, and returns
// where the remainder starts.
constexpr int kStreams = 4;
template <class F>
int64_t in_streams(const float* p, int64_t size, F f) {
    constexpr int64_t kStep = 2 * Lanes<float>::N, kAhead = 1024 / sizeof(float);
    const int64_t each = size / kStreams / kStep * kStep;
    for (int64_t i = 0; i < each; i += kStep) {
#pragma GCC unroll 8
        for (int j = 0; j < 2 * kStreams; ++j) {
            const int64_t at = j / 2 * each + i + j % 2 * Lanes<float>::N;
            __builtin_prefetch(p + at + kAhead);
            f(at, j);
        }
    }
    return kStreams * each;
}

float read(const float* p, int64_t size) {
    FloatVector total[2 * kStreams] = {};
    const int64_t rest = in_streams(p, size, [&](int64_t i, int j) { total[j] += load(p + i); });
    for (int j = 1; j < 2 * kStreams; ++j) total[0] += total[j];
    return sum_lanes(total[0]) + sum(p + rest, size - rest);
}

void copy(const float* p, float* target, int64_t size, bool streamed) {
    const int64_t rest =
        in_streams(p, size, [&](int64_t i, int) { write(Whole{}, target + i, load(p + i), streamed); });
    for_vectors<float>(size - rest,
                       [&](int64_t i, auto part) { part.store(target + rest + i, part.load(p + rest + i)); });
    if (streamed) end_streams();
}

}  // namespace

Status probe(Probe& op) {
    const int64_t chunks = (op.size + kChunk - 1) / kChunk;
    const bool streamed = op.target && streams(op.target, 0, op.size);
    float total = 0;
#pragma omp parallel for num_threads(op.threads) schedule(dynamic) reduction(+ : total)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t begin = chunk * kChunk, left = op.size - begin, size = left < kChunk ? left : kChunk;
        if (op.target) {
            copy(op.source + begin, op.target + begin, size, streamed);
        } else {
            total += read(op.source + begin, size);
        }
    }
    op.sum = total;
    return Status::ok;
}

}  // namespace VREID_ISA
}  // namespace vreid
