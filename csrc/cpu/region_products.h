// The products of one frame's feature map with K spatial attentions s, and with the gradients G of the
// gathered features, in either memory layout:
//   gather    F[k,c] = sum_i s[k,i] x[c,i]
//   project   ds[k,i] = sum_c G[k,c] x[c,i]
//   spread    dx[c,i] = sum_k s[k,i] G[k,c]
// In memory, a map is a matrix with contiguous rows. A row is a channel of planes, or a cell with channels
// last, so one layout sums over rows where the other sums over columns. Each product reads the map once and
// keeps the sums of up to eight regions in registers.
#pragma once

#include "cpu/memory.h"
#include "cpu/sums.h"

namespace vreid {
namespace VREID_ISA {
namespace {

template <class T>
struct Matrix {
    T* data;
    int64_t rows, columns, stride;
};

template <class T>
inline Matrix<T> matrix(const FeatureMap& map, int64_t b, int64_t t) {
    T* data = frame_of<T>(map, b, t);
    if (map.planes()) return {data, map.C, map.L, map.stride_c};
    return {data, map.L, map.C, map.stride_l};
}

template <int N>
struct Constant {
    static constexpr int value = N;
};

// Calls f(first, count) for groups of the K regions; the type of `count` makes it a constant.
template <class F>
inline void for_regions(int64_t K, F f) {
    int64_t k = 0;
    for (; k + 8 <= K; k += 8) f(k, Constant<8>{});
    const int64_t rest = K - k;
    if (rest >= 6) {
        f(k, Constant<6>{});
        k += 6;
    } else if (rest >= 4) {
        f(k, Constant<4>{});
        k += 4;
    }
    if (k + 2 <= K) {
        f(k, Constant<2>{});
        k += 2;
    }
    if (k < K) f(k, Constant<1>{});
}

// Calls f(first, count) for blocks of Most elements, then for smaller ones; the type of `count` makes it a
// constant.
template <int Most, class F>
inline void for_blocks(int64_t size, F f, int64_t i = 0) {
    for (; i + Most <= size; i += Most) f(i, Constant<Most>{});
    if constexpr (Most > 1) for_blocks<Most / 2>(size, f, i);
}

// The number of rows, or of vectors of columns, whose sums for K regions fit into the registers together with
// the operands.
template <int K>
constexpr int kBlock = (kRegisters - 2) / (K + 1) < 4 ? (kRegisters - 2) / (K + 1) : 4;

// The distance of a software prefetch, in elements: the hardware prefetches within long rows (0), but not
// from one short row to the next.
template <class T>
inline int64_t prefetch_distance(const Matrix<T>& x) {
    constexpr int64_t kPage = 4096 / sizeof(T);
    return x.stride < kPage ? kPage / 2 : 0;
}

// Rows from a load to its prefetch where the hardware does not prefetch: in rows of a page or more, of which
// one block of columns is read at a time.
constexpr int64_t kRowsAhead = 8;

// out[k,j] = sum_r u[k,r] x[r,j], one block of columns after another.
template <class T, int K, class Out>
inline void add_rows(const Matrix<T>& x, const Acc<T>* u, Out* out, bool streamed) {
    constexpr int N = Lanes<T>::N;
    const int64_t next = prefetch_distance(x);
    const auto block = [&](int64_t j, auto vectors, auto part) {
        constexpr int V = decltype(vectors)::value;
        Vec<T> total[K][V] = {};
        for (int64_t i = 0; i < x.rows; ++i) {
            const int64_t r = interleaved(i, x.rows);
            const T *p = x.data + r * x.stride + j, *ahead = p + next;
            if (next == 0) {  // after the last rows come the first ones of the next block
                const int64_t coming = i + kRowsAhead, wrapped = coming - x.rows;
                ahead = coming < x.rows ? x.data + interleaved(coming, x.rows) * x.stride + j
                                        : x.data + interleaved(wrapped, x.rows) * x.stride + j + V * N;
            }
            Vec<T> v[V];
#pragma GCC unroll 4
            for (int n = 0; n < V; ++n) {
                v[n] = part.load(p + n * N);
                __builtin_prefetch(ahead + n * N);
            }
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) {
                const Vec<T> factor = broadcast<T>(u[k * x.rows + r]);
#pragma GCC unroll 4
                for (int n = 0; n < V; ++n) total[k][n] += factor * v[n];
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
            for (int n = 0; n < V; ++n) write(part, out + k * x.columns + j + n * N, total[k][n], streamed);
        }
    };
    const int64_t whole = x.columns / N;
    for_blocks<kBlock<K>>(whole, [&](int64_t i, auto vectors) { block(i * N, vectors, Whole{}); });
    if (whole * N < x.columns) block(whole * N, Constant<1>{}, Partial{int(x.columns - whole * N)});
}

// out[k,r] = sum_j v[k,j] x[r,j], one block of rows after another; for long rows.
template <class T, int K>
inline void dot_rows(const Matrix<T>& x, const Acc<T>* v, Acc<T>* out) {
    for_blocks<kBlock<K>>(x.rows, [&](int64_t r, auto rows) {
        constexpr int R = decltype(rows)::value;
        Vec<T> total[K][R] = {};
        for_vectors<T>(x.columns, [&](int64_t j, auto part) {
            Vec<T> row[R];
#pragma GCC unroll 4
            for (int n = 0; n < R; ++n) {
                const T* p = x.data + (r + n) * x.stride + j;
                row[n] = part.load(p);
                __builtin_prefetch(p + 512 / sizeof(T));
            }
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) {
                const Vec<T> factor = part.load(v + k * x.columns + j);
#pragma GCC unroll 4
                for (int n = 0; n < R; ++n) total[k][n] += factor * row[n];
            }
        });
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
            for (int n = 0; n < R; ++n) out[k * x.rows + r + n] = sum_lanes(total[k][n]);
        }
    });
}

// dx[r,j] = sum_k u[k,r] v[k,j], one block of rows after another.
template <class T>
inline void outer_products(int64_t K, const Acc<T>* u, const Acc<T>* v, const Matrix<T>& dx, bool streamed) {
    constexpr int N = Lanes<T>::N;
    for_blocks<kRegisters / 4>(dx.rows, [&](int64_t r, auto rows) {
        constexpr int R = decltype(rows)::value;
        const auto block = [&](int64_t j, auto vectors, auto part) {
            constexpr int V = decltype(vectors)::value;
            Vec<T> total[R][V] = {};
            for (int64_t k = 0; k < K; ++k) {
                Vec<T> column[V];
#pragma GCC unroll 2
                for (int n = 0; n < V; ++n) column[n] = part.load(v + k * dx.columns + j + n * N);
#pragma GCC unroll 8
                for (int m = 0; m < R; ++m) {
                    const Vec<T> factor = broadcast<T>(u[k * dx.rows + r + m]);
#pragma GCC unroll 2
                    for (int n = 0; n < V; ++n) total[m][n] += factor * column[n];
                }
            }
            T* target = dx.data + r * dx.stride + j;
#pragma GCC unroll 8
            for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
                for (int n = 0; n < V; ++n) {
                    write(part, target + m * dx.stride + n * N, total[m][n], streamed);
                }
            }
        };
        const int64_t whole = dx.columns / N;
        for_blocks<2>(whole, [&](int64_t i, auto vectors) { block(i * N, vectors, Whole{}); });
        if (whole * N < dx.columns) block(whole * N, Constant<1>{}, Partial{int(dx.columns - whole * N)});
    });
}

