// STA pooling (Fu et al., AAAI 2019, Eq. 1 to 4 and Algorithm 1) in one read of the feature map; backward in
// one read and one write. Formulas: vreid_ext/ops/sta.py.
//
// Bitwise deterministic: no atomics, and every sum has a fixed order. A *frame* is one (b,t) with the index b
// T + t.
#include "cuda/clip.cuh"
#include "cuda/frame.cuh"
#include "cuda/kernels.h"

namespace vreid {
namespace cuda {
namespace {

// scores of (clip, k), in place, with their total and the chosen frame.
__device__ void score_column(int64_t index, float* scores, const bool* valid, int64_t T, int64_t K,
                             float* total, int64_t* choice) {
    const Column column(index, valid, T, K);
    total[index] = normalize_scores(scores, column);
    choice[index] = chosen_frame(scores, column);
}

// Channel c of a clip. P = the sums over the pieces;
// pooled = [1/L sum_k P[choice_k,k,c], 1/L sum_k sum_t S P].
template <class T>
__device__ void pool_channel(int64_t clip, int64_t c, const float* parts, int64_t pieces, const float* scores,
                             const int64_t* choice, int64_t frames, int64_t C, int64_t L, int64_t K,
                             float* sums, T* pooled) {
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

// One thread per (clip, k).
__global__ void __launch_bounds__(kThreads)
    score_frames(float* scores, const bool* valid, int64_t B, int64_t T, int64_t K, float* total,
                 int64_t* choice) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index < B * K) score_column(index, scores, valid, T, K, total, choice);
}

// One thread per (clip, channel).
template <class T>
__global__ void __launch_bounds__(kThreads)
    pool(const float* parts, int64_t pieces, const float* scores, const int64_t* choice, int64_t B,
         int64_t frames, int64_t C, int64_t L, int64_t K, float* sums, T* pooled) {
    const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (index < B * C)
        pool_channel(index / C, index % C, parts, pieces, scores, choice, frames, C, L, K, sums, pooled);
}

// All of the above, one cluster per clip. A row of threads takes the place of a thread block: the pieces are
// the same, and so are the bits. Three rows in a block, one block on a multiprocessor: as many loads in
// flight as with three thread blocks.
constexpr int kGroups = 3;

struct Clips {
    FeatureMap x;
    const bool* valid;
    int64_t K;
    Pieces pieces;
    float *squares, *parts;                             // scratch
    float *scores, *attention, *sums, *energy, *total;  // results
    int64_t* choice;
    void* pooled;
};

template <class T, bool PLANES, int VEC>
__global__ void __launch_bounds__(kThreads* kGroups) pool_clips(Clips op, Walk walk) {
    const FeatureMap& x = op.x;
    const int64_t clip = blockIdx.x / kCluster;
    const unsigned row = blockIdx.x % kCluster * kGroups + threadIdx.y, rows = kCluster * kGroups;
    const unsigned items = unsigned(x.T * walk.chunks * walk.groups * walk.splits);
    for (unsigned first = 0; first < items; first += rows) {
        const bool present = first + row < items;
        Place<PLANES, VEC> at(walk, unsigned(clip) * items + (present ? first + row : 0));
        if (!present) {
            at.active = false;
            at.end = at.begin;
        }
        add_channels<T, PLANES, VEC, true, kGroups>(at, x, op.valid, walk, op.squares, op.parts);
        __syncthreads();  // the next pass writes to the same shared memory
    }
    synchronize_cluster();
    for (unsigned first = 0; first < unsigned(x.T); first += rows) {
        const bool present = first + row < unsigned(x.T);
        normalize_frame<kGroups>(clip * x.T + (present ? first + row : 0), present, op.squares,
                                 op.pieces.squares, op.valid, x.L, op.K, Energy{}, op.attention, op.energy,
                                 op.scores);
    }
    synchronize_cluster();
    const int thread = threadIdx.y * kThreads + threadIdx.x;
    if (blockIdx.x % kCluster == 0) {
        for (int64_t k = thread; k < op.K; k += kThreads * kGroups)
            score_column(clip * op.K + k, op.scores, op.valid, x.T, op.K, op.total, op.choice);
    }
    synchronize_cluster();
    const int64_t start = (thread / kWarp * kCluster + blockIdx.x % kCluster) * kWarp + thread % kWarp;
    for (int64_t c = start; c < x.C; c += kCluster * kGroups * kThreads)
        pool_channel(clip, c, op.parts, op.pieces.sums, op.scores, op.choice, x.T, x.C, x.L, op.K, op.sums,
                     static_cast<T*>(op.pooled));
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

// The form with one launch for each step.
cudaError_t pool_in_steps(const Clips& op, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    cudaError_t status = channel_sums(x, op.valid, op.K, op.squares, op.parts, stream);
    if (status == cudaSuccess)
        status = normalize_energy(op.squares, op.pieces.squares, op.valid, x.B * x.T, x.L, op.K, Energy{},
                                  op.attention, op.energy, op.scores, stream);
    if (status == cudaSuccess)
        status = launch(score_frames, ceil_div(x.B * op.K, kThreads), stream, op.scores, op.valid, x.B, x.T,
                        op.K, op.total, op.choice);
    if (status != cudaSuccess) return status;
    return dispatch(x.dtype, [&](auto element) {
        using T = decltype(element);
        return launch(pool<T>, ceil_div(x.B * x.C, kThreads), stream, op.parts, op.pieces.sums, op.scores,
                      op.choice, x.B, x.T, x.C, x.L, op.K, op.sums, static_cast<T*>(op.pooled));
    });
}

// Whether one cluster per clip is faster than the steps, by the account in docs/gpu.md: if the clusters are
// on enough multiprocessors to read at the bandwidth of the memory, or if a clip is so small that the
// launches take longer than its bytes.
cudaError_t prefers_clusters(const FeatureMap& x, bool& result) {
    int device = 0, multiprocessors = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    const int64_t bytes = x.T * x.C * x.L * element_size(x);
    result = x.B * kCluster * 3 >= multiprocessors || bytes <= 3 << 20;
    return status;
}

}  // namespace

cudaError_t sta_pool(const StaPool& op, float* squares, float* parts, std::optional<bool> clusters,
                     cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const Clips clips{x,
                      op.valid,
                      op.K,
                      pieces(x, op.K),
                      squares,
                      parts,
                      static_cast<float*>(op.scores),
                      static_cast<float*>(op.attention),
                      static_cast<float*>(op.sums),
                      static_cast<float*>(op.energy),
                      static_cast<float*>(op.total),
                      op.choice,
                      op.pooled};
    const int vec = vector_size(x, op.K);
    const Walk walk = walk_of(x, op.K, vec);
    return for_layout(x, vec, [&](auto element, auto planes, auto vector) {
        const auto kernel = pool_clips<decltype(element), planes(), vector()>;
        bool possible = false, preferred = clusters.value_or(true);
        cudaError_t status = has_clusters(kernel, possible);
        possible = possible && thread_blocks(x, walk) <= INT32_MAX;
        if (clusters == true && status == cudaSuccess && !possible) return cudaErrorNotSupported;
        if (!clusters && status == cudaSuccess) status = prefers_clusters(x, preferred);
        if (status != cudaSuccess) return status;
        return possible && preferred ? launch_clusters(kernel, x.B, kGroups, stream, clips, walk)
                                     : pool_in_steps(clips, stream);
    });
}

cudaError_t sta_pool_backward(const StaPoolBackward& op, float* slope, float* weight, cudaStream_t stream) {
    const FeatureMap& x = op.x;
    const float *scores = static_cast<const float*>(op.scores), *sums = static_cast<const float*>(op.sums);
    const bool through_scores = op.grad_pooled || op.grad_scores;
    cudaError_t status = cudaSuccess;
    if (through_scores) {
        status = dispatch(x.dtype, [&](auto element) {
            using T = decltype(element);
            return launch(score_gradient<T>, x.B * x.T * op.K, stream,
                          static_cast<const float*>(op.grad_scores), static_cast<const T*>(op.grad_pooled),
                          sums, op.valid, x.T, x.C, x.L, op.K, slope);
        });
    }
    if (status != cudaSuccess) return status;
    const EnergyGradient gradient{x.T,
                                  x.L,
                                  op.K,
                                  static_cast<const float*>(op.grad_attention),
                                  through_scores ? slope : nullptr,
                                  scores,
                                  static_cast<const float*>(op.total),
                                  static_cast<const float*>(op.attention),
                                  static_cast<const float*>(op.energy),
                                  slope + x.B * x.T * op.K,
                                  weight};
    return map_gradient(x, op.dx, op.valid, gradient, Energy{}, op.grad_pooled, op.choice, stream);
}

}  // namespace cuda
}  // namespace vreid
