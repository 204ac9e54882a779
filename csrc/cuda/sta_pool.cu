// STA pooling (Fu et al., AAAI 2019, Eq. 1 to 4 and Algorithm 1) in one read of the feature map; backward in
// one read and one write. The formulas stand in vreid_ext/ops/sta.py.
//
// No atomics and a fixed order of every sum: same inputs, same bits. A *frame* is one (b,t), numbered b T +
// t.
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/sta_pool.h"

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
        int64_t index = blockIdx.x;
        split = index % walk.splits;
        index /= walk.splits;
        block = index % walk.groups * walk.runs + column / walk.lanes;
        index /= walk.groups;
        chunk = index % walk.chunks;
        frame = index / walk.chunks;
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
    return static_cast<T*>(x.data) + frame / x.T * x.stride_b + frame % x.T * x.stride_t;
}

// squares[frame,piece,i] = sum of x^2 over a piece of the channels;
// sums[frame,k,piece,c] = sum of x over a piece of the block's cells.
// Three thread blocks per multiprocessor rather than four leave enough registers for the loads in flight.
template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads, 3)
    channel_sums(FeatureMap x, const bool* valid, Walk walk, float* squares, float* sums) {
    const Place<PLANES, VEC> at(walk);
    const bool readable = at.active && (!valid || valid[at.frame]);
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    float* along = PLANES ? sums + ((at.frame * walk.K + at.block) * walk.splits + at.split) * x.C
                          : squares + (at.frame * walk.splits + at.split) * x.L;
    float* down = PLANES ? squares + (at.frame * walk.chunks + at.chunk) * x.L
                         : sums + (at.frame * walk.K + at.block) * x.C;

    float column[VEC] = {};
    for (int64_t first = at.begin; first < at.end; first += int64_t(walk.rows) * kBatch) {
        Pack<T, VEC> batch[kBatch];
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            batch[u] = {};
            if (readable && outer < at.end) batch[u] = load<VEC>(source + outer * stride);
        }
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            float row = 0;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                const float value = to_float(batch[u].element[v]), square = value * value;
                column[v] += PLANES ? square : value;
                row += PLANES ? value : square;
            }
            row = sum_over_lanes(row, walk.lanes);
            if (at.active && at.lane == 0 && outer < at.end) along[outer] = row;
        }
    }

    __shared__ float rows[kThreads][VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) rows[threadIdx.x][v] = column[v];
    __syncthreads();
    if (at.row != 0 || !at.active) return;
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
        float sum = 0;
        for (int other = threadIdx.x; other < kThreads; other += kThreads / walk.rows) sum += rows[other][v];
        down[at.inner + v] = sum;
    }
}

// One thread block per frame: Q = sum q, g = q / Q (uniform where Q is 0), s[k] = block sums of g.
__global__ void __launch_bounds__(kThreads)
    normalize_energy(const float* squares, int64_t pieces, const bool* valid, int64_t L, int64_t K,
                     float* attention, float* energy, float* mass) {
    const int64_t frame = blockIdx.x, cells = L / K;
    squares += frame * pieces * L;
    attention += frame * L;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < L; i += kThreads) {
        float q = 0;
        for (int64_t piece = 0; piece < pieces; ++piece) q += squares[piece * L + i];
        attention[i] = q;
        sum += q;
    }
    const float total = sum_over_block(sum);
    const float uniform = !valid || valid[frame] ? 1.f / L : 0.f;
    for (int64_t i = threadIdx.x; i < L; i += kThreads)
        attention[i] = total != 0 ? attention[i] / total : uniform;
    if (threadIdx.x == 0) energy[frame] = total;
    __syncthreads();
    for (int64_t k = threadIdx.x / kWarp; k < K; k += kThreads / kWarp) {
        float part = 0;
        for (int64_t i = threadIdx.x % kWarp; i < cells; i += kWarp) part += attention[k * cells + i];
        part = sum_over_lanes(part, kWarp);
        if (threadIdx.x % kWarp == 0) mass[frame * K + k] = part;
    }
}

