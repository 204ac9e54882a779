// Conversions and checks of the arguments that Python passes. These checks prevent crashes; vreid_ext.ops
// checks the rest. A failed check raises ValueError in Python.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/product.h"
#include "common/tensors.h"

namespace vreid {

// Python describes tensors as named tuples of integers (vreid_ext/backends/addresses.py). VREID_TUPLE lists
// the fields of one, for the struct here and for the names that the module exports as `tuples`: a test
// compares those with the named tuples.
struct Tuple {};
#define VREID_TUPLE(name, ...)                               \
    struct name##Tuple : Tuple {                             \
        int64_t __VA_ARGS__;                                 \
        static constexpr const char* kName = #name;          \
        static constexpr const char* kFields = #__VA_ARGS__; \
    }

VREID_TUPLE(FeatureMap, data, dtype, B, T, C, L, stride_b, stride_t, stride_c, stride_l);
VREID_TUPLE(Rows, data, dtype, N, D, stride);
VREID_TUPLE(Panels, data, N, D);

// "a, b" as {"a", "b"}
inline std::vector<std::string> split_names(std::string_view names) {
    std::vector<std::string> result;
    for (size_t begin = 0; begin < names.size();) {
        const size_t end = std::min(names.find(',', begin), names.size());
        result.emplace_back(names.substr(begin, end - begin));
        begin = names.find_first_not_of(" ,", end);
    }
    return result;
}

inline pybind11::tuple name_tuple(std::string_view names) {
    return pybind11::tuple(pybind11::cast(split_names(names)));
}

template <class... Tuples>
void export_tuples(pybind11::module_& m) {
    if (!pybind11::hasattr(m, "tuples")) m.attr("tuples") = pybind11::dict();
    ((m.attr("tuples")[Tuples::kName] = name_tuple(Tuples::kFields)), ...);
}

inline void export_codes(pybind11::module_& m) {
    pybind11::dict codes;
    codes["DType"] = name_tuple(names_of(DType{}));
    codes["Metric"] = name_tuple(names_of(Metric{}));
    m.attr("codes") = codes;
}

// Defines functions of the module under their own names.
#define VREID_DEFINE(module, ...) define_functions(module, #__VA_ARGS__, __VA_ARGS__)
template <class... Functions>
void define_functions(pybind11::module_& m, std::string_view names, Functions... functions) {
    size_t i = 0;
    const std::vector<std::string> list = split_names(names);
    (m.def(list[i++].c_str(), functions), ...);
}

template <class... Parts>
[[noreturn]] void fail(const char* name, const Parts&... parts) {
    const auto text = [](const auto& part) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) {
            return std::to_string(part);
        } else {
            return std::string(part);
        }
    };
    throw std::invalid_argument(std::string(name) + ": expected " + (text(parts) + ...));
}

inline void check_least(const char* name, int64_t value, int64_t least) {
    if (value < least) fail(name, "at least ", least, ", got ", value);
}

inline void check_range(const char* name, int64_t value, int64_t first, int64_t last) {
    if (value < first || value > last) fail(name, first, " to ", last, ", got ", value);
}

// The address of `size` elements.
template <class T = void>
T* pointer(const char* name, int64_t address, int64_t size) {
    if (size < 0) fail(name, "at least 0 elements, got ", size);
    if (address == 0 && size > 0) fail(name, "the address of ", size, " elements, got null");
    return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

// An address that may be null.
template <class T = void>
T* nullable(int64_t address) {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

template <class E>
E from_code(const char* name, int64_t code) {
    const std::string_view names = names_of(E{});
    const int64_t last = std::count(names.begin(), names.end(), ',');
    if (code < 0 || code > last) fail(name, "a code from 0 to ", last, ", got ", code);
    return static_cast<E>(code);
}

inline DType dtype(int64_t code) {
    return from_code<DType>("dtype", code);
}

inline Metric metric(int64_t code) {
    return from_code<Metric>("metric", code);
}

inline void check_sizes(const char* name, std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) {
        if (size < 0) fail(name, "sizes of at least 0, got ", size);
    }
}

inline FeatureMap feature_map(const char* name, const FeatureMapTuple& m) {
    check_sizes(name, {m.B, m.T, m.C, m.L});
    if (m.stride_l != 1 && m.stride_c != 1)
        fail(name, "stride 1 of cells or of channels, got ", m.stride_l, " and ", m.stride_c);
    return {pointer(name, m.data, m.B * m.T * m.C * m.L),
            dtype(m.dtype),
            m.B,
            m.T,
            m.C,
            m.L,
            m.stride_b,
            m.stride_t,
            m.stride_c,
            m.stride_l};
}

inline Rows rows(const char* name, const RowsTuple& r) {
    check_sizes(name, {r.N, r.D});
    return {pointer(name, r.data, r.N * r.D), dtype(r.dtype), r.N, r.D, r.stride};
}

inline Panels panels(const char* name, const PanelsTuple& p) {
    check_sizes(name, {p.N, p.D});
    return {pointer(name, p.data, p.N * p.D), p.N, p.D};
}

inline void check_blocks(int64_t K, int64_t L) {
    if (K < 1 || L < 1 || L % K != 0) fail("blocks", "a divisor of ", L, " cells, got ", K);
}

inline void check_same_layout(const FeatureMap& x, const FeatureMap& dx) {
    if (x.planes() != dx.planes()) fail("dx", "the memory layout of x, got the other");
}

}  // namespace vreid

template <class T>
struct pybind11::detail::type_caster<T, std::enable_if_t<std::is_base_of_v<vreid::Tuple, T>>> {
    PYBIND11_TYPE_CASTER(T, const_name("tuple[int, ...]"));

    bool load(handle source, bool) {
        constexpr Py_ssize_t size = sizeof(T) / sizeof(int64_t);
        if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != size) return false;
        std::array<int64_t, size> fields;
        for (Py_ssize_t i = 0; i < size; ++i) {
            fields[size_t(i)] = PyLong_AsLongLong(PyTuple_GET_ITEM(source.ptr(), i));
            if (fields[size_t(i)] == -1 && PyErr_Occurred()) {
                PyErr_Clear();
                return false;
            }
        }
        std::memcpy(&value, &fields, sizeof fields);
        return true;
    }
};
