// The choice of an instruction set.
#pragma once

#include <string>
#include <vector>

#include "cpu/table.h"

namespace vreid {

// The instruction sets that this module contains and this CPU supports, slowest first. "baseline" is always
// one.
std::vector<std::string> usable_isas();

// The kernels of the last usable set, or of the one that VREID_ISA names.
// Throws std::invalid_argument if that name is unknown or not usable on this CPU.
struct Choice {
    std::string isa;
    const Table* table;
};
Choice choose_isa();

}  // namespace vreid
