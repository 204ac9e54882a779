// Declares the kernels of one instruction set.
#pragma once

#include "common/ops.h"

namespace vreid {
namespace VREID_ISA {

#define VREID_KERNEL(result, name, argument) result name(argument);
#include "cpu/kernels.def"
#undef VREID_KERNEL

}  // namespace VREID_ISA
}  // namespace vreid
