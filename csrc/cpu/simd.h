// Vectors of the accumulator type, as wide as the instruction set this file is compiled for.
//
// Everything is in an unnamed namespace and no std template is used: the linker merges equal inline functions
// of different object files, and a merged copy could be one compiled for instructions this machine lacks.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "common/types.h"

// For what must keep its vectors in registers: in a large file the compiler gives up inlining before that.
#define VREID_INLINE inline __attribute__((always_inline))

namespace vreid {
namespace VREID_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

typedef float FloatVector __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t WordVector __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfVector __attribute__((vector_size(kVectorBytes / 2)));

// Element type -> accumulator type, its vector and the vector's length.
template <class T>
struct Lanes {
    using Acc = float;
    using V = FloatVector;
    static constexpr int N = kVectorBytes / 4;
};
template <>
struct Lanes<double> {
    using Acc = double;
    using V = DoubleVector;
    static constexpr int N = kVectorBytes / 8;
};
template <class T>
using Acc = typename Lanes<T>::Acc;
template <class T>
using Vec = typename Lanes<T>::V;

// Half a vector of 16-bit numbers to a vector of 32-bit ones and back. GCC takes the conversion of a whole
// AVX-512 vector apart into halves.
inline WordVector words(HalfVector bits) {
#if defined(__AVX512F__)
    return (WordVector)_mm512_cvtepu16_epi32((__m256i)bits);
#else
    return __builtin_convertvector(bits, WordVector);
#endif
}
inline HalfVector low_halves(WordVector words) {
#if defined(__AVX512F__)
    return (HalfVector)_mm512_cvtepi32_epi16((__m512i)words);
#else
    return __builtin_convertvector(words, HalfVector);
#endif
}

inline FloatVector widen(HalfVector bits, bf16) {
    return (FloatVector)(words(bits) << 16);
}

inline FloatVector widen(HalfVector bits, f16) {
#if defined(__AVX512F__)
    return (FloatVector)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__)
    return (FloatVector)_mm256_cvtph_ps((__m128i)bits);
#else
    // Shift the exponent into place, rebias it by a product (which also normalises subnormals).
    WordVector value = words(bits), magnitude = (value & 0x7fff) << 13, sign = (value & 0x8000) << 16;
    FloatVector scaled = (FloatVector)magnitude * 0x1p112f;
    WordVector special = (WordVector)(magnitude >= 0x0f800000u);
    WordVector result = (special & (magnitude | 0x7f800000u)) | (~special & (WordVector)scaled);
    return (FloatVector)(result | sign);
#endif
}

// Both round to nearest, ties to even.
inline HalfVector narrow(FloatVector value, bf16) {
    WordVector words = (WordVector)value;
    WordVector rounded = (words + 0x7fffu + ((words >> 16) & 1)) >> 16;
    WordVector nan = (WordVector)(value != value);
    return low_halves((nan & 0x7fc0u) | (~nan & rounded));
}

inline HalfVector narrow(FloatVector value, f16) {
#if defined(__AVX512F__)
    return (HalfVector)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return (HalfVector)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    WordVector words = (WordVector)value;
    WordVector sign = (words >> 16) & 0x8000u, magnitude = words & 0x7fffffffu;
    WordVector normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    // Adding 0.5 leaves a subnormal's rounded bits at the low end of the sum.
    WordVector small = (WordVector)((FloatVector)magnitude + 0.5f) - 0x3f000000u;
    WordVector is_small = (WordVector)(magnitude < 0x38800000u);
    WordVector is_large = (WordVector)(magnitude >= 0x477ff000u), nan = (WordVector)(magnitude > 0x7f800000u);
    WordVector finite = (is_small & small) | (~is_small & normal);
    WordVector result = (is_large & (0x7c00u | (nan & 0x200u))) | (~is_large & finite);
    return low_halves(result | sign);
#endif
}

