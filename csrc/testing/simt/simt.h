// CUDA kernels on the host, for tests: a thread block's threads are fibers of one OS thread, which run until
// they wait for each other. Blocks run one after another. What a GPU would leave undefined ends the launch
// with cudaErrorLaunchFailure and a sentence that cudaGetErrorString gives:
//
// - a barrier that some thread of the block does not reach, or reaches at another line;
// - a warp operation whose mask names a lane that does not take part, or leaves out one that does;
// - two threads that touch the same memory, one of them writing, with no barrier between (races.cpp);
// - a read of shared memory that the block has not written;
// - an access that is not aligned to its size;
// - an access outside every allocation, where AddressSanitizer's runtime is loaded.
//
// VREID_SIMT_ORDER, a number, permutes the order of blocks and threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

namespace simt {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

// CUDA's variables of these names, set for the thread that runs.
extern Index threadIdx, blockIdx, blockDim, gridDim;

// The same thread, counted through all axes, and how many barriers it has passed.
struct Place {
    uint32_t launch, block, thread, epoch, warp_epoch;
};

constexpr unsigned kWarp = 32, kBlock = 1024;

const Place& here();
bool running();
bool on_a_fiber_stack(const void* address);

// Ends the launch; the first complaint is kept.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
const char* failure();

// Runs `kernel` for every thread; false after a complaint.
bool launch(Index grid, Index block, size_t shared_bytes, const std::function<void()>& kernel);
// What a kernel on a GPU declares as `extern __shared__`; one address for all blocks, as for static shared
// memory.
void* dynamic_shared();
bool is_dynamic_shared(const void* address);

void barrier(const char* file, int line);

// What a lane gets when all lanes of a mask have come: from what each of them sent, and its own argument.
using Combine = uint64_t (*)(const uint64_t* sent, unsigned mask, int64_t argument);
uint64_t warp(Combine combine, unsigned mask, uint64_t sent, int64_t argument, const char* what,
              const char* file, int line);
void warp_barrier(unsigned mask, const char* file, int line);

enum class Access { read, write, atomic };
void check_alignment(const void* address, size_t size);
void touch(const void* address, size_t size, Access access);
void end_of_launch();

template <class T>
uint64_t packed(T value) {
    static_assert(sizeof(T) <= 8, "a lane sends at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T>
T unpacked(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace simt
