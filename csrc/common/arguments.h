// Checks of what Python hands over, shared by the binding files: each raises what pybind11 turns into a
// ValueError.
#pragma once

#include <array>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/types.h"

namespace vreid {

// (address, dtype code, B, T, C, L, strides of B, T, C, L in elements)
using MapTuple = std::array<int64_t, 10>;

template <class T = void>
T* address(const char* name, int64_t value, int64_t size) {
    if (size < 0)
        throw std::invalid_argument(std::string(name) + ": got " + std::to_string(size) + " elements");
    if (value == 0 && size > 0)
        throw std::invalid_argument(std::string(name) + ": got a null address for " + std::to_string(size) +
                                    " elements");
    return reinterpret_cast<T*>(static_cast<uintptr_t>(value));
}

inline DType dtype(int64_t code) {
    if (code < 0 || code > 3)
        throw std::invalid_argument("dtype: got code " + std::to_string(code) + ", wanted 0 to 3");
    return static_cast<DType>(code);
}

inline void check_sizes(const char* name, std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) {
        if (size < 0) throw std::invalid_argument(std::string(name) + ": got size " + std::to_string(size));
    }
}

inline FeatureMap feature_map(const char* name, const MapTuple& m) {
    const auto [data, code, B, T, C, L, stride_b, stride_t, stride_c, stride_l] = m;
    check_sizes(name, {B, T, C, L});
    if (stride_l != 1 && stride_c != 1)
        throw std::invalid_argument(std::string(name) + ": neither cells nor channels are adjacent");
    return {
        address(name, data, B * T * C * L), dtype(code), B, T, C, L, stride_b, stride_t, stride_c, stride_l};
}

// (address, dtype code, N, D, stride of N in elements)
using RowsTuple = std::array<int64_t, 5>;

inline Rows rows(const char* name, const RowsTuple& r) {
    const auto [data, code, N, D, stride] = r;
    check_sizes(name, {N, D});
    return {address(name, data, N * D), dtype(code), N, D, stride};
}

// (address, N, D)
using PanelsTuple = std::array<int64_t, 3>;

inline Panels panels(const char* name, const PanelsTuple& p) {
    const auto [data, N, D] = p;
    check_sizes(name, {N, D});
    return {address(name, data, N * D), N, D};
}

inline MiningMetric mining_metric(int64_t code) {
    if (code < 0 || code > 2)
        throw std::invalid_argument("metric: got code " + std::to_string(code) + ", wanted 0 to 2");
    return static_cast<MiningMetric>(code);
}

inline void check_blocks(int64_t K, int64_t L) {
    if (K < 1 || L < 1 || L % K != 0)
        throw std::invalid_argument("blocks: got " + std::to_string(K) + " for " + std::to_string(L) +
                                    " cells");
}

inline void check_same_layout(const FeatureMap& x, const FeatureMap& dx) {
    if (x.planes() != dx.planes()) throw std::invalid_argument("dx: wanted the memory layout of x");
}

}  // namespace vreid
