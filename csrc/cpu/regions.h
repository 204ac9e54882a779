// The passes over one frame's feature map that K spatial attentions share, in either memory layout:
//   gather    F[k,c] = sum_i s[k,i] x[c,i]
//   spread    dx[c,i] = sum_k s[k,i] G[k,c]
//   project   ds[k,i] = sum_c G[k,c] x[c,i]
// Each is a small matrix product whose large operand is streamed once. Up to eight regions are worked on at a
// time, with their sums in registers; x or dx of a tile of channels stays in the first-level cache between
// groups.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int64_t kTile = 512;   // channels of a tile where channels are adjacent
constexpr int64_t kPlanes = 64;  // and where cells are

// Calls f(first, count as a constant) for groups of regions.
template <int N>
struct Regions {
    static constexpr int count = N;
};
template <class F>
inline void for_regions(int64_t K, F f) {
    int64_t k = 0;
    for (; k + 8 <= K; k += 8) f(k, Regions<8>{});
    if (k + 6 <= K) {
        f(k, Regions<6>{});
        k += 6;
    }
    if (k + 4 <= K) {
        f(k, Regions<4>{});
        k += 4;
    }
    if (k + 3 <= K) {
        f(k, Regions<3>{});
        k += 3;
    }
    for (; k < K; ++k) f(k, Regions<1>{});
}

// A vector is made of 16-byte lanes, within which shuffles are cheap; kLane numbers fit in one.
template <class T>
constexpr int kLane = 16 / int(sizeof(Acc<T>));

template <int P, int High, class V, int... I>
VREID_INLINE V interleave(V a, V b, Pack<I...>) {
    return __builtin_shufflevector(a, b,
                                   (I / P * P + High * P / 2 + I % P / 2 + I % 2 * int(sizeof...(I)))...);
}

// Of P vectors, rows become columns within each lane: log2 P rounds of interleaving a row with the one half
// the matrix further on.
template <int N, int P, int Round = P, class V>
VREID_INLINE void transpose_lanes(V (&v)[P]) {
    if constexpr (Round > 1) {
        V next[P];
#pragma GCC unroll 4
        for (int i = 0; i < P / 2; ++i) {
            next[2 * i] = interleave<P, 0>(v[i], v[i + P / 2], typename Count<N>::type{});
            next[2 * i + 1] = interleave<P, 1>(v[i], v[i + P / 2], typename Count<N>::type{});
        }
        transpose_lanes<N, P, Round / 2>(next);
#pragma GCC unroll 4
        for (int i = 0; i < P; ++i) v[i] = next[i];
    }
}

// Where a group of regions begins in the arranged weights below, which are this many in all for K regions.
template <class T>
inline int64_t arranged(const FeatureMap& map, int64_t K) {
    constexpr int N = Lanes<T>::N;
    return map.planes() ? K * ((map.L + N - 1) / N * N) * kLane<T> : K * map.L;
}

// The weights (K,L) as `gather` reads them one after another, those of a group of regions side by side.
// Planes: for N cells, number q of every lane P times over, P = kLane, and zeros where the cells end.
template <class T>
inline void arrange(const FeatureMap& map, int64_t K, const Acc<T>* s, Acc<T>* out) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    const int64_t L = map.L;
    for_regions(K, [&](int64_t k, auto group) {
        constexpr int count = decltype(group)::count;
        Acc<T>* next = out + arranged<T>(map, k);
        if (!map.planes()) {
            for (int64_t i = 0; i < L; ++i) {
                for (int j = 0; j < count; ++j) *next++ = s[(k + j) * L + i];
            }
            return;
        }
        for (int64_t i = 0; i < L; i += N) {
            for (int q = 0; q < P; ++q) {
                for (int j = 0; j < count; ++j) {
                    for (int n = 0; n < N; ++n) {
                        const int64_t cell = i + n / P * P + q;
                        *next++ = cell < L ? s[(k + j) * L + cell] : 0;
                    }
                }
            }
        }
    });
}

