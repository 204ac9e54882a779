// How thread blocks walk the frames of a feature map, in either memory layout.
#pragma once

#include <type_traits>

#include "common/types.h"
#include "cuda/device.cuh"

namespace vreid {
namespace cuda {
namespace {

constexpr int kBatch = 4;           // loads in flight per thread
constexpr int kRowsPerThread = 16;  // channels that a thread of a plane-wise walk passes

// How thread blocks cover the frames. A frame is a matrix: adjacent elements run along a *run* (the cells of
// one of K blocks, or, channels last, all channels), the other axis is the *outer* one (channels, or the
// cells of one block). A thread owns VEC elements of a run and walks down the outer axis; `lanes` threads
// share a run (or a split of it), so that sums along a run go over these lanes and sums down the outer axis
// stay in registers.
struct Walk {
    int lanes;       // power of two, at most a warp
    int runs;        // blocks side by side in a warp: lanes * runs is at most a warp (channels last: 1)
    int rows;        // threads of a block on one column: kThreads / (lanes * runs)
    int64_t run;     // elements of a run
    int64_t splits;  // thread blocks that share a run
    int64_t groups;  // ceil(K / runs)
    int64_t outer;   // length of the outer axis
    int64_t chunk;   // outer positions per thread block
    int64_t chunks;
    int64_t K;
};

int power_of_two(int64_t least, int most) {
    int power = 1;
    while (power < least && power < most) power *= 2;
    return power;
}

Walk walk_of(const FeatureMap& x, int64_t K, int vec) {
    Walk walk{};
    const int64_t cells = x.L / K;
    walk.K = K;
    walk.run = x.planes() ? cells : x.C;
    walk.lanes = power_of_two(ceil_div(walk.run, vec), kWarp);
    walk.runs = x.planes() ? power_of_two(K, kWarp / walk.lanes) : 1;
    walk.rows = kThreads / (walk.lanes * walk.runs);
    walk.splits = ceil_div(walk.run, int64_t(walk.lanes) * vec);
    walk.groups = ceil_div(K, walk.runs);
    walk.outer = x.planes() ? x.C : cells;
    walk.chunk = x.planes() ? int64_t(walk.rows) * kRowsPerThread : cells;
    walk.chunks = ceil_div(walk.outer, walk.chunk);
    return walk;
}

int element_size(const FeatureMap& x) {
    return x.dtype == DType::f32 ? 4 : 2;
}

// Elements of a 16-byte access where every access of the walk is aligned, else 1.
int vector_size(const FeatureMap& x, int64_t K) {
    const int vec = 16 / element_size(x);
    const auto fits = [&](int64_t size, int64_t stride) { return size == 1 || stride % vec == 0; };
    const int64_t run = x.planes() ? x.L / K : x.C;
    const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && run % vec == 0 &&
                         fits(x.B, x.stride_b) && fits(x.T, x.stride_t) &&
                         (x.planes() ? fits(x.C, x.stride_c) : fits(x.L, x.stride_l));
    return aligned ? vec : 1;
}

// Where a thread of a walk works.
template <bool PLANES, int VEC>
struct Place {
    int64_t frame, chunk, block, split;
    int64_t inner;       // of its first element: cell of the frame, or channel
    int64_t begin, end;  // of its thread block on the outer axis: channels, or cells of the frame
    int lane, row;
    bool active;

    __device__ explicit Place(const Walk& walk) {
        const int columns = walk.lanes * walk.runs, column = threadIdx.x % columns;
        // Numbers of thread blocks have 31 bits, and short divisions are fast.
        unsigned index = blockIdx.x;
        split = index % unsigned(walk.splits);
        index /= unsigned(walk.splits);
        block = int64_t(index % unsigned(walk.groups)) * walk.runs + column / walk.lanes;
        index /= unsigned(walk.groups);
        chunk = index % unsigned(walk.chunks);
        frame = index / unsigned(walk.chunks);
        lane = column % walk.lanes;
        row = threadIdx.x / columns;
        inner = (split * walk.lanes + lane) * VEC;
        active = block < walk.K && inner < walk.run;
        begin = chunk * walk.chunk;
        end = min(walk.outer, begin + walk.chunk);
        if (PLANES) {
            inner += block * walk.run;
        } else {
            begin += block * walk.outer;
            end += block * walk.outer;
        }
    }
};

template <class T>
__device__ T* frame_of(const FeatureMap& x, int64_t frame) {
    const unsigned number = unsigned(frame), frames = unsigned(x.T);
    return static_cast<T*>(x.data) + number / frames * x.stride_b + number % frames * x.stride_t;
}

int64_t thread_blocks(const FeatureMap& x, const Walk& walk) {
    return x.B * x.T * walk.chunks * walk.groups * walk.splits;
}

// Calls `kernels(element, planes, vec)` with the type and the layout as types.
template <class F>
cudaError_t for_layout(const FeatureMap& x, int vec, const F& kernels) {
    return dispatch(x.dtype, [&](auto element) {
        using Planes = std::true_type;
        using Last = std::false_type;
        using Vector = std::integral_constant<int, 16 / sizeof(element)>;
        using Single = std::integral_constant<int, 1>;
        if (vec == 1)
            return x.planes() ? kernels(element, Planes(), Single()) : kernels(element, Last(), Single());
        return x.planes() ? kernels(element, Planes(), Vector()) : kernels(element, Last(), Vector());
    });
}

}  // namespace
}  // namespace cuda
}  // namespace vreid