// One thread per (clip, k). In place s -> S = s / total, uniform over the valid frames where the total is 0;
// choice: the first frame of the largest S, NaN being the largest as in torch.argmax; -1 without a valid
// frame.
__global__ void __launch_bounds__(kThreads)
    choose_frames(float* scores, const bool* valid, int64_t B, int64_t T, int64_t K, float* total,
                  int64_t* choice) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * K) return;
    const int64_t clip = index / K;
    scores += clip * T * K + index % K;
    if (valid) valid += clip * T;
    float sum = 0, frames = 0;
    for (int64_t t = 0; t < T; ++t) {
        if (valid && !valid[t]) continue;
        sum += scores[t * K];
        frames += 1;
    }
    float best = 0;
    int64_t best_frame = -1;
    for (int64_t t = 0; t < T; ++t) {
        if (valid && !valid[t]) {
            scores[t * K] = 0;
            continue;
        }
        const float score = sum != 0 ? scores[t * K] / sum : 1 / frames;
        scores[t * K] = score;
        if (best_frame < 0 || score > best || (score != score && best == best)) {
            best = score;
            best_frame = t;
        }
    }
    total[index] = sum;
    choice[index] = best_frame;
}

// One thread per (clip, channel). P = the pieces' sums;
// pooled = [1/L sum_k P[choice_k,k,c], 1/L sum_k sum_t S P].
template <class T>
__global__ void __launch_bounds__(kThreads)
    pool(const float* parts, int64_t pieces, const float* scores, const int64_t* choice, int64_t B,
         int64_t frames, int64_t C, int64_t L, int64_t K, float* sums, T* pooled) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= B * C) return;
    const int64_t clip = index / C, c = index % C;
    float chosen = 0, weighted = 0;
    for (int64_t t = 0; t < frames; ++t) {
        for (int64_t k = 0; k < K; ++k) {
            const int64_t row = (clip * frames + t) * K + k;
            float sum = parts[row * pieces * C + c];
            if (pieces > 1) {
                for (int64_t piece = 1; piece < pieces; ++piece) sum += parts[(row * pieces + piece) * C + c];
                sums[row * C + c] = sum;
            }
            weighted += scores[row] * sum;
            if (choice[clip * K + k] == t) chosen += sum;
        }
    }
    assign(pooled[clip * 2 * C + c], chosen / L);
    assign(pooled[clip * 2 * C + C + c], weighted / L);
}

// One thread block per (frame, k). slope = dS = grad_scores + 1/L sum_c grad_pooled[C+c] P[k,c].
template <class T>
__global__ void __launch_bounds__(kThreads)
    score_gradient(const float* grad_scores, const T* grad_pooled, const float* sums, const bool* valid,
                   int64_t frames, int64_t C, int64_t L, int64_t K, float* slope) {
    const int64_t row = blockIdx.x, frame = row / K;
    float product = 0;
    if (grad_pooled) {
        grad_pooled += frame / frames * 2 * C + C;
        for (int64_t c = threadIdx.x; c < C; c += kThreads)
            product += to_float(grad_pooled[c]) * sums[row * C + c];
    }
    product = sum_over_block(product);
    if (threadIdx.x != 0) return;
    if (valid && !valid[frame])
        slope[row] = 0;
    else
        slope[row] = product / L + (grad_scores ? grad_scores[row] : 0);
}