// With rows of a few vectors, such as planes, the sums over lanes would take longer than the products. So the
// vectors of kLane rows are transposed within their 16-byte lanes, where shuffles are cheap: element q of
// each lane then belongs to row q, and only the lanes have to be summed at the end.
template <class T>
constexpr int kLane = 16 / int(sizeof(Acc<T>));

template <int P, int High, class V, int... I>
VREID_INLINE V interleave(V a, V b, Pack<I...>) {
    return __builtin_shufflevector(a, b,
                                   (I / P * P + High * P / 2 + I % P / 2 + I % 2 * int(sizeof...(I)))...);
}

// log2 P rounds, each of which interleaves row i with row i + P / 2.
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

// The number of elements that `arrange` writes for K rows of weights.
template <class T>
inline int64_t arranged(int64_t K, int64_t columns) {
    constexpr int N = Lanes<T>::N;
    return K * ((columns + N - 1) / N * N) * kLane<T>;
}

// The weights of K regions in the order of their use: for each N columns and each q, element q of every lane,
// repeated kLane times; zeros beyond the last column.
template <class T, int K>
inline void arrange(const Acc<T>* v, int64_t columns, Acc<T>* out) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    for (int64_t j = 0; j < columns; j += N) {
        for (int q = 0; q < P; ++q) {
            for (int k = 0; k < K; ++k) {
                for (int n = 0; n < N; ++n) {
                    const int64_t column = j + n / P * P + q;
                    *out++ = column < columns ? v[k * columns + column] : 0;
                }
            }
        }
    }
}

