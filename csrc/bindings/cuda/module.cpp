// vreid_ext._cuda: the CUDA kernels, called with addresses, sizes and strides. It includes no header of
// torch.
#include <optional>

#include "bindings/cuda/launch.h"
#include "cuda/kernels.h"

namespace vreid {
namespace {

// Name and text of the error if a device cannot run the kernels.
std::optional<std::pair<std::string, std::string>> unusable(int device) {
    const cudaError_t status = on_device(device, cuda::usable);
    if (status == cudaSuccess) return std::nullopt;
    cudaGetLastError();  // clear the sticky error: it is reported here, the next launch must not report it
                         // again
    return {{cudaGetErrorName(status), cudaGetErrorString(status)}};
}

pybind11::dict build_info() {
    pybind11::dict info;
    info["compiler"] = VREID_CUDA_COMPILER;
    info["architectures"] = VREID_CUDA_ARCHITECTURES;
    info["runtime"] =
        std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
    return info;
}

}  // namespace
}  // namespace vreid

PYBIND11_MODULE(_cuda, m) {
    using namespace vreid;
    m.doc() = "CUDA kernels of vreid_ext; use them through vreid_ext.ops.";
    export_tuples<FeatureMapTuple, RowsTuple>(m);
    export_codes(m);
    bind_sta(m);
    bind_region(m);
    bind_part_metric(m);
    bind_mining(m);
    bind_ranking(m);
    VREID_DEFINE(m, unusable, build_info);
}