// One thread block per frame. ds = (dS - sum_t dS S) / total, dg = grad_attention + ds,
// weight = 2 dq = 2 (dg - sum_j dg g) / Q. slope (dS) may be null; ds is scratch.
__global__ void __launch_bounds__(kThreads)
    energy_gradient(const float* grad_attention, const float* slope, const float* scores, const float* total,
                    const float* attention, const float* energy, int64_t frames, int64_t L, int64_t K,
                    float* ds, float* weight) {
    const int64_t frame = blockIdx.x, clip = frame / frames, cells = L / K;
    ds += frame * K;
    for (int64_t k = threadIdx.x; k < K; k += kThreads) {
        float mean = 0;
        for (int64_t row = clip * frames * K + k; slope && row < (clip + 1) * frames * K; row += K)
            mean += slope[row] * scores[row];
        const float sum = total[clip * K + k];
        ds[k] = slope && sum != 0 ? (slope[frame * K + k] - mean) / sum : 0;
    }
    __syncthreads();
    attention += frame * L;
    if (grad_attention) grad_attention += frame * L;
    const auto dg = [&](int64_t i) { return ds[i / cells] + (grad_attention ? grad_attention[i] : 0); };
    float product = 0;
    for (int64_t i = threadIdx.x; i < L; i += kThreads) product += dg(i) * attention[i];
    const float mean = sum_over_block(product), q = energy[frame];
    for (int64_t i = threadIdx.x; i < L; i += kThreads)
        weight[frame * L + i] = q != 0 ? 2 * (dg(i) - mean) / q : 0;
}

// dx = A + x weight, A[t,k,c] = (1[t = choice_k] df_max[c] + S[t,k] df_sum[c]) / L (0 without grad_pooled).
template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads)
    map_gradient(FeatureMap x, FeatureMap dx, const bool* valid, Walk walk, const float* weight,
                 const T* grad_pooled, const float* scores, const int64_t* choice) {
    const Place<PLANES, VEC> at(walk);
    if (!at.active) return;
    const bool readable = !valid || valid[at.frame];
    const T* source = frame_of<const T>(x, at.frame) + at.inner;
    T* target = frame_of<T>(dx, at.frame) + at.inner;
    const int64_t stride = PLANES ? x.stride_c : x.stride_l;
    const int64_t target_stride = PLANES ? dx.stride_c : dx.stride_l;
    const int64_t clip = at.frame / x.T;
    const float cell = 1.f / x.L, share = scores[at.frame * walk.K + at.block] * cell;
    const bool chosen = choice[clip * walk.K + at.block] == at.frame % x.T;
    const T* df_max = grad_pooled ? grad_pooled + clip * 2 * x.C : nullptr;
    const auto additive = [&](int64_t c) {
        if (!df_max) return 0.f;
        const float weighted = to_float(df_max[x.C + c]) * share;
        return chosen ? weighted + to_float(df_max[c]) * cell : weighted;
    };
    weight += at.frame * x.L;

    // What depends on the thread's own elements alone: their weights, or (channels last) their A.
    float own[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) own[v] = PLANES ? weight[at.inner + v] : additive(at.inner + v);
    for (int64_t first = at.begin; first < at.end; first += int64_t(walk.rows) * kBatch) {
        Pack<T, VEC> batch[kBatch];
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            if (readable && outer < at.end) batch[u] = load<VEC>(source + outer * stride);
        }
#pragma unroll
        for (int u = 0; u < kBatch; ++u) {
            const int64_t outer = first + u * walk.rows + at.row;
            if (outer >= at.end) continue;
            Pack<T, VEC> result = {};
            if (readable) {
                const float common = PLANES ? additive(outer) : weight[outer];
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    const float value = to_float(batch[u].element[v]);
                    assign(result.element[v], PLANES ? common + value * own[v] : own[v] + value * common);
                }
            }
            store(target + outer * target_stride, result);
        }
    }
}

int64_t thread_blocks(const FeatureMap& x, const Walk& walk) {
    return x.B * x.T * walk.chunks * walk.groups * walk.splits;
}

