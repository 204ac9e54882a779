// Bandwidth probes in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

// Returns the sum.
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
    VREID_DEFINE(m, read_probe, copy_probe);
}

}  // namespace vreid
