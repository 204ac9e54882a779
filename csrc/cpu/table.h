// One table of kernels per instruction set.
#pragma once

#include "common/ops.h"

namespace vreid {

struct Table {
#define VREID_KERNEL(result, name, argument) result (*name)(argument);
#include "cpu/kernels.def"
#undef VREID_KERNEL
};

namespace baseline {
extern const Table table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Table table;
}
namespace avx512 {
extern const Table table;
}
#endif

}  // namespace vreid
