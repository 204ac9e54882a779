// The two passes over one frame's feature map, in either memory layout:
//   accumulate   q[i] = sum_c x[c,i]^2 and optionally the block sums P[k,c] = sum_{i in block k} x[c,i]
//   scale        dx[c,i] = x[c,i] w[i] + A[k(i),c], A optional
#pragma once

#include "cpu/memory.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int64_t kAhead = 1024;  // bytes from a load to its prefetch in a row of channels

// Planes: G channels at a time. Their block sums stay in registers, q stays in the L1 cache.
template <class T, int G, bool Sums>
inline void accumulate_channels(const T* x, int64_t stride, int64_t C, int64_t K, int64_t cells, Acc<T>* q,
                                Acc<T>* sums) {
    constexpr int kChains = G < 4 ? G : 4;  // independent chains of additions hide their latency
    const int64_t ahead = G * stride;
    for (int64_t k = 0; k < K; ++k) {
        Vec<T> block[G] = {};
        for_vectors<T>(cells, [&](int64_t i, auto part) {
            const T* p = x + k * cells + i;
            Vec<T> energy[kChains] = {};
#pragma GCC unroll 16
            for (int g = 0; g < G; ++g) {
                Vec<T> v = part.load(p + g * stride);
                __builtin_prefetch(p + g * stride + ahead);
                energy[g % kChains] += v * v;
                if (Sums) block[g] += v;
            }
            Acc<T>* e = q + k * cells + i;
            if constexpr (kChains == 4) {
                part.store(e, part.load(e) + ((energy[0] + energy[1]) + (energy[2] + energy[3])));
            } else if constexpr (kChains == 2) {
                part.store(e, part.load(e) + (energy[0] + energy[1]));
            } else {
                part.store(e, part.load(e) + energy[0]);
            }
        });
        if constexpr (Sums && G == 1) {
            sums[k * C] = sum_lanes(block[0]);
        } else if constexpr (Sums) {
            store(sums + k * C, sum_each<G, G>(block));
        }
    }
}

// Channels last: G cells at a time. Their energies stay in registers, the sums of a block in the cache.
template <class T, int G, bool Sums, class Part>
inline void accumulate_vector(const T* x, int64_t stride, Part part, Vec<T> (&energy)[G], Acc<T>* sums) {
    Vec<T> total{};
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
        Vec<T> v = part.load(x + g * stride);
        __builtin_prefetch(x + g * stride + kAhead / sizeof(T));
        energy[g] += v * v;
        total += v;
    }
    if (Sums) part.store(sums, part.load(sums) + total);
}

template <class T, int G, bool Sums>
inline void accumulate_cells(const T* x, int64_t stride, int64_t C, Acc<T>* q, Acc<T>* sums) {
    constexpr int N = Lanes<T>::N;
    Vec<T> energy[G] = {};
    int64_t c = 0;
    for (; c + N <= C; c += N) accumulate_vector<T, G, Sums>(x + c, stride, Whole{}, energy, sums + c);
    if (c < C) accumulate_vector<T, G, Sums>(x + c, stride, Partial{int(C - c)}, energy, sums + c);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) q[g] = sum_lanes(energy[g]);
}

template <class T, bool Sums>
inline void accumulate(const FeatureMap& map, const T* x, int64_t K, Acc<T>* q, Acc<T>* sums) {
    const int64_t cells = map.L / K;
    if (map.planes()) {
        constexpr int G = Lanes<T>::N;
        memset(q, 0, size_t(map.L) * sizeof(Acc<T>));
        int64_t c = 0;
        for (; c + G <= map.C; c += G)
            accumulate_channels<T, G, Sums>(x + c * map.stride_c, map.stride_c, map.C, K, cells, q, sums + c);
        for (; c < map.C; ++c)
            accumulate_channels<T, 1, Sums>(x + c * map.stride_c, map.stride_c, map.C, K, cells, q, sums + c);
        return;
    }
    if (Sums) memset(sums, 0, size_t(K * map.C) * sizeof(Acc<T>));
    for (int64_t k = 0; k < K; ++k) {
        int64_t i = k * cells;
        const int64_t end = i + cells;
        for (; i + 4 <= end; i += 4)
            accumulate_cells<T, 4, Sums>(x + i * map.stride_l, map.stride_l, map.C, q + i, sums + k * map.C);
        for (; i < end; ++i)
            accumulate_cells<T, 1, Sums>(x + i * map.stride_l, map.stride_l, map.C, q + i, sums + k * map.C);
    }
}

// A is (K,C) or null.
template <class T>
inline void scale(const FeatureMap& map, const T* x, const FeatureMap& target, T* dx, int64_t K,
                  const Acc<T>* weight, const Acc<T>* A) {
    constexpr int64_t kNext = kAhead / int64_t(sizeof(T));
    const int64_t cells = map.L / K, size = map.B * map.T * map.C * map.L;
    if (map.planes()) {
        const bool streamed = cells % Lanes<T>::N == 0 && streams(dx, target.stride_c, size);
        for (int64_t n = 0; n < map.C; ++n) {
            const int64_t c = interleaved(n, map.C);
            const T* source = x + c * map.stride_c;
            T* result = dx + c * target.stride_c;
            for (int64_t k = 0; k < K; ++k) {
                const Vec<T> a = broadcast<T>(A ? A[k * map.C + c] : 0);
                for_vectors<T>(cells, [&](int64_t i, auto part) {
                    i += k * cells;
                    __builtin_prefetch(source + i + kNext);
                    write(part, result + i, part.load(source + i) * part.load(weight + i) + a, streamed);
                });
            }
        }
        if (streamed) end_streams();
        return;
    }
    const bool streamed = streams(dx, target.stride_l, size);
    for (int64_t i = 0; i < map.L; ++i) {
        const T* source = x + i * map.stride_l;
        T* result = dx + i * target.stride_l;
        const Acc<T>* a = A ? A + i / cells * map.C : nullptr;
        const Vec<T> w = broadcast<T>(weight[i]);
        for_vectors<T>(map.C, [&](int64_t c, auto part) {
            __builtin_prefetch(source + c + kNext);
            Vec<T> v = part.load(source + c) * w;
            write(part, result + c, a ? v + part.load(a + c) : v, streamed);
        });
    }
    if (streamed) end_streams();
}

template <class T>
inline void clear(const FeatureMap& target, T* dx) {
    const int64_t outer = target.planes() ? target.C : target.L;
    const int64_t inner = target.planes() ? target.L : target.C;
    const int64_t stride = target.planes() ? target.stride_c : target.stride_l;
    for (int64_t i = 0; i < outer; ++i) memset(dx + i * stride, 0, size_t(inner) * sizeof(T));
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