// Adds the products of kLane rows from r on to sums[k], as partial sums over the lanes.
template <class T, int K>
VREID_INLINE void dot_lanes(const Matrix<T>& x, int64_t r, const Acc<T>* weights, Vec<T> (&sums)[K]) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    const int64_t next = prefetch_distance(x);
    for_vectors<T>(x.columns, [&](int64_t j, auto part) {
        Vec<T> v[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            const T* row = x.data + (r + p) * x.stride + j;
            v[p] = r + p < x.rows ? part.load(row) : Vec<T>{};
            __builtin_prefetch(row + next);
        }
        transpose_lanes<N>(v);
#pragma GCC unroll 4
        for (int q = 0; q < P; ++q) {
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k, weights += N) sums[k] += load(weights) * v[q];
        }
    });
}

// out[k,r] = sum_j v[k,j] x[r,j], N rows at a time; `weights` is the result of `arrange` for v.
template <class T, int K>
inline void dot_short_rows(const Matrix<T>& x, const Acc<T>* weights, T* out, bool streamed) {
    constexpr int N = Lanes<T>::N, P = kLane<T>;
    const auto block = [&](int64_t r, auto part) {
        Vec<T> sums[N / P][K] = {};
#pragma GCC unroll 4
        for (int g = 0; g < N / P; ++g) dot_lanes<T, K>(x, r + g * P, weights, sums[g]);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            Vec<T> groups[N / P];
#pragma GCC unroll 4
            for (int g = 0; g < N / P; ++g) groups[g] = sums[g][k];
            write(part, out + k * x.rows + r, sum_each<N, N, P>(groups), streamed);
        }
    };
    const int64_t whole = x.rows / N;
    for (int64_t i = 0; i < whole; ++i) block(interleaved(i, whole) * N, Whole{});
    if (whole * N < x.rows) block(whole * N, Partial{int(x.rows - whole * N)});
}

// Elements of the scratch memory of `gather`.
template <class T>
inline int64_t gather_scratch(const FeatureMap& map, int64_t K) {
    return map.planes() ? arranged<T>(K < 8 ? K : 8, map.L) : 0;
}

template <class T>
inline void gather(const FeatureMap& map, int64_t b, int64_t t, int64_t K, const Acc<T>* s, T* features,
                   Acc<T>* scratch) {
    const Matrix<T> x = matrix<T>(map, b, t);
    const bool streamed = streams(features, map.C, map.B * map.T * K * map.C);
    for_regions(K, [&](int64_t k, auto group) {
        constexpr int count = decltype(group)::value;
        if (map.planes()) {
            arrange<T, count>(s + k * map.L, map.L, scratch);
            dot_short_rows<T, count>(x, scratch, features + k * map.C, streamed);
        } else {
            add_rows<T, count>(x, s + k * map.L, features + k * map.C, streamed);
        }
    });
    if (streamed) end_streams();
}

template <class T>
inline void project(const FeatureMap& map, int64_t b, int64_t t, int64_t K, const Acc<T>* G, Acc<T>* ds) {
    const Matrix<T> x = matrix<T>(map, b, t);
    for_regions(K, [&](int64_t k, auto group) {
        constexpr int count = decltype(group)::value;
        if (map.planes()) {
            add_rows<T, count>(x, G + k * map.C, ds + k * map.L, false);
        } else {
            dot_rows<T, count>(x, G + k * map.C, ds + k * map.L);
        }
    });
}

template <class T>
inline void spread(const FeatureMap& map, int64_t b, int64_t t, int64_t K, const Acc<T>* s, const Acc<T>* G) {
    const Matrix<T> dx = matrix<T>(map, b, t);
    const bool streamed = streams(dx.data, dx.stride, map.B * map.T * map.C * map.L);
    outer_products<T>(K, map.planes() ? G : s, map.planes() ? s : G, dx, streamed);
    if (streamed) end_streams();
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
