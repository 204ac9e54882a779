// What the files of vreid_ext._cuda share: arguments, and launches on a device.
#pragma once

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "common/arguments.h"

namespace vreid {

void bind_cuda_pairs(pybind11::module_& m);

inline FeatureMap float_map(const char* name, const MapTuple& map) {
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

// Calls `call(stream)` with the device as the current one; its error names the op.
template <class Call>
void run(const char* op, int device, int64_t stream, const Call& call) {
    cudaError_t status;
    {
        pybind11::gil_scoped_release unlocked;  // a launch waits where the device's queue is full
        status = on_device(device, [&] { return call(address<CUstream_st>("stream", stream, 0)); });
    }
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(op) + " on cuda:" + std::to_string(device) + ": " +
                                 cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

}  // namespace vreid
