// native_checks [FAMILY ...]: checks the kernels of the instruction set that csrc/cpu/isa.cpp chooses,
// all families or those named. Status 0 if all comparisons hold, 1 if not, 2 if nothing could be checked.
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "checks.h"
#include "cpu/isa.h"

namespace {

struct Family {
    const char* name;
    void (*check)(checks::Context&);
};

constexpr Family kFamilies[] = {
    {"sta_pool", checks::sta_pool},
    {"attention", checks::attention},
    {"fuse", checks::fuse},
    {"inter_frame_distance", checks::inter_frame_distance},
    {"region", checks::region},
    {"temporal", checks::temporal},
    {"half_precision", checks::half_precision},
    {"product", checks::product},
    {"pairs", checks::pairs},
    {"mining", checks::mining},
    {"part_metric", checks::part_metric},
    {"ranking", checks::ranking},
    {"protocol", checks::protocol},
    {"rerank", checks::rerank},
    {"probe", checks::probe},
};

bool chosen(const Family& family, int count, char** names) {
    for (int i = 1; i < count; ++i) {
        if (std::strcmp(names[i], family.name) == 0) return true;
    }
    return count == 1;
}

}  // namespace

int main(int count, char** names) {
    try {
        std::string usable;
        for (const std::string& isa : vreid::usable_isas()) usable += " " + isa;
        const vreid::Choice choice = vreid::choose_isa();
        std::printf("%s of%s\n", choice.isa.c_str(), usable.c_str());
        int64_t comparisons = 0, failures = 0;
        for (const Family& family : kFamilies) {
            if (!chosen(family, count, names)) continue;
            checks::Context context(choice.isa + " " + family.name, *choice.table);
            family.check(context);
            comparisons += context.comparisons();
            failures += context.failures();
        }
        std::printf("%lld comparisons, %lld failures\n", (long long)comparisons, (long long)failures);
        if (comparisons == 0) throw std::invalid_argument("FAMILY: expected a name in kFamilies of main.cpp");
        return failures != 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
