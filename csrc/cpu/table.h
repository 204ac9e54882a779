// One table of kernels per instruction set.
#pragma once

#include "common/types.h"

namespace vreid {

struct Table {
    Status (*sta_pool)(const StaPool&);
    Status (*sta_pool_backward)(const StaPoolBackward&);
    Status (*probe)(Probe&);
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
