// Shared by the files of vreid_ext._native: the choice of an instruction set and the call of its kernels.
#pragma once

#include <new>

#include "bindings/arguments.h"
#include "cpu/isa.h"

namespace vreid {

inline int check_threads(int threads) {
    check_least("threads", threads, 1);
    return threads;
}

inline const Choice& kernels() {
    static const Choice choice = choose_isa();
    return choice;
}

template <class Op, class Kernel>
void run(Kernel Table::* kernel, Op& op) {
    const Table& table = *kernels().table;
    pybind11::gil_scoped_release unlocked;
    if ((table.*kernel)(op) == Status::out_of_memory) throw std::bad_alloc();
}

// Each defines the functions of one file.
void bind_sta(pybind11::module_& m);
void bind_region(pybind11::module_& m);
void bind_product(pybind11::module_& m);
void bind_part_metric(pybind11::module_& m);
void bind_mining(pybind11::module_& m);
void bind_ranking(pybind11::module_& m);
void bind_protocol(pybind11::module_& m);
void bind_rerank(pybind11::module_& m);
void bind_probe(pybind11::module_& m);

inline DType float_dtype(int64_t code) {
    const DType type = dtype(code);
    if (type != DType::f32 && type != DType::f64) fail("dtype", "the code of float32 or float64, got ", code);
    return type;
}

// `size` indices from `first` to `last`: the kernels read the memory that they point into.
inline const int64_t* checked_indices(const char* name, int64_t address, int64_t size, int64_t first,
                                      int64_t last) {
    const int64_t* index = pointer<const int64_t>(name, address, size);
    for (int64_t n = 0; n < size; ++n) check_range(name, index[n], first, last);
    return index;
}

// The starts of the rows in a list of `size` elements, and the end of the last row.
inline const int64_t* checked_starts(const char* name, int64_t address, int64_t rows, int64_t size) {
    const int64_t* start = pointer<const int64_t>(name, address, rows + 1);
    for (int64_t n = 0; n <= rows; ++n) {
        if (start[n] < 0 || start[n] > size || (n > 0 && start[n] < start[n - 1]))
            fail(name, "ascending numbers from 0 to ", size, ", got ", start[n], " at ", n);
    }
    return start;
}

}  // namespace vreid
