// How the kernels traverse, write and allocate memory.
#pragma once

#include "cpu/simd.h"

namespace vreid {
namespace VREID_ISA {
namespace {

// Frame t of clip b.
template <class T>
inline T* frame_of(const FeatureMap& map, int64_t b, int64_t t) {
    return static_cast<T*>(map.data) + b * map.stride_b + t * map.stride_t;
}

template <class T>
inline const T* row(const Rows& rows, int64_t i) {
    return static_cast<const T*>(rows.data) + i * rows.stride;
}

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// The i-th index of an order that alternates between the two halves of [0, n): hardware prefetchers stop at
// page boundaries, but they follow two streams at once.
inline int64_t interleaved(int64_t i, int64_t n) {
    return i % 2 * ((n + 1) / 2) + i / 2;
}

// Whether to write rows `stride` elements apart, `size` elements in all, with non-temporal stores: all stores
// must be whole aligned vectors, and the result must be too large to stay in the caches until it is read.
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

// Memory for every thread. It is allocated before the parallel region, because no exception may leave the
// region.
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

}  // namespace
}  // namespace VREID_ISA
}  // namespace vreid
