// A tile of distances, or of what orders as distances do, read row by row in pieces that stay in cache.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int kPiece = 1024;  // keys of a piece

// The key of an item that is left out: neither below nor above any other.
template <class K>
constexpr K kNone = K(__builtin_nan(""));

// Whether a comparison held in any lane.
template <class V>
inline bool any(V mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    int64_t lanes[kVectorBytes / 8];
    memcpy(lanes, &mask, sizeof lanes);
    return (lanes[0] | lanes[1]) != 0;
#endif
}

// Calls f(first column, columns, keys) for each piece of a row. The keys are filled up to kPiece with kNone.
template <class K, class F>
inline void for_pieces(const Tile& tile, int64_t row, F f) {
    alignas(64) K keys[kPiece];
    const K* values = static_cast<const K*>(tile.values) + row * tile.G;
    const int64_t *left = nullptr, *end = nullptr;
    if (tile.left_start) {
        left = tile.left + tile.left_start[row];
        end = tile.left + tile.left_start[row + 1];
        while (left < end && *left < tile.offset) ++left;
    }
    for (int64_t begin = 0; begin < tile.G; begin += kPiece) {
        const int64_t rest = tile.G - begin;
        const int size = rest < kPiece ? int(rest) : kPiece;
        const bool some_left = left < end && *left < tile.offset + begin + size;
        if (!tile.scale && !tile.kept && !some_left && size == kPiece) {
            f(begin, size, values + begin);
            continue;
        }
        if (tile.scale) {
            for (int c = 0; c < size; ++c)
                keys[c] = K(tile.shift[begin + c]) + K(tile.scale[begin + c]) * values[begin + c];
        } else {
            memcpy(keys, values + begin, size_t(size) * sizeof(K));
        }
        if (tile.kept) {
            for (int c = 0; c < size; ++c) keys[c] = tile.kept[begin + c] ? keys[c] : kNone<K>;
        }
        for (; left < end && *left < tile.offset + begin + size; ++left)
            keys[*left - tile.offset - begin] = kNone<K>;
        for (int c = size; c < kPiece; ++c) keys[c] = kNone<K>;
        f(begin, size, keys);
    }
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
