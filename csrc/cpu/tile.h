// A tile of distances, or of keys with the same order, read row by row in pieces that stay in the cache.
#pragma once

#include <omp.h>

#include "common/ranking.h"
#include "cpu/panels.h"

namespace vreid {
namespace VREID_ISA {
namespace {

constexpr int kPiece = 1024;  // keys of a piece

// The key of an item that is left out: NaN is neither below nor above any key.
template <class K>
constexpr K kNone = K(__builtin_nan(""));

// Whether a comparison is true in any lane.
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

// Calls f(first column, columns, keys) for each piece of a row. The keys are padded to whole vectors with
// kNone.
template <class K, class F>
inline void for_pieces(const Tile& tile, int64_t row, F f) {
    alignas(64) K keys[kPiece];
    const K* values = static_cast<const K*>(tile.values) + row * tile.stride;
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
        if (!tile.scale && !tile.kept && !some_left && size % Lanes<K>::N == 0) {
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
        for (int c = size; c % Lanes<K>::N; ++c) keys[c] = kNone<K>;
        f(begin, size, keys);
    }
}

// values (queries, items) = the products of some of a tile's queries and some of its items. `values` and
// `memory` each have room for whole panels of both. The items are read in place, once for all queries.
inline void item_products(const Tile& tile, const Cut& cut, float* memory, float* values, int64_t stride) {
    using P = Panel<float>;
    const int64_t D = tile.x.D, width = P::count(cut.rows) * P::kRows;
    multiply(PlainRows<float>{row<float>(tile.y, cut.left), tile.y.stride}, cut.columns,
             static_cast<const float*>(tile.x.data), cut.top, cut.rows, D, memory, width);
    const Rows columns{memory, DType::f32, cut.columns, cut.rows, width};
    for (int64_t first = 0; first < cut.columns; first += P::kLanes)
        pack_lanes<float>(columns, first, values + first, stride, [](int64_t, FloatVector v) { return v; });
}

// Calls f(part, first row, memory) for parts of a tile: rows of its values or, if it has no values, products
// that are computed here. One thread processes all parts of a row in order; it has `bytes` of memory.
template <class F>
Status for_parts(const Tile& tile, int threads, int64_t bytes, F f) {
    using P = Panel<float>;
    constexpr int64_t kNumbers = Tiling<float>::kNumbers;
    if (!tile.values && P::count(tile.Q) < 2 * threads) {
        // There are too few rows for all threads, so the products are distributed by items.
        const Tiling<float> tiles(tile.G, tile.Q, threads);
        const int64_t stride = P::count(tile.G) * P::kRows;
        const Scratch memory(threads, kNumbers * int64_t(sizeof(float)));
        const Scratch values(1, P::count(tile.Q) * P::kRows * stride * int64_t(sizeof(float)));
        if (!memory || !values) return Status::out_of_memory;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (int64_t t = 0; t < tiles.size(); ++t) {
            const Cut cut = tiles.cut(t);
            item_products(tile, {cut.left, cut.top, cut.columns, cut.rows},
                          memory.of<float>(omp_get_thread_num()),
                          values.of<float>(0) + cut.left * stride + cut.top, stride);
        }
        Tile whole = tile;
        whole.values = values.of<float>(0);
        whole.stride = stride;
        return for_parts(whole, threads, bytes, f);
    }
    // One thread gets all columns of a row, so only the rows are distributed.
    const int64_t each = P::count((tile.Q + 2 * threads - 1) / (2 * threads)) * P::kRows;
    const int64_t height = tile.values ? 8 : each < kTileRows ? each : kTileRows;
    const int64_t width = tile.values ? tile.G : kTileColumns;
    const Scratch memory(threads, bytes + 64);
    const Scratch values(threads, tile.values ? 0 : 2 * kNumbers * int64_t(sizeof(float)));
    if (!memory || !values) return Status::out_of_memory;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t top = 0; top < tile.Q; top += height) {
        const int thread = omp_get_thread_num();
        Tile part = tile;
        part.Q = smaller(height, tile.Q - top);
        if (tile.left_start) part.left_start = tile.left_start + top;
        for (int64_t left = 0; left < tile.G; left += width) {
            part.G = smaller(width, tile.G - left);
            if (tile.values) {
                const int64_t size = tile.dtype == DType::f64 ? sizeof(double) : sizeof(float);
                part.values = static_cast<const char*>(tile.values) + top * tile.stride * size;
            } else {
                float* own = values.of<float>(thread);
                item_products(tile, {top, left, part.Q, part.G}, own + kNumbers, own, width);
                part.values = own;
                part.stride = width;
            }
            part.offset = tile.offset + left;
            if (tile.scale) part.scale = tile.scale + left;
            if (tile.shift) part.shift = tile.shift + left;
            if (tile.kept) part.kept = tile.kept + left;
            f(part, top, memory.of<char>(thread));
        }
    }
    return Status::ok;
}

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
