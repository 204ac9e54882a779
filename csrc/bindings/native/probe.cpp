// Bandwidth probes in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

float read_probe(int64_t source, int64_t size, int threads) {
    Probe op{pointer<const float>("source", source, size), nullptr, size, 0, check_threads(threads)};
    run(&Table::probe, op);
    return op.sum;
}

void copy_probe(int64_t source, int64_t target, int64_t size, int threads) {
    Probe op{pointer<const float>("source", source, size), pointer<float>("target", target, size), size, 0,
             check_threads(threads)};
    run(&Table::probe, op);
}

}  // namespace

void bind_probe(pybind11::module_& m) {
    m.def("read_probe", &read_probe, "Sum of `size` floats: one vectorised read.");
    m.def("copy_probe", &copy_probe, "Copy `size` floats: one vectorised read and write.");
}

}  // namespace vreid
