// Kernels with one mistake each, whose results on a GPU are undefined, and the same kernels without it.
// Prints the result of the kernel named on the command line.
#include <cstdio>
#include <cstring>

#include "cuda/device.cuh"

namespace {

using vreid::kThreads;

constexpr int kSize = 2 * kThreads;

// Each thread writes a number and reads its neighbour's.
template <bool BARRIER>
__global__ void neighbours(float* out) {
    __shared__ float numbers[kThreads];
    numbers[threadIdx.x] = float(threadIdx.x);
    if (BARRIER) __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = numbers[(threadIdx.x + 1) % kThreads];
}

// A read and the write of the next round need a barrier between them, too.
template <bool BARRIER>
__global__ void rounds(float* out) {
    __shared__ float number;
    float sum = 0;
    for (int round = 0; round < 3; ++round) {
        if (threadIdx.x == 0) number = float(round);
        __syncthreads();
        sum += number;
        if (BARRIER) __syncthreads();
    }
    out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

__global__ void divergent_barrier(float* out) {
    if (threadIdx.x < 100) __syncthreads();
    out[threadIdx.x] = 0;
}

__global__ void two_barriers(float* out) {
    if (threadIdx.x < 100)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 0;
}

__global__ void early_exit(float* out) {
    if (threadIdx.x == 7) return;
    __syncthreads();
    out[threadIdx.x] = 0;
}

__global__ void absent_lane(float* out) {
    float sum = 0;
    if (threadIdx.x % 32 != 3) sum = __shfl_xor_sync(0xffffffff, 1.f, 1);
    out[threadIdx.x] = sum;
}

__global__ void lane_outside_its_mask(float* out) {
    out[threadIdx.x] = __shfl_xor_sync(0x0000ffff, 1.f, 1);
}

__global__ void source_outside_the_mask(float* out) {
    if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0x0000ffff, 1.f, 16);
}

__global__ void unwritten(float* out) {
    __shared__ float numbers[kThreads + 1];
    numbers[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = numbers[threadIdx.x + 1];
}

template <int OFFSET>
__global__ void sixteen_bytes(float* out) {
    alignas(16) __shared__ float numbers[8];
    if (threadIdx.x == 0) vreid::store(numbers + OFFSET, vreid::load<4>(out + kThreads));
    __syncthreads();
    out[threadIdx.x] = numbers[OFFSET + threadIdx.x % 4] + 1;
}

__global__ void blocks_share_a_result(float* out) {
    if (threadIdx.x == 0) out[0] = float(blockIdx.x);
}

__global__ void count(int* total) {
    *total += 1;
}

__global__ void past_the_end(float* out) {
    out[threadIdx.x + kSize - kThreads + 1] = 0;
}

__global__ void shuffles(float* out) {
    const int lane = threadIdx.x % 32;
    bool right = true;
    for (int other = 0; other < 32; ++other)
        right = right && __shfl_xor_sync(0xffffffff, lane, other) == (lane ^ other);
    if (lane >= 16) right = right && __shfl_xor_sync(0xffff0000, lane, 1) == (lane ^ 1);
    out[blockIdx.x * kThreads + threadIdx.x] = right ? 1.f : 0.f;
}

// The first quarter of the threads copies 16 bytes each, the others read them.
template <bool WAIT, bool EARLY>
__global__ void copies(float* out) {
    __shared__ float shared[kThreads];
    const int place = 4 * int(threadIdx.x);
    if (place < kThreads) {
        alignas(16) static const float source[4] = {1, 2, 3, 4};
        simt::copy_async(shared + place, source, 16, 12);
        simt::commit_copies();
        if (EARLY) shared[place] = 0;
        if (WAIT) simt::wait_for_copies(0);
    }
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = shared[threadIdx.x];
}

template <bool READ>
__global__ void largest(int64_t* out) {
    atomicMax(reinterpret_cast<long long*>(out), blockIdx.x * kThreads + threadIdx.x);
    if (READ && out[0] < 0) out[0] = 0;
}

// Each block of a cluster writes a number to global memory and reads that of the next block.
template <bool BARRIER>
__global__ void exchange(float* out) {
    float* numbers = out + kThreads;
    const unsigned cluster = blockIdx.x / 4, rank = blockIdx.x % 4;
    if (threadIdx.x == 0) numbers[blockIdx.x] = float(rank);
    if (BARRIER) vreid::synchronize_cluster();
    if (threadIdx.x == 0) out[blockIdx.x] = numbers[cluster * 4 + (rank + 1) % 4];
}

// Reads the number of the other cluster, if not its own.
template <int OFFSET>
__global__ void other_cluster(float* out) {
    float* numbers = out + kThreads;
    if (threadIdx.x == 0) numbers[blockIdx.x] = 1;
    vreid::synchronize_cluster();
    if (threadIdx.x == 0) out[blockIdx.x] = numbers[(blockIdx.x + OFFSET) % gridDim.x];
}

__global__ void absent_block(float* out) {
    if (blockIdx.x % 4 != 3) vreid::synchronize_cluster();
    if (threadIdx.x == 0) out[blockIdx.x] = 0;
}

__global__ void absent_thread(float* out) {
    if (threadIdx.x != 5) vreid::synchronize_cluster();
    if (threadIdx.x == 0) out[blockIdx.x] = 0;
}

// The blocks of a cluster take turns with the host's memory for shared variables.
__global__ void shared_before_a_cluster_barrier(float* out) {
    __shared__ float number;
    if (threadIdx.x == 0) number = 1;
    vreid::synchronize_cluster();
    if (threadIdx.x == 0) out[blockIdx.x] = number;
}

// Every row of threads writes its own numbers.
__global__ void rows_of_threads(float* out) {
    out[threadIdx.y * blockDim.x + threadIdx.x] = float(threadIdx.y);
}

}  // namespace

int main(int count_of_arguments, char** arguments) {
    if (count_of_arguments != 2) return 2;
    const char* name = arguments[1];
    float* out = new float[kSize]();
    int total = 0;
    int64_t most = 0;
    cudaError_t status = cudaErrorInvalidValue;
    cudaLaunchConfig_t config{};
    config.blockDim = dim3(kThreads);
    const auto probe = [&](const char* this_one, auto kernel, auto* memory, unsigned blocks = 2) {
        config.gridDim = dim3(blocks);
        config.numAttrs = 0;
        if (!strcmp(name, this_one)) status = cudaLaunchKernelEx(&config, kernel, memory);
    };
    probe("neighbours", neighbours<true>, out);
    probe("neighbours without a barrier", neighbours<false>, out);
    probe("rounds", rounds<true>, out);
    probe("rounds without a barrier", rounds<false>, out);
    probe("divergent barrier", divergent_barrier, out);
    probe("two barriers", two_barriers, out);
    probe("early exit", early_exit, out);
    probe("absent lane", absent_lane, out);
    probe("lane outside its mask", lane_outside_its_mask, out);
    probe("source outside the mask", source_outside_the_mask, out);
    probe("unwritten", unwritten, out);
    probe("sixteen bytes", sixteen_bytes<4>, out, 1);
    probe("sixteen bytes off their place", sixteen_bytes<3>, out, 1);
    probe("blocks share a result", blocks_share_a_result, out);
    probe("count", count, &total, 1);
    probe("past the end", past_the_end, out, 1);
    probe("shuffles", shuffles, out);
    probe("copies", copies<true, false>, out);
    probe("copies without a wait", copies<false, false>, out);
    probe("write before a copy has arrived", copies<true, true>, out);
    probe("largest", largest<false>, &most);
    probe("largest and a read", largest<true>, &most);
    cudaLaunchAttribute size{};
    config.attrs = &size;
    const auto probe_cluster = [&](const char* this_one, auto kernel, unsigned cluster = 4) {
        size.val.clusterDim.x = cluster;
        config.gridDim = dim3(8);
        config.numAttrs = 1;
        if (!strcmp(name, this_one)) status = cudaLaunchKernelEx(&config, kernel, out);
    };
    probe_cluster("exchange", exchange<true>);
    probe_cluster("exchange without a barrier", exchange<false>);
    probe_cluster("own cluster", other_cluster<0>);
    probe_cluster("other cluster", other_cluster<4>);
    probe_cluster("absent block", absent_block);
    probe_cluster("absent thread", absent_thread);
    probe_cluster("shared before a cluster barrier", shared_before_a_cluster_barrier);
    probe_cluster("three blocks", exchange<true>, 3);
    config.blockDim = dim3(kThreads / 4, 4);
    probe("rows of threads", rows_of_threads, out, 1);
    float sum = float(most);
    for (int i = 0; i < kSize; ++i) sum += out[i];
    printf("%g %s\n", sum, cudaGetErrorString(status));
    delete[] out;
    return 0;
}
