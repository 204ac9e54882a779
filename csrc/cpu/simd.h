// Vectors of the accumulator type, in the width of the instruction set that the file is compiled for: element
// types, conversions, loads and stores. The file is long because each of these has a version per instruction
// set and per element type; sums are in sums.h, memory in memory.h.
//
// Everything is in an unnamed namespace and no std template is used: the linker merges equal inline functions
// of different object files, and it could keep a copy with instructions that this CPU lacks.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "common/tensors.h"

// For helpers whose vectors must stay in registers: GCC's inlining limits stop earlier in a large translation
// unit.
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
typedef int32_t Int32Vector __attribute__((vector_size(kVectorBytes)));
typedef int64_t Int64Vector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t WordVector __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfVector __attribute__((vector_size(kVectorBytes / 2)));

// The accumulator type of an element type, the integer of its size (for masks, ids and places), their vectors
// and the number of lanes.
template <class T>
struct Lanes {
    using Acc = float;
    using V = FloatVector;
    using Integer = int32_t;
    using IntegerV = Int32Vector;
    static constexpr int N = kVectorBytes / 4;
};
template <>
struct Lanes<double> {
    using Acc = double;
    using V = DoubleVector;
    using Integer = int64_t;
    using IntegerV = Int64Vector;
    static constexpr int N = kVectorBytes / 8;
};
template <class T>
using Acc = typename Lanes<T>::Acc;
template <class T>
using Vec = typename Lanes<T>::V;
template <class T>
using Integer = typename Lanes<T>::Integer;
template <class T>
using IntegerVec = typename Lanes<T>::IntegerV;

// Indices of a shuffle: `typename Count<N>::type` is 0, 1, ..., N-1.
template <int... I>
struct Pack {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using type = Pack<I...>;
};

// Converts half a vector of 16-bit integers to a vector of 32-bit integers, and back. GCC would split the
// conversion of an AVX-512 vector into two halves.
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
    // Shift the exponent into place; a multiplication corrects its bias and normalizes subnormals.
    WordVector value = words(bits), magnitude = (value & 0x7fff) << 13, sign = (value & 0x8000) << 16;
    FloatVector scaled = (FloatVector)magnitude * 0x1p112f;
    WordVector special = (WordVector)(magnitude >= 0x0f800000u);
    WordVector result = (special & (magnitude | 0x7f800000u)) | (~special & (WordVector)scaled);
    return (FloatVector)(result | sign);
#endif
}

// Both round to nearest even.
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
    // Adding 0.5 moves the rounded bits of a subnormal to the low end of the sum.
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

// The first n < N lanes; a load sets the other lanes to zero. Sanitizers do not see the accesses of masked
// and of non-temporal instructions, so their builds do not use them.
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

// Non-temporal stores, for results larger than the caches: they save reading the cache lines before writing
// them. The address must be aligned, and end_streams() must precede a read by another thread.
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
    return value - Vec<T>{};  // x - 0 is x, also for -0; the compiler emits one instruction
}

// The argument `part` of the body of `for_vectors`: a whole vector, or the first n lanes of one.
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
// Calls f(offset, part) for each vector of [0, size). The type of `part` makes it a constant in the body.
template <class T, class F>
inline void for_vectors(int64_t size, F f) {
    constexpr int N = Lanes<T>::N;
    int64_t i = 0;
    for (; i + N <= size; i += N) f(i, Whole{});
    if (i < size) f(i, Partial{int(size - i)});
}

// Calls f(T{}) with the element type of `dtype`.
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
