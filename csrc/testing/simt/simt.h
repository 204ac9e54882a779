// Runs CUDA kernels on the host, for tests. The threads of a thread block are fibers of one OS thread, which
// run until they wait for each other; blocks run one after another, those of a cluster until each of them
// waits for the cluster. Undefined behavior on a GPU ends the
// launch with cudaErrorLaunchFailure and a description that cudaGetErrorString returns:
//
// - a barrier that a thread of the block, or a block of the cluster, does not reach, or reaches at another
//   line;
// - a warp operation whose mask names a lane that does not take part, or omits one that does;
// - two threads that access the same memory, one of them writing, without a barrier between (races.cpp);
// - a read of shared memory that the block has not written (since the cluster's last barrier, because the
//   blocks of a cluster take turns with the same memory);
// - an access to the target of a cp.async before the thread that issued it has waited for it (async.cpp);
// - an access that is not aligned to its size;
// - an access outside every allocation, if AddressSanitizer's runtime is loaded.
//
// VREID_SIMT_ORDER, a number, permutes the order of blocks and threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

namespace simt {

// The kernels use the x axis, and blocks also the y axis.
struct Index {
    unsigned x = 0, y = 0;
};

// CUDA's variables of these names, set for the running thread.
extern Index threadIdx, blockIdx, blockDim, gridDim;

// The running thread, and the number of barriers that its cluster and, in it, blocks have passed.
struct Place {
    uint32_t launch, cluster, block, thread, phase, epoch;
};

constexpr unsigned kWarp = 32, kBlock = 1024, kCluster = 8;  // the largest

const Place& here();
bool running();
bool on_a_fiber_stack(const void* address);

// Ends the launch; the first description is kept.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
const char* failure();

// Runs `kernel` for every thread; false after a failure.
bool launch(unsigned blocks, unsigned cluster, Index threads, const std::function<void()>& kernel);

void barrier(const char* file, int line);
void cluster_barrier(const char* file, int line);

// The result of a lane once all lanes of a mask have called `warp`, from the values that they sent and from
// its own argument.
using Combine = uint64_t (*)(const uint64_t* sent, unsigned mask, int64_t argument);
uint64_t warp(Combine combine, unsigned mask, uint64_t sent, int64_t argument, const char* what,
              const char* file, int line);

// Atomic accesses of several threads to the same memory are no race.
enum class Access { read, write, atomic };
void check_alignment(const void* address, size_t size);
void touch(const void* address, size_t size, Access access);
void end_of_launch();

// The two ends of an asynchronous write. Every access between them is an error.
void begin_write(const void* address, size_t size);
void end_write(const void* address, size_t size);

int64_t atomic_max(int64_t* address, int64_t value);

// cp.async: writes `size` bytes, of which the first `read` come from `from` and the others are zero; the
// groups of a thread's copies; waits until at most `pending` of the last groups have not arrived.
void copy_async(void* to, const void* from, size_t size, size_t read);
void commit_copies();
void wait_for_copies(size_t pending);

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