inline FloatVector load(const float* p) {
    FloatVector v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline DoubleVector load(const double* p) {
    DoubleVector v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class Half>
inline FloatVector load(const Half* p) {
    HalfVector bits;
    memcpy(&bits, p, sizeof bits);
    return widen(bits, Half{});
}

inline void store(float* p, FloatVector v) {
    memcpy(p, &v, sizeof v);
}
inline void store(double* p, DoubleVector v) {
    memcpy(p, &v, sizeof v);
}
template <class Half>
inline void store(Half* p, FloatVector v) {
    HalfVector bits = narrow(v, Half{});
    memcpy(p, &bits, sizeof bits);
}

// The first n < N lanes; a load fills the rest with zeros. Sanitizers do not see what masked and streaming
// instructions touch, so their builds do without.
#if defined(__AVX512BW__) && !defined(VREID_SANITIZED)
inline FloatVector load(const float* p, int n) {
    return (FloatVector)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
inline DoubleVector load(const double* p, int n) {
    return (DoubleVector)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}
template <class Half>
inline FloatVector load(const Half* p, int n) {
    return widen((HalfVector)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p), Half{});
}
inline void store(float* p, FloatVector v, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
inline void store(double* p, DoubleVector v, int n) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
}
template <class Half>
inline void store(Half* p, FloatVector v, int n) {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)narrow(v, Half{}));
}
#else
template <class T>
inline Vec<T> load(const T* p, int n) {
    T lanes[Lanes<T>::N] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
}
template <class T>
inline void store(T* p, Vec<T> v, int n) {
    T lanes[Lanes<T>::N];
    store(lanes, v);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
#endif

// Past the caches, which need not read first what is then written whole: for results larger than they are.
// Aligned addresses only; end_streams() before anybody else reads.
#if defined(__AVX512F__) && !defined(VREID_SANITIZED)
inline void stream(float* p, FloatVector v) {
    _mm512_stream_ps(p, (__m512)v);
}
inline void stream(double* p, DoubleVector v) {
    _mm512_stream_pd(p, (__m512d)v);
}
template <class Half>
inline void stream(Half* p, FloatVector v) {
    _mm256_stream_si256((__m256i*)p, (__m256i)narrow(v, Half{}));
}
inline void end_streams() {
    _mm_sfence();
}
#elif defined(__AVX2__) && !defined(VREID_SANITIZED)
inline void stream(float* p, FloatVector v) {
    _mm256_stream_ps(p, (__m256)v);
}
inline void stream(double* p, DoubleVector v) {
    _mm256_stream_pd(p, (__m256d)v);
}
template <class Half>
inline void stream(Half* p, FloatVector v) {
    _mm_stream_si128((__m128i*)p, (__m128i)narrow(v, Half{}));
}
inline void end_streams() {
    _mm_sfence();
}
#else
template <class T>
inline void stream(T* p, Vec<T> v) {
    store(p, v);
}
inline void end_streams() {}
#endif

template <class T>
inline Vec<T> broadcast(Acc<T> value) {
    return value - Vec<T>{};  // x - 0 is x even for -0, which the compiler makes one instruction
}

// Calls f(offset, whole) for each vector of [0, size), whole as a type: a constant in the body.
struct Whole {
    template <class T>
    static Vec<T> load(const T* p) {
        return VREID_ISA::load(p);
    }
    template <class T>
    static void store(T* p, Vec<T> v) {
        VREID_ISA::store(p, v);
    }
    template <class T>
    static void stream(T* p, Vec<T> v) {
        VREID_ISA::stream(p, v);
    }
};
struct Partial {
    int n;
    template <class T>
    Vec<T> load(const T* p) const {
        return VREID_ISA::load(p, n);
    }
    template <class T>
    void store(T* p, Vec<T> v) const {
        VREID_ISA::store(p, v, n);
    }
    template <class T>
    void stream(T* p, Vec<T> v) const {
        store(p, v);
    }
};
template <class T, class F>
inline void for_vectors(int64_t size, F f) {
    constexpr int N = Lanes<T>::N;
    int64_t i = 0;
    for (; i + N <= size; i += N) f(i, Whole{});
    if (i < size) f(i, Partial{int(size - i)});
}

// Sums of N vectors at once, as the lanes of one: N-1 additions and 2(N-1) shuffles instead of N log2(N)
// each.
template <int... I>
struct Pack {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using type = Pack<I...>;
};

// a and b hold sums still spread over `Part` lanes each; add the two halves of every part.
template <int Part, class V, int... I>
VREID_INLINE V fold(V a, V b, Pack<I...>) {
    constexpr int half = Part / 2;
    return __builtin_shufflevector(a, b, ((I / half) * Part + I % half)...) +
           __builtin_shufflevector(a, b, ((I / half) * Part + half + I % half)...);
}
// N / Stop vectors; sums still spread over Stop lanes are left so.
template <int N, int Part, int Stop = 1, class V>
VREID_INLINE V sum_each(V (&v)[N / Stop]) {
    if constexpr (Part == Stop) {
        return v[0];
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < Part / Stop / 2; ++i)
            v[i] = fold<Part>(v[2 * i], v[2 * i + 1], typename Count<N>::type{});
        return sum_each<N, Part / 2, Stop>(v);
    }
}

