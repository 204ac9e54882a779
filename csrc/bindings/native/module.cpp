// vreid_ext._native: the CPU kernels, called with addresses, sizes and strides. It includes no header of
// torch.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

pybind11::dict build_info() {
    pybind11::dict info;
    info["isa"] = kernels().isa;
    info["usable_isas"] = usable_isas();
    info["compiler"] = VREID_COMPILER;
    info["openmp"] = _OPENMP;
    return info;
}

}  // namespace
}  // namespace vreid

PYBIND11_MODULE(_native, m) {
    using namespace vreid;
    m.doc() = "CPU kernels of vreid_ext; use them through vreid_ext.ops.";
    export_tuples<FeatureMapTuple, RowsTuple, PanelsTuple>(m);
    export_codes(m);
    bind_sta(m);
    bind_region(m);
    bind_product(m);
    bind_part_metric(m);
    bind_mining(m);
    bind_ranking(m);
    bind_protocol(m);
    bind_rerank(m);
    bind_probe(m);
    VREID_DEFINE(m, build_info);
}
