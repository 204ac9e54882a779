#include "cpu/table.h"

#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {

extern const Table table = {sta_pool, sta_pool_backward, probe};

}  // namespace VREID_ISA
}  // namespace vreid
