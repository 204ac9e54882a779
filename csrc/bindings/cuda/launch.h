// Shared by the files of vreid_ext._cuda: checks of arguments, and launches on a device.
#pragma once

#include <cuda_runtime_api.h>

#include "bindings/arguments.h"
#include "cuda/kernels.h"

namespace vreid {

// Each defines the functions of one file.
void bind_sta(pybind11::module_& m);
void bind_region(pybind11::module_& m);
void bind_part_metric(pybind11::module_& m);
void bind_mining(pybind11::module_& m);
void bind_ranking(pybind11::module_& m);

inline void check_narrow(DType dtype) {
    if (dtype == DType::f64) fail("dtype", "the code of float32, bfloat16 or float16, got that of float64");
}

inline FeatureMap float_map(const char* name, const FeatureMapTuple& map) {
    const FeatureMap x = feature_map(name, map);
    check_narrow(x.dtype);
    return x;
}

// Rows for a product: `cuda::Operand`.
inline cuda::Operand operand(const char* name, int64_t data, int64_t rows, int64_t stride, int64_t width) {
    if (data % 16 != 0 || stride % 16 != 0 || width % 16 != 0 || width < 0 || stride < width)
        fail(name,
             "multiples of 16 bytes as address, stride and width, and a stride of at least the width, got ",
             data, ", ", stride, " and ", width);
    return {pointer(name, data, rows * width), rows, stride, width};
}

// Makes a device current in its scope.
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

// Calls `call(stream)` with the device as the current one. An error starts with the name of the op.
template <class Call>
void run(const char* op, int device, int64_t stream, const Call& call) {
    cudaError_t status;
    {
        pybind11::gil_scoped_release unlocked;  // a launch blocks while the device's queue is full
        status = on_device(device, [&] { return call(nullable<CUstream_st>(stream)); });
    }
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(op) + " on cuda:" + std::to_string(device) + ": " +
                                 cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

}  // namespace vreid
