// The traversal of the frames of a feature map by thread blocks, in either memory layout.
#pragma once

#include <type_traits>

#include "cuda/device.cuh"

namespace vreid {
namespace cuda {
namespace {

constexpr int kBatch = 4;           // loads in flight per thread
constexpr int kRowsPerThread = 16;  // channels per thread for planes

// How thread blocks cover the frames. A frame is a matrix: the *inner* axis is contiguous (the cells of one
// of K blocks or, channels last, all channels), the *outer* axis is the other one (channels, or the cells of
// one block). A thread has VEC elements of the inner axis and iterates over the outer axis; `lanes` threads
// cover the inner axis or a split of it. So sums along the inner axis are sums over these lanes, and sums
// along the outer axis stay in registers.
struct Walk {
    int lanes;       // power of two, at most a warp
    int blocks;      // of cells, side by side in a warp: lanes * blocks is at most a warp (channels last: 1)
    int rows;        // threads of a thread block on one column: kThreads / (lanes * blocks)
    int64_t inner;   // length of the inner axis
    int64_t splits;  // thread blocks per inner axis
    int64_t groups;  // ceil(K / blocks)
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
    walk.inner = x.planes() ? cells : x.C;
    walk.lanes = power_of_two(ceil_div(walk.inner, vec), kWarp);
    walk.blocks = x.planes() ? power_of_two(K, kWarp / walk.lanes) : 1;
    walk.rows = kThreads / (walk.lanes * walk.blocks);
    walk.splits = ceil_div(walk.inner, int64_t(walk.lanes) * vec);
    walk.groups = ceil_div(K, walk.blocks);
    walk.outer = x.planes() ? x.C : cells;
    walk.chunk = x.planes() ? int64_t(walk.rows) * kRowsPerThread : cells;
    walk.chunks = ceil_div(walk.outer, walk.chunk);
    return walk;
}

int element_size(const FeatureMap& x) {
    return x.dtype == DType::f32 ? 4 : 2;
}

// The number of elements of a 16-byte access if every access of the walk is aligned, otherwise 1.
int vector_size(const FeatureMap& x, int64_t K) {
    const int vec = 16 / element_size(x);
    const auto fits = [&](int64_t size, int64_t stride) { return size == 1 || stride % vec == 0; };
    const int64_t inner = x.planes() ? x.L / K : x.C;
    const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && inner % vec == 0 &&
                         fits(x.B, x.stride_b) && fits(x.T, x.stride_t) &&
                         (x.planes() ? fits(x.C, x.stride_c) : fits(x.L, x.stride_l));
    return aligned ? vec : 1;
}

// The elements of a thread of thread block `index` of a walk.
template <bool PLANES, int VEC>
struct Place {
    int64_t frame, chunk, block, split;
    int64_t inner;       // index of its first element: a cell of the frame, or a channel
    int64_t begin, end;  // range of its thread block on the outer axis: channels, or cells of the frame
    int lane, row;
    bool active;

    __device__ explicit Place(const Walk& walk, unsigned index = blockIdx.x) {
        const int columns = walk.lanes * walk.blocks, column = threadIdx.x % columns;
        // A block index has 31 bits, and 32-bit divisions are faster.
        split = index % unsigned(walk.splits);
        index /= unsigned(walk.splits);
        block = int64_t(index % unsigned(walk.groups)) * walk.blocks + column / walk.lanes;
        index /= unsigned(walk.groups);
        chunk = index % unsigned(walk.chunks);
        frame = index / unsigned(walk.chunks);
        lane = column % walk.lanes;
        row = threadIdx.x / columns;
        inner = (split * walk.lanes + lane) * VEC;
        active = block < walk.K && inner < walk.inner;
        begin = chunk * walk.chunk;
        end = min(walk.outer, begin + walk.chunk);
        if (PLANES) {
            inner += block * walk.inner;
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

// Calls `kernels(element, planes, vec)` with the element type; the types of `planes` and `vec` make them
// constants.
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