// Halves upon halves: log2 N additions one after another instead of N.
template <class V>
inline auto sum_lanes(V v) {
    constexpr int N = sizeof(V) / sizeof(v[0]);
    if constexpr (N == 2) {
        return v[0] + v[1];
    } else {
        typedef decltype(v[0] + 0) Half __attribute__((vector_size(sizeof(V) / 2)));
        Half halves[2];
        memcpy(halves, &v, sizeof v);
        return sum_lanes(halves[0] + halves[1]);
    }
}

template <class T>
inline T sum(const T* p, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) { total += part.load(p + i); });
    return sum_lanes(total);
}

template <class T>
inline T dot(const T* p, const T* q, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) { total += part.load(p + i) * part.load(q + i); });
    return sum_lanes(total);
}

inline float root(float x) {
    return sqrtf(x);
}
inline double root(double x) {
    return sqrt(x);
}

// || p - q ||
template <class T>
inline T difference_norm(const T* p, const T* q, int64_t size) {
    Vec<T> total{};
    for_vectors<T>(size, [&](int64_t i, auto part) {
        const Vec<T> difference = part.load(p + i) - part.load(q + i);
        total += difference * difference;
    });
    return root(sum_lanes(total));
}

template <class T>
inline T* address(const FeatureMap& map, int64_t b, int64_t t) {
    return static_cast<T*>(map.data) + b * map.stride_b + t * map.stride_t;
}

template <class T>
inline const T* row(const Rows& rows, int64_t i) {
    return static_cast<const T*>(rows.data) + i * rows.stride;
}

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Two places of n in turn: prefetchers stop at the end of a page, and run ahead on two pages at once.
inline int64_t in_turn(int64_t i, int64_t n) {
    return i % 2 * ((n + 1) / 2) + i / 2;
}

// Whether rows of `stride` elements, `size` in all, may be streamed: whole vectors from aligned addresses,
// and more of them than caches would keep until they are read.
template <class T>
inline bool streams(const T* first, int64_t stride, int64_t size) {
    constexpr int64_t kLarge = 4 << 20;  // bytes
    const int64_t vector = Lanes<T>::N * int64_t(sizeof(T));
    return size * int64_t(sizeof(T)) >= kLarge &&
           reinterpret_cast<uintptr_t>(first) % uintptr_t(vector) == 0 &&
           stride * int64_t(sizeof(T)) % vector == 0;
}

template <class Part, class Out, class V>
VREID_INLINE void write(Part part, Out* out, V v, bool streamed) {
    if (streamed) {
        part.stream(out, v);
    } else {
        part.store(out, v);
    }
}

// Memory for every thread, taken before the threads start: an exception must not cross a parallel region.
class Scratch {
  public:
    Scratch(int threads, int64_t bytes_each)
        : each_((bytes_each + 127) / 128 * 128),
          data_(static_cast<char*>(__builtin_malloc(size_t(threads) * size_t(each_) + 128))) {}
    ~Scratch() { __builtin_free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    explicit operator bool() const { return data_ != nullptr; }
    template <class T>
    T* of(int thread) const {
        uintptr_t aligned = (reinterpret_cast<uintptr_t>(data_) + 127) / 128 * 128;
        return reinterpret_cast<T*>(aligned + uintptr_t(thread) * uintptr_t(each_));
    }

  private:
    int64_t each_;
    char* data_;
};

// f(T{}) with the element type of `dtype`.
template <class F>
inline Status dispatch(DType dtype, F f) {
    switch (dtype) {
        case DType::f64:
            return f(double{});
        case DType::bf16:
            return f(bf16{});
        case DType::f16:
            return f(f16{});
        default:
            return f(float{});
    }
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
