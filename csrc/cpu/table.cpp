#include "cpu/table.h"

#include "cpu/kernels.h"

namespace vreid {
namespace VREID_ISA {

extern const Table table = {
#define VREID_KERNEL(result, name, argument) name,
#include "cpu/kernels.def"
#undef VREID_KERNEL
};

}  // namespace VREID_ISA
}  // namespace vreid