// Calls `kernels(element, planes, vec)` with the type and the layout as types.
template <class F>
cudaError_t dispatch(const FeatureMap& x, int vec, const F& kernels) {
    const auto layout = [&](auto element) {
        using Planes = std::true_type;
        using Last = std::false_type;
        using Vector = std::integral_constant<int, 16 / sizeof(element)>;
        using Single = std::integral_constant<int, 1>;
        if (vec == 1)
            return x.planes() ? kernels(element, Planes(), Single()) : kernels(element, Last(), Single());
        return x.planes() ? kernels(element, Planes(), Vector()) : kernels(element, Last(), Vector());
    };
    switch (x.dtype) {
        case DType::f32:
            return layout(float());
        case DType::bf16:
            return layout(__nv_bfloat16());
        case DType::f16:
            return layout(__half());
        default:
            return cudaErrorInvalidValue;
    }
}

Partials partials_of(const FeatureMap& x, const Walk& walk) {
    return x.planes() ? Partials{walk.chunks, walk.splits} : Partials{walk.splits, 1};
}

}  // namespace

Partials partials(const FeatureMap& x, int64_t K) {
    return partials_of(x, walk_of(x, K, vector_size(x, K)));
}

cudaError_t sta_pool(const StaPool& op, float* squares, float* parts, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const int vec = vector_size(x, op.K);
    const Walk walk = walk_of(x, op.K, vec);
    const Partials pieces = partials_of(x, walk);
    float *scores = static_cast<float*>(op.scores), *attention = static_cast<float*>(op.attention);
    return dispatch(x, vec, [&](auto element, auto planes, auto vector) {
        using T = decltype(element);
        cudaError_t status = launch(channel_sums<T, planes(), vector()>, thread_blocks(x, walk), stream, x,
                                    op.valid, walk, squares, parts);
        if (status == cudaSuccess)
            status = launch(normalize_energy, x.B * x.T, stream, squares, pieces.squares, op.valid, x.L, op.K,
                            attention, static_cast<float*>(op.energy), scores);
        if (status == cudaSuccess)
            status = launch(choose_frames, ceil_div(x.B * op.K, kThreads), stream, scores, op.valid, x.B, x.T,
                            op.K, static_cast<float*>(op.total), op.choice);
        if (status == cudaSuccess)
            status =
                launch(pool<T>, ceil_div(x.B * x.C, kThreads), stream, parts, pieces.sums, scores, op.choice,
                       x.B, x.T, x.C, x.L, op.K, static_cast<float*>(op.sums), static_cast<T*>(op.pooled));
        return status;
    });
}

cudaError_t sta_pool_backward(const StaPoolBackward& op, float* slope, float* weight, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const int vec = vector_size(x, op.K) == 1 ? 1 : vector_size(op.dx, op.K);
    const Walk walk = walk_of(x, op.K, vec);
    const float *scores = static_cast<const float*>(op.scores), *sums = static_cast<const float*>(op.sums);
    float* ds = slope + x.B * x.T * op.K;
    return dispatch(x, vec, [&](auto element, auto planes, auto vector) {
        using T = decltype(element);
        const T* grad_pooled = static_cast<const T*>(op.grad_pooled);
        const float* grad_scores = static_cast<const float*>(op.grad_scores);
        const bool through_scores = grad_pooled || grad_scores;
        cudaError_t status = cudaSuccess;
        if (through_scores)
            status = launch(score_gradient<T>, x.B * x.T * op.K, stream, grad_scores, grad_pooled, sums,
                            op.valid, x.T, x.C, x.L, op.K, slope);
        if (status == cudaSuccess)
            status = launch(energy_gradient, x.B * x.T, stream, static_cast<const float*>(op.grad_attention),
                            through_scores ? slope : nullptr, scores, static_cast<const float*>(op.total),
                            static_cast<const float*>(op.attention), static_cast<const float*>(op.energy),
                            x.T, x.L, op.K, ds, weight);
        if (status == cudaSuccess)
            status = launch(map_gradient<T, planes(), vector()>, thread_blocks(x, walk), stream, x, op.dx,
                            op.valid, walk, weight, grad_pooled, scores, op.choice);
        return status;
    });
}

cudaError_t usable() {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, normalize_energy);
    cudaGetLastError();  // the reason is told here; it must not turn up at the next launch
    return status;
}

}  // namespace cuda
}  // namespace vreid
