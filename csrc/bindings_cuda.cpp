// vreid_ext._cuda: the CUDA kernels behind addresses, sizes and strides. Knows Python, not torch.
//
// Arguments arrive checked by vreid_ext.ops; what is checked here is what would crash the process.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/arguments.h"
#include "cuda/sta_pool.h"

namespace py = pybind11;

namespace vreid {
namespace {

FeatureMap float_map(const char* name, const MapTuple& map) {
    const FeatureMap x = feature_map(name, map);
    if (x.dtype == DType::f64) throw std::invalid_argument("dtype: got code 1, wanted 0, 2 or 3");
    return x;
}

// Makes a device current for the calls in its scope.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) : status_(cudaGetDevice(&previous_)) {
        if (status_ == cudaSuccess && previous_ != device) {
            status_ = cudaSetDevice(device);
            switched_ = status_ == cudaSuccess;
        }
    }
    ~DeviceGuard() {
        if (switched_) cudaSetDevice(previous_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

    cudaError_t status() const { return status_; }

  private:
    int previous_ = 0;
    bool switched_ = false;
    cudaError_t status_;
};

template <class Call>
cudaError_t on_device(int device, const Call& call) {
    const DeviceGuard guard(device);
    return guard.status() == cudaSuccess ? call() : guard.status();
}

template <class Call>
void run(const char* op, int device, const Call& call) {
    cudaError_t status;
    {
        py::gil_scoped_release unlocked;  // a launch waits where the device's queue is full
        status = on_device(device, call);
    }
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(op) + " on cuda:" + std::to_string(device) + ": " +
                                 cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

std::pair<int64_t, int64_t> partials(const MapTuple& map, int64_t K) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const cuda::Partials pieces = cuda::partials(x, K);
    return {pieces.squares, pieces.sums};
}

void sta_pool(const MapTuple& map, int64_t valid, int64_t K, int64_t squares, int64_t parts, int64_t pooled,
              int64_t scores, int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
              int device, int64_t stream) {
    const FeatureMap x = float_map("x", map);
    check_blocks(K, x.L);
    const StaPool op{x,
                     address<const bool>("valid", valid, 0),
                     K,
                     address("pooled", pooled, x.B * 2 * x.C),
                     address("scores", scores, x.B * x.T * K),
                     address("attention", attention, x.B * x.T * x.L),
                     address("sums", sums, x.B * x.T * K * x.C),
                     address("energy", energy, x.B * x.T),
                     address("total", total, x.B * K),
                     address<int64_t>("choice", choice, x.B * K),
                     /*threads=*/0};
    float* const squares_scratch = address<float>("squares", squares, x.B * x.T * x.L);
    float* const sums_scratch = address<float>("parts", parts, x.B * x.T * K * x.C);
    run("sta_pool", device, [&] {
        return cuda::sta_pool(op, squares_scratch, sums_scratch, address<CUstream_st>("stream", stream, 0));
    });
}

void sta_pool_backward(const MapTuple& map, const MapTuple& gradient, int64_t valid, int64_t K,
                       int64_t grad_pooled, int64_t grad_scores, int64_t grad_attention, int64_t scores,
                       int64_t attention, int64_t sums, int64_t energy, int64_t total, int64_t choice,
                       int64_t slope, int64_t weight, int device, int64_t stream) {
    const FeatureMap x = float_map("x", map), dx = float_map("dx", gradient);
    if (x.planes() != dx.planes()) throw std::invalid_argument("dx: wanted the memory layout of x");
    check_blocks(K, x.L);
    const StaPoolBackward op{x,
                             dx,
                             address<const bool>("valid", valid, 0),
                             K,
                             address("grad_pooled", grad_pooled, 0),
                             address("grad_scores", grad_scores, 0),
                             address("grad_attention", grad_attention, 0),
                             address("scores", scores, x.B * x.T * K),
                             address("attention", attention, x.B * x.T * x.L),
                             address("sums", sums, x.B * x.T * K * x.C),
                             address("energy", energy, x.B * x.T),
                             address("total", total, x.B * K),
                             address<const int64_t>("choice", choice, x.B * K),
                             /*threads=*/0};
    float* const slope_scratch = address<float>("slope", slope, 2 * x.B * x.T * K);
    float* const weight_scratch = address<float>("weight", weight, x.B * x.T * x.L);
    run("sta_pool_backward", device, [&] {
        return cuda::sta_pool_backward(op, slope_scratch, weight_scratch,
                                       address<CUstream_st>("stream", stream, 0));
    });
}

std::optional<std::pair<std::string, std::string>> unusable(int device) {
    const cudaError_t status = on_device(device, cuda::usable);
    if (status == cudaSuccess) return std::nullopt;
    cudaGetLastError();  // told, so not to be found again by the next launch
    return {{cudaGetErrorName(status), cudaGetErrorString(status)}};
}

py::dict build_info() {
    py::dict info;
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
    m.def("partials", &partials, "Pieces of the sums of squares and of the block sums that sta_pool wants.");
    m.def("sta_pool", &sta_pool);
    m.def("sta_pool_backward", &sta_pool_backward);
    m.def("unusable", &unusable,
          "Name and text of the error that keeps a device from running the kernels, or None.");
    m.def("build_info", &build_info);
}
