#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>

namespace vreid {
namespace {

const Table* find(const std::string& isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();  // also checks that the operating system saves the wide registers
    const bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#if defined(VREID_EMULATE_AVX512)
    const bool avx512 = avx2;  // csrc/testing/emulated
#else
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    if (isa == "avx2" && avx2) return &avx2::table;
    if (isa == "avx512" && avx512) return &avx512::table;
#endif
    return isa == "baseline" ? &baseline::table : nullptr;
}

}  // namespace

std::vector<std::string> usable_isas() {
    std::vector<std::string> usable;
    for (const char* isa : {"baseline", "avx2", "avx512"}) {
        if (find(isa)) usable.push_back(isa);
    }
    return usable;
}

Choice choose_isa() {
    const std::vector<std::string> usable = usable_isas();
    const char* wanted = std::getenv("VREID_ISA");
    const std::string isa = wanted ? wanted : usable.back();
    if (const Table* table = find(isa)) return {isa, table};
    std::string names;
    for (const std::string& name : usable) names += (names.empty() ? "" : ", ") + name;
    throw std::invalid_argument("VREID_ISA: expected an instruction set of this CPU (" + names + "), got '" +
                                isa + "'");
}

}  // namespace vreid
