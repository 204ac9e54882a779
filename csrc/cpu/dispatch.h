// Which instruction set runs.
#pragma once

#include <string>
#include <vector>

#include "cpu/table.h"

namespace vreid {

// Those this module holds and this machine has, slowest first; "baseline" is always there.
std::vector<std::string> usable_isas();

// The kernels to use: the last usable set, or the one named by VREID_ISA.
// Throws std::runtime_error for a name that is unknown or not usable here.
struct Choice {
    std::string isa;
    const Table* table;
};
Choice choose_isa();

}  // namespace vreid
