// What the files of vreid_ext._native share.
#pragma once

#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>
#include <string>

#include "common/arguments.h"
#include "cpu/dispatch.h"

namespace vreid {

inline int check_threads(int threads) {
    if (threads < 1) throw std::invalid_argument("threads: got " + std::to_string(threads));
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

void define_ranking(pybind11::module_& m);

}  // namespace vreid
