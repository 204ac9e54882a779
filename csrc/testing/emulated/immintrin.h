// Emulates AVX-512 on a CPU with AVX2, for tests. In a build with VREID_EMULATE_AVX512 this folder precedes
// GCC's own on the include path, and functions with the same results replace the intrinsics that csrc/cpu
// uses. Vectors of 64 bytes need no emulation: GCC splits them into halves.
//
// This tests the AVX-512 code, but not the instructions that GCC generates for it. An intrinsic that is
// missing here is a compile error ("target specific option mismatch").
#pragma once

#include_next <immintrin.h>
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1

// The unnamed namespace prevents the linker from merging functions compiled for different instruction sets.
namespace {
namespace emulated {

template <class T, class V>
struct Lanes {
    static constexpr int N = sizeof(V) / sizeof(T);
    T lane[N];

    Lanes() : lane{} {}
    explicit Lanes(V v) { memcpy(lane, &v, sizeof v); }
    V vector() const {
        V v;
        memcpy(&v, lane, sizeof v);
        return v;
    }
};

template <class V>
inline V load(const void* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

// Masked: only the memory of the selected lanes is accessed.
template <class T, class V, class Mask>
inline V load(Mask mask, const void* p) {
    Lanes<T, V> result;
    for (int i = 0; i < result.N; ++i) {
        if (mask >> i & 1) result.lane[i] = static_cast<const T*>(p)[i];
    }
    return result.vector();
}
template <class T, class V, class Mask>
inline void store(void* p, Mask mask, V v) {
    const Lanes<T, V> from(v);
    for (int i = 0; i < from.N; ++i) {
        if (mask >> i & 1) static_cast<T*>(p)[i] = from.lane[i];
    }
}

// The selected lanes, contiguous, followed by zeros.
template <class T, class V, class Mask>
inline V compress(Mask mask, V v) {
    const Lanes<T, V> from(v);
    Lanes<T, V> result;
    int size = 0;
    for (int i = 0; i < from.N; ++i) {
        if (mask >> i & 1) result.lane[size++] = from.lane[i];
    }
    return result.vector();
}

// A bit for each non-zero lane.
template <class T, class Mask, class V>
inline Mask bits(V v) {
    const Lanes<T, V> from(v);
    Mask mask = 0;
    for (int i = 0; i < from.N; ++i) mask = Mask(mask | unsigned(from.lane[i] != 0) << i);
    return mask;
}

// A non-temporal store faults if its address is not aligned.
template <class V>
inline void stream(void* p, V v) {
    if (reinterpret_cast<uintptr_t>(p) % sizeof v != 0) __builtin_trap();
    memcpy(p, &v, sizeof v);
}

inline __m512 maskz_loadu_ps(__mmask16 mask, const void* p) {
    return load<float, __m512>(mask, p);
}
inline __m512d maskz_loadu_pd(__mmask8 mask, const void* p) {
    return load<double, __m512d>(mask, p);
}
inline __m256i maskz_loadu_epi16(__mmask16 mask, const void* p) {
    return load<uint16_t, __m256i>(mask, p);
}
inline void mask_storeu_ps(void* p, __mmask16 mask, __m512 v) {
    store<float>(p, mask, v);
}
inline void mask_storeu_pd(void* p, __mmask8 mask, __m512d v) {
    store<double>(p, mask, v);
}
inline void mask_storeu_epi16(void* p, __mmask16 mask, __m256i v) {
    store<uint16_t>(p, mask, v);
}

inline __m512i cvtepu16_epi32(__m256i v) {
    typedef uint16_t Halves __attribute__((vector_size(32)));
    typedef uint32_t Words __attribute__((vector_size(64)));
    return (__m512i) __builtin_convertvector((Halves)v, Words);
}
inline __m256i cvtepi32_epi16(__m512i v) {
    typedef uint16_t Halves __attribute__((vector_size(32)));
    typedef uint32_t Words __attribute__((vector_size(64)));
    return (__m256i) __builtin_convertvector((Words)v, Halves);
}
inline __m512 cvtph_ps(__m256i v) {
    const __m256 halves[2] = {_mm256_cvtph_ps(_mm256_extracti128_si256(v, 0)),
                              _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))};
    return load<__m512>(halves);
}
template <int Rounding>
inline __m256i cvtps_ph(__m512 v) {
    __m256 halves[2];
    memcpy(halves, &v, sizeof v);
    return _mm256_set_m128i(_mm256_cvtps_ph(halves[1], Rounding), _mm256_cvtps_ph(halves[0], Rounding));
}

// Takes the lanes from the last to the first, as Intel's set intrinsics do.
template <class... Ints>
inline __m512i set_epi32(Ints... last_to_first) {
    const int lanes[] = {last_to_first...};
    static_assert(sizeof lanes == 64);
    Lanes<int, __m512i> result;
    for (int i = 0; i < 16; ++i) result.lane[i] = lanes[15 - i];
    return result.vector();
}

template <int Predicate>
inline __mmask16 cmp_ps_mask(__m512 a, __m512 b) {
    __m256 x[2], y[2];
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    return __mmask16(_mm256_movemask_ps(_mm256_cmp_ps(x[0], y[0], Predicate)) |
                     _mm256_movemask_ps(_mm256_cmp_ps(x[1], y[1], Predicate)) << 8);
}

}  // namespace emulated
}  // namespace

#define _mm512_maskz_loadu_ps emulated::maskz_loadu_ps
#define _mm512_maskz_loadu_pd emulated::maskz_loadu_pd
#define _mm256_maskz_loadu_epi16 emulated::maskz_loadu_epi16
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_mask_storeu_pd emulated::mask_storeu_pd
#define _mm256_mask_storeu_epi16 emulated::mask_storeu_epi16
#define _mm512_loadu_ps(p) emulated::load<__m512>(p)
#define _mm512_storeu_ps(p, v) emulated::store<float>(p, __mmask16(-1), v)
#define _mm512_storeu_si512(p, v) emulated::store<int64_t>(p, __mmask8(-1), v)
#define _mm512_stream_ps emulated::stream<__m512>
#define _mm512_stream_pd emulated::stream<__m512d>
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtepi32_epi16 emulated::cvtepi32_epi16
#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_cvtps_ph(v, rounding) emulated::cvtps_ph<rounding>(v)
#define _mm512_set1_ps(x) (__m512{} + (x))
#define _mm512_set1_epi32(x) ((__m512i)((__v16si){} + (x)))
#define _mm512_set_epi32 emulated::set_epi32
#define _mm512_add_epi32(a, b) ((__m512i)((__v16su)(a) + (__v16su)(b)))
#define _mm512_cmp_ps_mask(a, b, predicate) emulated::cmp_ps_mask<predicate>(a, b)
#define _mm512_test_epi64_mask(a, b) emulated::bits<int64_t, __mmask8>((a) & (b))
#define _mm512_maskz_compress_ps emulated::compress<float, __m512, __mmask16>
#define _mm512_maskz_compress_epi32 emulated::compress<int32_t, __m512i, __mmask16>