// Planes: P channels become the numbers of a lane, so that only the lanes are left to be summed at the end.
template <class T, int K, class Part>
VREID_INLINE void gather_cells(const T* x, int64_t stride, int64_t channels, Part part, const Acc<T>* s,
                               Vec<T>* sums) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    Vec<T> v[P];
#pragma GCC unroll 4
    for (int c = 0; c < P; ++c) {
        v[c] = c < channels ? part.load(x + c * stride) : Vec<T>{};
        __builtin_prefetch(x + (c + N) * stride);
    }
    transpose_lanes<N>(v);
#pragma GCC unroll 4
    for (int q = 0; q < P; ++q) {
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) sums[k] += load(s + (q * K + k) * N) * v[q];
    }
}

template <class T, int K, class Part>
inline void gather_channels(const FeatureMap& map, const T* x, int64_t channels, Part part, const Acc<T>* s,
                            T* features) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    Vec<T> sums[N / P][K] = {};
#pragma GCC unroll 4
    for (int g = 0; g < N / P; ++g) {
        const T* rows = x + g * P * map.stride_c;
        const Acc<T>* weights = s;
        int64_t i = 0;
        for (; i + N <= map.L; i += N, weights += K * P * N)
            gather_cells<T, K>(rows + i, map.stride_c, channels - g * P, Whole{}, weights, sums[g]);
        if (i < map.L)
            gather_cells<T, K>(rows + i, map.stride_c, channels - g * P, Partial{int(map.L - i)}, weights,
                               sums[g]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
        Vec<T> groups[N / P];
#pragma GCC unroll 4
        for (int g = 0; g < N / P; ++g) groups[g] = sums[g][k];
        part.store(features + k * map.C, sum_each<N, N, P>(groups));
    }
}

// Channels last: G cells at a time are added to the sums of a tile of channels.
template <class T, int K, int G>
VREID_INLINE void gather_rows(const T* x, int64_t stride, int64_t channels, const Acc<T>* s, Acc<T>* sums) {
    Vec<T> weight[K][G];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) weight[k][g] = broadcast<T>(s[g * K + k]);
    }
    for_vectors<T>(channels, [&](int64_t c, auto part) {
        Vec<T> v[G];
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            v[g] = part.load(x + g * stride + c);
            __builtin_prefetch(x + (g + G) * stride + c);
        }
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            Vec<T> total = part.load(sums + k * kTile + c);
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) total += weight[k][g] * v[g];
            part.store(sums + k * kTile + c, total);
        }
    });
}

// features (K,C) from arranged weights; `scratch` holds min(K, 8) x kTile sums.
template <class T>
inline void gather(const FeatureMap& map, const T* x, int64_t K, const Acc<T>* s, T* features,
                   Acc<T>* scratch) {
    constexpr int N = Lanes<T>::N;
    const int64_t L = map.L, C = map.C;
    if (map.planes()) {
        for (int64_t c = 0; c < C; c += N) {
            const T* first = x + c * map.stride_c;
            for_regions(K, [&](int64_t k, auto group) {
                constexpr int count = decltype(group)::count;
                T* target = features + k * C + c;
                const Acc<T>* weights = s + arranged<T>(map, k);
                if (c + N <= C) {
                    gather_channels<T, count>(map, first, N, Whole{}, weights, target);
                } else {
                    gather_channels<T, count>(map, first, C - c, Partial{int(C - c)}, weights, target);
                }
            });
        }
        return;
    }
    for (int64_t c = 0; c < C; c += kTile) {
        const int64_t channels = c + kTile < C ? kTile : C - c;
        for_regions(K, [&](int64_t k, auto group) {
            constexpr int count = decltype(group)::count;
            memset(scratch, 0, size_t(count * kTile) * sizeof(Acc<T>));
            const T* row = x + c;
            const Acc<T>* weights = s + arranged<T>(map, k);
            int64_t i = 0;
            for (; i + 4 <= L; i += 4)
                gather_rows<T, count, 4>(row + i * map.stride_l, map.stride_l, channels, weights + i * count,
                                         scratch);
            for (; i < L; ++i)
                gather_rows<T, count, 1>(row + i * map.stride_l, map.stride_l, channels, weights + i * count,
                                         scratch);
            for (int j = 0; j < count; ++j) {
                for_vectors<T>(channels, [&](int64_t lane, auto part) {
                    part.store(features + (k + j) * C + c + lane, part.load(scratch + j * kTile + lane));
                });
            }
        });
    }
}

// G outer positions x one or two vectors of inner ones: out[g][j] = sum_k outer[k,g] inner[k,j].
template <class T, int G, int V, class Part>
VREID_INLINE void spread_block(int64_t K, const Acc<T>* outer, int64_t outer_stride, const Acc<T>* inner,
                               int64_t inner_stride, Part part, T* out, int64_t stride) {
    constexpr int N = Lanes<T>::N;
    Vec<T> total[G][V] = {};
    for (int64_t k = 0; k < K; ++k) {
        Vec<T> v[V];
#pragma GCC unroll 2
        for (int j = 0; j < V; ++j) v[j] = part.load(inner + k * inner_stride + j * N);
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            const Vec<T> factor = broadcast<T>(outer[k * outer_stride + g]);
#pragma GCC unroll 2
            for (int j = 0; j < V; ++j) total[g][j] += factor * v[j];
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 2
        for (int j = 0; j < V; ++j) part.store(out + g * stride + j * N, total[g][j]);
    }
}

template <class T, int G>
inline void spread_rows(int64_t K, const Acc<T>* outer, int64_t outer_stride, const Acc<T>* inner,
                        int64_t inner_stride, int64_t size, T* out, int64_t stride) {
    constexpr int N = Lanes<T>::N;
    int64_t i = 0;
    for (; i + 2 * N <= size; i += 2 * N)
        spread_block<T, G, 2>(K, outer, outer_stride, inner + i, inner_stride, Whole{}, out + i, stride);
    for (; i + N <= size; i += N)
        spread_block<T, G, 1>(K, outer, outer_stride, inner + i, inner_stride, Whole{}, out + i, stride);
    if (i < size)
        spread_block<T, G, 1>(K, outer, outer_stride, inner + i, inner_stride, Partial{int(size - i)},
                              out + i, stride);
}

template <class T>
inline void spread(int64_t K, const Acc<T>* outer, int64_t outer_stride, int64_t rows, const Acc<T>* inner,
                   int64_t inner_stride, int64_t size, T* out, int64_t stride) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4)
        spread_rows<T, 4>(K, outer + i, outer_stride, inner, inner_stride, size, out + i * stride, stride);
    for (; i < rows; ++i)
        spread_rows<T, 1>(K, outer + i, outer_stride, inner, inner_stride, size, out + i * stride, stride);
}

// Planes: ds of V vectors of cells, over the channels of a tile.
template <class T, int K, int V, class Part>
VREID_INLINE void project_cells(const T* x, int64_t stride, int64_t channels, Part part, const Acc<T>* G,
                                int64_t C, Acc<T>* ds, int64_t L) {
    constexpr int N = Lanes<T>::N;
    Vec<T> total[K][V];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 2
        for (int j = 0; j < V; ++j) total[k][j] = part.load(ds + k * L + j * N);
    }
    for (int64_t c = 0; c < channels; ++c) {
        Vec<T> v[V];
#pragma GCC unroll 2
        for (int j = 0; j < V; ++j) v[j] = part.load(x + c * stride + j * N);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            const Vec<T> factor = broadcast<T>(G[k * C + c]);
#pragma GCC unroll 2
            for (int j = 0; j < V; ++j) total[k][j] += factor * v[j];
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 2
        for (int j = 0; j < V; ++j) part.store(ds + k * L + j * N, total[k][j]);
    }
}

// Channels last: ds of Cells cells, still spread over the lanes.
template <class T, int K, int Cells>
VREID_INLINE void project_rows(const T* x, int64_t stride, int64_t channels, const Acc<T>* G, int64_t C,
                               Vec<T>* lanes, int64_t L) {
    Vec<T> total[K][Cells];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int i = 0; i < Cells; ++i) total[k][i] = lanes[k * L + i];
    }
    for_vectors<T>(channels, [&](int64_t c, auto part) {
        Vec<T> v[Cells];
#pragma GCC unroll 4
        for (int i = 0; i < Cells; ++i) {
            v[i] = part.load(x + i * stride + c);
            __builtin_prefetch(x + (i + Cells) * stride + c);
        }
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            const Vec<T> factor = part.load(G + k * C + c);
#pragma GCC unroll 4
            for (int i = 0; i < Cells; ++i) total[k][i] += factor * v[i];
        }
    });
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int i = 0; i < Cells; ++i) lanes[k * L + i] = total[k][i];
    }
}

// project and spread together, a tile of channels at a time: ds (K,L) and dx. `lanes` holds K x L vectors.
template <class T>
inline void project_and_spread(const FeatureMap& map, const T* x, const FeatureMap& target, T* dx, int64_t K,
                               const Acc<T>* s, const Acc<T>* G, Acc<T>* ds, Vec<T>* lanes) {
    constexpr int N = Lanes<T>::N;
    const int64_t L = map.L, C = map.C;
    if (map.planes()) {
        memset(ds, 0, size_t(K * L) * sizeof(Acc<T>));
        for (int64_t c = 0; c < C; c += kPlanes) {
            const int64_t channels = c + kPlanes < C ? kPlanes : C - c;
            const T* plane = x + c * map.stride_c;
            for_regions(K, [&](int64_t k, auto group) {
                constexpr int count = decltype(group)::count;
                const Acc<T>* gradient = G + k * C + c;
                Acc<T>* out = ds + k * L;
                int64_t i = 0;
                for (; i + 2 * N <= L; i += 2 * N)
                    project_cells<T, count, 2>(plane + i, map.stride_c, channels, Whole{}, gradient, C,
                                               out + i, L);
                for (; i + N <= L; i += N)
                    project_cells<T, count, 1>(plane + i, map.stride_c, channels, Whole{}, gradient, C,
                                               out + i, L);
                if (i < L)
                    project_cells<T, count, 1>(plane + i, map.stride_c, channels, Partial{int(L - i)},
                                               gradient, C, out + i, L);
            });
            spread<T>(K, G + c, C, channels, s, L, L, dx + c * target.stride_c, target.stride_c);
        }
        return;
    }
    memset(lanes, 0, size_t(K * L) * sizeof(Vec<T>));
    for (int64_t c = 0; c < C; c += kTile) {
        const int64_t channels = c + kTile < C ? kTile : C - c;
        int64_t i = 0;
        for (; i + 4 <= L; i += 4) {
            for_regions(K, [&](int64_t k, auto group) {
                project_rows<T, decltype(group)::count, 4>(x + i * map.stride_l + c, map.stride_l, channels,
                                                           G + k * C + c, C, lanes + k * L + i, L);
            });
            spread<T>(K, s + i, L, 4, G + c, C, channels, dx + i * target.stride_l + c, target.stride_l);
        }
        for (; i < L; ++i) {
            for_regions(K, [&](int64_t k, auto group) {
                project_rows<T, decltype(group)::count, 1>(x + i * map.stride_l + c, map.stride_l, channels,
                                                           G + k * C + c, C, lanes + k * L + i, L);
            });
            spread<T>(K, s + i, L, 1, G + c, C, channels, dx + i * target.stride_l + c, target.stride_l);
        }
    }
    int64_t j = 0;
    for (; j + N <= K * L; j += N) {
        Vec<T> block[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) block[n] = lanes[j + n];
        store(ds + j, sum_each<N, N>(block));
    }
    for (; j < K * L; ++j) ds[j] = sum_lanes(lanes[j]);
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
